"""ILSVRC detection data: the 200 classes, image lists, blacklist, annotations, and the submission text.

Files hold inclusive coordinates (xmax is the last pixel); boxes given to `write_detections` are half-open as
everywhere else in this project.
"""

import csv
import importlib.resources
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from eval.atomic import writing
from eval.dataset import Annotations, Category, make_annotations, positions
from eval.text_files import read_text
from eval.xml_files import XmlAnnotations, read_objects, write_objects


class DetClass(NamedTuple):
    """One of the 200 detection classes: official id 1..200, WordNet id and English name."""

    det_id: int
    wnid: str
    name: str


def _read_det_classes() -> tuple[DetClass, ...]:
    table = (importlib.resources.files("eval") / "data" / "det200.csv").read_text(encoding="utf-8")
    rows = csv.DictReader(table.splitlines())
    return tuple(DetClass(int(row["det_id"]), row["wnid"], row["name"]) for row in rows)


DET_CLASSES = _read_det_classes()
DET_CATEGORIES = tuple(Category(row.det_id, row.name, row.wnid) for row in DET_CLASSES)
_LABEL_BY_WNID = {row.wnid: row.det_id - 1 for row in DET_CLASSES}


def read_image_list(path: str | Path) -> dict[str, int]:
    """Read lines `name index` (val.txt of the development kit) into {name: index}, in the file's order.

    Raises ValueError, naming file and line, for other lines, for indices of more than 18 digits and for a name or
    index that comes twice.
    """
    indices: dict[str, int] = {}
    seen: set[int] = set()
    for number, line in enumerate(read_text(path).splitlines(), start=1):
        words = line.split()
        if not words:
            continue
        if len(words) != 2 or not _is_index(words[1]):
            raise ValueError(f"{path}:{number}: expected `name index`, found {_shown(line)}")
        name, index = words[0], int(words[1])
        if name in indices or index in seen:
            raise ValueError(f"{path}:{number}: image {name} or index {index} is in the list twice")
        indices[name] = index
        seen.add(index)
    if not indices:
        raise ValueError(f"{path}: no images in it, expected lines of `name index`")
    return indices


def read_blacklist(path: str | Path) -> list[tuple[int, int]]:
    """Read lines `image_index wnid` into (image index, label 0..199) pairs."""
    pairs = []
    for number, line in enumerate(read_text(path).splitlines(), start=1):
        words = line.split()
        if not words:
            continue
        if len(words) != 2 or not _is_index(words[0]):
            raise ValueError(f"{path}:{number}: expected `image_index wnid`, found {_shown(line)}")
        if words[1] not in _LABEL_BY_WNID:
            raise ValueError(f"{path}:{number}: {words[1]} is none of the 200 DET classes")
        pairs.append((int(words[0]), _LABEL_BY_WNID[words[1]]))
    return pairs


def apply_blacklist(annotations: Annotations, pairs: list[tuple[int, int]]) -> Annotations:
    """Leave (image index, label) pairs out of the evaluation; indices of images not evaluated do nothing."""
    found = positions(np.array([index for index, _ in pairs], np.int64), annotations.images.ids)
    return annotations.with_blacklist(
        (int(position), label) for position, (_, label) in zip(found, pairs, strict=True) if position >= 0
    )


def read_annotations(source: str | Path, image_list: Mapping[str, int] | None = None) -> Annotations:
    """Read ILSVRC XML files from a folder, tar or zip into annotations of the listed images.

    `image_list` and the errors are those of `eval.xml_files.read_objects`; a class that is none of the 200
    raises ValueError too.
    """
    return annotations_of(read_objects(source, image_list))


def annotations_of(found: XmlAnnotations) -> Annotations:
    """ILSVRC annotations from objects that name their class by WNID."""
    labels = []
    for item, owner in zip(found.objects, found.owners, strict=True):
        label = _LABEL_BY_WNID.get(item.name)
        if label is None:
            raise ValueError(f"{found.where[owner]}: {item.name} is none of the 200 DET classes")
        labels.append(label)
    return make_annotations(
        found.images,
        DET_CATEGORIES,
        image=found.owners,
        label=labels,
        boxes=[(item.xmin, item.ymin, item.xmax, item.ymax) for item in found.objects],
        difficult=[item.difficult for item in found.objects],  # VOC's rules and recall pass over them
        last_pixel=True,
    )


def write_annotations(
    folder: str | Path, annotations: Annotations, *, sizes: Sequence[tuple[int, int]] | None = None
) -> None:
    """Write one ILSVRC XML per image; see `eval.xml_files.write_objects`."""
    names = [category.wnid for category in annotations.categories]
    if not all(names):
        raise ValueError(f"{folder}: ILSVRC annotations name classes by WNID, and some of these have none")
    write_objects(folder, annotations, class_names=names, first_pixel=0, sizes=sizes)


def write_detections(
    path: str | Path,
    *,
    image_indices: npt.ArrayLike,
    det_ids: npt.ArrayLike,
    scores: npt.ArrayLike,
    boxes: npt.ArrayLike,
) -> None:
    """Write the official submission text, `image_index det_id confidence xmin ymin xmax ymax` a line.

    image_indices, det_ids, scores (D,) and boxes (D, 4), half-open xyxy as everywhere here; the file gets
    inclusive corners (x2 - 1), what is narrower than a pixel becomes one. Numbers are written so that
    reading gives them back to the last bit, and ranks stay as they are. The file appears when it is complete.
    Raises ValueError for unequal lengths, numbers that are not finite, DET ids outside 1..200 and x2 < x1.
    """
    indices, ids = np.asarray(image_indices, np.int64).reshape(-1), np.asarray(det_ids, np.int64).reshape(-1)
    confidences = np.asarray(scores, np.float64).reshape(-1)
    corners = np.array(boxes, np.float64).reshape(-1, 4)
    if not len(indices) == len(ids) == len(confidences) == len(corners):
        raise ValueError(
            f"{path}: {len(indices)} image indices, {len(ids)} DET ids, {len(confidences)} scores and "
            f"{len(corners)} boxes, expected as many of each"
        )
    if len(ids) and not (ids.min() >= 1 and ids.max() <= len(DET_CLASSES)):
        raise ValueError(
            f"{path}: DET ids run from {ids.min()} to {ids.max()}, expected 1 to {len(DET_CLASSES)}"
        )
    if not (np.isfinite(confidences).all() and np.isfinite(corners).all()):
        raise ValueError(f"{path}: scores and boxes must be finite numbers")
    if (corners[:, 2:] < corners[:, :2]).any():
        raise ValueError(f"{path}: a box has x2 < x1 or y2 < y1")
    corners[:, 2:] = np.maximum(corners[:, 2:] - 1, corners[:, :2])
    with writing(path) as file:
        for index, det_id, score, (xmin, ymin, xmax, ymax) in zip(
            indices.tolist(), ids.tolist(), confidences.tolist(), corners.tolist(), strict=True
        ):
            file.write(f"{index} {det_id} {score!r} {xmin!r} {ymin!r} {xmax!r} {ymax!r}\n")


def _is_index(word: str) -> bool:
    """Whether a word is a whole number that every reader here takes: 64 bits hold 18 digits."""
    return word.isdecimal() and len(word) <= 18


def _shown(line: str) -> str:
    return repr(line if len(line) <= 60 else line[:57] + "...")
