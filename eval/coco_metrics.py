"""COCO's average precision and recall: ten thresholds, four size ranges, three detection caps.

The same greedy matching as pycocotools, stated per detection instead of per image, so that the detections are
sorted once and nothing is kept but counts: a false positive changes no more than a counter, and the curve is
needed only at the true positives.
"""

# numba infers the types of compiled functions, so they carry no annotations.
# mypy: allow-untyped-defs, no-check-untyped-defs

import contextlib
import io
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from eval.average_precision import RECALL_POINTS
from eval.compiled import compiled
from eval.dataset import Annotations, Bools, Detections, Floats, Int32s, Ints, in_convention_of
from eval.evaluation import ClassResult, Evaluation
from eval.matching import (
    FALSE_POSITIVE,
    IGNORED,
    TRUE_POSITIVE,
    Matches,
    even_spans,
    sort_by_class,
    sort_by_score,
)
from eval.parallel import thread_map

IOU_THRESHOLDS = np.linspace(0.5, 0.95, 10)
AREA_RANGES = np.array([[0, 1e10], [0, 32**2], [32**2, 96**2], [96**2, 1e10]])  # all, small, medium, large
MAX_DETECTIONS = (1, 10, 100)  # per image and class
UNDEFINED = -1.0  # as in pycocotools: no ground truth to speak of

_ALMOST_ONE = 1 - 1e-10  # a threshold of 1 would ask more of rounding than it can give


class CocoArrays(NamedTuple):
    """pycocotools' arrays: T thresholds, R recall points, K classes, A size ranges, M detection caps.

    precision  (T, R, K, A) at the largest cap, UNDEFINED without ground truth
    recall     (T, K, A, M)
    positives  (K, A) boxes that count
    """

    precision: Floats
    recall: Floats
    positives: npt.NDArray[np.int64]


def evaluate_coco(detections: Detections, annotations: Annotations, *, engine: str = "own") -> Evaluation:
    """COCO's twelve figures in `summary`; a class's AP and recall are means over the ten thresholds.

    `engine` "pycocotools" asks that program instead of this module: for whoever has to quote it.
    """
    arrays = (pycocotools_accumulate if engine == "pycocotools" else accumulate)(detections, annotations)
    precision, recall = arrays.precision, arrays.recall
    counts = np.bincount(detections.label, minlength=len(annotations.categories))
    rows = []
    for k, category in enumerate(annotations.categories):
        positives = int(arrays.positives[k, 0])
        ap = float(precision[:, :, k, 0].mean()) if positives else float("nan")
        found = float(recall[:, k, 0, -1].mean()) if positives else float("nan")
        rows.append(
            ClassResult(category.id, category.wnid, category.name, ap, found, positives, int(counts[k]))
        )
    return Evaluation("coco", 0.5, tuple(rows), detections, annotations, summary=_summary(precision, recall))


def _summary(precision: Floats, recall: Floats) -> dict[str, float]:
    def mean(values: Floats) -> float:
        values = values[values > UNDEFINED]
        return float(values.mean()) if len(values) else float("nan")

    return {
        "AP": mean(precision[..., 0]),
        "AP50": mean(precision[0, ..., 0]),
        "AP75": mean(precision[5, ..., 0]),
        "AP_small": mean(precision[..., 1]),
        "AP_medium": mean(precision[..., 2]),
        "AP_large": mean(precision[..., 3]),
        "AR_1": mean(recall[:, :, 0, 0]),
        "AR_10": mean(recall[:, :, 0, 1]),
        "AR_100": mean(recall[:, :, 0, 2]),
        "AR_small": mean(recall[:, :, 1, 2]),
        "AR_medium": mean(recall[:, :, 2, 2]),
        "AR_large": mean(recall[:, :, 3, 2]),
    }


def accumulate(detections: Detections, annotations: Annotations) -> CocoArrays:
    """Match and count; agrees with pycocotools' evaluate and accumulate. Blacklists play no part."""
    order, class_start = _by_class(detections, annotations)
    nothing = np.empty(0, np.int32)
    return _run(detections, annotations, order, class_start, nothing, np.empty((0, 0), np.int8), nothing)


def match_coco(detections: Detections, annotations: Annotations) -> tuple[Matches, npt.NDArray[np.int8]]:
    """COCO's matching of boxes of all sizes: that at IoU 0.50, and the outcomes (T, D) at every threshold.

    The columns stand in the order of the matches. What lies beyond the largest cap is IGNORED.
    """
    order, class_start = _by_class(detections, annotations)
    by_score, matched = order.copy(), np.full(len(order), -1, np.int32)
    outcome = np.full((len(IOU_THRESHOLDS), len(order)), FALSE_POSITIVE, np.int8)
    positives = _run(detections, annotations, order, class_start, by_score, outcome, matched).positives[:, 0]
    thresholds = np.full(len(annotations.label), IOU_THRESHOLDS[0])
    matches = Matches(by_score, outcome[0], matched, class_start, positives, ~annotations.crowd, thresholds)
    return matches, outcome


def _by_class(detections: Detections, annotations: Annotations) -> tuple[Int32s, Ints]:
    return sort_by_class(
        detections.image, detections.label, len(annotations.images), len(annotations.categories)
    )


def _run(
    detections: Detections,
    annotations: Annotations,
    order: Int32s,
    class_start: Ints,
    by_score: Int32s,
    outcome: npt.NDArray[np.int8],
    matched: Int32s,
) -> CocoArrays:
    """Walk all classes; fills the last three unless they are empty."""
    detections = in_convention_of(detections, annotations)
    classes = len(annotations.categories)
    box_start = np.searchsorted(annotations.label, np.arange(classes + 1))
    ignored, positives = positives_of(annotations)
    # By class here, as they are filled and read; by threshold in the result, as pycocotools has them.
    shape = (classes, len(AREA_RANGES), len(IOU_THRESHOLDS))
    precision = np.full((*shape, len(RECALL_POINTS)), UNDEFINED)
    recall = np.full((*shape, len(MAX_DETECTIONS)), UNDEFINED)

    def run(span: tuple[int, int]) -> None:
        _accumulate_classes(
            *span, order, class_start, detections.scores.view(np.uint64), detections.image, detections.boxes,
            detections.areas, box_start, annotations.image, annotations.boxes, annotations.areas,
            annotations.crowd, ignored, positives, np.minimum(IOU_THRESHOLDS, _ALMOST_ONE), RECALL_POINTS,
            AREA_RANGES, np.array(MAX_DETECTIONS), float(annotations.last_pixel), precision, recall,
            by_score, outcome, matched,
        )  # fmt: skip

    thread_map(run, even_spans(class_start))
    return CocoArrays(precision.transpose(2, 3, 0, 1), recall.transpose(2, 0, 1, 3), positives)


def positives_of(annotations: Annotations) -> tuple[Bools, npt.NDArray[np.int64]]:
    """Which boxes are ignored in each size range (G, A), and how many of each class count there (K, A)."""
    low, high = AREA_RANGES[:, :1], AREA_RANGES[:, 1:]
    sizes, classes = annotations.coco_areas, len(annotations.categories)
    ignored = (annotations.crowd | (sizes < low) | (sizes > high)).T.copy()
    counts = [np.bincount(annotations.label[~column], minlength=classes) for column in ignored.T]
    return ignored, np.stack(counts, axis=1)


@compiled
def _accumulate_classes(
    first, last, order, class_start, bits, image, boxes, areas,
    box_start, true_image, true_boxes, true_areas, crowd, ignored,
    positives, thresholds, recall_points, area_ranges, caps, extent, precision, recall,
    by_score, outcome, matched,
):  # fmt: skip
    """Fill `precision` and `recall` for the classes [first, last); the last three too unless they are empty.

    What a class needs of its detections is copied side by side, in the order of the images, where the memory
    is fetched ahead; the walk in the order of the scores then stays within the cache.
    """
    n_thresholds, n_ranges, n_caps = len(thresholds), len(area_ranges), len(caps)
    keep = len(by_score) > 0
    cap = caps[n_caps - 1]
    largest = 0
    for c in range(first, last):
        largest = max(largest, class_start[c + 1] - class_start[c])
    counts = np.empty((6, 1 << 11), np.int32)  # scratch of sort_by_score
    keys = np.empty(largest, np.uint64)
    ranked, spare = np.empty(largest, np.int32), np.empty(largest, np.int32)
    place = np.empty(largest, np.int32)  # of a detection's image among those of the class
    first_box = np.empty(largest, np.int32)  # of that image and class, -1 for none
    box, area = np.empty((largest, 4)), np.empty(largest)
    taken = np.empty(largest, np.int32)  # detections so far, by `place`
    in_range = np.empty(n_ranges, np.int64)  # detections so far whose own area is in range,
    excused = np.empty((n_ranges, n_thresholds), np.int64)  # and those of them that are no false positives
    hits = np.empty((n_ranges, n_thresholds, n_caps), np.int64)
    for c in range(first, last):
        start, size = class_start[c], class_start[c + 1] - class_start[c]
        boxes_start, boxes_stop = box_start[c], box_start[c + 1]
        if boxes_start == boxes_stop and not keep:
            continue
        sort_by_score(bits, order[start : start + size], keys[:size], ranked[:size], spare[:size], counts)
        previous, places, g = -1, 0, boxes_start
        for i in range(size):
            d = order[start + i]
            here = image[d]
            if here != previous:
                previous = here
                taken[places] = 0
                places += 1
                while g < boxes_stop and true_image[g] < here:
                    g += 1
            place[i] = places - 1
            area[i] = areas[d]
            first_box[i] = -1
            if g < boxes_stop and true_image[g] == here:
                first_box[i] = g
                for k in range(4):
                    box[i, k] = boxes[d, k]
        claimed = np.zeros((boxes_stop - boxes_start, n_ranges, n_thresholds), np.bool_)
        curve = np.empty((n_ranges, n_thresholds, boxes_stop - boxes_start))  # precision at true positives
        near = np.empty(boxes_stop - boxes_start, np.int64)
        near_iou = np.empty(boxes_stop - boxes_start)
        in_range[:] = 0
        excused[:] = 0
        hits[:] = 0
        for k in range(size):
            i = ranked[k]
            if keep:
                by_score[start + k] = order[start + i]
            rank = taken[place[i]]
            if keep and (rank >= cap or not area_ranges[0, 0] <= area[i] <= area_ranges[0, 1]):
                for t in range(n_thresholds):
                    outcome[t, start + k] = IGNORED
            if rank >= cap:
                continue
            taken[place[i]] = rank + 1
            for a in range(n_ranges):
                in_range[a] += area_ranges[a, 0] <= area[i] <= area_ranges[a, 1]
            g = first_box[i]
            if g < 0:
                continue
            here = true_image[g]
            n_near, best_iou = 0, -1.0
            while g < boxes_stop and true_image[g] == here:
                width = min(box[i, 2], true_boxes[g, 2]) - max(box[i, 0], true_boxes[g, 0]) + extent
                height = min(box[i, 3], true_boxes[g, 3]) - max(box[i, 1], true_boxes[g, 1]) + extent
                if width > 0 and height > 0:
                    common = width * height
                    # Within a crowd any part is a full match.
                    union = area[i] if crowd[g] else area[i] + true_areas[g] - common
                    iou = common / union
                    if iou >= thresholds[0]:
                        near[n_near], near_iou[n_near] = g, iou
                        n_near += 1
                        best_iou = max(best_iou, iou)
                g += 1
            for t in range(n_thresholds):
                if best_iou < thresholds[t]:
                    break
                for a in range(n_ranges):
                    best, iou = -1, thresholds[t]
                    best_counts = False
                    for n in range(n_near):
                        g = near[n]
                        if claimed[g - boxes_start, a, t] and not crowd[g]:
                            continue
                        counts_here = not ignored[g, a]
                        # A box that counts beats any that does not; among equals the later one wins.
                        if best_counts and not counts_here:
                            continue
                        if counts_here and not best_counts:
                            if near_iou[n] >= thresholds[t]:
                                best, iou, best_counts = g, near_iou[n], True
                        elif near_iou[n] >= iou:
                            best, iou = g, near_iou[n]
                    if best < 0:
                        continue
                    claimed[best - boxes_start, a, t] = True
                    excused[a, t] += area_ranges[a, 0] <= area[i] <= area_ranges[a, 1]
                    if keep and a == 0:
                        outcome[t, start + k] = TRUE_POSITIVE if best_counts else IGNORED
                        if t == 0 and best_counts:
                            matched[start + k] = best
                    if best_counts:
                        for m in range(n_caps):
                            hits[a, t, m] += rank < caps[m]
                        hit = hits[a, t, n_caps - 1]
                        misses = in_range[a] - excused[a, t]
                        curve[a, t, hit - 1] = hit / (misses + hit + 2.220446049250313e-16)
        for a in range(n_ranges):
            total = positives[c, a]
            if total == 0:
                continue
            for t in range(n_thresholds):
                for m in range(n_caps):
                    recall[c, a, t, m] = hits[a, t, m] / total
                hit = hits[a, t, n_caps - 1]
                for i in range(hit - 2, -1, -1):
                    curve[a, t, i] = max(curve[a, t, i], curve[a, t, i + 1])
                i = 0
                for r in range(len(recall_points)):
                    while i < hit and (i + 1) / total < recall_points[r]:
                        i += 1
                    precision[c, a, t, r] = curve[a, t, i] if i < hit else 0.0


def pycocotools_accumulate(detections: Detections, annotations: Annotations) -> CocoArrays:
    """The same arrays from pycocotools itself; a hundred times slower, and it takes much memory."""
    try:
        from pycocotools.coco import COCO
        from pycocotools.cocoeval import COCOeval
    except ImportError as error:
        raise ValueError("engine pycocotools needs that package: pip install pycocotools") from error

    from eval.coco import as_instances, as_results

    with contextlib.redirect_stdout(io.StringIO()):  # it prints its progress
        truth = COCO()
        truth.dataset = as_instances(annotations)
        truth.createIndex()
        # loadRes wants at least one detection; without any, the empty index says the same.
        found = truth.loadRes(as_results(detections, annotations)) if len(detections) else COCO()
        evaluator = COCOeval(truth, found, "bbox")
        evaluator.evaluate()
        evaluator.accumulate()
    return CocoArrays(
        evaluator.eval["precision"][..., -1], evaluator.eval["recall"], positives_of(annotations)[1]
    )
