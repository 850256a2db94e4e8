"""COCO JSON: instances with images and categories, results lists, and this project's detections.json."""

import json
import math
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from eval.atomic import writing
from eval.coco_lists import image_set, read_categories, translate_categories, whole_number
from eval.dataset import Annotations, Category, Detections, Ints, make_annotations, positions
from eval.ilsvrc_text import map_bytes
from eval.json_parser import (
    HAS_AREA,
    HAS_BOX,
    HAS_CATEGORY,
    HAS_ID,
    HAS_IMAGE,
    HAS_SCORE,
    Records,
    parse_records,
    skip_space,
    skip_value,
)

_NEEDED = {HAS_IMAGE: "image_id", HAS_CATEGORY: "category_id", HAS_BOX: "bbox", HAS_SCORE: "score"}
_IGNORED_CATEGORY = 0  # in this project's data: an object outside the classes, boxed only to be ignored
_HUGE = 1e100  # products of coordinates beyond this leave the range of float64


class CocoFile(NamedTuple):
    """A file taken apart: its boxes as arrays, and `images` and `categories` if it has them."""

    records: Records
    images: list[dict[str, Any]] | None
    categories: list[dict[str, Any]] | None


def read_annotations(path: str | Path) -> Annotations:
    """Read COCO instances (`images`, `categories`, `annotations` with `bbox`), plain or gzipped.

    `iscrowd` boxes are kept as crowds, others whose `ignore` is 1 as difficult. A crowd of category 0 that is in no
    category list (to ignore, whatever its class) becomes a crowd of every class. Raises ValueError, naming the file
    and the entry, for what is missing, unknown, not finite or listed twice.
    """
    file = read_file(path)
    if file.images is None or file.categories is None:
        raise ValueError(f"{path}: no `images` and `categories` in it, expected COCO instances")
    images = image_set(path, file.images)
    categories = read_categories(path, file.categories)
    records = file.records
    check_records(path, records, HAS_IMAGE | HAS_CATEGORY | HAS_BOX)
    ids, image_ids, category_ids, crowd = records.whole
    if (records.present & HAS_ID).all() and len(np.unique(ids)) != len(ids):
        repeated = ids[np.argsort(ids, kind="stable")]
        raise ValueError(f"{path}: two annotations have the id {repeated[1:][np.diff(repeated) == 0][0]}")
    image = _known(path, "annotation", "image_id", image_ids, images.ids)
    everywhere = (category_ids == _IGNORED_CATEGORY) & (crowd == 1)
    if any(category.id == _IGNORED_CATEGORY for category in categories):
        everywhere[:] = False
    rows = np.flatnonzero(~everywhere)
    label = np.full(len(image), -1, np.int32)
    category_array = np.array([category.id for category in categories], np.int64)
    label[rows] = _known(path, "annotation", "category_id", category_ids[rows], category_array, rows)
    # A box to ignore for every class is one crowd box in each.
    spread = np.repeat(np.flatnonzero(everywhere), len(categories))
    rows = np.concatenate((rows, spread))
    labels = np.concatenate((label[~everywhere], np.tile(np.arange(len(categories)), int(everywhere.sum()))))
    boxes = records.boxes[rows]
    areas = boxes[:, 2] * boxes[:, 3]
    has_area = (records.present[rows] & HAS_AREA) != 0
    return make_annotations(
        images,
        categories,
        image=image[rows],
        label=labels,
        boxes=_corners(boxes),
        last_pixel=False,
        areas=areas,
        crowd=crowd[rows] == 1,
        difficult=(records.ignore & (crowd != 1))[rows],
        coco_areas=np.where(has_area, records.areas[rows], areas),
    )


def read_detections(path: str | Path, annotations: Annotations) -> Detections:
    """Read a COCO results list, or an object with `annotations` that have scores (this project's output).

    A list speaks in the ids of the annotations. An object that brings its own `images` and `categories` is
    met by file name (or its stem) and by WNID, name or id. Raises ValueError, naming the file and the entry.
    """
    file = read_file(path)
    records = file.records
    if not len(records.scores):
        raise ValueError(f"{path}: no detections in it")
    check_records(path, records, HAS_IMAGE | HAS_CATEGORY | HAS_BOX | HAS_SCORE)
    _, image_ids, category_ids, _ = records.whole
    seen = None
    if file.images is not None:
        own_images = image_set(path, file.images)
        own = _known(path, "detection", "image_id", image_ids, own_images.ids)
        try:
            met = annotations.images.distinct_positions_of(own_images.names)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None
        image = met[own]
        seen = int((met >= 0).sum())
        if seen < len(annotations.images):
            warnings.warn(
                f"{path}: looked at {seen:,} of the {len(annotations.images):,} annotated images; the objects of the"
                " others count as missed",
                stacklevel=2,
            )
        if image.min() < 0:
            names = [own_images.names[position] for position in np.unique(own[image < 0])]
            raise ValueError(_outside(path, int((image < 0).sum()), names))
    else:
        if annotations.images.made_up:
            raise ValueError(
                f"{path}: it names images by id, so it needs an image list of lines `name index`"
            )
        image = positions(image_ids, annotations.images.ids)
        if image.min() < 0:
            outside = image_ids[image < 0]
            raise ValueError(_outside(path, len(outside), [str(name) for name in np.unique(outside)]))
    if file.categories is not None:
        own_categories = read_categories(path, file.categories)
        own_ids = np.array([category.id for category in own_categories], np.int64)
        own = _known(path, "detection", "category_id", category_ids, own_ids)
        try:
            translation = translate_categories(own_categories, annotations.categories)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None
        label = translation[own]
        if label.min() < 0:
            strange = sorted({own_categories[k].name for k in np.unique(own[label < 0])})
            raise ValueError(f"{path}: the annotations have no class {', '.join(map(repr, strange[:5]))}")
    else:
        known = np.array([category.id for category in annotations.categories], np.int64)
        label = _known(path, "detection", "category_id", category_ids, known)
    areas = records.boxes[:, 2] * records.boxes[:, 3]
    boxes = _corners(records.boxes)
    return Detections(image, label, records.scores, boxes, areas, last_pixel=False, images_seen=seen)


def read_file(path: str | Path) -> CocoFile:
    """Take a COCO file apart, by the compiled parser where the layout allows, else by Python's json."""
    text = map_bytes(path)
    taken = _take_apart(text)
    if taken is None:
        taken = _take_apart_slowly(path, text)
    return taken


def _take_apart(text: npt.NDArray[np.uint8]) -> CocoFile | None:
    """One pass over the top level; None if anything is not as expected."""
    stop = len(text)
    at = int(skip_space(text, 0, stop))
    if at < stop and text[at] == ord("["):
        records = parse_records(text, at)
        whole = records is not None and skip_space(text, records.end, stop) == stop
        return CocoFile(records, None, None) if records is not None and whole else None
    if at >= stop or text[at] != ord("{"):
        return None
    found: dict[str, Any] = {}
    records = None
    at = int(skip_space(text, at + 1, stop))
    try:
        while at < stop and text[at] == ord('"'):
            name_end = int(skip_value(text, at, stop))
            name = json.loads(bytes(text[at:name_end])) if name_end > 0 else None
            at = int(skip_space(text, name_end, stop))
            if name is None or at >= stop or text[at] != ord(":"):
                return None
            start = int(skip_space(text, at + 1, stop))
            if name == "annotations":
                records = parse_records(text, start)
                end = -1 if records is None else records.end
            else:
                end = int(skip_value(text, start, stop))
                if name in ("images", "categories") and end > 0:
                    found[name] = json.loads(bytes(text[start:end]))
            if end < 0:
                return None
            at = int(skip_space(text, end, stop))
            if at < stop and text[at] == ord(","):
                at = int(skip_space(text, at + 1, stop))
            elif at >= stop or text[at] != ord("}") or int(skip_space(text, at + 1, stop)) != stop:
                return None
            else:
                lists = all(isinstance(value, list) for value in found.values())
                if records is None or not lists:
                    return None
                return CocoFile(records, found.get("images"), found.get("categories"))
    except (ValueError, RecursionError):  # said by who reads it slowly
        return None
    return None


def _take_apart_slowly(path: str | Path, text: npt.NDArray[np.uint8]) -> CocoFile:
    try:
        data = json.loads(bytes(text))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: not valid JSON: {error}") from error
    if isinstance(data, list):
        data = {"annotations": data}
    if not isinstance(data, dict) or not isinstance(data.get("annotations"), list):
        raise ValueError(f"{path}: neither COCO instances nor a list of COCO results")
    for name in ("images", "categories"):
        if not isinstance(data.get(name, []), list):
            raise ValueError(f"{path}: `{name}` is not a list")
    rows = data["annotations"]
    whole, boxes = np.zeros((4, len(rows)), np.int64), np.zeros((len(rows), 4))
    ignore = np.array([isinstance(row, dict) and row.get("ignore") == 1 for row in rows], np.bool_)
    scores, areas, present = np.zeros(len(rows)), np.zeros(len(rows)), np.zeros(len(rows), np.uint8)
    for number, row in enumerate(rows):
        if not isinstance(row, dict):
            raise ValueError(f"{path}: entry {number + 1} is not an object")
        for column, (name, flag) in enumerate(
            (("id", 1), ("image_id", 2), ("category_id", 4), ("iscrowd", 0))
        ):
            value = row.get(name)
            if (known := whole_number(value)) is not None:
                whole[column, number] = known
                present[number] |= flag
            elif value is not None and name != "id":
                raise ValueError(
                    f"{path}: entry {number + 1} has {name} {value!r}, expected a whole number of up to 64 bits"
                )
        box = row.get("bbox")
        if box is not None:
            if not (isinstance(box, list) and len(box) == 4 and all(isinstance(v, int | float) for v in box)):
                raise ValueError(
                    f"{path}: entry {number + 1} has bbox {box!r}, expected four numbers x, y, w, h"
                )
            boxes[number] = [_as_float(value) for value in box]
            present[number] |= HAS_BOX
        for array, name, flag in ((scores, "score", HAS_SCORE), (areas, "area", HAS_AREA)):
            value = row.get(name)
            if isinstance(value, int | float):
                array[number] = _as_float(value)
                present[number] |= flag
            elif value is not None:
                raise ValueError(f"{path}: entry {number + 1} has {name} {value!r}, expected a number")
    return CocoFile(
        Records(whole, boxes, scores, areas, present, ignore, len(text)),
        data.get("images"),
        data.get("categories"),
    )


def _as_float(value: float) -> float:
    """The nearest float64; infinity, which no reader takes, for a whole number beyond all of them."""
    try:
        return float(value)
    except OverflowError:
        return math.inf


def check_records(path: str | Path, records: Records, needed: int) -> None:
    """Refuse entries of a file that lack what is needed, or whose boxes or scores are no numbers that can be meant.

    Args:
        needed: HAS_IMAGE | HAS_BOX | ...

    Raises:
        ValueError: Naming the first such entry.
    """
    lacking = (records.present & needed) != needed
    if lacking.any():
        row = int(np.argmax(lacking))
        names = [name for flag, name in _NEEDED.items() if needed & flag and not records.present[row] & flag]
        raise ValueError(f"{path}: entry {row + 1} has no {' and no '.join(names)}")
    boxes = records.boxes
    if not len(boxes):
        return
    # NaN passes through min and max and fails every comparison.
    finite = boxes.min() > -_HUGE and boxes.max() < _HUGE
    if not finite or (needed & HAS_SCORE and not np.isfinite(records.scores).all()):
        sane = (np.abs(boxes) < _HUGE).all(axis=1)
        if needed & HAS_SCORE:
            sane &= np.isfinite(records.scores)
        row = int(np.argmin(sane))
        raise ValueError(f"{path}: entry {row + 1} has a score or bbox that is not a finite number")
    if boxes[:, 2].min() < 0 or boxes[:, 3].min() < 0:
        row = int(np.argmax((boxes[:, 2] < 0) | (boxes[:, 3] < 0)))
        raise ValueError(
            f"{path}: entry {row + 1} has a bbox of negative width or height, expected x, y, w, h"
        )


def _corners(boxes: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """x, y, width, height to corners, in place."""
    boxes[:, 2:] += boxes[:, :2]
    return boxes


def _known(
    path: str | Path, what: str, field: str, ids: Ints, known: Ints, rows: npt.NDArray[np.int64] | None = None
) -> npt.NDArray[np.int32]:
    found = positions(ids, known)
    if len(found) and found.min() < 0:
        first = int(np.argmax(found < 0))
        number = first if rows is None else int(rows[first])
        raise ValueError(
            f"{path}: {what} {number + 1} has {field} {ids[first]}, which is in no list of the annotations"
        )
    return found


def _outside(path: str | Path, count: int, names: list[str]) -> str:
    shown = ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
    return (
        f"{path}: {count:,} detections lie in {len(names):,} other images than those evaluated: not annotated,"
        f" or not in the image list ({shown})"
    )


def as_instances(annotations: Annotations) -> dict[str, Any]:
    """Annotations as a COCO instances object of plain values, boxes x, y, width, height (half-open)."""
    extent = float(annotations.last_pixel)
    boxes = annotations.boxes.copy()
    boxes[:, 2:] += extent - boxes[:, :2]
    image_ids = annotations.images.ids[annotations.image].tolist()
    category_ids = [annotations.categories[label].id for label in annotations.label.tolist()]
    flags = (annotations.crowd, annotations.difficult)
    return {
        "images": [
            {"id": identity, "file_name": name}
            for identity, name in zip(annotations.images.ids.tolist(), annotations.images.names, strict=True)
        ],
        "categories": [_category_row(category) for category in annotations.categories],
        "annotations": [
            {
                "id": number, "image_id": image, "category_id": category, "bbox": box, "area": area,
                "iscrowd": int(crowd), "ignore": int(crowd or difficult),
            }
            for number, (image, category, box, area, crowd, difficult) in enumerate(
                zip(
                    image_ids, category_ids, boxes.tolist(), annotations.coco_areas.tolist(),
                    *(flag.tolist() for flag in flags), strict=True,
                ),
                start=1,
            )
        ],
    }  # fmt: skip


def as_results(detections: Detections, annotations: Annotations) -> list[dict[str, Any]]:
    """Detections as a COCO results list of plain values, in the ids of the annotations."""
    boxes = detections.boxes.copy()
    boxes[:, 2:] += float(detections.last_pixel) - boxes[:, :2]
    category_ids = np.array([category.id for category in annotations.categories], np.int64)
    return [
        {"image_id": image, "category_id": category, "bbox": box, "score": score}
        for image, category, box, score in zip(
            annotations.images.ids[detections.image].tolist(),
            category_ids[detections.label].tolist(),
            boxes.tolist(),
            detections.scores.tolist(),
            strict=True,
        )
    ]


def _category_row(category: Category) -> dict[str, Any]:
    row: dict[str, Any] = {"id": category.id, "name": category.name}
    return row | {"wnid": category.wnid} if category.wnid else row


def write_annotations(path: str | Path, annotations: Annotations) -> None:
    """Write COCO instances; the file appears when it is complete."""
    with writing(path) as file:
        json.dump(as_instances(annotations), file)


def write_detections(path: str | Path, detections: Detections, annotations: Annotations) -> None:
    """Write a COCO results list; the file appears when it is complete."""
    with writing(path) as file:
        json.dump(as_results(detections, annotations), file)
