"""The one form behind every reader: images, their boxes, and which classes are completely labelled in each.

A data set seldom boxes every object: COCO knows 80 classes, an ILSVRC localisation image only its main one.
What is not boxed may still be there, so each image says for which classes every instance has a box. A region
away from all boxes is background for these classes, and unknown for the others.
"""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from detector.images import DAMAGED, exif_orientation, read_image
from detector.taxonomy import DetectionClass
from detector.training.problems import Problems

IGNORE = -1  # the label of a box that is neither an object of the classes nor background


@dataclass(frozen=True, eq=False)
class AnnotatedImage:
    """One training image.

    Attributes:
        name: What it goes by in messages and in files of proposals.
        path: Its file.
        width: In pixels, as `detector.images.read_image` gives it.
        height: Likewise.
        boxes: (G, 4) float32 xyxy, half-open, inside the image.
        labels: (G,) int64, 0..C-1, or `IGNORE`.
        labelled: (C,) bool: every instance of the class has a box in this image.
        drawn: Whether boxes were drawn around objects; if not, a box only contains one somewhere.
        stored_side: If given, the image is seen as if it had been stored at so many pixels squared.
    """

    name: str
    path: Path
    width: int
    height: int
    boxes: np.ndarray
    labels: np.ndarray
    labelled: np.ndarray
    drawn: bool = True
    stored_side: int | None = None

    @cached_property
    def digest(self) -> str:
        """Of the bytes of its file: another picture under its name has another one.

        Raises:
            OSError: No such file.
        """
        with self.path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    def pixels(self) -> np.ndarray:
        """RGB uint8 (height, width, 3).

        Raises:
            OSError: No such file, or not an image that can be read to its end.
        """
        image = read_image(self.path)
        if self.stored_side is None:
            return image
        small = cv2.resize(image, (self.stored_side, self.stored_side), interpolation=cv2.INTER_AREA)
        return cv2.resize(small, (self.width, self.height), interpolation=cv2.INTER_LINEAR)


@dataclass(frozen=True, eq=False)
class TrainingSet:
    """Annotated images and the C classes that their labels count.

    Attributes:
        kept_out: Names, with their suffixes, of annotated images that were left for others, such as to measure on.
    """

    classes: tuple[DetectionClass, ...]
    images: tuple[AnnotatedImage, ...]
    kept_out: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.images)

    def counts(self) -> np.ndarray:
        """(C,) int64: the boxes of each class."""
        counts = np.zeros(len(self.classes), np.int64)
        for image in self.images:
            counts += np.bincount(image.labels[image.labels != IGNORE], minlength=len(counts))
        return counts

    def select(self, chosen: Iterable[int]) -> "TrainingSet":
        """The images at the given positions."""
        return replace(self, images=tuple(self.images[position] for position in chosen))

    def with_small_copies(self, side: int) -> "TrainingSet":
        """The images, and behind them each once more as if it had been stored at `side` x `side` pixels."""
        copies = tuple(replace(image, stored_side=side) for image in self.images)
        return replace(self, images=self.images + copies)


def join(parts: Sequence[TrainingSet]) -> TrainingSet:
    """Several sets of the same classes as one.

    Raises:
        ValueError: None given, or their classes differ.
    """
    if not parts:
        raise ValueError("no training data given")
    if any(part.classes != parts[0].classes for part in parts):
        raise ValueError("the annotation files tell different classes apart; train on those of one kind")
    return TrainingSet(parts[0].classes, tuple(image for part in parts for image in part.images))


def merged(whole: TrainingSet, problems: Problems) -> TrainingSet:
    """The set with one image for every file: where several sources tell of it, it has the boxes of all.

    Left apart, each copy would take what only another has a box for as background. A class is completely labelled if
    one of the sources says so. A box that is there twice is a problem, and one of the two left out.
    """
    of_file: dict[Path, AnnotatedImage] = {}
    for image in whole.images:
        file = image.path.resolve()
        before = of_file.get(file)
        if before is not None:
            image = replace(
                before,
                boxes=np.concatenate((before.boxes, image.boxes)),
                labels=np.concatenate((before.labels, image.labels)),
                labelled=before.labelled | image.labelled,
            )
        of_file[file] = image
    return replace(
        whole, images=tuple(_without_repeats(whole, image, problems) for image in of_file.values())
    )


def _without_repeats(whole: TrainingSet, image: AnnotatedImage, problems: Problems) -> AnnotatedImage:
    """The image with each of its objects once; twice the same box to ignore does no harm."""
    seen: set[tuple[float, ...]] = set()
    kept = np.ones(len(image.labels), np.bool_)
    for g, (box, label) in enumerate(zip(image.boxes.tolist(), image.labels.tolist(), strict=True)):
        if label != IGNORE and (label, *box) in seen:
            kept[g] = False
            shown = " ".join(f"{value:g}" for value in box)
            problems.add(
                "box that is there twice",
                f"{image.name}: {whole.classes[label].name} at {shown} is there twice",
            )
        seen.add((label, *box))
    return image if kept.all() else replace(image, boxes=image.boxes[kept], labels=image.labels[kept])


def image_size(path: Path) -> tuple[int, int]:
    """Width and height of an image as seen on a screen, from the head of its file.

    Raises:
        OSError: No such file, or not an image.
    """
    try:
        with Image.open(path) as image:
            width, height = image.size
            turned = exif_orientation(image) >= 5  # width and height are swapped on the screen
    except FileNotFoundError:
        raise FileNotFoundError(f"{path}: no such file") from None
    except (*DAMAGED, Image.DecompressionBombError) as error:
        raise OSError(f"{path}: cannot be read as an image ({error})") from None
    return (height, width) if turned else (width, height)


def annotated_image(
    name: str,
    path: Path,
    boxes: np.ndarray,
    labels: np.ndarray,
    labelled: np.ndarray,
    problems: Problems,
    *,
    drawn: bool = True,
) -> AnnotatedImage | None:
    """Check one image and its boxes; None if its file is absent or no image.

    A box that reaches over the image's border is cut there (annotation tools are often a pixel off); one
    that is mostly outside, or empty, or not a number, is a problem and left out.
    """
    try:
        width, height = image_size(path)
    except FileNotFoundError:
        problems.add("annotation without image", f"{path}: annotated, but there is no such image")
        return None
    except OSError as error:
        problems.add("unreadable image", str(error))
        return None
    boxes = np.asarray(boxes, np.float64).reshape(-1, 4)
    kept = np.ones(len(boxes), np.bool_)
    for g, (x1, y1, x2, y2) in enumerate(boxes):
        shown = f"{name}: box {x1:g} {y1:g} {x2:g} {y2:g}"
        if not np.isfinite(boxes[g]).all():
            kept[g] = False
            problems.add("box that is not finite numbers", f"{shown} is not made of finite numbers")
        elif x2 <= x1 or y2 <= y1:
            kept[g] = False
            problems.add("zero-area box", f"{shown} has no area")
        elif x1 >= width or y1 >= height or x2 <= 0 or y2 <= 0:
            kept[g] = False
            problems.add("box outside the image", f"{shown} lies outside the image of {width}x{height}")
        elif _share_inside((x1, y1, x2, y2), width, height) < 0.5:
            kept[g] = False
            problems.add(
                "box mostly outside the image",
                f"{shown} lies mostly outside the image of {width}x{height}; COCO's bbox is x, y, width, height",
            )
    limits = np.array([width, height, width, height], np.float64)
    inside = np.clip(boxes[kept], 0, limits).astype(np.float32)
    return AnnotatedImage(
        name, path, width, height, inside, np.asarray(labels, np.int64).reshape(-1)[kept], labelled, drawn
    )


def _share_inside(box: tuple[float, float, float, float], width: int, height: int) -> float:
    """The share of a box's area that lies inside the image."""
    x1, y1, x2, y2 = box
    inside = (min(x2, width) - max(x1, 0)) * (min(y2, height) - max(y1, 0))
    return inside / ((x2 - x1) * (y2 - y1))


def name_empty_classes(training_set: TrainingSet, problems: Problems) -> None:
    """Name the classes that have no box, which nothing can be learnt for."""
    for kind, count in zip(training_set.classes, training_set.counts(), strict=True):
        if count == 0:
            problems.note("class without boxes", f"class {kind.name!r} has no boxes in the annotations")
