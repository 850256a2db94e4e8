"""One door for every format: look at a file and hand it to the reader that understands it."""

import gzip
import re
import warnings
import zlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from eval import coco, ilsvrc, ilsvrc_text, voc
from eval.dataset import Annotations, Detections
from eval.image_names import read_name_list
from eval.text_files import refuse_pipe
from eval.xml_files import read_objects

_WNID = re.compile(r"n\d{8}")


def read_annotations(
    source: str | Path, *, image_list: str | Path | None = None, blacklist: str | Path | None = None
) -> Annotations:
    """Ground truth from COCO JSON, or from ILSVRC or VOC XML in a folder, tar or zip.

    `image_list` says which images count: by lines `name`, or by lines `name index`, which only XML has and which also
    say how submissions number them. `blacklist` (lines `image_index wnid`) leaves pairs out. Raises ValueError or
    OSError in one sentence.
    """
    chosen = None if image_list is None else read_name_list(image_list)
    names = None if image_list is None or chosen is not None else ilsvrc.read_image_list(image_list)
    if is_json(source):
        if names is not None:
            raise ValueError(
                f"{image_list}: COCO annotations bring their own numbers of images; list names only, or leave this out"
            )
        annotations = coco.read_annotations(source)
    else:
        found = read_objects(source, names, only=chosen)
        # VOC's classes are words; whoever labels own photos in this layout writes words too.
        words = bool(found.objects) and not _WNID.fullmatch(found.objects[0].name)
        annotations = voc.annotations_of(found) if words else ilsvrc.annotations_of(found)
    if chosen is not None:
        annotations = _of_images(annotations, chosen, f"{image_list}: %s is none of the images of {source}")
    if blacklist is not None:
        if annotations.images.made_up:
            raise ValueError(
                f"{blacklist}: it names images by index, so it needs an image list of lines `name index`"
            )
        if annotations.categories != ilsvrc.DET_CATEGORIES:
            raise ValueError(f"{blacklist}: a blacklist needs annotations of the 200 DET classes")
        pairs = ilsvrc.read_blacklist(blacklist)
        annotations = ilsvrc.apply_blacklist(annotations, pairs)
        if pairs and not len(annotations.blacklist):
            warnings.warn(
                f"{blacklist}: none of its {len(pairs):,} pairs is of an image that is evaluated",
                stacklevel=2,
            )
    return annotations


def _of_images(annotations: Annotations, names: Sequence[str], absent: str) -> Annotations:
    """The ground truth of the images of these names; one that is not there is told by the sentence `absent`."""
    found = annotations.images.distinct_positions_of(names)
    if len(missing := np.flatnonzero(found < 0)):
        raise ValueError(absent % names[missing[0]])
    kept = np.sort(found)
    place = np.full(len(annotations.images), -1, np.int32)
    place[kept] = np.arange(len(kept), dtype=np.int32)
    rows = np.flatnonzero(place[annotations.image] >= 0)
    images = annotations.images
    by_box = ("label", "boxes", "areas", "crowd", "difficult", "coco_areas")
    return replace(
        annotations,
        images=replace(
            images, ids=images.ids[kept], names=tuple(images.names[position] for position in kept)
        ),
        image=place[annotations.image[rows]],
        **{name: getattr(annotations, name)[rows] for name in by_box},
    )


def read_detections(source: str | Path, annotations: Annotations) -> Detections:
    """Detections from the ILSVRC submission text, COCO results or detections.json, plain or gzipped.

    Raises ValueError or OSError in one sentence.
    """
    check_is_file(source)
    if is_json(source):
        return coco.read_detections(source, annotations)
    if annotations.images.made_up:
        raise ValueError(
            f"{source}: it names images by index, so it needs an image list of lines `name index`"
        )
    return ilsvrc_text.read_detections(source, annotations)


def check_is_file(source: str | Path) -> None:
    """Refuse a folder, a pipe and what is not there as detections: raises OSError or ValueError in one sentence."""
    path = Path(source)
    if path.is_dir():
        raise IsADirectoryError(f"{path}: is a folder, name a file such as {path / 'detections.json'}")
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file or directory")
    refuse_pipe(path)


def example_files() -> tuple[Path, Path]:
    """Annotations and detections of the small example that comes with the package (made up, no photos)."""
    folder = Path(__file__).parent / "data"
    return folder / "example_annotations.json", folder / "example_detections.txt"


def is_json(source: str | Path) -> bool:
    """Whether a file, plain or gzipped, begins as JSON does; folders and archives do not."""
    path = Path(source)
    if path.is_dir():
        return False
    refuse_pipe(path)
    try:
        with path.open("rb") as raw:
            head = raw.read(4096)
        if head[:2] == b"\x1f\x8b":
            with gzip.open(path) as unpacked:
                head = unpacked.read(4096)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise ValueError(f"{path}: damaged gzip file ({error})") from error
    return head.removeprefix(b"\xef\xbb\xbf").lstrip()[:1] in (b"{", b"[")
