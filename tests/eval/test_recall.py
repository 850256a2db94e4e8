"""Recall, average recall and best overlaps against definitions written out."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from eval.recall import ProposalRecall, best_overlaps

BOX = st.tuples(*[st.integers(0, 12)] * 2, *[st.integers(1, 12)] * 2).map(
    lambda box: (box[0], box[1], box[0] + box[2], box[1] + box[3])
)
Box = tuple[int, int, int, int]
Image = tuple[list[Box], list[tuple[Box, int]]]  # proposals; objects with their labels
IMAGE = st.tuples(st.lists(BOX, max_size=8), st.lists(st.tuples(BOX, st.integers(0, 2)), max_size=5))


def as_boxes(boxes: list[Box]) -> NDArray[np.float32]:
    return np.array(boxes, dtype=np.float32).reshape(-1, 4)


def iou(a: Box, b: Box) -> float:
    """Counted pixel by pixel."""
    pixels_a, pixels_b = ({(x, y) for x in range(x1, x2) for y in range(y1, y2)} for x1, y1, x2, y2 in (a, b))
    return len(pixels_a & pixels_b) / len(pixels_a | pixels_b)


@settings(max_examples=30, deadline=None)
@given(st.lists(IMAGE, max_size=3), st.integers(1, 9))
def test_measures_are_their_definitions(
    images: list[tuple[list[Box], list[tuple[tuple[int, int, int, int], int]]]],
    number: int,
) -> None:
    collected = ProposalRecall(numbers=[number])
    overlaps: dict[str, list[float]] = {"first": [], "all": []}
    labels = []
    for proposals, objects in images:
        collected.add(
            as_boxes(proposals), as_boxes([box for box, _ in objects]), [label for _, label in objects]
        )
        for box, label in objects:
            labels.append(label)
            overlaps["first"].append(max([0.0, *(iou(proposal, box) for proposal in proposals[:number])]))
            overlaps["all"].append(max([0.0, *(iou(proposal, box) for proposal in proposals)]))
    result = collected.result()
    assert result.proposals_per_image.tolist() == [len(proposals) for proposals, _ in images]
    # The number itself is measured only where an image has more proposals.
    names = ["first", "all"] if len(result.numbers) == 2 else ["all"]
    for column, name in enumerate(names):
        values = overlaps[name]
        assert result.overlaps[:, column] == pytest.approx(values)
        if not values:
            assert np.isnan(result.recall()[column]) and np.isnan(result.mabo()[column])
            continue
        assert result.recall(0.5)[column] == pytest.approx(np.mean([value >= 0.5 for value in values]))
        classes = {
            c: np.mean([v for v, label in zip(values, labels, strict=True) if label == c])
            for c in set(labels)
        }
        assert {c: abo[column] for c, abo in result.abo().items()} == pytest.approx(classes)
        assert result.mabo()[column] == pytest.approx(np.mean(list(classes.values())))


def test_average_recall_is_the_area_under_the_curve() -> None:
    generator = np.random.default_rng(0)
    corners = generator.uniform(0, 50, (400, 2))
    boxes = np.concatenate([corners, corners + generator.uniform(5, 60, (400, 2))], axis=1)
    collected = ProposalRecall()
    collected.add(boxes[:200], boxes[200:], np.zeros(200))
    result = collected.result()
    thresholds = np.linspace(0.5, 1, 20001)
    area = 2 * 0.5 * result.recall_over_iou(thresholds.tolist()).mean(axis=0)
    np.testing.assert_allclose(result.average_recall(), area, atol=1e-4)
    assert (np.diff(result.recall()) >= 0).all() and 0 < result.area_over_numbers() < 1


def test_ignored_objects_count_neither_way() -> None:
    box = as_boxes([(0, 0, 10, 10)])
    collected = ProposalRecall()
    collected.add(box, as_boxes([(0, 0, 10, 10), (20, 20, 30, 30)]), [1, 2], ignore=[False, True])
    result = collected.result()
    assert result.recall().tolist() == [1.0]
    assert list(result.abo()) == [1]
    assert result.area_over_numbers() == 1.0


def test_order_decides_what_few_proposals_cover() -> None:
    proposals = as_boxes([(0, 0, 2, 2), (0, 0, 10, 5), (0, 0, 10, 10)])
    overlaps = best_overlaps(proposals, as_boxes([(0, 0, 10, 10)]), [1, 2, 3, 99])
    np.testing.assert_allclose(overlaps, [[0.04, 0.5, 1, 1]])


def test_bad_input_says_what_is_wrong() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        ProposalRecall(numbers=[0])
    with pytest.raises(ValueError, match="1 ground-truth boxes with 2 labels"):
        ProposalRecall().add(as_boxes([]), as_boxes([(0, 0, 1, 1)]), [1, 2])
