"""Average precision from outcomes in score order: the area under the curve, or 11 or 101 points of it.

Only true positives can raise recall, and precision just before one is never above the interpolated precision
at it, so the curve's points at the true positives are all that either figure needs.
"""

# numba infers the types of compiled functions, so they carry no annotations.
# mypy: allow-untyped-defs, no-check-untyped-defs

import numpy as np

from eval.compiled import compiled
from eval.dataset import Floats, Ints
from eval.matching import FALSE_POSITIVE, TRUE_POSITIVE, Matches

AREA = 0  # PASCAL VOC 2010 and ILSVRC
ELEVEN_POINTS = 1  # PASCAL VOC 2007
HUNDRED_AND_ONE_POINTS = 2  # COCO

RECALL_POINTS = np.linspace(0.0, 1.0, 101)


def average_precisions(matches: Matches, *, style: int = AREA) -> Floats:
    """AP (C,) of every class in [0, 1], NaN for a class without a box that counts."""
    return class_average_precisions(matches.outcome, matches.class_start, matches.positives, style=style)


def class_average_precisions(
    outcome: np.ndarray, class_start: Ints, positives: Ints, *, style: int = AREA
) -> Floats:
    """As `average_precisions`, from outcomes (D,), class_start (C + 1,) and positives (C,)."""
    return np.array(
        [
            _average_precision(outcome[start:stop], count, style) if count else np.nan
            for start, stop, count in zip(
                class_start[:-1].tolist(), class_start[1:].tolist(), positives.tolist(), strict=True
            )
        ],
        dtype=np.float64,
    )


@compiled
def _average_precision(outcome, positives, style):
    hits, misses = 0, 0
    precision = np.empty(positives)  # at each true positive
    for value in outcome:
        if value == TRUE_POSITIVE:
            hits += 1
            precision[hits - 1] = hits / (hits + misses)
        elif value == FALSE_POSITIVE:
            misses += 1
    for i in range(hits - 2, -1, -1):  # interpolated: the best at this recall or beyond
        precision[i] = max(precision[i], precision[i + 1])
    total = 0.0
    if style == AREA:
        before = 0.0
        for i in range(hits):
            recall = (i + 1) / positives
            total += (recall - before) * precision[i]
            before = recall
        return total
    i = 0
    if style == HUNDRED_AND_ONE_POINTS:
        for point in RECALL_POINTS:
            while i < hits and (i + 1) / positives < point:
                i += 1
            if i < hits:
                total += precision[i]
        return total / len(RECALL_POINTS)
    for point in range(11):
        # 0.1 * point as the reference programs have it: 0.1 * 3 is a little above 3 / 10 in floating point.
        while i < hits and (i + 1) / positives < 0.1 * point:
            i += 1
        if i < hits:
            total += precision[i] / 11.0
    return total


def precision_recall_curve(outcome: np.ndarray, positives: int) -> tuple[Floats, Floats]:
    """Recall and precision (K,), not interpolated, after each counted detection of one class."""
    counted = outcome[(outcome == TRUE_POSITIVE) | (outcome == FALSE_POSITIVE)]
    hits = np.cumsum(counted == TRUE_POSITIVE)
    return hits / max(positives, 1), hits / np.arange(1, len(counted) + 1)
