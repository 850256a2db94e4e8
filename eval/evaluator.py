"""Evaluation inside a training loop: reset, update with a batch, compute over all processes."""

import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from eval.arrays import as_array
from eval.dataset import Category, ImageSet, make_annotations, make_detections
from eval.evaluation import Evaluation
from eval.ilsvrc import DET_CATEGORIES
from eval.protocols import check_rules, evaluate

ImageId = int | str


class DetectionEvaluator:
    """Collects predictions and ground truth image by image and evaluates them together.

        evaluator = DetectionEvaluator()
        for image_id, image, target in validation:
            boxes, scores, labels = detect(image)
            evaluator.update(image_id, boxes=boxes, scores=scores, labels=labels,
                             true_boxes=target["boxes"], true_labels=target["labels"])
        print(evaluator.compute().mean_ap)
        evaluator.reset()

    Boxes are xyxy, half-open, in pixels; labels are positions in `categories` (0..199 for the DET classes).
    Arrays may be numpy's, torch's on any device, or lists. Under torch.distributed every process updates with
    its own images and `compute`, which all of them have to call, returns the result over all; an image that a
    sampler gave to two processes counts once. Raises ValueError for what eval.protocols.evaluate would refuse.
    """

    def __init__(
        self, *, categories: Sequence[Category] = DET_CATEGORIES, protocol: str = "ilsvrc", iou: float = 0.5
    ) -> None:
        check_rules(protocol=protocol, iou=iou)
        self.categories = tuple(categories)
        self.protocol = protocol
        self.iou = iou
        self.reset()

    def reset(self) -> None:
        """Forget all images."""
        self._images: dict[ImageId, dict[str, np.ndarray]] = {}

    def update(
        self,
        image_id: Any,
        *,
        boxes: Any,
        scores: Any,
        labels: Any,
        true_boxes: Any,
        true_labels: Any,
        crowd: Any = None,
        difficult: Any = None,
    ) -> None:
        """Add one image: boxes (N, 4), scores and labels (N,), true_boxes (G, 4), true_labels (G,).

        image_id is a whole number or text, numpy's and torch's too; crowd, difficult (G,) flag boxes that count
        neither way. Raises ValueError for another id, an image that was given before, labels outside the categories,
        shapes that do not go together, numbers that are not finite, and true boxes with x2 < x1 or y2 < y1.
        """
        image_id = _identity(image_id)
        if image_id in self._images:
            raise ValueError(f"image {image_id} was given twice; call reset() between two rounds")
        row: dict[str, npt.NDArray[Any]] = {
            "boxes": _boxes(f"image {image_id}: boxes", boxes),
            "scores": as_array(scores).astype(np.float64).reshape(-1),
            "labels": _labels(f"image {image_id}: labels", labels),
            "true_boxes": _boxes(f"image {image_id}: true_boxes", true_boxes),
            "true_labels": _labels(f"image {image_id}: true_labels", true_labels),
        }
        boxes_there = len(row["true_boxes"])
        for name, flags in (("crowd", crowd), ("difficult", difficult)):
            given = np.zeros(boxes_there) if flags is None else as_array(flags)
            row[name] = given.astype(np.bool_).reshape(-1)
        if not len(row["boxes"]) == len(row["scores"]) == len(row["labels"]):
            raise ValueError(f"image {image_id}: boxes, scores and labels differ in number")
        if {len(row[name]) for name in ("true_labels", "crowd", "difficult")} != {boxes_there}:
            raise ValueError(f"image {image_id}: true boxes, their labels and flags differ in number")
        for name in ("boxes", "scores", "true_boxes"):
            if not np.isfinite(row[name]).all():
                raise ValueError(f"image {image_id}: {name} must be finite numbers")
        if (row["true_boxes"][:, 2:] < row["true_boxes"][:, :2]).any():
            raise ValueError(f"image {image_id}: a true box has x2 < x1 or y2 < y1")
        for name in ("labels", "true_labels"):
            if len(row[name]) and not (row[name].min() >= 0 and row[name].max() < len(self.categories)):
                raise ValueError(f"image {image_id}: {name} must lie in 0..{len(self.categories) - 1}")
        self._images[image_id] = row

    def compute(self) -> Evaluation:
        """The result over the images of all processes. Raises ValueError if there are none."""
        images = _gathered(self._images)
        if not images:
            raise ValueError("no images to evaluate, call update() first")
        ids = sorted(images, key=lambda identity: (isinstance(identity, str), identity))
        rows = [images[identity] for identity in ids]

        def joined(name: str) -> npt.NDArray[Any]:
            return np.concatenate([row[name] for row in rows])

        def owners(name: str) -> npt.NDArray[np.int64]:
            return np.repeat(np.arange(len(rows)), [len(row[name]) for row in rows])

        annotations = make_annotations(
            ImageSet(np.arange(1, len(ids) + 1), tuple(map(str, ids)), made_up=True),
            self.categories,
            image=owners("true_labels"),
            label=joined("true_labels"),
            boxes=joined("true_boxes"),
            crowd=joined("crowd"),
            difficult=joined("difficult"),
            last_pixel=False,
        )
        detections = make_detections(
            image=owners("labels"), label=joined("labels"), scores=joined("scores"), boxes=joined("boxes"),
            last_pixel=False,
        )  # fmt: skip
        return evaluate(detections, annotations, protocol=self.protocol, iou=self.iou)


def _identity(image_id: Any) -> ImageId:
    """An id as Python has it, also where numpy or torch holds it: tensors of one number are not equal keys."""
    if hasattr(image_id, "item") and (array := as_array(image_id)).size == 1:
        image_id = array.item()
    if not isinstance(image_id, ImageId):
        raise ValueError(f"the image id is {image_id!r}, expected a whole number or text")
    return image_id


def _boxes(what: str, values: Any) -> npt.NDArray[np.float64]:
    array = as_array(values).astype(np.float64)
    if array.size and array.shape[-1:] != (4,):  # reshaping would make boxes of whatever there is
        raise ValueError(f"{what} have the shape {array.shape}, expected (N, 4)")
    return array.reshape(-1, 4)


def _labels(what: str, values: Any) -> npt.NDArray[np.int64]:
    array = as_array(values).astype(np.float64).reshape(-1)
    if not (np.isfinite(array).all() and (array == np.floor(array)).all()):
        raise ValueError(f"{what} must be whole numbers")
    return array.astype(np.int64)


def _gathered(own: dict[ImageId, dict[str, np.ndarray]]) -> dict[ImageId, dict[str, np.ndarray]]:
    """The images of all torch.distributed processes, of the lowest rank where several have one."""
    torch = sys.modules.get("torch")  # whoever runs distributed has imported it
    if torch is None or not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return own
    parts: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(parts, own)
    together: dict[ImageId, dict[str, np.ndarray]] = {}
    for part in reversed(parts):
        together.update(part)
    return together
