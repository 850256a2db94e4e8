"""The rules of ILSVRC and PASCAL VOC stated line by line, slowly and obviously; the tests' reference."""

import math
from typing import NamedTuple

import numpy as np

from eval.dataset import Annotations, Detections


class PlainClass(NamedTuple):
    """What the rules say about one class."""

    ap: float
    recall: float
    positives: int


def _rows(detections: Detections, label: int) -> list[int]:
    """Detections of a class: stable by image, then stable by falling score."""
    rows = [d for d in range(len(detections)) if detections.label[d] == label]
    rows.sort(key=lambda d: detections.image[d])
    return sorted(rows, key=lambda d: -detections.scores[d])


def _overlap(a: np.ndarray, b: np.ndarray) -> float:
    width = min(a[2], b[2]) - max(a[0], b[0]) + 1
    height = min(a[3], b[3]) - max(a[1], b[1]) + 1
    if width <= 0 or height <= 0:
        return 0.0
    area_a = (a[2] - a[0] + 1) * (a[3] - a[1] + 1)
    area_b = (b[2] - b[0] + 1) * (b[3] - b[1] + 1)
    return float(width * height / (area_a + area_b - width * height))


def _area(hits: list[bool], positives: int) -> float:
    """Area under the curve made monotone from the right, as VOCap of the 2010 kit writes it."""
    tp, fp = np.cumsum(hits), np.cumsum([not hit for hit in hits])
    recall = np.concatenate(([0.0], tp / positives, [1.0]))
    precision = np.concatenate(([0.0], tp / np.maximum(tp + fp, 1), [0.0]))
    for i in range(len(precision) - 2, -1, -1):
        precision[i] = max(precision[i], precision[i + 1])
    steps = np.flatnonzero(recall[1:] != recall[:-1]) + 1
    return float(np.sum((recall[steps] - recall[steps - 1]) * precision[steps]))


def _eleven_points(hits: list[bool], positives: int) -> float:
    tp = np.cumsum(hits)
    recall, precision = tp / positives, tp / np.arange(1, len(hits) + 1)
    total = 0.0
    for threshold in np.arange(0.0, 1.1, 0.1):
        total += (np.max(precision[recall >= threshold]) if np.any(recall >= threshold) else 0.0) / 11
    return total


def ilsvrc(detections: Detections, annotations: Annotations, iou: float = 0.5) -> list[PlainClass]:
    """Rules 3 to 9 of the official evaluation; a crowd box that would have matched takes a miss away."""
    black = {(int(i), int(k)) for i, k in annotations.blacklist}
    results = []
    for label in range(len(annotations.categories)):
        boxes = [
            g
            for g in range(len(annotations.label))
            if annotations.label[g] == label and (int(annotations.image[g]), label) not in black
        ]
        positives = sum(not annotations.crowd[g] for g in boxes)
        claimed: set[int] = set()
        hits = []
        for d in _rows(detections, label):
            if (int(detections.image[d]), label) in black:
                continue
            best, best_overlap, in_crowd = -1, -math.inf, False
            for g in boxes:
                if annotations.image[g] != detections.image[d] or g in claimed:
                    continue
                x1, y1, x2, y2 = annotations.boxes[g]
                width, height = x2 - x1 + 1, y2 - y1 + 1
                threshold = min(iou, width * height / ((width + 10) * (height + 10)))
                overlap = _overlap(detections.boxes[d], annotations.boxes[g])
                if overlap >= threshold:
                    if annotations.crowd[g]:
                        in_crowd = True
                    elif overlap > best_overlap:
                        best, best_overlap = g, overlap
            if best >= 0:
                claimed.add(best)
                hits.append(True)
            elif not in_crowd:
                hits.append(False)
        results.append(_class(hits, positives, _area))
    return results


def voc(
    detections: Detections,
    annotations: Annotations,
    *,
    eleven_points: bool,
    heed_difficult: bool,
    strict: bool = False,
    iou: float = 0.5,
) -> list[PlainClass]:
    """PASCAL VOC's evaluation: the best box of all decides, a second detection of it is a miss.

    The official VOCevaldet.m asks for `ovmax>=VOCopts.minoverlap`; `strict` asks for more than that.
    """
    ignored = annotations.crowd | (annotations.difficult & heed_difficult)
    results = []
    for label in range(len(annotations.categories)):
        boxes = [g for g in range(len(annotations.label)) if annotations.label[g] == label]
        claimed: set[int] = set()
        hits = []
        for d in _rows(detections, label):
            best, best_overlap = -1, -math.inf
            for g in boxes:
                if annotations.image[g] == detections.image[d]:
                    overlap = _overlap(detections.boxes[d], annotations.boxes[g])
                    if overlap > best_overlap:
                        best, best_overlap = g, overlap
            if best_overlap > iou or (best_overlap == iou and not strict):
                if ignored[best]:
                    continue
                hits.append(best not in claimed)
                claimed.add(best)
            else:
                hits.append(False)
        positives = sum(not ignored[g] for g in boxes)
        results.append(_class(hits, positives, _eleven_points if eleven_points else _area))
    return results


def _class(hits: list[bool], positives: int, figure: object) -> PlainClass:
    assert callable(figure)
    if not positives:
        return PlainClass(math.nan, math.nan, 0)
    return PlainClass(figure(hits, positives) if hits else 0.0, sum(hits) / positives, positives)
