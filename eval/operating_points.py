"""All classes together: what a detector shows from a score on is so often right, and finds so many of the objects."""

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from eval.average_precision import average_precisions
from eval.coco_metrics import match_coco
from eval.evaluation import Evaluation
from eval.matching import IGNORED, TRUE_POSITIVE

SCORES = (0.5, 0.4, 0.3, 0.2, 0.1)


class OperatingPoint(NamedTuple):
    """Of the `detections` with at least this `score`, those that do not count left out: shares from 0 to 1."""

    score: float
    detections: int
    precision: float  # NaN without detections
    recall: float  # NaN without objects


@dataclass(frozen=True)
class AllClasses:
    """The detections of all classes ranked together; for coco as matched at IoU 0.50."""

    average_precision: float  # NaN without objects
    points: tuple[OperatingPoint, ...]


def all_classes(result: Evaluation, scores: tuple[float, ...] = SCORES) -> AllClasses:
    """Precision and recall from each of the `scores` on, and the average precision of a single ranking."""
    matches = result.matches or match_coco(result.detections, result.annotations)[0]
    ranks = np.argsort(-result.detections.scores[matches.order], kind="stable")
    objects = matches.positives.sum()
    single = replace(
        matches,
        order=matches.order[ranks],
        outcome=matches.outcome[ranks],
        matched=matches.matched[ranks],
        class_start=np.array([0, len(ranks)]),
        positives=np.array([objects]),
    )
    counts = single.outcome != IGNORED
    points = []
    for score in scores:
        shown = single.outcome[counts & (result.detections.scores[single.order] >= score)]
        right = int((shown == TRUE_POSITIVE).sum())
        points.append(
            OperatingPoint(
                score,
                len(shown),
                right / len(shown) if len(shown) else float("nan"),
                right / objects if objects else float("nan"),
            )
        )
    return AllClasses(float(average_precisions(single, style=result.style)[0]), tuple(points))
