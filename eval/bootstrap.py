"""How sure is a mean AP? Images drawn again with replacement, many times, for one result or a pair.

A draw that holds an image w times counts each of its hits, misses and boxes w times. Copies of an image have
equal scores and stand together in the ranking, where the interpolated precision is that after the last copy;
so weighting is the same as evaluating the drawn images anew. The exception are detections of one class that tie
within an image: anew, all of the first copy come before those of the second; here, all copies of the first detection.

Drawing with replacement lifts the AP of classes with few boxes, so the draws lie above the figure itself; the
interval is their spread put around the figure.
"""

# numba infers the types of compiled functions, so they carry no annotations.
# mypy: allow-untyped-defs, no-check-untyped-defs

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from eval.average_precision import AREA, ELEVEN_POINTS, RECALL_POINTS
from eval.coco_metrics import match_coco
from eval.compiled import compiled
from eval.dataset import Floats
from eval.evaluation import Evaluation
from eval.matching import FALSE_POSITIVE, TRUE_POSITIVE, Matches
from eval.parallel import thread_map

REPLICATES = 1000
MOST_REPLICATES = 100_000
BLOCK = 1 << 25  # numbers, of draws times images, that are held at a time
LEVEL = 0.95


@dataclass(frozen=True)
class Interval:
    """A figure, the interval around it that spans `level` of the replicates, and their standard deviation."""

    value: float
    low: float
    high: float
    deviation: float
    replicates: int
    level: float = LEVEL


@dataclass(frozen=True)
class Comparison:
    """Two results on the same images, the second against the first.

    difference  of mean AP with its interval over the same draws of images (none without draws)
    better      share of the draws with a mean AP in which that of the second is higher (NaN without)
    wins        classes in which the first, the second, neither has the higher AP (ILSVRC ranks by wins)
    per_class   (C,) AP of the second minus AP of the first, NaN without ground truth
    unseen      annotated images that the detector of the second is known not to have looked at
    """

    difference: Interval
    better: float
    wins: tuple[int, int, int]
    per_class: Floats
    unseen: int = 0


def bootstrap_mean_ap(result: Evaluation, *, replicates: int = REPLICATES, seed: int = 0) -> Interval:
    """Interval of the mean AP over images."""
    means = _replicates([result], replicates, seed)[0]
    return _interval(result.mean_ap, means)


def compare(
    first: Evaluation, second: Evaluation, *, replicates: int = REPLICATES, seed: int = 0
) -> Comparison:
    """Compare two results of the same protocol on the same annotations, draw by draw.

    With `replicates` 0 the difference has no interval. Raises ValueError for results that differ in protocol, IoU
    threshold, classes or images.
    """
    if _setting(first) != _setting(second):
        raise ValueError(
            "only results of the same protocol and IoU threshold on the same classes and images can be compared"
        )
    per_class = np.array([b.ap - a.ap for a, b in zip(first.classes, second.classes, strict=True)])
    wins = (int((per_class < 0).sum()), int((per_class > 0).sum()), int((per_class == 0).sum()))
    differences = np.empty(0)
    if replicates:
        of_first, of_second = _replicates([first, second], replicates, seed)
        differences = of_second - of_first
    differences = differences[np.isfinite(differences)]
    return Comparison(
        difference=_interval(second.mean_ap - first.mean_ap, differences),
        better=float(np.mean(differences > 0)) if len(differences) else float("nan"),
        wins=wins,
        per_class=per_class,
        unseen=second.images_unseen,
    )


def _setting(result: Evaluation) -> tuple[object, ...]:
    annotations = result.annotations
    return result.protocol, result.iou, annotations.categories, annotations.images.ids.tolist()


def _interval(value: float, values: Floats) -> Interval:
    values = values[np.isfinite(values)]
    if not len(values):
        return Interval(value, float("nan"), float("nan"), float("nan"), 0)
    tail = (1 - LEVEL) / 2
    low, high = value + np.quantile(values, [tail, 1 - tail]) - values.mean()
    return Interval(value, float(low), float(high), float(values.std()), len(values))


def _replicates(results: Sequence[Evaluation], replicates: int, seed: int) -> list[Floats]:
    """Mean AP (replicates,) of each result, over the same draws."""
    matched = [_matched(result) for result in results]
    means = [
        [_means(result, found, weights) for result, found in zip(results, matched, strict=True)]
        for weights in _draws(results[0].num_images, replicates, seed)
    ]
    return [np.concatenate(blocks) for blocks in zip(*means, strict=True)]


def _draws(images: int, replicates: int, seed: int) -> Iterator[npt.NDArray[np.uint16]]:
    """How often each image is drawn, (replicates, images) in blocks of rows."""
    if not 1 <= replicates <= MOST_REPLICATES:
        raise ValueError(f"{replicates} bootstrap draws, expected 1 to {MOST_REPLICATES}")
    rng = np.random.default_rng(seed)
    rows = max(1, BLOCK // images)
    for start in range(0, replicates, rows):
        weights = np.empty((min(rows, replicates - start), images), np.uint16)
        for row in weights:
            row[:] = np.bincount(rng.integers(0, images, images), minlength=images)
        yield weights


def _matched(result: Evaluation) -> tuple[Matches, npt.NDArray[np.int8]]:
    """The matches of a result, and their outcomes (T, D) under each of its thresholds."""
    if result.matches is None:
        return match_coco(result.detections, result.annotations)
    return result.matches, result.matches.outcome[None]


def _means(
    result: Evaluation,
    matched: tuple[Matches, npt.NDArray[np.int8]],
    weights: npt.NDArray[np.uint16],
) -> Floats:
    """Mean AP (replicates,) over the classes that have a box in the draw."""
    matches, outcome = matched
    image = result.detections.image[matches.order]
    box_start = np.searchsorted(result.annotations.label, np.arange(len(result.classes) + 1))

    def run(label: int) -> Floats:
        found = slice(matches.class_start[label], matches.class_start[label + 1])
        boxes = slice(box_start[label], box_start[label + 1])
        box_image = result.annotations.image[boxes][matches.counted[boxes]]
        return _weighted_aps(image[found], outcome[:, found], box_image, weights, result.style)

    aps = np.array(thread_map(run, range(len(result.classes)))).reshape(-1, len(weights))
    defined = np.isfinite(aps)
    counts = defined.sum(axis=0)
    return np.divide(
        np.where(defined, aps, 0).sum(axis=0), counts, out=np.full(len(weights), np.nan), where=counts > 0
    )


@compiled
def _weighted_aps(image, outcome, box_image, weights, style):
    """AP of one class under each row of weights, the mean over T matchings; NaN where no box is drawn.

    image (n,) and outcome (T, n) stand in the order of the scores. Most detections are false positives in
    all matchings: these take a single addition for each draw, however many thresholds there are.
    """
    matchings, size = outcome.shape
    plain = np.ones(size, np.bool_)
    for t in range(matchings):
        for i in range(size):
            plain[i] &= outcome[t, i] == FALSE_POSITIVE
    result = np.empty(len(weights))
    precision = np.empty((matchings, len(box_image)))
    hits_after = np.empty((matchings, len(box_image)))
    hits, misses, points = np.empty(matchings), np.empty(matchings), np.empty(matchings, np.int64)
    for r in range(len(weights)):
        weight = weights[r]
        positives = 0
        for here in box_image:
            positives += weight[here]
        if positives == 0:
            result[r] = np.nan
            continue
        hits[:], misses[:], points[:] = 0, 0, 0
        plain_misses = 0
        for i in range(size):
            copies = np.int64(weight[image[i]])
            if plain[i]:
                plain_misses += copies
                continue
            if copies == 0:
                continue
            for t in range(matchings):
                if outcome[t, i] == FALSE_POSITIVE:
                    misses[t] += copies
                elif outcome[t, i] == TRUE_POSITIVE:
                    hits[t] += copies
                    precision[t, points[t]] = hits[t] / (hits[t] + misses[t] + plain_misses)
                    hits_after[t, points[t]] = hits[t]
                    points[t] += 1
        total = 0.0
        for t in range(matchings):
            total += _area(precision[t, : points[t]], hits_after[t, : points[t]], positives, style)
        result[r] = total / matchings
    return result


@compiled
def _area(precision, hits_after, positives, style):
    """AP from the precision (P,) after each hit, made to fall here, and the weight of the hits so far (P,)."""
    points = len(precision)
    for i in range(points - 2, -1, -1):
        precision[i] = max(precision[i], precision[i + 1])
    total = 0.0
    if style == AREA:
        before = 0.0
        for i in range(points):
            recall = hits_after[i] / positives
            total += (recall - before) * precision[i]
            before = recall
        return total
    i = 0
    steps = 11 if style == ELEVEN_POINTS else len(RECALL_POINTS)
    for point in range(steps):
        least = 0.1 * point if style == ELEVEN_POINTS else RECALL_POINTS[point]
        while i < points and hits_after[i] / positives < least:
            i += 1
        if i < points:
            total += precision[i]
    return total / steps
