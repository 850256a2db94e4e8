"""What to do about boxes that repeat each other: suppression, votes of what it suppresses, an order with repeats last.

The suppression is greedy, within each class, hard or soft, and keeps the best detections of an image.

`torchvision.ops.nms` does one class, knows no limit on what is kept, and importing it takes as long as importing
PyTorch itself: half of the wait before a command does anything.
"""

import heapq
import math

import numpy as np

from eval.compiled import compiled


def best_detections(
    boxes: np.ndarray,
    scores: np.ndarray,
    *,
    iou_threshold: float,
    score_threshold: float,
    max_detections: int,
    sigma: float | None = None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Suppress within each class, then keep the `max_detections` highest scores over all classes.

    A detection is suppressed by a kept one of its class with IoU above `iou_threshold`. With `sigma`, one that overlaps
    it less lives on with a lower score, times exp(-IoU^2 / sigma), and is kept if this is its turn: Bodla et al.,
    *Soft-NMS: improving object detection with one line of code* (ICCV 2017), equation 4. Ties go to the earlier box,
    then to the earlier class.

    Args:
        boxes: (N, 4) float32 xyxy.
        scores: (N, C) float32, one column a class.
        score_threshold: Lowest score that counts, before suppression and after.
        sigma: Above 0; None leaves the scores as they are.

    Returns:
        Which boxes (D,), which labels (D,) and what is left of their scores (D,) float32, by descending score.
    """
    flat = scores.reshape(-1)  # (N * C), box by box
    candidates = np.flatnonzero(flat >= score_threshold)
    candidates = candidates[np.argsort(-flat[candidates], kind="stable")]
    rows, labels = np.divmod(candidates, max(scores.shape[1], 1))
    kept, left = _survivors(
        np.ascontiguousarray(boxes, np.float32),
        rows,
        labels,
        flat[candidates].astype(np.float64),
        iou_threshold,
        math.inf if sigma is None else sigma,
        score_threshold,
        max_detections,
    )
    return rows[kept], labels[kept], left.astype(np.float32)


def voted_boxes(
    boxes: np.ndarray,
    scores: np.ndarray,
    chosen: np.ndarray,
    labels: np.ndarray,
    *,
    iou_threshold: float,
    score_threshold: float,
) -> np.ndarray:
    """The boxes (D, 4) of detections by the vote of all boxes around them: the mean, weighted by the class's score.

    Box voting as of Gidaris and Komodakis, *Object detection via a multi-region & semantic segmentation-aware CNN
    model* (ICCV 2015), section 5: what is suppressed tells where the object ends as well. Nothing is learnt.

    Args:
        boxes: (N, 4) float32 xyxy.
        scores: (N, C) float32, one column a class.
        chosen: Which boxes (D,) are detected, see `best_detections`.
        labels: As what (D,).
        iou_threshold: Least IoU with the detected box of a box that has a vote.
        score_threshold: Least score of its own.
    """
    votes = np.where(scores >= score_threshold, scores, 0)[:, labels].T  # (D, N)
    return _weighted_means(np.ascontiguousarray(boxes, np.float32), chosen, votes, iou_threshold)


def diverse_order(boxes: np.ndarray, worth: np.ndarray) -> np.ndarray:
    """Positions (N,) of boxes (N, 4), those most worth a look first.

    A box that nearly repeats a better one tells little more, but may fit a little better: its worth (N,), at least 0,
    counts times the root of 1 less its largest IoU with a better one. Ties go to the better, then to the earlier.
    """
    best_first = np.argsort(-worth, kind="stable")
    repeated = _repeated(np.ascontiguousarray(boxes[best_first], np.float32))
    left = worth[best_first] * np.sqrt(np.maximum(1 - repeated, 0))
    return np.asarray(best_first[np.argsort(-left, kind="stable")])


@compiled
def _repeated(boxes: np.ndarray) -> np.ndarray:
    """Of each of the boxes (N, 4) the largest IoU (N,) with an earlier one."""
    largest = np.zeros(len(boxes), np.float32)
    for box in range(len(boxes)):
        for earlier in range(box):
            largest[box] = max(largest[box], _iou(boxes[earlier], boxes[box]))
    return largest


@compiled
def _survivors(
    boxes: np.ndarray,
    rows: np.ndarray,
    labels: np.ndarray,
    scores: np.ndarray,
    iou_threshold: float,
    sigma: float,
    score_threshold: float,
    most: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Positions (D,) of the first `most` candidates (by descending score) to be kept, and their scores then (D,).

    A score only falls, so the highest is asked what those kept since have left of it: if all, it is the next, and
    otherwise it queues again.
    """
    kept, left = np.empty(min(most, len(rows)), np.int64), np.empty(min(most, len(rows)), np.float64)
    count = 0
    asked = np.zeros(len(rows), np.int64)  # how many of the kept each score has been lowered for
    queue = [(-scores[candidate], candidate) for candidate in range(len(rows))]  # sorted, so a heap
    while count < len(kept) and len(queue) > 0:
        before, candidate = heapq.heappop(queue)
        now, survives = before, True
        for better in kept[asked[candidate] : count]:
            if labels[better] == labels[candidate]:
                overlap = _iou(boxes[rows[better]], boxes[rows[candidate]])
                if overlap > iou_threshold:
                    survives = False
                now *= math.exp(-(np.float64(overlap) ** 2) / sigma)
        asked[candidate] = count
        if survives and now == before:
            kept[count], left[count] = candidate, -now
            count += 1
        elif survives and -now >= score_threshold:
            heapq.heappush(queue, (now, candidate))
    return kept[:count], left[:count]


@compiled
def _weighted_means(
    boxes: np.ndarray, chosen: np.ndarray, votes: np.ndarray, iou_threshold: float
) -> np.ndarray:
    """Of each chosen box (D,) the mean (D, 4) of those around it, by its votes (D, N); without any its own."""
    means = boxes[chosen]
    for detection, box in enumerate(chosen):
        total, sum_of_weights = np.zeros(4, np.float64), 0.0
        for voter, weight in enumerate(votes[detection]):
            if weight > 0 and _iou(boxes[box], boxes[voter]) >= iou_threshold:
                total += boxes[voter] * np.float64(weight)
                sum_of_weights += weight
        if sum_of_weights > 0:
            means[detection] = total / sum_of_weights
    return means


@compiled
def _iou(a: np.ndarray, b: np.ndarray) -> np.float32:
    """Intersection over union of two boxes (4,), in float32 throughout; 0 of two that are empty."""
    width = max(min(a[2], b[2]) - max(a[0], b[0]), np.float32(0))
    height = max(min(a[3], b[3]) - max(a[1], b[1]), np.float32(0))
    common = width * height
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - common
    return common / union if union > 0 else np.float32(0)
