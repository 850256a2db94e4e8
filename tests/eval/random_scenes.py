"""Random annotations and detections for the evaluator's tests: small images, many ties, many near misses."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from eval.dataset import Annotations, Category, Detections, ImageSet, make_annotations, make_detections
from eval.evaluator import DetectionEvaluator


@dataclass(frozen=True)
class Scene:
    """A random evaluation problem."""

    annotations: Annotations
    detections: Detections


def random_scene(
    seed: int,
    *,
    images: int = 5,
    classes: int = 3,
    boxes: int = 20,
    detections: int = 60,
    last_pixel: bool = True,
) -> Scene:
    """Integer boxes (so that overlaps are often equal), scores of few values, detections near the boxes."""
    rng = np.random.default_rng(seed)

    def corners(count: int) -> np.ndarray:
        low = rng.integers(0, 30, (count, 2))
        return np.concatenate((low, low + rng.integers(1, 30, (count, 2))), axis=1).astype(float)

    true_boxes = corners(boxes)
    image, label = rng.integers(0, images, boxes), rng.integers(0, classes, boxes)
    annotations = make_annotations(
        ImageSet(
            np.sort(rng.choice(1000, images, replace=False)), tuple(f"image_{i}" for i in range(images))
        ),
        [Category(k + 1, f"class_{k}") for k in range(classes)],
        image=image,
        label=label,
        boxes=true_boxes,
        last_pixel=last_pixel,
        crowd=rng.random(boxes) < 0.15,
        difficult=rng.random(boxes) < 0.2,
    )
    pixels = corners(detections)
    owner_image, owner_label = rng.integers(0, images, detections), rng.integers(0, classes, detections)
    if boxes:
        near = rng.random(detections) < 0.7
        source = rng.integers(0, boxes, detections)
        shift = rng.integers(-3, 4, (detections, 4))
        shifted = true_boxes[source] + shift
        shifted[:, 2:] = np.maximum(shifted[:, 2:], shifted[:, :2] + 1)
        pixels[near], owner_image[near] = shifted[near], image[source][near]
        same = near & (rng.random(detections) < 0.9)
        owner_label[same] = label[source][same]
    scores = rng.choice([-0.5, 0.0, -0.0, 0.1, 0.25, 0.5, 0.9, *rng.random(3)], detections)
    return Scene(
        annotations,
        make_detections(
            image=owner_image, label=owner_label, scores=scores, boxes=pixels, last_pixel=last_pixel
        ),
    )


def feed(
    evaluator: DetectionEvaluator,
    scene: Scene,
    images: range,
    wrap: Callable[[np.ndarray], Any] = np.asarray,
) -> None:
    """Give the evaluator some images of a scene, each array handed over as `wrap` makes it."""
    truth, found = scene.annotations, scene.detections
    for image in images:
        mine, theirs = found.image == image, truth.image == image
        evaluator.update(
            image,
            boxes=wrap(found.boxes[mine]),
            scores=wrap(found.scores[mine]),
            labels=wrap(found.label[mine]),
            true_boxes=wrap(truth.boxes[theirs]),
            true_labels=wrap(truth.label[theirs]),
            crowd=wrap(truth.crowd[theirs]),
            difficult=wrap(truth.difficult[theirs]),
        )
