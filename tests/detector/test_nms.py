"""Suppression against a plain statement of it, with ties, duplicates and nothing at all."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.ops import nms

from detector.nms import best_detections, diverse_order, voted_boxes


def iou(a: np.ndarray, b: np.ndarray) -> float:
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    common = max(width, 0) * max(height, 0)
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - common
    return float(np.float32(common) / np.float32(union))  # boxes are float32, and so is their IoU


def plain(
    boxes: np.ndarray,
    scores: np.ndarray,
    iou_threshold: float,
    sigma: float | None,
    score_threshold: float,
    most: int,
) -> list[tuple[int, int, float]]:
    """Take the highest score, drop or lower those of its label around it, and so on."""
    left = scores.astype(np.float64)
    left[scores < score_threshold] = -1
    kept: list[tuple[int, int, float]] = []
    while len(kept) < most and left.size and left.max() >= score_threshold:
        box, label = divmod(int(left.argmax()), scores.shape[1])
        kept.append((box, label, left[box, label]))
        left[box, label] = -1
        for other in range(len(boxes)):
            overlap = iou(boxes[box], boxes[other])
            if overlap > iou_threshold:
                left[other, label] = -1
            elif sigma is not None and left[other, label] >= 0:
                left[other, label] *= math.exp(-(overlap**2) / sigma)
    return kept


def boxes_with_repeats(count: int, generator: np.random.Generator) -> np.ndarray:
    corners = generator.integers(0, 12, (count, 2))  # few positions: many duplicates
    return np.concatenate([corners, corners + generator.integers(1, 8, (count, 2))], axis=1).astype(
        np.float32
    )


@settings(max_examples=300, deadline=None)
@given(
    num_boxes=st.integers(0, 25),
    num_classes=st.integers(1, 4),
    levels=st.sampled_from([1, 3, 1000]),  # few levels: many ties
    most=st.integers(1, 60),
    score_threshold=st.sampled_from([0.0, 0.2, 0.4, 1.1]),
    iou_threshold=st.sampled_from([0.0, 0.3, 0.5, 1.0]),
    sigma=st.sampled_from([None, 0.01, 0.15, 0.5, 1e9]),
    seed=st.integers(0, 10_000),
)
def test_equals_the_plain_one(
    num_boxes: int,
    num_classes: int,
    levels: int,
    most: int,
    score_threshold: float,
    iou_threshold: float,
    sigma: float | None,
    seed: int,
) -> None:
    generator = np.random.default_rng(seed)
    boxes = boxes_with_repeats(num_boxes, generator)
    scores = (generator.integers(0, levels + 1, (num_boxes, num_classes)) / levels).astype(np.float32)
    chosen, labels, left = best_detections(
        boxes,
        scores,
        iou_threshold=iou_threshold,
        score_threshold=score_threshold,
        max_detections=most,
        sigma=sigma,
    )
    expected = plain(boxes, scores, iou_threshold, sigma, score_threshold, most)
    found = zip(chosen.tolist(), labels.tolist(), strict=True)
    assert list(found) == [(box, label) for box, label, _ in expected]
    assert left.dtype == np.float32 and (np.diff(left) <= 0).all()
    assert left.tolist() == pytest.approx([score for *_, score in expected], rel=1e-6)
    if sigma is None:
        assert left.tolist() == scores[chosen, labels].tolist()


def test_an_overlap_lowers_a_score_by_the_formula() -> None:
    boxes = np.array([[0, 0, 10, 10], [0, 0, 10, 5], [20, 0, 30, 10]], np.float32)
    scores = np.array([[0.9, 0.1], [0.8, 0.2], [0.3, 0.0]], np.float32)  # the first two overlap by 1/2
    chosen, labels, left = best_detections(
        boxes, scores, iou_threshold=0.5, score_threshold=0.05, max_detections=9, sigma=0.25
    )
    lowered = math.exp(-0.25 / 0.25)  # 0.8 to 0.294, behind the third; 0.1 falls below 0.05
    assert list(zip(chosen.tolist(), labels.tolist(), strict=True)) == [(0, 0), (2, 0), (1, 0), (1, 1)]
    assert left.tolist() == pytest.approx([0.9, 0.3, 0.8 * lowered, 0.2])


def test_agrees_with_torchvision_on_one_class() -> None:
    generator = np.random.default_rng(0)
    corners = generator.uniform(0, 80, (400, 2))
    boxes = np.concatenate([corners, corners + generator.uniform(5, 60, (400, 2))], axis=1).astype(np.float32)
    scores = generator.random((400, 1)).astype(np.float32)
    for threshold in (0.1, 0.3, 0.7):
        chosen, *_ = best_detections(
            boxes, scores, iou_threshold=threshold, score_threshold=0, max_detections=400
        )
        theirs = nms(torch.from_numpy(boxes), torch.from_numpy(scores[:, 0]), threshold)
        assert chosen.tolist() == theirs.tolist()


@pytest.mark.parametrize("most", [1, 7])
def test_looks_on_when_the_best_suppress_each_other(most: int) -> None:
    crowd = np.tile([0.0, 0, 10, 10], (500, 1))
    apart = np.array([[100.0 * i, 50, 100 * i + 10, 60] for i in range(1, 10)])
    boxes = np.concatenate([crowd, apart])
    scores = np.concatenate([np.linspace(0.9, 0.8, 500), np.linspace(0.7, 0.6, 9)])[:, None]
    chosen, *_ = best_detections(
        boxes.astype(np.float32),
        scores.astype(np.float32),
        iou_threshold=0.3,
        score_threshold=0,
        max_detections=most,
    )
    assert chosen.tolist() == [0, *range(500, 509)][:most]


def test_what_repeats_a_better_box_comes_later() -> None:
    boxes = np.array([[0, 0, 10, 10], [0, 0, 10, 9], [20, 20, 30, 30], [0, 0, 9, 10]], np.float32)
    assert diverse_order(boxes, np.array([0.9, 0.8, 0.3, 0.7], np.float32)).tolist() == [0, 2, 1, 3]
    assert diverse_order(boxes, np.array([0.9, 0.8, 0.2, 0.7], np.float32)).tolist() == [0, 1, 3, 2]
    assert diverse_order(boxes[[0, 0, 2]], np.array([0.9, 0.9, 0.1], np.float32)).tolist() == [0, 2, 1]
    assert diverse_order(boxes[:0], np.empty(0, np.float32)).tolist() == []
    empty = np.zeros((2, 4), np.float32)
    assert diverse_order(empty, np.ones(2, np.float32)).tolist() == [0, 1]


@given(st.integers(0, 10_000), st.integers(0, 30))
@settings(max_examples=100, deadline=None)
def test_the_order_is_that_of_the_formula(seed: int, count: int) -> None:
    generator = np.random.default_rng(seed)
    boxes = boxes_with_repeats(count, generator)
    worth = generator.integers(0, 11, count) / np.float32(10)
    left = []
    for box in range(count):
        better = [i for i in range(count) if worth[i] > worth[box] or (worth[i] == worth[box] and i < box)]
        repeated = max((iou(boxes[box], boxes[i]) for i in better), default=0.0)
        left.append(worth[box] * (1 - repeated) ** 0.5)
    order = diverse_order(boxes, worth)
    assert sorted(order.tolist()) == list(range(count))
    assert (np.diff(np.array(left)[order]) < 1e-6).all()


@given(
    st.integers(0, 10_000),
    st.integers(0, 30),
    st.sampled_from([0.3, 0.5, 1.0]),
    st.sampled_from([0.0, 0.3, 0.8]),
)
@settings(max_examples=100, deadline=None)
def test_votes_are_those_of_the_formula(seed: int, count: int, overlap: float, threshold: float) -> None:
    generator = np.random.default_rng(seed)
    boxes = boxes_with_repeats(count, generator)
    scores = (generator.integers(0, 11, (count, 3)) / 10).astype(np.float32)
    chosen, labels, _ = best_detections(
        boxes, scores, iou_threshold=0.3, score_threshold=threshold, max_detections=20
    )
    found = voted_boxes(boxes, scores, chosen, labels, iou_threshold=overlap, score_threshold=threshold)
    assert found.shape == (len(chosen), 4) and found.dtype == np.float32
    for box, label, seen in zip(chosen, labels, found, strict=True):
        voters = [
            i for i in range(count)
            if iou(boxes[i], boxes[box]) >= np.float32(overlap) and scores[i, label] >= np.float32(threshold)
        ]  # fmt: skip
        weights = scores[voters, label]
        expected = np.average(boxes[voters], axis=0, weights=weights) if weights.any() else boxes[box]
        np.testing.assert_allclose(seen, expected, rtol=1e-5)


def test_a_detection_without_neighbours_keeps_its_box() -> None:
    boxes = np.array([[1, 2, 11, 12], [8, 2, 18, 12], [5, 5, 5, 5]], np.float32)
    scores = np.array([[0.9], [0.8], [0.0]], np.float32)
    found = voted_boxes(
        boxes, scores, np.arange(3), np.zeros(3, np.int64), iou_threshold=0.5, score_threshold=0.0
    )
    assert found.tolist() == boxes.tolist()
