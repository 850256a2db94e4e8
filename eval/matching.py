"""Which detections hit which ground truth? Greedy matching per image and class, best score first.

All classes go through one compiled loop over detections sorted once: class, then score, ties by image and
then by place in the file. Since images do not influence each other, walking a class in this order matches
every image in its own order too, and the outcomes are already in the order that average precision needs.
"""

# numba infers the types of compiled functions, so they carry no annotations.
# mypy: allow-untyped-defs, no-check-untyped-defs

import itertools
from dataclasses import dataclass

import numpy as np

from eval.compiled import compiled
from eval.dataset import Annotations, Bools, Detections, Floats, Int32s, Ints, in_convention_of
from eval.parallel import thread_count, thread_map

FALSE_POSITIVE, TRUE_POSITIVE, IGNORED = 0, 1, -1

# How a detection picks its box, which it hits with IoU >= the box's threshold.
FREE_BOXES = 0  # ILSVRC: the best box not yet claimed
BEST_BOX = 1  # PASCAL VOC: the best box whatsoever, a miss if that is claimed

_DIGIT_BITS = 11
_DIGITS = 6  # 6 x 11 bits hold the 64 of a score
_FEW = 48  # as many are sorted by insertion


@dataclass(frozen=True)
class Matches:
    """Outcome of every detection, sorted by class and falling score.

    order       (D,) the detections' positions in the file
    outcome     (D,) TRUE_POSITIVE, FALSE_POSITIVE or IGNORED of detection `order[i]`
    matched     (D,) the ground-truth box of a true positive, else -1
    class_start (C + 1,) class c owns [class_start[c], class_start[c + 1])
    positives   (C,) ground-truth boxes that count
    counted     (G,) which boxes those are
    thresholds  (G,) the least overlap each box asked for
    """

    order: Int32s
    outcome: np.ndarray
    matched: Int32s
    class_start: Ints
    positives: Ints
    counted: Bools
    thresholds: Floats


def small_box_thresholds(annotations: Annotations, iou: float = 0.5) -> Floats:
    """ILSVRC's threshold of every box (G,): min(iou, w*h / ((w+10)*(h+10))), kinder to small boxes."""
    boxes, extent = annotations.boxes, float(annotations.last_pixel)
    width = boxes[:, 2] - boxes[:, 0] + extent
    height = boxes[:, 3] - boxes[:, 1] + extent
    return np.minimum(iou, (width * height) / ((width + 10) * (height + 10)))


def match(
    detections: Detections,
    annotations: Annotations,
    *,
    thresholds: Floats,
    rule: int,
    ignored_boxes: Bools,
) -> Matches:
    """Match all detections; `thresholds` and `ignored_boxes` are (G,), `rule` is FREE_BOXES or BEST_BOX.

    A detection that matches an ignored box, or falls into a blacklisted (image, class) pair, is IGNORED.
    """
    detections = in_convention_of(detections, annotations)
    classes, images = len(annotations.categories), len(annotations.images)
    order, class_start = sort_by_class(detections.image, detections.label, images, classes)
    box_start = np.searchsorted(annotations.label, np.arange(classes + 1))
    blacklist = annotations.blacklist[np.argsort(annotations.blacklist[:, 1], kind="stable")]
    blacklist_start = np.searchsorted(blacklist[:, 1], np.arange(classes + 1))
    counted = ~ignored_boxes
    counted &= ~np.isin(
        _pairs(annotations.image, annotations.label, images), _pairs(blacklist[:, 0], blacklist[:, 1], images)
    )
    outcome = np.empty(len(order), np.int8)
    matched = np.empty(len(order), np.int32)
    extent = float(annotations.last_pixel)

    def run(span: tuple[int, int]) -> None:
        _match_classes(
            *span, order, class_start, detections.scores.view(np.uint64), detections.image, detections.boxes,
            detections.areas, box_start, annotations.image, annotations.boxes, annotations.areas, thresholds,
            ignored_boxes, blacklist_start, blacklist[:, 0].astype(np.int32), rule, extent, images, outcome, matched,
        )  # fmt: skip

    thread_map(run, even_spans(class_start))
    positives = np.bincount(annotations.label[counted], minlength=classes).astype(np.int64)
    return Matches(order, outcome, matched, class_start, positives, counted, thresholds)


def _pairs(image: np.ndarray, label: np.ndarray, images: int) -> Ints:
    return label.astype(np.int64) * images + image


def even_spans(class_start: Ints) -> list[tuple[int, int]]:
    """Cut the classes into runs of about equal numbers of detections, a few for each thread."""
    pieces = 4 * thread_count()
    targets = class_start[-1] * np.arange(1, pieces) // pieces
    cuts = np.unique(np.concatenate(([0], np.searchsorted(class_start, targets), [len(class_start) - 1])))
    return [(int(a), int(b)) for a, b in itertools.pairwise(cuts)]


def sort_by_class(image: Int32s, label: Int32s, images: int, classes: int) -> tuple[Int32s, Ints]:
    """Stable order (D,) of detections by class and, within a class, by image; and where each class starts."""
    order = np.arange(len(image), dtype=np.int32)
    if not (image[1:] >= image[:-1]).all():
        order, _ = _counting_sort(image, order, images)
    return _counting_sort(label, order, classes)


@compiled
def _counting_sort(keys, order, kinds):
    """Stable reordering of `order` by keys[order] in [0, kinds), and the start of each kind (kinds + 1,)."""
    start = np.zeros(kinds + 1, np.int64)
    for key in keys:
        start[key + 1] += 1
    for kind in range(kinds):
        start[kind + 1] += start[kind]
    at = start.copy()
    result = np.empty_like(order)
    for item in order:
        result[at[keys[item]]] = item
        at[keys[item]] += 1
    return result, start


@compiled
def sort_by_score(bits, order, keys, ranked, spare, counts):
    """Positions (N,) in `order`, best score first, stable: item k of the result is order[ranked[k]].

    bits (D,) are all scores seen as uint64, order (N,) the detections at hand. The others are scratch:
    keys uint64 (N,), spare int32 (N,), counts int32 (6, 2048). Scores are gathered once, since a class small
    enough for the cache is sorted far faster than one whose scores lie all over the memory.
    """
    sign = np.uint64(1 << 63)
    for i in range(len(order)):
        key = bits[order[i]]
        if key == sign:
            key = np.uint64(0)  # -0.0 equals 0.0
        # IEEE numbers order like integers once negative ones are complemented; complementing all turns it round.
        keys[i] = key if key & sign else ~(key | sign)
        ranked[i] = i
    if len(order) <= _FEW:
        _insertion_sort(keys, ranked, 0, len(order))
        return
    # Half of the digits tell nearly all scores apart; the rest is looked at only where they do not.
    _radix_sort(keys, ranked, spare, counts, _DIGITS // 2, _DIGITS)
    shift = np.uint64(_DIGITS // 2 * _DIGIT_BITS)
    start = 0
    while start < len(order):
        key = keys[ranked[start]] >> shift
        stop = start + 1
        while stop < len(order) and keys[ranked[stop]] >> shift == key:
            stop += 1
        if stop - start > _FEW:
            _radix_sort(keys, ranked[start:stop], spare[start:stop], counts, 0, _DIGITS // 2)
        elif stop - start > 1:
            _insertion_sort(keys, ranked, start, stop)
        start = stop


@compiled
def _insertion_sort(keys, items, start, stop):
    for i in range(start + 1, stop):
        item = items[i]
        key = keys[item]
        j = i
        while j > start and keys[items[j - 1]] > key:
            items[j] = items[j - 1]
            j -= 1
        items[j] = item


@compiled
def _radix_sort(keys, items, spare, counts, first, last):
    """Sort `items` (N,) by the digits [first, last) of keys[items], stable."""
    size = len(items)
    mask = np.uint64((1 << _DIGIT_BITS) - 1)
    counts[first:last] = 0
    for item in items:
        key = keys[item]
        for digit in range(first, last):
            counts[digit, np.int64((key >> np.uint64(digit * _DIGIT_BITS)) & mask)] += 1
    source, target = items, spare
    for digit in range(first, last):
        shift = np.uint64(digit * _DIGIT_BITS)
        row = counts[digit]
        if row[np.int64((keys[source[0]] >> shift) & mask)] == size:
            continue  # all keys share this digit
        total = 0
        for value in range(len(row)):
            count = row[value]
            row[value] = total
            total += count
        for item in source:
            value = np.int64((keys[item] >> shift) & mask)
            target[row[value]] = item
            row[value] += 1
        source, target = target, source
    if source is not items:
        for i in range(size):  # assigning the slice would compile numba's error messages too, for seconds
            items[i] = source[i]


@compiled
def _match_classes(
    first, last, order, class_start, bits, image, boxes, areas,
    box_start, true_image, true_boxes, true_areas, thresholds, ignored_boxes,
    blacklist_start, blacklist, rule, extent, images, outcome, matched,
):  # fmt: skip
    """Match the classes [first, last): sorts their part of `order`, fills `outcome` and `matched`."""
    nowhere, blacklisted = -1, -2
    first_box = np.full(images, nowhere, np.int32)  # of the class at hand; its boxes are sorted by image
    counts = np.empty((_DIGITS, 1 << _DIGIT_BITS), np.int32)
    largest = 0
    for c in range(first, last):
        largest = max(largest, class_start[c + 1] - class_start[c])
    keys = np.empty(largest, np.uint64)
    ranked, spare = np.empty(largest, np.int32), np.empty(largest, np.int32)
    for c in range(first, last):
        start, stop = class_start[c], class_start[c + 1]
        size = stop - start
        if size == 0:
            continue
        sort_by_score(bits, order[start:stop], keys[:size], ranked[:size], spare[:size], counts)
        for i in range(size):
            spare[i] = order[start + ranked[i]]
        for i in range(size):
            order[start + i] = spare[i]
        boxes_start, boxes_stop = box_start[c], box_start[c + 1]
        claimed = np.zeros(boxes_stop - boxes_start, np.bool_)
        for g in range(boxes_stop - 1, boxes_start - 1, -1):
            first_box[true_image[g]] = g
        for b in range(blacklist_start[c], blacklist_start[c + 1]):
            first_box[blacklist[b]] = blacklisted
        for i in range(start, stop):
            d = order[i]
            here = image[d]
            g = first_box[here]
            matched[i] = -1
            if g == nowhere:
                outcome[i] = FALSE_POSITIVE
                continue
            if g == blacklisted:
                outcome[i] = IGNORED
                continue
            x1, y1, x2, y2 = boxes[d, 0], boxes[d, 1], boxes[d, 2], boxes[d, 3]
            best, best_iou = -1, -1.0
            ignored_hit = False
            while g < boxes_stop and true_image[g] == here:
                if not (rule == FREE_BOXES and claimed[g - boxes_start]):
                    width = min(x2, true_boxes[g, 2]) - max(x1, true_boxes[g, 0]) + extent
                    height = min(y2, true_boxes[g, 3]) - max(y1, true_boxes[g, 1]) + extent
                    if width > 0 and height > 0:
                        common = width * height
                        iou = common / (areas[d] + true_areas[g] - common)
                        if rule == BEST_BOX:
                            if iou > best_iou:
                                best, best_iou = g, iou
                        elif iou >= thresholds[g]:
                            if ignored_boxes[g]:
                                ignored_hit = True  # a box that counts is preferred
                            elif iou > best_iou:
                                best, best_iou = g, iou
                g += 1
            outcome[i] = IGNORED if ignored_hit else FALSE_POSITIVE
            if best < 0 or best_iou < thresholds[best]:
                continue
            if ignored_boxes[best]:
                outcome[i] = IGNORED
            elif not claimed[best - boxes_start]:
                claimed[best - boxes_start] = True
                outcome[i] = TRUE_POSITIVE
                matched[i] = best
        for g in range(boxes_start, boxes_stop):
            first_box[true_image[g]] = nowhere
        for b in range(blacklist_start[c], blacklist_start[c + 1]):
            first_box[blacklist[b]] = nowhere
