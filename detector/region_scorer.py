"""What is in each box of an image: crop, warp, network, in batches."""

from collections.abc import Callable
from typing import Protocol

import numpy as np
import torch

from detector.region_classifier import RegionClassifier
from detector.region_fit import FitHead, ScoresAndFit, joint_fit
from detector.regions import check_context, warp_regions
from detector.runtime import Precision, RuntimeName, choose_runtime
from detector.stage_timer import StageTimer
from detector.taxonomy import DetectionClass

SCORE_STEP = 2.0**-20  # about a millionth
HIGHEST_SCORE = 1.01  # of a class: the sum of probabilities that bfloat16 has rounded may exceed 1 a little
_REGIONS_ON_CPU = 4  # at a time: what stays in its caches
_REGIONS_ON_GPU = 128  # what keeps it busy

# Called with the numbers of regions done and to do
Progress = Callable[[int, int], None]


class Scorer(Protocol):
    """Anything that gives the boxes of an image class scores: one network, or an ensemble of them.

    Attributes:
        classes: Of the columns of the scores.
        tells_fit: Whether it has an opinion on the fit of boxes, which changes their factors (`detector.region_fit`).
    """

    classes: tuple[DetectionClass, ...]
    tells_fit: bool

    def __call__(
        self,
        image: np.ndarray,
        boxes: np.ndarray,
        /,
        *,
        factors: np.ndarray | None,
        score_threshold: float,
        timer: StageTimer,
        progress: Progress,
    ) -> np.ndarray:
        """RGB uint8 (H, W, 3), boxes (N, 4) and what is known of their fit (N,) -> scores (N, C) float32.

        Scores below `score_threshold` do not count and may be others, as long as they are below it.
        """
        ...


def no_progress(done: int, total: int) -> None:
    """For those who do not look."""


class RegionScorer:
    """One network pass for every box.

    Args:
        network: What is in a region, and how it wants its regions.
        fit: What the network's last map says of a box's fit; counts only beside factors.
        context: Pixels of surroundings on each side of a region; None for what the network was trained with.
        batch_size: Regions the network sees at a time; None for what suits the device.
        runtime: How the network runs, see `detector.runtime`.
        device: Where the network runs.
        precision: Of its arithmetic, likewise.

    Raises:
        ValueError: A number that makes no sense, or a runtime that is not there or does not suit the device.
    """

    def __init__(
        self,
        network: RegionClassifier,
        *,
        fit: FitHead | None = None,
        context: int | None = None,
        batch_size: int | None = None,
        runtime: RuntimeName = "auto",
        device: str | torch.device = "cpu",
        precision: Precision = "float32",
    ) -> None:
        if batch_size is None:
            batch_size = _REGIONS_ON_CPU if torch.device(device).type == "cpu" else _REGIONS_ON_GPU
        if batch_size < 1:
            raise ValueError(f"batch_size is {batch_size}, but must be at least 1")
        self.classes = network.classes
        self.tells_fit = fit is not None
        self.batch_size = batch_size
        self._preprocessing = network.preprocessing
        self._context = self._preprocessing.context if context is None else context
        check_context(self._context, self._preprocessing.size)
        self._run = choose_runtime(
            network if fit is None else ScoresAndFit(network, fit),
            runtime,
            device,
            size=self._preprocessing.size,
            precision=precision,
        )

    def __call__(
        self,
        image: np.ndarray,
        boxes: np.ndarray,
        /,
        *,
        factors: np.ndarray | None = None,
        score_threshold: float = 0.0,
        timer: StageTimer | None = None,
        progress: Progress = no_progress,
    ) -> np.ndarray:
        """Class scores (N, C) float32 of the boxes (N, 4) of an image, RGB uint8 (H, W, 3), times factors (N,).

        Where the network tells of the fit of boxes, the factors are the `joint_fit` of those given and of that.
        """
        scores, fit = self.look(image, boxes, timer=timer or StageTimer(), progress=progress)
        if factors is None:
            return scores
        return scores * joint_fit(factors, [] if fit is None else [fit])[:, None]

    def look(
        self,
        image: np.ndarray,
        boxes: np.ndarray,
        /,
        *,
        timer: StageTimer,
        progress: Progress = no_progress,
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """Class scores (N, C) float32 of the boxes (N, 4) of an image, and the logits (N,) of their fit, if it tells.

        The last bits of a convolution depend on batch size, threads and device. Both are therefore rounded
        to `SCORE_STEP`, so that regions that tie here tie everywhere, and NMS decides by their order.
        """
        seen = np.empty((len(boxes), len(self.classes) + self.tells_fit), np.float32)
        progress(0, len(boxes))
        for start in range(0, len(boxes), self.batch_size):
            batch = slice(start, start + self.batch_size)
            with timer.stage("crop"):
                regions = warp_regions(
                    image,
                    boxes[batch],
                    size=self._preprocessing.size,
                    context=self._context,
                    crop=self._preprocessing.crop,
                    fill=self._preprocessing.mean_colour(),
                )
            with timer.stage("network"):
                seen[batch] = self._run(regions)
            progress(min(batch.stop, len(boxes)), len(boxes))
        seen = np.rint(seen / SCORE_STEP) * np.float32(SCORE_STEP)
        return (seen[:, :-1], seen[:, -1]) if self.tells_fit else (seen, None)
