"""R-CNN as the GoogLeNet team used it: proposals, one network pass a region, NMS; no box regression.

Szegedy et al., *Going deeper with convolutions*, section 8; Girshick et al., *Rich feature hierarchies for
accurate object detection and semantic segmentation* (CVPR 2014).
"""

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from detector.detections import Detections
from detector.nms import best_detections
from detector.region_classifier import RegionClassifier
from detector.regions import warp_regions
from detector.stage_timer import StageTimer

SCORE_STEP = 2.0**-20  # about a millionth


class Proposals(Protocol):
    """Anything that says where objects could be, such as `proposals.SelectiveSearch`."""

    def __call__(self, image: np.ndarray, /) -> np.ndarray:
        """RGB uint8 (H, W, 3) -> boxes (N, 4) xyxy, half-open, best first."""
        ...


class RCNN:
    """Image in, detections out.

    Args:
        proposals: Where objects could be.
        network: What is in a region.
        labels: The labels to report, None for all.
        context: Pixels of surroundings on each side of a warped region.
        nms_iou: A detection goes if a better one of its class overlaps it by more than this IoU.
        score_threshold: Lowest score reported; 0 where an average precision is to be measured.
        max_detections: Most detections reported for an image.
        batch_size: Regions the network sees at a time.
        device: Where the network runs.
    """

    def __init__(
        self,
        *,
        proposals: Proposals,
        network: RegionClassifier,
        labels: Sequence[int] | None = None,
        context: int = 16,
        nms_iou: float = 0.3,
        score_threshold: float = 0.5,
        max_detections: int = 100,
        batch_size: int = 16,
        device: str | torch.device = "cpu",
    ) -> None:
        for name, value in [("max_detections", max_detections), ("batch_size", batch_size)]:
            if value < 1:
                raise ValueError(f"{name} is {value}, but must be at least 1")
        self.proposals = proposals
        self.device = torch.device(device)
        # channels-last is how the CPU's and GPU's convolution kernels like their input best
        self.network = network.eval().to(self.device).to(memory_format=torch.channels_last)
        self.labels = None if labels is None else sorted(set(labels))
        self.context = context
        self.nms_iou = nms_iou
        self.score_threshold = score_threshold
        self.max_detections = max_detections
        self.batch_size = batch_size
        self.timer = StageTimer()

    def __call__(
        self,
        image: np.ndarray,
        *,
        boxes: np.ndarray | None = None,
        progress: Callable[[int, int], None] = lambda done, total: None,
    ) -> Detections:
        """Detect the objects of one image.

        Args:
            image: RGB uint8 (H, W, 3), see `detector.images.read_image`.
            boxes: Proposals (N, 4) float32 to score, instead of asking for some.
            progress: Called with the numbers of regions done and to do, after every batch.
        """
        if boxes is None:
            with self.timer.stage("proposals"):
                boxes = self.proposals(image)
        scores = self.score_regions(image, boxes, progress=progress)
        with self.timer.stage("NMS"):
            reported = torch.arange(scores.shape[1]) if self.labels is None else torch.tensor(self.labels)
            chosen, column = best_detections(
                torch.from_numpy(boxes),
                scores[:, reported],
                iou_threshold=self.nms_iou,
                score_threshold=self.score_threshold,
                max_detections=self.max_detections,
            )
            labels = reported[column]
        self.timer.count("boxes", len(boxes))
        self.timer.count("detections", len(chosen))
        return Detections(
            boxes=boxes[chosen.numpy()],
            scores=scores[chosen, labels].numpy(),
            labels=labels.numpy(),
            classes=self.network.classes,
            width=image.shape[1],
            height=image.shape[0],
        )

    @torch.inference_mode()
    def score_regions(
        self,
        image: np.ndarray,
        boxes: np.ndarray,
        *,
        progress: Callable[[int, int], None] = lambda done, total: None,
    ) -> Tensor:
        """Class scores (N, C) of the boxes (N, 4) of an image, on the CPU.

        The last bits of a convolution depend on batch size, threads and device. Scores are therefore rounded
        to `SCORE_STEP`, so that regions that tie here tie everywhere, and NMS decides by their order.
        """
        preprocessing = self.network.preprocessing
        scores = torch.empty(len(boxes), len(self.network.classes))
        progress(0, len(boxes))
        for start in range(0, len(boxes), self.batch_size):
            batch = slice(start, start + self.batch_size)
            with self.timer.stage("crop"):
                regions = warp_regions(
                    image,
                    boxes[batch],
                    size=preprocessing.size,
                    context=self.context,
                    fill=preprocessing.mean_colour(),
                )
            with self.timer.stage("network"):
                pixels = torch.from_numpy(regions).to(self.device)  # (R, S, S, 3)
                scores[batch] = self.network(pixels.permute(0, 3, 1, 2)).float().cpu()
            progress(min(batch.stop, len(boxes)), len(boxes))
        return (scores / SCORE_STEP).round() * SCORE_STEP
