"""Archives of XML: whole, cut short, damaged, locked; and what is written as XML."""

import bz2
import io
import lzma
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest

from eval import inputs, voc
from eval.dataset import Annotations, Category, ImageSet, make_annotations
from eval.xml_files import iterate_xml_files

XML = """<annotation>
<object><name>n02084071</name><bndbox><xmin>1</xmin><xmax>9</xmax><ymin>2</ymin><ymax>8</ymax></bndbox></object>
</annotation>"""
LAYOUTS = (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT)


def tar(names: list[str], layout: int = tarfile.PAX_FORMAT) -> tuple[bytes, int]:
    """A plain tar of XML files, and where its members end."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=layout) as archive:
        for name in names:
            entry = tarfile.TarInfo(name)
            entry.size = len(XML)
            archive.addfile(entry, io.BytesIO(XML.encode()))
        end = archive.offset
    return buffer.getvalue(), end


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("last", ["c.xml", "c" * 120 + ".xml"])  # the long name needs tarfile
def test_a_tar_that_is_cut_short_is_not_taken_for_a_whole_one(layout: int, last: str, tmp_path: Path) -> None:
    if layout == tarfile.USTAR_FORMAT:
        last = last[-90:]
    raw, end = tar(["a.xml", "b.xml", last], layout)
    path = tmp_path / "x.tar"
    for size in (end + 512, end + 1024, len(raw)):  # a single block of zeros is enough
        path.write_bytes(raw[:size])
        assert len(list(iterate_xml_files(path))) == 3
    for size in range(1024, end + 512, 256):
        path.write_bytes(raw[:size])
        with pytest.raises(ValueError, match=r"x\.tar: damaged or cut short after its member [abc]+\.xml"):
            list(iterate_xml_files(path))
    damaged = bytearray(raw)
    damaged[1024 + 20] ^= 1  # in the header of the second member
    path.write_bytes(damaged)
    with pytest.raises(ValueError, match=r"x\.tar: damaged or cut short after its member a\.xml"):
        list(iterate_xml_files(path))


@pytest.mark.parametrize("pack", [bz2.compress, lzma.compress])
def test_packed_archives_are_checked_to_their_end(pack: type, tmp_path: Path) -> None:
    packed = pack(tar([f"{n}.xml" for n in range(20)])[0])
    path = tmp_path / "x.tar.packed"
    path.write_bytes(packed)
    assert len(list(iterate_xml_files(path))) == 20
    for content in (packed[:-1], packed[: len(packed) // 2], packed[:60] + b"\0\0\0" + packed[63:]):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"x\.tar\.packed: damaged or cut short \("):
            list(iterate_xml_files(path))


def test_zip_files_that_cannot_be_unpacked_are_named(tmp_path: Path) -> None:
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.xml", XML)
    raw = path.read_bytes()
    central = raw.index(b"PK\1\2")
    for offset, value, message in ((6, 1, "is encrypted"), (8, 99, "compression method is not supported")):
        locked = bytearray(raw)
        locked[offset] = locked[central + offset + 2] = value
        path.write_bytes(locked)
        with pytest.raises(ValueError, match=rf"x\.zip:a\.xml: cannot be unpacked \(.*{message}"):
            list(iterate_xml_files(path))


@pytest.mark.parametrize("encoding", ["gb2312", "gbk", "shift_jis", "no-such-encoding"])
def test_encodings_that_are_not_read_are_named(encoding: str, tmp_path: Path) -> None:
    (tmp_path / "a.xml").write_text(f'<?xml version="1.0" encoding="{encoding}"?>{XML}')
    with pytest.raises(ValueError, match=r"a\.xml: .*encoding"):
        inputs.read_annotations(tmp_path)


def test_shadows_of_macos_are_passed_over_in_folders_too(tmp_path: Path) -> None:
    (tmp_path / "a.xml").write_text(XML)
    (tmp_path / "._a.xml").write_bytes(b"\0\5\x16\7")
    assert inputs.read_annotations(tmp_path).images.names == ("a",)


def annotations_of(names: tuple[str, ...], **flags: list[bool]) -> Annotations:
    """A box of less than a pixel in each image, of VOC's first class."""
    count = len(names)
    return make_annotations(
        ImageSet(np.arange(1, count + 1), names), [Category(1, "aeroplane")], image=range(count),
        label=[0] * count, boxes=[[3, 4, 3.25, 9]] * count, last_pixel=False, **flags,
    )  # fmt: skip


def test_narrow_boxes_and_crowds_are_written_so_that_they_can_be_read(tmp_path: Path) -> None:
    voc.write_annotations(tmp_path, annotations_of(("a.v2.jpg", "b"), crowd=[True, False]))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.v2.xml", "b.xml"]
    back = inputs.read_annotations(tmp_path)
    assert back.images.names == ("a.v2", "b")
    assert back.boxes.tolist() == [[3, 4, 3, 8]] * 2 and back.difficult.tolist() == [True, False]


def test_two_images_of_one_file_name_are_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"xml: two images would be written to 1\.xml"):
        voc.write_annotations(tmp_path / "xml", annotations_of(("a/1.jpg", "b/1.jpg")))
    assert not (tmp_path / "xml").exists()
