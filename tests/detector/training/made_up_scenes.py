"""Small annotated scenes: bright squares (class 1) and discs (class 2) on noise; and sets without files."""

from pathlib import Path

import cv2
import numpy as np

from detector.taxonomy import DetectionClass
from detector.training.training_set import AnnotatedImage, TrainingSet


def scene(seed: int) -> tuple[np.ndarray, list[tuple[int, list[float]]]]:
    """An RGB image (96, 128, 3) with one red square or green disc, and its (category, bbox) rows."""
    generator = np.random.default_rng(seed)
    image = generator.integers(60, 120, (96, 128, 3), dtype=np.uint8)
    side = int(generator.integers(28, 48))
    x, y = int(generator.integers(4, 124 - side)), int(generator.integers(4, 92 - side))
    if seed % 2:
        image[y : y + side, x : x + side] = (230, 20, 20)
    else:
        cv2.circle(image, (x + side // 2, y + side // 2), side // 2, (20, 220, 20), -1)
    return image, [(1 if seed % 2 else 2, [x, y, side, side])]


def made_up_set(
    boxes: list[list[list[float]]], labels: list[list[int]], labelled: list[list[bool]]
) -> TrainingSet:
    """Images of 100x100 that have no files, with two classes."""
    images = tuple(
        AnnotatedImage(
            f"{k}.png", Path(f"{k}.png"), 100, 100,
            np.array(b, np.float32).reshape(-1, 4), np.array(m, np.int64), np.array(c),
        )
        for k, (b, m, c) in enumerate(zip(boxes, labels, labelled, strict=True))
    )  # fmt: skip
    return TrainingSet((DetectionClass(1, "square"), DetectionClass(2, "disc")), images)
