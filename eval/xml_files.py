"""Annotation files in XML from a folder, a tar archive or a zip archive, parsed without entities.

Expat itself reads the markup, so no encoding hides a document type from the check: whatever declares one is
refused when expat reports it, before the rest of the file is read.
"""

import bz2
import gzip
import io
import lzma
import re
import tarfile
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple
from xml.etree import ElementTree
from xml.parsers import expat

import numpy as np

from eval.atomic import writing
from eval.dataset import Annotations, ImageSet
from eval.image_names import image_stem

_BLOCK = 512  # tar's unit
_PAX_CHANGES_MEMBER = re.compile(rb" (path|linkpath|size|hdrcharset|GNU\.sparse[^=]*)=")
_CHUNK = 4096  # bytes given to expat at a time: a refused file is not read much further
_PACKED = (
    (re.compile(rb"\x1f\x8b"), gzip.decompress),
    (re.compile(rb"BZh[1-9]1AY&SY"), bz2.decompress),
    (re.compile(rb"\xfd7zXZ\0|\x5d\0\0[^\0]"), lzma.decompress),
)
# How the packings say that something is damaged, and zipfile (RuntimeError) that it is encrypted or not known.
_UNPACKING = (zipfile.BadZipFile, RuntimeError, OSError, ValueError, EOFError, zlib.error, lzma.LZMAError)


class XmlObject(NamedTuple):
    """One `object` of an annotation file: class name, corner texts as numbers, VOC's difficult flag."""

    name: str
    xmin: float
    ymin: float
    xmax: float
    ymax: float
    difficult: bool


class XmlContent(NamedTuple):
    """What an annotation file says: its objects, and where it has them the image's width and height and its name."""

    objects: list[XmlObject]
    size: tuple[int, int] | None
    filename: str


class XmlFile(NamedTuple):
    """The name of the file (stem), where it came from for messages, and its bytes."""

    stem: str
    where: str
    content: bytes


def iterate_xml_files(source: str | Path) -> Iterator[XmlFile]:
    """All `*.xml` of a folder (recursively), of a .tar/.tar.gz/.tgz/... or of a .zip, sorted within folders.

    Raises OSError or ValueError when `source` is none of these, damaged or cut short.
    """
    path = Path(source)
    if path.is_dir():
        for file in sorted(path.rglob("*.xml")):
            if _is_annotation(file.name):
                yield XmlFile(file.stem, str(file), file.read_bytes())
        return
    if not path.is_file():
        raise ValueError(f"{path}: no such folder or archive of annotation files")
    try:
        if zipfile.is_zipfile(path):
            yield from _zip_members(path)
        else:
            yield from _tar_members(path)
    except (tarfile.TarError, zipfile.BadZipFile, RuntimeError) as error:
        raise ValueError(f"{path}: not a folder, tar or zip archive of XML files ({error})") from error


def _member(path: Path, name: str, content: bytes) -> XmlFile:
    return XmlFile(PurePosixPath(name).stem, f"{path}:{name}", content)


def _zip_members(path: Path) -> Iterator[XmlFile]:
    with zipfile.ZipFile(path) as archive:
        for name in archive.namelist():
            if _is_annotation(name):
                try:
                    content = archive.read(name)
                except _UNPACKING as error:
                    raise ValueError(f"{path}:{name}: cannot be unpacked ({error})") from error
                yield _member(path, name, content)


def _is_annotation(name: str) -> bool:
    """XML, and not the `._name.xml` shadows that macOS puts into archives."""
    return name.endswith(".xml") and not PurePosixPath(name).name.startswith("._")


def _tar_members(path: Path) -> Iterator[XmlFile]:
    raw = _unpacked(path)
    members = _plain_tar_members(raw)
    for name, content in _all_tar_members(path, raw) if members is None else members:
        yield _member(path, name, content)


def _unpacked(path: Path) -> bytes:
    """A file without its gzip, bzip2 or xz: all of it at once, since the checksum stands at the end."""
    raw = path.read_bytes()
    for mark, unpack in _PACKED:
        if mark.match(raw):
            try:
                return unpack(raw)
            except _UNPACKING as error:
                raise ValueError(f"{path}: damaged or cut short ({error})") from error
    return raw


def _all_tar_members(path: Path, raw: bytes) -> list[tuple[str, bytes]]:
    """Annotations of any tar; tarfile.ReadError if it is none, ValueError if it is damaged or cut short."""
    members: list[tuple[str, bytes]] = []
    last = ""
    try:
        with tarfile.open(fileobj=io.BytesIO(raw), mode="r:") as archive:
            for entry in archive:
                last = entry.name
                if _is_annotation(last) and (file := archive.extractfile(entry)) is not None:
                    members.append((last, file.read()))
            # tarfile takes a damaged header for the end, which is marked by a block of zeros.
            complete = raw[archive.offset : archive.offset + _BLOCK] == bytes(_BLOCK)
    except (tarfile.TarError, ValueError, KeyError, OverflowError) as error:
        if not last:
            raise tarfile.ReadError(str(error)) from error
        complete = False
    if not complete:
        raise ValueError(f"{path}: damaged or cut short after its member {last}")
    return members


def _plain_tar_members(raw: bytes) -> list[tuple[str, bytes]] | None:
    """Annotations of a tar that holds plain files and folders only, None if anything else is in it.

    tarfile takes 0.1 ms a member, most of the time of a whole evaluation; annotation archives need none of
    what it can do beyond this. Pax headers are passed over when they only say times and owners.
    """
    members: list[tuple[str, bytes]] = []
    at = 0
    while at + _BLOCK <= len(raw):
        header = raw[at : at + _BLOCK]
        if header.count(0) == _BLOCK:
            return members
        kind = header[156:157]
        size_field = header[124:136].strip(b" \0")
        if header[257:262] != b"ustar" or kind not in b"\x0005x" or not size_field.isdigit():
            return None
        checksum = sum(header[:148]) + 8 * 32 + sum(header[156:])
        if header[148:156].strip(b" \0") != b"%06o" % checksum:
            return None
        size = int(size_field, 8)
        body = raw[at + _BLOCK : at + _BLOCK + size]
        if len(body) < size or (kind == b"x" and _PAX_CHANGES_MEMBER.search(body)):
            return None
        prefix = header[345:500].split(b"\0", 1)[0] if header[257:263] == b"ustar\0" else b""
        name = (prefix + b"/" if prefix else b"") + header[:100].split(b"\0", 1)[0]
        decoded = name.decode("utf-8", "surrogateescape")
        if kind in b"\x000" and _is_annotation(decoded):
            members.append((decoded, body))
        at += _BLOCK + -(-size // _BLOCK) * _BLOCK
    return None


def parse_annotation(file: XmlFile) -> XmlContent:
    """Return the objects of an ILSVRC or VOC annotation, and the size and name of its image.

    Raises ValueError, naming the file, if the XML is broken, declares a document type or entities, or an
    object lacks its name or a corner or has corners that are not ordered finite numbers.
    """
    tags: list[str] = []
    texts: list[str] = []
    fields: dict[str, str] = {}
    sides: dict[str, str] = {}
    objects: list[XmlObject] = []
    filename = ""

    def start(tag: str, _attributes: dict[str, str]) -> None:
        tags.append(tag)
        texts.clear()
        if len(tags) == 1 and tag != "annotation":
            raise ValueError(f"{file.where}: the root element is <{tag}>, expected <annotation>")

    def end(tag: str) -> None:
        nonlocal filename
        tags.pop()
        depth = len(tags)
        if depth >= 2 and tags[1] == "object":
            # Corners of the object's own box; `part` elements of VOC layouts have boxes of their own.
            if depth == 2 or (depth == 3 and tags[2] == "bndbox"):
                fields[tag] = "".join(texts)
        elif depth == 2 and tags[1] == "size":
            sides[tag] = "".join(texts).strip()
        elif depth == 1 and tag == "object":
            objects.append(_object(file.where, fields))
            fields.clear()
        elif depth == 1 and tag == "filename":
            filename = "".join(texts).strip()
        texts.clear()

    def refuse(*_: object) -> None:
        raise ValueError(f"{file.where}: declares a document type or entities, which annotations do not need")

    parser = expat.ParserCreate()
    parser.buffer_text = True
    parser.StartElementHandler = start
    parser.EndElementHandler = end
    parser.CharacterDataHandler = texts.append
    parser.StartDoctypeDeclHandler = refuse
    parser.EntityDeclHandler = refuse
    try:
        for at in range(0, len(file.content), _CHUNK):
            parser.Parse(file.content[at : at + _CHUNK], False)
        parser.Parse(b"", True)
    except (expat.ExpatError, LookupError) as error:  # the latter of an unknown encoding
        raise ValueError(f"{file.where}: broken XML: {error}") from error
    except ValueError as error:
        if str(error).startswith(file.where):
            raise
        raise ValueError(f"{file.where}: {error}; write it in UTF-8") from error  # encodings such as GBK
    width, height = sides.get("width", ""), sides.get("height", "")
    known = width.isdecimal() and height.isdecimal() and int(width) and int(height)  # some tools write zeros
    return XmlContent(objects, (int(width), int(height)) if known else None, filename)


def _object(where: str, fields: dict[str, str]) -> XmlObject:
    try:
        name = fields["name"].strip()
        xmin, ymin = float(fields["xmin"]), float(fields["ymin"])
        xmax, ymax = float(fields["xmax"]), float(fields["ymax"])
    except KeyError as error:
        raise ValueError(f"{where}: an object has no <{error.args[0]}>") from error
    except ValueError as error:
        raise ValueError(f"{where}: a corner of {name} is not a number: {error}") from error
    # Written so that NaN fails too.
    if not (-1e9 <= xmin <= xmax <= 1e9 and -1e9 <= ymin <= ymax <= 1e9):
        box = f"{xmin:g} {ymin:g} {xmax:g} {ymax:g}"
        raise ValueError(f"{where}: the box of {name} is {box}, expected xmin <= xmax and ymin <= ymax")
    return XmlObject(name, xmin, ymin, xmax, ymax, fields.get("difficult", "0").strip() == "1")


class XmlAnnotations(NamedTuple):
    """All objects of a set of images; `owners` (G,) are positions in `images` and in `where`."""

    images: ImageSet
    where: list[str]
    objects: list[XmlObject]
    owners: list[int]


def read_objects(
    source: str | Path, image_list: Mapping[str, int] | None = None, *, only: Iterable[str] | None = None
) -> XmlAnnotations:
    """Read the annotation files of the listed images.

    `image_list` maps names to indices; entries such as `n02113978/n02113978_996.JPEG` are met by their stem, and files
    of other images are passed over. Without it the images are the files, numbered 1..I by name; `only` says by their
    names which images can matter, and files of others are passed over.

    Raises ValueError for a listed image without a file or with two, for a source without any, and for
    whatever `parse_annotation` refuses.
    """
    wanted = None if image_list is None else _by_stem(source, image_list)
    chosen = wanted if only is None else {image_stem(name) for name in only}
    files: dict[str, tuple[str, list[XmlObject]]] = {}
    for file in iterate_xml_files(source):
        stem = image_stem(file.stem)  # some tools write a.jpg.xml
        if chosen is not None and stem not in chosen:
            continue
        name = file.stem if wanted is None else stem
        if name in files:
            raise ValueError(f"{file.where}: the same image as {files[name][0]}")
        files[name] = file.where, parse_annotation(file).objects
    if not files:
        such = f" (such as {next(iter(chosen))}.xml)" if chosen else ""
        raise ValueError(f"{source}: no XML files of the evaluated images in it{such}")
    if wanted is None:
        wanted = {stem: number for number, stem in enumerate(sorted(files), start=1)}
    missing = [name for name in wanted if name not in files]
    if missing:
        raise ValueError(
            f"{source}: no XML file for {len(missing):,} of the {len(wanted):,} listed images, the first "
            f"{missing[0]}"
        )
    stems = sorted(files, key=wanted.__getitem__)
    ids = np.array([wanted[stem] for stem in stems], np.int64)
    return XmlAnnotations(
        ImageSet(ids, tuple(stems), made_up=image_list is None),
        [files[stem][0] for stem in stems],
        [item for stem in stems for item in files[stem][1]],
        [owner for owner, stem in enumerate(stems) for _ in files[stem][1]],
    )


def _by_stem(source: str | Path, image_list: Mapping[str, int]) -> dict[str, int]:
    names: dict[str, str] = {}
    for name in image_list:
        if (other := names.setdefault(image_stem(name), name)) != name:
            raise ValueError(
                f"{source}: {other} and {name} of the image list would both have {image_stem(name)}.xml"
            )
    return {stem: image_list[name] for stem, name in names.items()}


def write_objects(
    folder: str | Path,
    annotations: Annotations,
    *,
    class_names: Sequence[str],
    first_pixel: int,
    sizes: Sequence[tuple[int, int]] | None = None,
) -> None:
    """Write `name.xml` for every image: inclusive corners that count from `first_pixel` (0 ILSVRC, 1 VOC).

    class_names (C,) replace the labels; sizes (I,) are (width, height), left out of the files if unknown. What is
    narrower than a pixel becomes one. XML knows no crowds: they are written as difficult, which VOC's rules pass over
    while ILSVRC's count them as objects.

    Raises ValueError, before anything is written, for two images that would have one file.
    """
    stems = [image_stem(name) for name in annotations.images.names]
    if len(set(stems)) < len(stems):
        twice = next(stem for stem, count in Counter(stems).items() if count > 1)
        raise ValueError(f"{folder}: two images would be written to {twice}.xml")
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    boxes = annotations.boxes + first_pixel
    if not annotations.last_pixel:
        boxes[:, 2:] = np.maximum(boxes[:, 2:] - 1, boxes[:, :2])
    difficult = annotations.difficult | annotations.crowd
    by_image = np.argsort(annotations.image, kind="stable")
    start = np.searchsorted(annotations.image[by_image], np.arange(len(annotations.images) + 1))
    for number, name in enumerate(annotations.images.names):
        root = ElementTree.Element("annotation")
        ElementTree.SubElement(root, "filename").text = name
        if sizes is not None:
            size = ElementTree.SubElement(root, "size")
            for tag, value in zip(("width", "height"), sizes[number], strict=True):
                ElementTree.SubElement(size, tag).text = str(value)
        for g in by_image[start[number] : start[number + 1]]:
            element = ElementTree.SubElement(root, "object")
            ElementTree.SubElement(element, "name").text = class_names[annotations.label[g]]
            if difficult[g]:
                ElementTree.SubElement(element, "difficult").text = "1"
            box = ElementTree.SubElement(element, "bndbox")
            for tag, value in zip(("xmin", "ymin", "xmax", "ymax"), boxes[g], strict=True):
                ElementTree.SubElement(box, tag).text = f"{value:.12g}"
        ElementTree.indent(root, "\t")
        with writing(target / f"{stems[number]}.xml") as file:
            file.write(ElementTree.tostring(root, encoding="unicode") + "\n")
