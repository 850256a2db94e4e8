"""How many objects do proposals cover? Recall, its areas, and (mean) average best overlap.

    recall = ProposalRecall()
    for image in dataset:
        recall.add(proposals, ground_truth, labels)
    result = recall.result()
    result.recall(0.5)[-1], result.mabo()[-1]

Recall and average recall after Hosang et al., "What makes for effective detection proposals?" (PAMI 2016);
ABO and MABO after Uijlings et al., "Selective Search for Object Recognition" (IJCV 2013), sec. 5.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

NUMBERS = (1, 2, 5, 10, 20, 50, 100, 200, 300, 500, 700, 1000, 1400, 2000, 3000, 5000, 10000)
# IoU thresholds of a curve.
THRESHOLDS = tuple(np.linspace(0.5, 1.0, 51).round(2).tolist())


def best_overlaps(
    proposals: ArrayLike, ground_truth: ArrayLike, numbers: Sequence[int]
) -> NDArray[np.float64]:
    """The best IoU of each object with the first n proposals, for several n.

    Args:
        proposals: (N, 4) xyxy, best-ranked first.
        ground_truth: (G, 4) xyxy.
        numbers: K values of n, each at least 1; an n beyond N means all.

    Returns:
        (G, K), 0 where there are no proposals.
    """
    candidates, objects = _xywh(proposals), _xywh(ground_truth)
    overlaps = np.zeros((len(objects), len(numbers)))
    if overlaps.size and len(candidates):
        from pycocotools import mask  # only for those who measure

        iou = mask.iou(candidates, objects, [0] * len(objects))  # (N, G)
        best = np.maximum.accumulate(iou, axis=0)
        overlaps[:] = best[np.minimum(numbers, len(candidates)) - 1].T
    return overlaps


def _xywh(boxes: ArrayLike) -> NDArray[np.float64]:
    corners = np.asarray(boxes, dtype=np.float64).reshape(-1, 4)
    return np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], axis=1)


@dataclass(frozen=True)
class RecallResult:
    """Best overlaps of all objects, from which every measure follows.

    Every measure is given for each of the K `numbers` of proposals per image, the last being "all of them".
    It is nan where there is no object.
    """

    numbers: NDArray[np.int64]  # (K,) ascending; the last is the largest number that an image has
    overlaps: NDArray[np.float64]  # (G, K) of each object
    labels: NDArray[np.int64]  # (G,) class of each object
    proposals_per_image: NDArray[np.int64]  # (I,)

    @property
    def mean_proposals(self) -> float:
        """Proposals per image; 0 without images."""
        return float(self.proposals_per_image.mean()) if len(self.proposals_per_image) else 0.0

    def recall(self, iou: float = 0.5) -> NDArray[np.float64]:
        """Share of the objects with an overlap of at least `iou`: (K,)."""
        return _mean(self.overlaps >= iou)

    def recall_over_iou(self, thresholds: Sequence[float] = THRESHOLDS) -> NDArray[np.float64]:
        """Recall at each of T thresholds: (T, K)."""
        return np.stack([self.recall(threshold) for threshold in thresholds])

    def average_recall(self) -> NDArray[np.float64]:
        """Twice the area under recall over IoU 0.5 to 1, exactly (Hosang et al., eq. 1): (K,), 0..1."""
        return _mean(2 * np.maximum(self.overlaps - 0.5, 0))

    def area_over_numbers(self, iou: float = 0.5) -> float:
        """Area under recall over the logarithm of the number of proposals, scaled to 0..1."""
        if len(self.numbers) < 2:
            return float(self.recall(iou)[-1])
        position, recall = np.log(self.numbers), self.recall(iou)
        area = (np.diff(position) * (recall[1:] + recall[:-1]) / 2).sum()
        return float(area / (position[-1] - position[0]))

    def abo(self) -> dict[int, NDArray[np.float64]]:
        """Average best overlap of each class that has objects: class -> (K,), by ascending class."""
        return {
            int(label): self.overlaps[self.labels == label].mean(axis=0) for label in np.unique(self.labels)
        }

    def mabo(self) -> NDArray[np.float64]:
        """Mean over the classes of the average best overlap: (K,)."""
        return _mean(np.array(list(self.abo().values())).reshape(-1, len(self.numbers)))


def _mean(values: NDArray[np.float64] | NDArray[np.bool_]) -> NDArray[np.float64]:
    """Mean over the first axis of (n, K), nan without rows (numpy would also warn)."""
    if len(values) == 0:
        return np.full(values.shape[1], np.nan)
    return np.asarray(values.mean(axis=0), dtype=np.float64)


class ProposalRecall:
    """Collects images one by one.

    Args:
        numbers: of proposals per image at which to measure, besides all of them.
    """

    def __init__(self, numbers: Sequence[int] = NUMBERS) -> None:
        if not numbers or min(numbers) < 1:
            raise ValueError(
                f"numbers of proposals are {list(numbers)}: expected at least one, each at least 1"
            )
        self._numbers = sorted(set(numbers))
        self._overlaps: list[NDArray[np.float64]] = []
        self._labels: list[NDArray[np.int64]] = []
        self._counts: list[int] = []

    def add(
        self,
        proposals: ArrayLike,
        ground_truth: ArrayLike,
        labels: ArrayLike,
        ignore: ArrayLike | None = None,
    ) -> None:
        """Add an image.

        Args:
            proposals: (N, 4) xyxy, best-ranked first.
            ground_truth: (G, 4) xyxy in the same pixels.
            labels: (G,) integers.
            ignore: (G,) true for objects that count neither way (groups, difficult ones).
        """
        candidates = np.asarray(proposals).reshape(-1, 4)
        objects = np.asarray(ground_truth).reshape(-1, 4)
        kept_labels = np.asarray(labels, dtype=np.int64).reshape(-1)
        if len(kept_labels) != len(objects):
            raise ValueError(f"{len(objects)} ground-truth boxes with {len(kept_labels)} labels")
        if ignore is not None:
            counted = ~np.asarray(ignore, dtype=bool).reshape(-1)
            objects, kept_labels = objects[counted], kept_labels[counted]
        all_of_them = max(len(candidates), 1)
        self._overlaps.append(best_overlaps(candidates, objects, [*self._numbers, all_of_them]))
        self._labels.append(kept_labels)
        self._counts.append(len(candidates))

    def result(self) -> RecallResult:
        """The measures over all images so far."""
        counts = np.array(self._counts, dtype=np.int64)
        largest = max([1, *self._counts])
        # A number beyond what any image has says the same as "all of them".
        columns = [k for k, number in enumerate(self._numbers) if number < largest]
        overlaps = np.concatenate([np.zeros((0, len(self._numbers) + 1)), *self._overlaps])
        return RecallResult(
            numbers=np.array([*(self._numbers[k] for k in columns), largest], dtype=np.int64),
            overlaps=overlaps[:, [*columns, -1]],
            labels=np.concatenate([np.zeros(0, np.int64), *self._labels]),
            proposals_per_image=counts,
        )
