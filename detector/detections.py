"""What was found in an image, and the files it goes to."""

import csv
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from detector.drawing import draw_boxes
from detector.taxonomy import DET200, DetectionClass
from eval.atomic import writing
from eval.ilsvrc import write_detections

Format = Literal["coco", "ilsvrc", "csv"]
FILE_NAMES: dict[Format, str] = {
    "coco": "detections.json",
    "ilsvrc": "detections.txt",
    "csv": "detections.csv",
}


@dataclass
class Detections:
    """The objects found in one image, best first.

    Attributes:
        boxes: (D, 4) float32, xyxy, half-open, pixels of the original image.
        scores: (D,) float32, 0..1, descending.
        labels: (D,) int64, 0-based positions in `classes`.
        classes: Everything the detector could have reported.
        width: Of the image in pixels.
        height: Of the image in pixels.
        image_name: The name the image goes by in files.
        image_id: Its number in files, from 1.
    """

    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray
    classes: tuple[DetectionClass, ...] = field(repr=False)
    width: int
    height: int
    image_name: str = ""
    image_id: int = 1

    def __len__(self) -> int:
        return len(self.scores)

    @property
    def class_names(self) -> list[str]:
        """The name of each detection's class, (D,)."""
        return [self.classes[label].name for label in self.labels]

    def select(self, chosen: np.ndarray) -> "Detections":
        """Those at the given positions, or where a mask (D,) holds."""
        return Detections(
            self.boxes[chosen],
            self.scores[chosen],
            self.labels[chosen],
            self.classes,
            self.width,
            self.height,
            self.image_name,
            self.image_id,
        )

    def draw(self, image: np.ndarray) -> np.ndarray:
        """The image, RGB uint8 (H, W, 3), with boxes, class names and scores drawn on a copy of it."""
        captions = [f"{name} {score:.2f}" for name, score in zip(self.class_names, self.scores, strict=True)]
        return draw_boxes(image, self.boxes, captions, self.labels)

    def save(self, path: str | Path, format: Format | None = None) -> None:
        """Write to one file: COCO JSON, the ILSVRC text format or CSV, by default what the suffix says."""
        save([self], path, format)


def save(detections: Sequence[Detections], path: str | Path, format: Format | None = None) -> None:
    """Write the detections of any number of images to one file, in the order given.

    Args:
        format: `coco` (.json), `ilsvrc` (.txt) or `csv` (.csv); by default what the suffix of `path` says.

    Raises:
        ValueError: A suffix that names none of the formats.
    """
    if format is None:
        formats: dict[str, Format] = {Path(name).suffix: format for format, name in FILE_NAMES.items()}
        if Path(path).suffix not in formats:
            raise ValueError(f"{path}: the name must end in one of {', '.join(formats)}, or name the format")
        format = formats[Path(path).suffix]
    writers = {"coco": _save_coco, "ilsvrc": _save_ilsvrc, "csv": _save_csv}
    writers[format](detections, path)


def _save_coco(detections: Sequence[Detections], path: str | Path) -> None:
    """A COCO data set whose annotations are results: `COCO(path)` opens it, `["annotations"]` is what
    `loadRes` takes. Annotation ids start at 1, since 0 means "no match" inside pycocotools."""
    classes = {c.id: c for found in detections for c in found.classes}
    annotations: list[dict[str, Any]] = []
    for found in detections:
        for x1, y1, x2, y2, score, label in _rows(found):
            box = [x1, y1, round(x2 - x1, 3), round(y2 - y1, 3)]
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": found.image_id,
                    "category_id": found.classes[label].id,
                    "bbox": box,
                    "area": round(box[2] * box[3], 3),
                    "iscrowd": 0,
                    "score": score,
                }
            )
    content = {
        "info": {"description": "Detections of googlenet-rcnn; bbox is x, y, width, height in pixels"},
        "images": [
            {
                "id": found.image_id,
                "file_name": found.image_name,
                "width": found.width,
                "height": found.height,
            }
            for found in detections
        ],
        "categories": [
            {"id": c.id, "name": c.name} | ({"wnid": c.wnid} if c.wnid else {}) for c in classes.values()
        ],
        "annotations": annotations,
    }
    with writing(path) as file:
        json.dump(content, file, indent=1)
        file.write("\n")


def check_official(classes: Iterable[DetectionClass]) -> None:
    """Refuse classes that are none of the 200 of ILSVRC detection, whose ids the official format consists of.

    Raises:
        ValueError: Naming the first.
    """
    official = {kind.id: kind for kind in DET200}
    for kind in classes:
        known = official.get(kind.id)
        if known is None or (kind.name != known.name and kind.wnid != known.wnid):
            raise ValueError(
                f"the ILSVRC format is for the 200 classes of ILSVRC detection, and {kind.name!r} with the id"
                f" {kind.id} is none of them; choose coco or csv"
            )


def _save_ilsvrc(detections: Sequence[Detections], path: str | Path) -> None:
    """The official submission text: the image's index, DET id, score, box as inclusive pixel coordinates."""
    for found in detections:
        check_official(found.classes)
    write_detections(
        path,
        image_indices=np.repeat(
            [found.image_id for found in detections], [len(found) for found in detections]
        ),
        det_ids=np.array(
            [found.classes[label].id for found in detections for label in found.labels], np.int64
        ),
        scores=np.concatenate([found.scores for found in detections] or [np.empty(0)]),
        boxes=np.concatenate([found.boxes for found in detections] or [np.empty((0, 4))]),
    )


def _save_csv(detections: Sequence[Detections], path: str | Path) -> None:
    """One line a detection; x2 and y2 are one past the last pixel."""
    with writing(path) as file:
        lines = csv.writer(file, lineterminator="\n")
        lines.writerow(["image", "class_id", "class", "score", "x1", "y1", "x2", "y2"])
        for found in detections:
            for x1, y1, x2, y2, score, label in _rows(found):
                kind = found.classes[label]
                lines.writerow([found.image_name, kind.id, kind.name, score, x1, y1, x2, y2])


def _rows(found: Detections) -> Iterable[tuple[float, float, float, float, float, int]]:
    """x1, y1, x2, y2, score, label of each detection: a thousandth of a pixel, a millionth of a score."""
    for box, score, label in zip(found.boxes, found.scores, found.labels, strict=True):
        x1, y1, x2, y2 = (round(float(value), 3) for value in box)
        yield x1, y1, x2, y2, round(float(score), 6), int(label)
