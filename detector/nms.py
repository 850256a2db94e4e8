"""Greedy per-class non-maximum suppression that keeps the best detections of an image."""

import torch
from torch import Tensor
from torchvision.ops import nms


def best_detections(
    boxes: Tensor, scores: Tensor, *, iou_threshold: float, score_threshold: float, max_detections: int
) -> tuple[Tensor, Tensor]:
    """Suppress within each class, then keep the `max_detections` highest scores over all classes.

    A detection is suppressed by a kept one of its class with IoU above `iou_threshold`. Ties go to the
    earlier box, then to the earlier class, on every device.

    Args:
        boxes: (N, 4) xyxy.
        scores: (N, C), one column a class.
        score_threshold: Lowest score that counts.

    Returns:
        Which boxes (D,) and which labels (D,), by descending score.
    """
    num_classes = scores.shape[1]
    flat = scores.flatten()  # (N * C), box by box
    order = torch.nonzero(flat >= score_threshold).squeeze(1)
    order = order[flat[order].argsort(descending=True, stable=True)]

    # Suppression only ever looks at higher scores, so the result on the first candidates is final: take as many
    # as are needed to fill the list, seldom more than the first chunk of what can be N * C candidates.
    chunk = 20 * max_detections
    while True:
        candidates = order[:chunk]
        kept = candidates[_survivors(boxes, flat, candidates, num_classes, iou_threshold)][:max_detections]
        if len(kept) == max_detections or chunk >= len(order):
            return kept // num_classes, kept % num_classes
        chunk *= 4


def _survivors(
    boxes: Tensor, flat: Tensor, candidates: Tensor, num_classes: int, iou_threshold: float
) -> Tensor:
    """Positions in `candidates` (sorted by descending score) that survive, ascending."""
    labels = candidates % num_classes
    survivors = [candidates.new_empty(0)]
    for label in labels.unique():
        of_class = torch.nonzero(labels == label).squeeze(1)
        chosen = candidates[of_class]
        survivors.append(of_class[nms(boxes[chosen // num_classes], flat[chosen], iou_threshold)])
    return torch.cat(survivors).sort().values
