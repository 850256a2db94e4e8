"""Boxes for images of which only the class is known: where a detector sees it best.

Self-training with the class as a check: a detector that has learnt the boxes of some classes knows something of the
others, once it is told what to look for. Of classes that it has learnt its best box is mostly right; of others it takes
parts, or the whole image, more often.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from detector.command_line import check_outputs
from detector.training.display import left_out
from detector.training.image_labels import label_rows
from detector.training.problems import Problems
from detector.training.ranges import share
from eval.atomic import writing
from eval.coco import CocoFile, check_records, read_file
from eval.json_parser import HAS_BOX, HAS_CATEGORY, HAS_IMAGE, HAS_SCORE


@dataclass(frozen=True)
class BoxesFromLabels:
    """A run of `train.py boxes`.

    Attributes:
        detections: What `detect.py --score-threshold 0.01 --no-images` has found in the images: its
            `detections.json`.
        image_labels: CSV file with the columns `file` and `det_id`; an image that shows several classes has a line for
            each.
        output: COCO JSON to write, to be learnt from like any other.
        min_score: An image whose label has no detection of at least this score is left out.
        doubt: Detections of the label with at least this share of the score of the best, and those of other classes
            with at least this score, may be objects as well: they are neither objects nor background.
    """

    detections: str = "outputs/detections.json"
    image_labels: str | None = None
    output: str = "boxes.json"
    min_score: float = 0.25
    doubt: float = 0.3

    def __post_init__(self) -> None:
        """Refuse numbers that make no sense."""
        share(self, "min_score", "doubt")


def make_boxes(config: BoxesFromLabels, console: Console) -> Path:
    """Write the file and return its path.

    Raises:
        OSError, ValueError: A file that is not there or not what it should be, or no box at all; in one sentence.
    """
    if config.image_labels is None:
        raise ValueError("--image-labels is missing: name a CSV file with the columns `file` and `det_id`")
    read = [("detections", config.detections), ("image-labels", config.image_labels)]
    check_outputs([("output", config.output)], read)
    found = read_file(config.detections)
    if found.images is None or found.categories is None:
        raise ValueError(
            f"{config.detections}: no `images` and `categories`, expected what tools/detect.py writes"
        )
    _check_rows(config.detections, found.images, {"id": int, "file_name": str})
    _check_rows(config.detections, found.categories, {"id": int})
    check_records(config.detections, found.records, HAS_IMAGE | HAS_CATEGORY | HAS_BOX | HAS_SCORE)
    problems = Problems(report=left_out(console))
    labels: dict[str, set[int]] = {}
    ids = {int(row["id"]) for row in found.categories}
    for name, label in label_rows(config.image_labels, ids, problems):
        labels.setdefault(name, set()).add(label)
    images, annotations = _boxes(config, found, labels, problems)
    if not images:
        raise ValueError(f"no box for any image of {config.image_labels} ({problems.summary()})")
    with writing(config.output) as file:
        json.dump(
            {"images": images, "categories": found.categories, "annotations": annotations}, file, indent=1
        )
        file.write("\n")
    objects = sum(not a["iscrowd"] for a in annotations)
    console.print(f"{objects:,} boxes in {len(images):,} images, {len(annotations) - objects:,} to ignore")
    if problems.counts:
        console.print(f"left out in all: {problems.summary()}")
    return Path(config.output)


def _check_rows(path: str, rows: list[dict[str, Any]], kinds: dict[str, type]) -> None:
    for row in rows:
        for name, kind in kinds.items():
            if not isinstance(row, dict) or not isinstance(row.get(name), kind):
                raise ValueError(f"{path}: {row!r} has no `{name}` as tools/detect.py writes it")


def _boxes(
    config: BoxesFromLabels, found: CocoFile, labels: dict[str, set[int]], problems: Problems
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """COCO's `images` and `annotations`, of the images whose classes are known."""
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for image, rows in _by_image(found):
        known = labels.get(image["file_name"])
        if known is None:
            continue
        chosen = _annotations(config, found, rows, known)
        if chosen is None:
            problems.add("image without a box", f"{image['file_name']}: nothing looks like its label")
            continue
        images.append(image | {"labelled_classes": sorted(known)})
        annotations += [
            {"id": number, "image_id": image["id"]} | annotation
            for number, annotation in enumerate(chosen, len(annotations) + 1)
        ]
    for name in sorted(labels.keys() - {image["file_name"] for image in found.images or ()}):
        problems.add("label without image", f"{config.image_labels}: {name} is not in {config.detections}")
    return images, annotations


def _by_image(found: CocoFile) -> Iterator[tuple[dict[str, Any], np.ndarray]]:
    """Every image with the positions of its detections, best first."""
    image_ids = found.records.whole[1]
    order = np.lexsort((-found.records.scores, image_ids))  # the images one after the other
    sorted_ids = image_ids[order]
    for image in found.images or ():
        first, end = np.searchsorted(sorted_ids, (image["id"], image["id"] + 1))
        yield image, order[first:end]


def _annotations(
    config: BoxesFromLabels, found: CocoFile, rows: np.ndarray, known: set[int]
) -> list[dict[str, Any]] | None:
    """The best box of every known class, then what may be an object as well; None if a known class has no box."""
    scores = found.records.scores[rows]
    ids = found.records.whole[2][rows]
    objects, doubtful = np.zeros(len(rows), np.bool_), scores >= config.doubt
    for label in known:
        of_label = np.flatnonzero(ids == label)  # best first
        if not len(of_label) or scores[of_label[0]] < config.min_score:
            return None
        objects[of_label[0]] = True
        doubtful[of_label] = scores[of_label] >= config.doubt * scores[of_label[0]]
    return [
        {
            "category_id": int(ids[row]),
            "bbox": (box := found.records.boxes[rows[row]].tolist()),
            "area": box[2] * box[3],
            "iscrowd": int(not objects[row]),
        }
        for row in (*np.flatnonzero(objects), *np.flatnonzero(doubtful & ~objects))
    ]
