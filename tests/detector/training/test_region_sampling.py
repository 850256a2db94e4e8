"""Matching and batches: against a slow obvious reference, and what must hold whatever the data."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_up_scenes import made_up_set

from detector.training.sampling import BatchPlan, match, mirrored, overlaps, region_table, thinned
from detector.training.training_set import IGNORE

corner = st.integers(0, 12)
box = st.tuples(corner, corner, st.integers(1, 8), st.integers(1, 8)).map(
    lambda b: [float(b[0]), float(b[1]), float(b[0] + b[2]), float(b[1] + b[3])]
)


def pixels(b: list[float]) -> set[tuple[int, int]]:
    return {(x, y) for x in range(int(b[0]), int(b[2])) for y in range(int(b[1]), int(b[3]))}


@given(
    st.lists(box, max_size=6),
    st.lists(st.tuples(box, st.sampled_from([0, 1, IGNORE])), max_size=4),
)
@settings(max_examples=60, deadline=None)
def test_match_counts_pixels(boxes: list[list[float]], objects: list[tuple[list[float], int]]) -> None:
    data = made_up_set([[b for b, _ in objects]], [[label for _, label in objects]], [[True, True]])
    labels, ious = match(np.array(boxes, np.float32).reshape(-1, 4), data.images[0])
    for b, label, iou in zip(boxes, labels.tolist(), ious.tolist(), strict=True):
        mine = pixels(b)
        real = [
            (len(mine & pixels(o)) / len(mine | pixels(o)), kind) for o, kind in objects if kind != IGNORE
        ]
        best = max((value for value, _ in real), default=0.0)
        assert iou == pytest.approx(best, abs=1e-6)
        covered = any(len(mine & pixels(o)) / len(mine) >= 0.5 for o, kind in objects if kind == IGNORE)
        if best >= 0.5:
            assert label in {kind for value, kind in real if value == best}
        else:
            assert label == (IGNORE if covered else 2)


def test_overlaps_of_nothing() -> None:
    iou, covered = overlaps(np.empty((0, 4)), np.array([[0, 0, 1, 1]]))
    assert iou.shape == covered.shape == (0, 1)


def test_a_region_over_an_unlabelled_class_is_no_negative_for_it() -> None:
    data = made_up_set([[[0, 0, 50, 50]], []], [[0], []], [[True, False], [True, True]])
    table = region_table(data, lambda position: np.array([[60, 60, 90, 90], [0, 0, 50, 45]], np.float32))
    assert table.labels.tolist() == [0, 2, 0, 2, 2] and table.given.tolist() == [True] + [False] * 4
    possible = table.possible(np.arange(5))
    assert possible[0].tolist() == possible[2].tolist() == [True, False, False]
    assert possible[1].tolist() == [False, True, True]  # it may be an object of the unlabelled class
    assert possible[3].tolist() == [False, False, True]


def table_of(objects: int, backgrounds: int) -> BatchPlan:
    data = made_up_set([[[0, 0, 50, 50]] * objects], [[0] * objects], [[True, True]])
    table = region_table(
        data, lambda position: np.tile(np.array([[60, 60, 90, 90]], np.float32), (backgrounds, 1))
    )
    return BatchPlan(table, positives=3, backgrounds=5, seed=7)


@given(st.integers(1, 20), st.integers(1, 20))
@settings(max_examples=25, deadline=None)
def test_every_pass_sees_every_region_once(objects: int, backgrounds: int) -> None:
    plan = table_of(objects, backgrounds)
    steps = np.stack([plan.rows(step) for step in range(12)])
    assert steps.shape == (12, 8) and (steps[:, :3] < objects).all() and (steps[:, 3:] >= objects).all()
    for part, total in ((steps[:, :3].ravel(), objects), (steps[:, 3:].ravel(), backgrounds)):
        for start in range(0, len(part) - total + 1, total):
            assert len(set(part[start : start + total].tolist())) == total
    again = table_of(objects, backgrounds)
    assert (again.rows(11) == steps[11]).all()  # a step knows its batch without those before
    assert plan.steps_per_epoch == -(-objects // 3)


def test_no_objects_is_said() -> None:
    with pytest.raises(ValueError, match="3 object regions, but the data has 0"):
        table_of(0, 4)


def test_thinned_keeps_given_boxes_and_bounds_the_rest() -> None:
    data = made_up_set([[[0, 0, 50, 50]]] * 2, [[0]] * 2, [[True, True]] * 2)
    boxes = np.concatenate([np.tile([[0, 0, 50, 45]], (9, 1)), np.tile([[60, 60, 90, 90]], (9, 1))])
    table = thinned(
        region_table(data, lambda _: boxes.astype(np.float32)), positives=4, backgrounds=5, seed=0
    )
    assert len(table) == 2 * (1 + 4 + 5) and table.given.sum() == 2
    assert (np.diff(table.image) >= 0).all()


def test_half_of_the_regions_are_mirrored() -> None:
    flags = np.concatenate([mirrored(0, step, 100) for step in range(20)])
    assert 0.45 < flags.mean() < 0.55 and (mirrored(0, 3, 100) == mirrored(0, 3, 100)).all()


def test_balance_draws_classes_more_alike() -> None:
    boxes = [[float(10 * k), 0.0, float(10 * k + 8), 8.0] for k in range(9)]
    data = made_up_set([boxes], [[0] * 8 + [1]], [[True, True]])
    table = region_table(data, lambda _: np.array([[0, 50, 5, 60]], np.float32))
    for balance, share in ((0.0, 1 / 9), (1.0, 1 / 2)):
        plan = BatchPlan(table, positives=30, backgrounds=0, balance=balance, seed=1)
        drawn = np.concatenate([table.labels[plan.rows(step)] for step in range(60)])
        assert np.mean(drawn == 1) == pytest.approx(share, abs=0.04)


def test_backgrounds_near_objects_can_be_left_out() -> None:
    data = made_up_set([[[0, 0, 10, 10]]], [[0]], [[True, True]])
    proposals = np.array([[0, 0, 10, 22], [50, 50, 60, 60]], np.float32)  # IoU 0.45 and 0
    table = region_table(data, lambda _: proposals)
    plan = BatchPlan(table, positives=1, backgrounds=4, background_iou=0.4)
    assert set(table.ious[plan.rows(0)].tolist()) == {1.0, 0.0}
