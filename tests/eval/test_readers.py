"""Readers and writers: round trips, one form from every format, one clear sentence for bad input."""

import gzip
import io
import json
import tarfile
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from random_scenes import Scene, random_scene

from eval import coco, ilsvrc, inputs, voc
from eval.dataset import Annotations, ImageSet
from eval.ilsvrc_text import read_detections
from eval.protocols import evaluate
from eval.xml_files import iterate_xml_files

XML = """<annotation><folder>f</folder><filename>a</filename><size><width>50</width><height>40</height></size>
<object><name>n02084071</name><bndbox><xmin>1</xmin><xmax>9</xmax><ymin>2</ymin><ymax>8</ymax></bndbox></object>
</annotation>"""


def det_scene(seed: int = 4) -> Scene:
    """A scene whose classes are the first DET classes and whose images are a_0, a_1, ..."""
    scene = random_scene(seed, images=6, classes=5, boxes=30, detections=80)
    images = ImageSet(np.arange(1, 7), tuple(f"a_{i}" for i in range(6)))
    flags = np.zeros(30, np.bool_)
    annotations = replace(
        scene.annotations, images=images, categories=ilsvrc.DET_CATEGORIES, crowd=flags, difficult=flags
    )
    return Scene(annotations, scene.detections)


def image_list(folder: Path, annotations: Annotations) -> Path:
    path = folder / "list.txt"
    lines = (f"{n} {i}\n" for n, i in zip(annotations.images.names, annotations.images.ids, strict=True))
    path.write_text("".join(lines))
    return path


def pack_tar(folder: Path, path: Path, mode: str, format: int = tarfile.PAX_FORMAT) -> Path:
    with tarfile.open(path, mode, format=format) as archive:  # type: ignore[call-overload]
        archive.add(folder, arcname="val")
    return path


def assert_same_annotations(one: Annotations, other: Annotations) -> None:
    for name in ("image", "label", "boxes", "areas", "crowd", "difficult"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    assert one.images.names == other.images.names


def test_the_classes_are_the_official_ones() -> None:
    assert [row.det_id for row in ilsvrc.DET_CLASSES] == list(range(1, 201))
    assert ilsvrc.DET_CLASSES[57] == (58, "n02084071", "dog")
    assert len({row.wnid for row in ilsvrc.DET_CLASSES}) == 200


def test_damaged_archives_are_named(tmp_path: Path) -> None:
    """Wherever 40 bytes of the packed file are overwritten, it is one sentence or no matter."""
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for number in range(3):
            archive.writestr(f"{number}.xml", XML * (number + 1))
    whole = path.read_bytes()
    refused = 0
    for at in range(0, len(whole) - 40, 16):
        path.write_bytes(whole[:at] + bytes(range(40)) + whole[at + 40 :])
        try:
            list(iterate_xml_files(path))
        except ValueError as error:
            refused += "x.zip" in str(error)
    assert refused > 5


def test_xml_round_trip_from_folder_tar_and_zip(tmp_path: Path) -> None:
    annotations = det_scene().annotations
    folder = tmp_path / "xml"
    ilsvrc.write_annotations(folder, annotations, sizes=[(60, 60)] * 6)
    listed = image_list(tmp_path, annotations)
    sources = [folder]
    for number, (mode, layout) in enumerate(
        (
            ("w", tarfile.USTAR_FORMAT),
            ("w:gz", tarfile.GNU_FORMAT),
            ("w:gz", tarfile.PAX_FORMAT),
            ("w:bz2", tarfile.PAX_FORMAT),
        )
    ):
        sources.append(pack_tar(folder, tmp_path / f"{number}.tar", mode, layout))
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        for file in folder.iterdir():
            archive.write(file, f"deep/er/{file.name}")
    for source in [*sources, tmp_path / "x.zip"]:
        assert_same_annotations(inputs.read_annotations(source, image_list=listed), annotations)


def test_difficult_objects_of_ilsvrc_count_for_ilsvrc_only(tmp_path: Path) -> None:
    scene = det_scene()
    annotations = replace(scene.annotations, difficult=np.arange(30) % 3 == 0)
    ilsvrc.write_annotations(tmp_path / "xml", annotations)
    back = ilsvrc.read_annotations(tmp_path / "xml")
    assert back.difficult.tolist() == annotations.difficult.tolist()

    def counted(protocol: str) -> int:
        return sum(row.num_gt for row in evaluate(scene.detections, back, protocol=protocol).classes)

    assert [counted(protocol) for protocol in ("ilsvrc", "iou50", "voc2007", "voc2012")] == [30, 30, 20, 20]
    plain = evaluate(scene.detections, scene.annotations)
    assert evaluate(scene.detections, back).counted == plain.counted


def test_a_tar_with_long_names_goes_the_long_way(tmp_path: Path) -> None:
    name = "x" * 150
    for number, layout in enumerate((tarfile.GNU_FORMAT, tarfile.PAX_FORMAT)):
        path = tmp_path / f"{number}.tar"
        with tarfile.open(path, "w", format=layout) as archive:
            entry = tarfile.TarInfo(f"val/{name}.xml")
            entry.size = len(XML)
            archive.addfile(entry, io.BytesIO(XML.encode()))
        assert inputs.read_annotations(path).images.names == (name,)


def test_voc_round_trip_is_one_based_in_the_file_only(tmp_path: Path) -> None:
    scene = random_scene(3)
    annotations = replace(
        scene.annotations, crowd=np.zeros(20, np.bool_), images=ImageSet(np.arange(1, 6), tuple("abcde"))
    )
    voc.write_annotations(tmp_path / "xml", annotations)
    assert_same_annotations(inputs.read_annotations(tmp_path / "xml"), annotations)
    low = min(annotations.boxes[annotations.image == 0, 0])
    assert f"<xmin>{low + 1:.0f}</xmin>" in (tmp_path / "xml" / "a.xml").read_text()


def test_voc_parts_do_not_disturb_the_box_and_classes_are_vocs(tmp_path: Path) -> None:
    (tmp_path / "a.xml").write_text(
        "<annotation><object><part><name>head</name><bndbox><xmin>7</xmin><ymin>7</ymin><xmax>8</xmax><ymax>8</ymax>"
        "</bndbox></part><name>person</name><difficult>1</difficult><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>5</xmax>"
        "<ymax>6</ymax></bndbox></object></annotation>"
    )
    annotations = inputs.read_annotations(tmp_path)
    assert len(annotations.categories) == 20
    assert annotations.categories[annotations.label[0]].name == "person"
    assert annotations.boxes.tolist() == [[0, 0, 4, 5]] and annotations.difficult.all()


@pytest.mark.parametrize("packed", [False, True])
def test_submission_round_trip(tmp_path: Path, packed: bool) -> None:
    scene = det_scene()
    found = scene.detections
    rng = np.random.default_rng(0)
    scores = np.float32(rng.random(len(found)))
    boxes = np.concatenate((found.boxes[:, :2], found.boxes[:, 2:] + 1), axis=1) + np.float32(0.1)
    path = tmp_path / "found.txt"
    ilsvrc.write_detections(
        path,
        image_indices=scene.annotations.images.ids[found.image],
        det_ids=found.label + 1,
        scores=scores,
        boxes=boxes,
    )
    if packed:
        path = Path(path.rename(tmp_path / "found.txt.gz"))
        path.write_bytes(gzip.compress(path.read_bytes()))
    back = read_detections(path, scene.annotations)
    np.testing.assert_array_equal(back.scores, scores.astype(np.float64))
    np.testing.assert_array_equal(back.image, found.image)
    np.testing.assert_array_equal(back.label, found.label)
    np.testing.assert_allclose(back.boxes, boxes - [0, 0, 1, 1], rtol=0, atol=1e-12)
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_less_than_a_pixel_becomes_one(tmp_path: Path) -> None:
    path = tmp_path / "found.txt"
    ilsvrc.write_detections(path, image_indices=[1], det_ids=[1], scores=[1.0], boxes=[[3, 0, 3.5, 4]])
    assert path.read_text() == "1 1 1.0 3.0 0.0 3.0 3.0\n"


def test_every_format_gives_the_same_result(tmp_path: Path) -> None:
    scene = det_scene()
    truth, found = scene.annotations, scene.detections
    ilsvrc.write_annotations(tmp_path / "xml", truth)
    coco.write_annotations(tmp_path / "truth.json", truth)
    coco.write_detections(tmp_path / "results.json", found, truth)
    ilsvrc.write_detections(
        tmp_path / "found.txt",
        image_indices=truth.images.ids[found.image],
        det_ids=found.label + 1,
        scores=found.scores,
        boxes=np.add(found.boxes, [0, 0, 1, 1]),
    )
    # This project's own output: its own image ids, file names with folders, its own category ids.
    own = {
        "info": {"made": "here"},
        "images": [{"id": 70 - i, "file_name": f"photos/a_{i}.JPEG"} for i in range(6)],
        "categories": [
            {"id": 200 - k, "name": c.name, "wnid": c.wnid} for k, c in enumerate(truth.categories)
        ],
        "annotations": [
            {
                "id": n,
                "image_id": 70 - int(i),
                "category_id": 200 - int(k),
                "bbox": [x, y, x2 - x + 1, y2 - y + 1],
                "score": s,
            }
            for n, (i, k, (x, y, x2, y2), s) in enumerate(
                zip(found.image, found.label, found.boxes.tolist(), found.scores.tolist(), strict=True)
            )
        ],
    }
    (tmp_path / "detections.json").write_text(json.dumps(own))
    expected = evaluate(found, truth).classes
    listed = image_list(tmp_path, truth)
    for source in (tmp_path / "xml", tmp_path / "truth.json"):
        annotations = inputs.read_annotations(source, image_list=None if source.suffix else listed)
        for name in ("results.json", "found.txt", "detections.json"):
            result = evaluate(inputs.read_detections(tmp_path / name, annotations), annotations)
            assert [row.ap for row in result.counted] == pytest.approx([r.ap for r in expected if r.num_gt])
    unlisted = inputs.read_annotations(tmp_path / "xml")
    result = evaluate(inputs.read_detections(tmp_path / "detections.json", unlisted), unlisted)
    assert result.mean_ap == pytest.approx(evaluate(found, truth).mean_ap)


def test_crowds_of_no_class_are_ignored_for_every_class(tmp_path: Path) -> None:
    truth = {
        "images": [{"id": 1, "file_name": "a.jpg"}],
        "categories": [{"id": 1, "name": "x"}, {"id": 2, "name": "y"}],
        "annotations": [
            {"id": 1, "image_id": 1, "category_id": 1, "bbox": [0, 0, 10, 10], "iscrowd": 0},
            {"id": 2, "image_id": 1, "category_id": 0, "bbox": [50, 50, 40, 40], "iscrowd": 1},
        ],
    }
    (tmp_path / "truth.json").write_text(json.dumps(truth))
    results = [
        {"image_id": 1, "category_id": 1, "bbox": [50, 50, 40, 40], "score": 0.9},
        {"image_id": 1, "category_id": 1, "bbox": [0, 0, 10, 10], "score": 0.8},
    ]
    (tmp_path / "results.json").write_text(json.dumps(results))
    annotations = inputs.read_annotations(tmp_path / "truth.json")
    detections = inputs.read_detections(tmp_path / "results.json", annotations)
    for protocol in ("ilsvrc", "iou50", "coco"):
        result = evaluate(detections, annotations, protocol=protocol)
        assert result.mean_ap == pytest.approx(1.0) and len(result.counted) == 1


def test_the_blacklist_takes_boxes_and_detections_away(tmp_path: Path) -> None:
    scene = det_scene()
    ilsvrc.write_annotations(tmp_path / "xml", scene.annotations)
    listed = image_list(tmp_path, scene.annotations)
    first = scene.annotations.label[0]
    here = scene.annotations.image[0]
    (tmp_path / "black.txt").write_text(f"{here + 1} {ilsvrc.DET_CLASSES[first].wnid}\n999 n02084071\n")
    annotations = inputs.read_annotations(
        tmp_path / "xml", image_list=listed, blacklist=tmp_path / "black.txt"
    )
    assert annotations.blacklist.tolist() == [[here, first]]
    gone = ((scene.annotations.image == here) & (scene.annotations.label == first)).sum()
    before = evaluate(scene.detections, scene.annotations).classes[first].num_gt
    assert evaluate(scene.detections, annotations).classes[first].num_gt == before - gone


# --- bad input: (what is written, what is said) ---

GOOD_LINE = "1 1 0.5 0 0 9 9\n"
BAD_LINES = {
    "1 1 0.5 0 0 9": r"found.txt:3: 6 values, expected 7 \(image index class id",
    "1 1 nan 0 0 9 9": r"found.txt:3: confidence is nan, expected a finite number",
    "1 1 0.5 0 inf 9 9": r"found.txt:3: ymin is inf, expected a finite number",
    "1 1 0.5 0 1e400 9 9": r"found.txt:3: .* is out of range",
    "1 1 0.5 0 zero 9 9": r"found.txt:3: ymin is 'zero', not a number",
    "1.5 1 0.5 0 0 9 9": r"found.txt:3: image index is 1.5, expected a whole number",
    "1 201 0.5 0 0 9 9": r"found.txt:3: class 201 is none of the 200 known class ids",
    "7 1 0.5 0 0 9 9": r"found.txt:3: 1 detections lie in 1 other images than .* \(index 7\)",
}


@pytest.mark.parametrize("line", BAD_LINES)
def test_bad_lines_are_named(tmp_path: Path, line: str) -> None:
    path = tmp_path / "found.txt"
    path.write_text(GOOD_LINE + "\n" + line + "\n" + GOOD_LINE)
    with pytest.raises(ValueError, match=BAD_LINES[line]):
        read_detections(path, det_scene().annotations)


def test_boxes_without_a_pixel_are_warned_of(tmp_path: Path) -> None:
    path = tmp_path / "found.txt"
    path.write_text(GOOD_LINE + "1 1 0.5 9 0 0 9\n")
    with pytest.warns(UserWarning, match=r"found.txt:2: box 9 0 0 9 has xmax < xmin"):
        assert len(read_detections(path, det_scene().annotations)) == 2


def test_byte_order_marks_are_passed_over(tmp_path: Path) -> None:
    mark = b"\xef\xbb\xbf"
    annotations = det_scene().annotations
    ilsvrc.write_annotations(tmp_path / "xml", annotations)
    listed = image_list(tmp_path, annotations)
    listed.write_bytes(mark + listed.read_bytes())
    (tmp_path / "black.txt").write_bytes(mark + b"1 n02084071\n")
    found = inputs.read_annotations(tmp_path / "xml", image_list=listed, blacklist=tmp_path / "black.txt")
    assert found.images.names == annotations.images.names and len(found.blacklist) == 1
    for content in (
        GOOD_LINE.encode(),
        b'[{"image_id": 1, "category_id": 1, "bbox": [0, 0, 9, 9], "score": 1}]',
    ):
        (tmp_path / "found").write_bytes(mark + content)
        assert len(inputs.read_detections(tmp_path / "found", annotations)) == 1


@pytest.mark.parametrize(
    "content", [b"", b"\n \n", gzip.compress(b""), gzip.compress(b"1 1 0.5 0 0 9 9")[:-4]]
)
def test_empty_and_damaged_files(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "found.txt").write_bytes(content)
    with pytest.raises(ValueError, match=r"found.txt: (the file is empty|no detections|damaged gzip)"):
        read_detections(tmp_path / "found.txt", det_scene().annotations)


BILLION = '<!DOCTYPE annotation [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;&a;">]>' + XML.replace(
    "n02084071", "&b;"
)
BAD_XML = {
    "cut": (XML[:100], "broken XML"),
    "entities": (BILLION, "declares a document type or entities"),
    "doctype": ("<!DOCTYPE annotation>" + XML, "declares a document type"),
    "no name": (XML.replace("<name>n02084071</name>", ""), "an object has no <name>"),
    "no corner": (XML.replace("<xmax>9</xmax>", ""), "an object has no <xmax>"),
    "word": (XML.replace("<xmax>9<", "<xmax>nine<"), "is not a number"),
    "nan": (XML.replace("<xmax>9<", "<xmax>nan<"), "expected xmin <= xmax"),
    "order": (XML.replace("<xmax>9<", "<xmax>0<"), "expected xmin <= xmax"),
    "class": (XML.replace("n02084071", "n00000000"), "n00000000 is none of the 200 DET classes"),
    "root": ("<html></html>", "the root element is <html>, expected <annotation>"),
    "empty": ("", "broken XML"),
}


@pytest.mark.parametrize("case", BAD_XML)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_bad_xml_is_named(tmp_path: Path, case: str, encoding: str) -> None:
    content, message = BAD_XML[case]
    (tmp_path / "a.xml").write_bytes(content.encode(encoding))
    with pytest.raises(ValueError, match=rf"a\.xml: .*{message}"):
        inputs.read_annotations(tmp_path)


def test_missing_and_repeated_images(tmp_path: Path) -> None:
    folder = tmp_path / "xml"
    (folder / "sub").mkdir(parents=True)
    (folder / "a.xml").write_text(XML)
    (tmp_path / "list.txt").write_text("a 1\nb 2\nc 3\n")
    with pytest.raises(ValueError, match="no XML file for 2 of the 3 listed images, the first b"):
        inputs.read_annotations(folder, image_list=tmp_path / "list.txt")
    (folder / "sub" / "a.xml").write_text(XML)
    with pytest.raises(ValueError, match=r"sub/a.xml: the same image as .*a.xml"):
        inputs.read_annotations(folder)
    for content, message in (
        ("a 1\na 2\n", "list.txt:2: image a or index 2 is in the list twice"),
        ("a one\n", "list.txt:1: expected `name index`"),
        ("", "no images in it"),
        (f"a {2**63}\n", "list.txt:1: expected `name index`"),
    ):
        (tmp_path / "list.txt").write_text(content)
        with pytest.raises(ValueError, match=message):
            inputs.read_annotations(folder, image_list=tmp_path / "list.txt")


def test_sources_that_are_none(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="no XML files of the evaluated images in it"):
        inputs.read_annotations(tmp_path / "empty")
    (tmp_path / "a.tar.gz").write_bytes(gzip.compress(b"not a tar" * 100))
    with pytest.raises(ValueError, match="not a folder, tar or zip archive"):
        inputs.read_annotations(tmp_path / "a.tar.gz")
    with pytest.raises((ValueError, OSError), match="nowhere"):
        inputs.read_annotations(tmp_path / "nowhere")


def test_indices_need_the_list(tmp_path: Path) -> None:
    (tmp_path / "a.xml").write_text(XML)
    (tmp_path / "found.txt").write_text(GOOD_LINE)
    (tmp_path / "results.json").write_text(
        json.dumps([{"image_id": 1, "category_id": 1, "bbox": [0, 0, 9, 9], "score": 0.5}])
    )
    (tmp_path / "black.txt").write_text("1 n02084071\n")
    annotations = inputs.read_annotations(tmp_path)
    for name in ("found.txt", "results.json"):
        with pytest.raises(ValueError, match=f"{name}: .*needs an image list of lines `name index`"):
            inputs.read_detections(tmp_path / name, annotations)
    with pytest.raises(ValueError, match=r"black.txt: .*needs an image list of lines `name index`"):
        inputs.read_annotations(tmp_path, blacklist=tmp_path / "black.txt")


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "found.txt"
    path.write_text("old")
    with pytest.raises(ValueError, match="DET ids run from 0 to 0"):
        ilsvrc.write_detections(path, image_indices=[1], det_ids=[0], scores=[1.0], boxes=[[0, 0, 1, 1]])
    with pytest.raises(ValueError, match="x2 < x1"):
        ilsvrc.write_detections(path, image_indices=[1], det_ids=[1], scores=[1.0], boxes=[[1, 0, 0.5, 1]])
    assert path.read_text() == "old" and len(list(tmp_path.iterdir())) == 1


def test_coco_knows_no_blacklist() -> None:
    scene = random_scene(1)
    blacklisted = replace(scene.annotations, blacklist=np.array([[0, 0]]))
    with pytest.raises(ValueError, match="the coco protocol knows no blacklist"):
        evaluate(scene.detections, blacklisted, protocol="coco")
