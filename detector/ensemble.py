"""Several networks that agree on the score of a region: the mean over the members, before NMS.

Szegedy et al., *Going deeper with convolutions*, section 8: an ensemble of six GoogLeNets classifies every region.
"""

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from detector.nms import diverse_order
from detector.region_fit import highest_fit, joint_fit
from detector.region_scorer import HIGHEST_SCORE, Progress, no_progress
from detector.stage_timer import StageTimer
from detector.taxonomy import DetectionClass


class Member(Protocol):
    """Anything that looks at the boxes of an image, such as `RegionScorer`."""

    classes: tuple[DetectionClass, ...]
    tells_fit: bool

    def look(
        self, image: np.ndarray, boxes: np.ndarray, /, *, timer: StageTimer, progress: Progress
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """RGB uint8 (H, W, 3), boxes (N, 4) -> scores (N, C) float32, logits (N,) of their fit or None."""
        ...


class Ensemble:
    """Members whose scores are averaged.

    Args:
        members: Any number, with the same classes; each may look at a box in its own way. What some tell of the fit of
            boxes (`detector.region_fit`) counts alike.
        weights: Of the members in the mean of the scores; None weighs them alike.
        cascade: How many regions of an image all members look at: those with the highest class scores of the
            first member, repeats later (`detector.nms.diverse_order`). Its word on the others is final. None lets
            everybody look at everything.

    Raises:
        ValueError: No member, members with other classes, weights that are no weights, a cascade below 1.
    """

    def __init__(
        self,
        members: Sequence[Member],
        *,
        weights: Sequence[float] | None = None,
        cascade: int | None = None,
    ) -> None:
        if not members:
            raise ValueError("an ensemble needs at least one member")
        for number, member in enumerate(members, start=1):
            if member.classes != members[0].classes:
                raise ValueError(f"member {number} of the ensemble has other classes than the first")
        weights = [1.0] * len(members) if weights is None else list(weights)
        if len(weights) != len(members):
            raise ValueError(f"there are {len(weights)} member weights for {len(members)} members")
        if min(weights) < 0 or not 0 < sum(weights) < float("inf"):
            raise ValueError(f"member weights are {weights}, but must be 0 or more, with a sum above 0")
        if cascade is not None and cascade < 1:
            raise ValueError(f"cascade is {cascade}, but must be at least 1")
        self.members = list(members)
        self.weights = [weight / sum(weights) for weight in weights]
        self.cascade = cascade
        self.classes = members[0].classes
        self.tells_fit = any(member.tells_fit for member in members)

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
        """Mean class scores (N, C) float32 of the boxes (N, 4) of an image, RGB uint8 (H, W, 3), times factors (N,).

        Where members tell of the fit of boxes, the factors of what they have seen are the `joint_fit` of those given
        and of what these tell. A region is left alone as soon as its score cannot reach `score_threshold`, whatever
        those may say who have not looked yet; these count as 0 then, so it stays below the threshold.
        """
        timer = timer or StageTimer()
        first, *others = self.members
        seen_by_all = len(boxes) if self.cascade is None else min(self.cascade, len(boxes))
        done, ahead = 0, len(boxes) + len(others) * seen_by_all

        def look(member: Member, rows: np.ndarray, ahead: int) -> tuple[np.ndarray, list[np.ndarray]]:
            scores, fit = member.look(
                image, boxes[rows], timer=timer, progress=lambda now, _: progress(done + now, done + ahead)
            )
            return scores, [] if fit is None else [fit]

        def factor(rows: np.ndarray, opinions: list[np.ndarray]) -> np.ndarray:
            return np.ones(len(rows)) if factors is None else joint_fit(factors[rows], opinions)

        rows = np.arange(len(boxes))
        seen, opinions = look(first, rows, ahead)
        scores = (seen * factor(rows, opinions)[:, None]).astype(np.float32)
        done = len(boxes)
        rows = diverse_order(boxes, scores.max(axis=1, initial=0))[:seen_by_all]
        total, weight_so_far = seen[rows].astype(np.float64) * self.weights[0], self.weights[0]
        opinions = [opinion[rows] for opinion in opinions]
        for number, (member, weight) in enumerate(zip(others, self.weights[1:], strict=True)):
            most = factor(rows, opinions)
            scores[rows] = total * most[:, None]
            if factors is not None and any(left.tells_fit for left in others[number:]):
                most = highest_fit(factors[rows])
            highest = total.max(axis=1, initial=0) + (1 - weight_so_far) * HIGHEST_SCORE
            within_reach = highest * most >= score_threshold
            rows, total = rows[within_reach], total[within_reach]
            seen, told = look(member, rows, len(rows) * (len(others) - number))
            opinions = [opinion[within_reach] for opinion in opinions] + told
            total += weight * seen
            weight_so_far += weight
            done += len(rows)
        scores[rows] = total * factor(rows, opinions)[:, None]
        return scores
