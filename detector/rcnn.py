"""R-CNN as the GoogLeNet team used it: proposals, one network pass a region, NMS; no box regression.

Szegedy et al., *Going deeper with convolutions*, section 8; Girshick et al., *Rich feature hierarchies for
accurate object detection and semantic segmentation* (CVPR 2014).
"""

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from detector.detections import Detections
from detector.nms import best_detections, voted_boxes
from detector.objectness import Chooser
from detector.region_fit import highest_fit
from detector.region_scorer import HIGHEST_SCORE, Progress, Scorer, no_progress
from detector.stage_timer import StageTimer


class Proposals(Protocol):
    """Anything that says where objects could be, such as `proposals.SelectiveSearch`."""

    def __call__(self, image: np.ndarray, /) -> np.ndarray:
        """RGB uint8 (H, W, 3) -> boxes (N, 4) xyxy, half-open, best first."""
        ...


class RCNN:
    """Image in, detections out.

    Args:
        proposals: Where objects could be.
        scorer: What is in each box: a `RegionScorer`, or an ensemble of them.
        choose: Which of the boxes to look at, and what their scores are multiplied with; by default the first, and
            nothing.
        max_boxes: Most boxes to look at in an image; None looks at all.
        early_stop: Leave out boxes whose factor is below `score_threshold`, even if raised by the most that a scorer
            may add that tells of the fit: scores are at most 1, so nothing that would be reported is missed. Likewise
            those whose factor is below `min_objectness`. An ensemble stops at what its members so far leave no chance.
        min_objectness: Lowest factor of a box that is worth a look where low scores count, too.
        labels: The labels to report, None for all.
        nms_iou: A detection goes if a better one of its class overlaps it by more than this IoU.
        soft_nms: If a better one overlaps it less, its score is multiplied with exp(-IoU^2 / soft_nms), see
            `best_detections`. None leaves it as it is, as the paper does (with a `nms_iou` of 0.3).
        box_voting: Report the mean of all boxes that overlap a detection by this IoU or more, weighted by their scores
            of its class, see `voted_boxes`; those below `score_threshold` have no vote. None reports proposals as they
            are, as the paper does.
        score_threshold: Lowest score reported; 0 where an average precision is to be measured.
        max_detections: Most detections reported for an image.
    """

    def __init__(
        self,
        *,
        proposals: Proposals,
        scorer: Scorer,
        choose: Chooser | None = None,
        max_boxes: int | None = None,
        early_stop: bool = True,
        min_objectness: float = 0.0,
        labels: Sequence[int] | None = None,
        nms_iou: float = 0.5,
        soft_nms: float | None = 0.15,
        box_voting: float | None = None,
        score_threshold: float = 0.4,
        max_detections: int = 100,
    ) -> None:
        if max_boxes is not None and max_boxes < 1:
            raise ValueError(f"max_boxes is {max_boxes}, but must be at least 1")
        if max_detections < 1:
            raise ValueError(f"max_detections is {max_detections}, but must be at least 1")
        if not 0 <= min_objectness <= 1:
            raise ValueError(f"min_objectness is {min_objectness}, but must be from 0 to 1")
        for name, value in (("score_threshold", score_threshold), ("nms_iou", nms_iou)):
            if not 0 <= value <= 1:  # NaN fails, too
                raise ValueError(f"{name} is {value:g}, but must be from 0 to 1")
        if labels is not None and not len(labels):
            raise ValueError("no classes to report: name at least one, or leave it to all")
        if soft_nms is not None and not 0 < soft_nms < float("inf"):
            raise ValueError(f"soft_nms is {soft_nms}, but must be above 0, or null")
        if box_voting is not None and not 0 < box_voting <= 1:
            raise ValueError(f"box_voting is {box_voting}, but must be above 0 and at most 1, or null")
        self.proposals = proposals
        self.scorer = scorer
        self.choose = choose
        self.max_boxes = max_boxes
        self.early_stop = early_stop
        self.min_objectness = min_objectness
        self.labels = None if labels is None else sorted(set(labels))
        self.nms_iou = nms_iou
        self.soft_nms = soft_nms
        self.box_voting = box_voting
        self.score_threshold = score_threshold
        self.max_detections = max_detections
        self.timer = StageTimer()

    def propose(self, image: np.ndarray) -> np.ndarray:
        """Proposals (N, 4) of an image; from any thread, also while another image is scored."""
        with self.timer.stage("proposals"):
            return self.proposals(image)

    def __call__(
        self,
        image: np.ndarray,
        *,
        boxes: np.ndarray | None = None,
        progress: Progress = no_progress,
    ) -> Detections:
        """Detect the objects of one image.

        Args:
            image: RGB uint8 (H, W, 3), see `detector.images.read_image`.
            boxes: Proposals (N, 4) float32, best first, instead of asking for some.
            progress: Called with the numbers of regions done and to do, after every batch.

        Raises:
            TypeError, ValueError: The image is something else.
        """
        if not isinstance(image, np.ndarray):
            raise TypeError(
                f"image is a {type(image).__name__}, expected pixels as of detector.images.read_image"
            )
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or image.size == 0:
            raise ValueError(f"image is {image.dtype} {image.shape}: expected RGB uint8 (height, width, 3)")
        if boxes is None:
            boxes = self.propose(image)
        factors = None
        if self.choose is not None:
            with self.timer.stage("choice of boxes"):
                boxes, factors = self.choose(image, boxes)
                if self.early_stop:
                    most = highest_fit(factors) if self.scorer.tells_fit else factors
                    needed = (most * HIGHEST_SCORE >= self.score_threshold) & (factors >= self.min_objectness)
                    boxes, factors = boxes[needed], factors[needed]
        boxes, factors = boxes[: self.max_boxes], None if factors is None else factors[: self.max_boxes]
        scores = self.scorer(
            image,
            boxes,
            factors=factors,
            score_threshold=self.score_threshold if self.early_stop else 0.0,
            timer=self.timer,
            progress=progress,
        )
        with self.timer.stage("NMS"):
            reported = np.arange(scores.shape[1]) if self.labels is None else np.array(self.labels)
            chosen, column, left = best_detections(
                boxes,
                scores[:, reported],
                iou_threshold=self.nms_iou,
                sigma=self.soft_nms,
                score_threshold=self.score_threshold,
                max_detections=self.max_detections,
            )
            labels = reported[column]
            found = boxes[chosen]
            if self.box_voting is not None:
                found = voted_boxes(
                    boxes, scores, chosen, labels,
                    iou_threshold=self.box_voting, score_threshold=self.score_threshold,
                )  # fmt: skip
        self.timer.count("boxes", len(boxes))
        self.timer.count("detections", len(chosen))
        return Detections(
            boxes=found,
            scores=left,
            labels=labels,
            classes=self.scorer.classes,
            width=image.shape[1],
            height=image.shape[0],
        )
