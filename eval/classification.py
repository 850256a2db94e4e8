"""Classification accuracy: is the right class the best guess (top-1), or among the best five (top-5)?"""

import sys
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from eval.arrays import as_array


class Accuracy(NamedTuple):
    """Shares in [0, 1] of `images` whose class is the best, or among the five best guesses."""

    top1: float
    top5: float
    images: int


class TopKAccuracy:
    """Top-1 and top-5 accuracy inside a loop: reset, update with scores of a batch, compute.

    A class counts as guessed before another one only if its score is higher, or equal with a lower index, so
    that constant scores are not all right. Under torch.distributed `compute` sums over the processes.
    """

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forget all images."""
        self._counts = np.zeros(3, np.int64)  # right first, right among five, images

    def update(self, scores: Any, labels: Any) -> None:
        """Add a batch: scores (B, C) of any scale, labels (B,) in 0..C-1; numpy, torch or lists.

        Raises ValueError for other shapes, labels out of range, and scores that are NaN.
        """
        values, wanted = as_array(scores), as_array(labels).astype(np.int64)
        if values.ndim != 2 or wanted.shape != values.shape[:1]:
            raise ValueError(f"scores {values.shape} and labels {wanted.shape}, expected (B, C) and (B,)")
        if len(wanted) and not (wanted.min() >= 0 and wanted.max() < values.shape[1]):
            raise ValueError(
                f"labels run from {wanted.min()} to {wanted.max()}, expected 0 to {values.shape[1] - 1}"
            )
        if np.isnan(values).any():
            raise ValueError("a score is NaN")
        rank = ranks(values, wanted)
        self._counts += [int((rank < 1).sum()), int((rank < 5).sum()), len(rank)]

    def compute(self) -> Accuracy:
        """Accuracy over all images so far, of all processes. Raises ValueError if there are none."""
        counts = self._counts.copy()
        torch = sys.modules.get("torch")
        if torch is not None and torch.distributed.is_available() and torch.distributed.is_initialized():
            parts: list[Any] = [None] * torch.distributed.get_world_size()
            torch.distributed.all_gather_object(parts, counts)
            counts = np.sum(parts, axis=0)
        first, five, images = counts.tolist()
        if not images:
            raise ValueError("no images to evaluate, call update() first")
        return Accuracy(first / images, five / images, images)


def ranks(scores: npt.NDArray[Any], labels: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """How many classes are guessed before the right one, (B,), from scores (B, C) and labels (B,)."""
    own = scores[np.arange(len(labels)), labels][:, None]
    earlier = np.arange(scores.shape[1])[None] < labels[:, None]
    return ((scores > own) | ((scores == own) & earlier)).sum(axis=1)
