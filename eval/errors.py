"""Where does the mean AP go? Every false positive and missed box gets a cause, and each cause a price.

The causes follow Hoiem et al., "Diagnosing Error in Object Detectors" (2012), the prices the one-at-a-time
oracles of Bolya et al., "TIDE" (2020): the mean AP that correcting this cause alone would give.
"""

# numba infers the types of compiled functions, so they carry no annotations.
# mypy: allow-untyped-defs, no-check-untyped-defs

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from eval.average_precision import average_precisions, class_average_precisions
from eval.coco_metrics import match_coco
from eval.compiled import compiled
from eval.dataset import Floats, Ints, in_convention_of
from eval.evaluation import Evaluation
from eval.matching import FALSE_POSITIVE, IGNORED, TRUE_POSITIVE, Matches

DUPLICATE, LOCALISATION, CONFUSION, BACKGROUND = 0, 1, 2, 3
CAUSES = ("duplicate", "localisation", "confusion", "background", "missed")
_NONE = -1
_LEAST_OVERLAP = 0.1  # below this a detection has nothing to do with a box


@dataclass(frozen=True)
class ErrorBreakdown:
    """Per cause of CAUSES: how often it occurs, per class too (C, 5), and the mean AP without it.

    `mean_ap` is that of the matching the causes are of: for coco its AP50, else the result's.

    duplicate     overlaps a box of its class enough, but a better scored detection has that box
    localisation  the box it overlaps most (by 0.1 or more) is of its class, but not enough
    confusion     the box it overlaps most (by 0.1 or more) is of another class
    background    overlaps no box by 0.1
    missed        a box that no detection hits, not even with the wrong extent or class
    """

    counts: dict[str, int]
    per_class: Ints
    mean_ap: float
    mean_ap_without: dict[str, float]

    def gain(self, cause: str) -> float:
        """What correcting one cause would add to the mean AP."""
        return self.mean_ap_without[cause] - self.mean_ap


def break_down(result: Evaluation) -> ErrorBreakdown:
    """Find the causes. For coco they are those at IoU 0.50, and the mean AP is its AP50.

    The corrections: duplicates and background vanish; the best localisation or confusion error of a box
    nobody hits becomes its hit (in the box's class), the others vanish; missed boxes are found before all
    else.
    """
    matches = result.matches or match_coco(result.detections, result.annotations)[0]
    annotations, classes = result.annotations, len(result.classes)
    detections = in_convention_of(result.detections, annotations)
    by_image = np.argsort(annotations.image, kind="stable")
    image_start = np.searchsorted(annotations.image[by_image], np.arange(len(annotations.images) + 1))
    label = np.repeat(np.arange(classes), np.diff(matches.class_start))
    hit = np.zeros(len(annotations.label), np.bool_)
    hit[matches.matched[matches.matched >= 0]] = True
    cause, target = _causes(
        matches.order, matches.outcome, label, detections.image, detections.boxes, detections.areas,
        by_image, image_start, annotations.label, annotations.boxes, annotations.areas, matches.counted,
        matches.thresholds, float(annotations.last_pixel), _LEAST_OVERLAP,
    )  # fmt: skip
    scores = detections.scores[matches.order]
    missed = matches.counted & ~hit
    missed[target[target >= 0]] = False
    per_class = np.zeros((classes, len(CAUSES)), np.int64)
    for number in range(BACKGROUND + 1):
        per_class[:, number] = np.bincount(label[cause == number], minlength=classes)
    per_class[:, -1] = np.bincount(annotations.label[missed], minlength=classes)
    rescuers = _rescuers(target, scores, hit)
    without = {}
    for number, name in enumerate(CAUSES[:-1]):
        rescued = rescuers[cause[rescuers] == number]
        outcome = np.where(cause == number, np.int8(IGNORED), matches.outcome)
        without[name] = _mean_ap(
            result, matches, outcome, label, scores, annotations.label[target[rescued]], scores[rescued]
        )
    found = np.flatnonzero(missed)
    without["missed"] = _mean_ap(
        result, matches, matches.outcome, label, scores, annotations.label[found], np.full(len(found), np.inf)
    )
    totals = per_class.sum(axis=0).tolist()
    aps = average_precisions(matches, style=result.style)
    return ErrorBreakdown(dict(zip(CAUSES, totals, strict=True)), per_class, _mean(aps), without)


def _rescuers(target: Ints, scores: Floats, hit: npt.NDArray[np.bool_]) -> Ints:
    """For each box nobody hits, the best scored detection (K,) whose cause names it."""
    candidates = np.flatnonzero(target >= 0)
    candidates = candidates[~hit[target[candidates]]]
    candidates = candidates[np.argsort(-scores[candidates], kind="stable")]
    _, first = np.unique(target[candidates], return_index=True)
    return candidates[first]


def _mean_ap(
    result: Evaluation,
    matches: Matches,
    outcome: npt.NDArray[np.int8],
    label: Ints,
    scores: Floats,
    new_label: npt.NDArray[np.integer],
    new_scores: Floats,
) -> float:
    """Mean AP with changed outcomes and further true positives of given classes and scores."""
    all_labels = np.concatenate((new_label, label))
    order = np.lexsort((-np.concatenate((new_scores, scores)), all_labels))
    hits = np.full(len(new_label), TRUE_POSITIVE, np.int8)
    start = np.searchsorted(all_labels[order], np.arange(len(matches.positives) + 1))
    aps = class_average_precisions(
        np.concatenate((hits, outcome))[order], start, matches.positives, style=result.style
    )
    return _mean(aps)


def _mean(aps: Floats) -> float:
    """Over the classes that have ground truth."""
    return float(np.nanmean(aps)) if np.isfinite(aps).any() else float("nan")


@compiled
def _causes(
    order, outcome, label, image, boxes, areas,
    by_image, image_start, true_label, true_boxes, true_areas, counted,
    thresholds, extent, least,
):  # fmt: skip
    """Cause (D,) of each false positive and the box (D,) that a correction would hit, -1 for none."""
    cause = np.full(len(order), _NONE, np.int8)
    target = np.full(len(order), _NONE, np.int64)
    for i in range(len(order)):
        if outcome[i] != FALSE_POSITIVE:
            continue
        d = order[i]
        best, best_iou, best_same = _NONE, least, False
        cause[i] = BACKGROUND
        taken = False
        for at in range(image_start[image[d]], image_start[image[d] + 1]):
            g = by_image[at]
            if not counted[g]:
                continue
            width = min(boxes[d, 2], true_boxes[g, 2]) - max(boxes[d, 0], true_boxes[g, 0]) + extent
            height = min(boxes[d, 3], true_boxes[g, 3]) - max(boxes[d, 1], true_boxes[g, 1]) + extent
            if width <= 0 or height <= 0:
                continue
            iou = width * height / (areas[d] + true_areas[g] - width * height)
            same = true_label[g] == label[i]
            if same and iou >= thresholds[g]:
                taken = True  # or this detection would be a hit
            if iou > best_iou or (iou == best_iou and (best == _NONE or (same and not best_same))):
                best, best_iou, best_same = g, iou, same
        if taken:
            cause[i] = DUPLICATE
        elif best != _NONE:
            target[i] = best
            cause[i] = LOCALISATION if best_same else CONFUSION
    return cause, target
