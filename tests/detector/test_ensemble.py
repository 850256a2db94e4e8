"""The mean of several scorers, with and without the cascade, against the plain statement of both."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detector.ensemble import Ensemble
from detector.region_fit import RAISE, highest_fit, joint_fit
from detector.region_scorer import Progress
from detector.stage_timer import StageTimer
from detector.taxonomy import DetectionClass

CLASSES = (DetectionClass(1, "cat"), DetectionClass(2, "dog"))
IMAGE = np.zeros((8, 8, 3), np.uint8)


class Table:
    """Scores and fits looked up by the first coordinate of a box; notes which boxes it was asked about."""

    def __init__(
        self,
        scores: np.ndarray,
        classes: tuple[DetectionClass, ...] = CLASSES,
        fit: np.ndarray | None = None,
    ) -> None:
        self.classes = classes
        self.scores = scores.astype(np.float32)
        self.fit = fit
        self.tells_fit = fit is not None
        self.asked: list[list[int]] = []

    def look(
        self, image: np.ndarray, boxes: np.ndarray, /, *, timer: StageTimer, progress: Progress
    ) -> tuple[np.ndarray, np.ndarray | None]:
        rows = boxes[:, 0].astype(int)
        self.asked.append(rows.tolist())
        progress(0, len(boxes))
        progress(len(boxes), len(boxes))
        return self.scores[rows], None if self.fit is None else self.fit[rows]


def numbered_boxes(count: int) -> np.ndarray:
    corners = np.arange(count)[:, None]
    return np.concatenate([corners, corners, corners + 1, corners + 1], axis=1).astype(np.float32)


@pytest.mark.parametrize("weights", [None, (1, 2, 5), (0, 0, 3)])
@pytest.mark.parametrize("count", [0, 1, 9])
def test_the_mean_of_all(count: int, weights: tuple[float, ...] | None) -> None:
    random = np.random.default_rng(0)
    members = [Table(random.random((9, 2))) for _ in range(3)]
    scores = Ensemble(members, weights=weights)(IMAGE, numbered_boxes(count))
    expected = np.average([member.scores[:count] for member in members], axis=0, weights=weights or (1, 1, 1))
    assert scores.dtype == np.float32
    np.testing.assert_allclose(scores, expected, rtol=1e-6)


def test_the_cascade_asks_the_others_about_the_best_only() -> None:
    first = Table(np.array([[0.1, 0.2], [0.9, 0.0], [0.0, 0.3], [0.3, 0.3], [0.0, 0.0]]))
    second = Table(np.full((5, 2), 0.5))
    scores = Ensemble([first, second], cascade=3)(IMAGE, numbered_boxes(5))
    assert second.asked == [[1, 2, 3]]  # a tie is settled by the order of the boxes
    np.testing.assert_allclose(scores[[1, 2, 3]], (first.scores[[1, 2, 3]] + 0.5) / 2)
    np.testing.assert_array_equal(scores[[0, 4]], first.scores[[0, 4]])


def test_the_cascade_prefers_what_repeats_no_better_region() -> None:
    first = Table(np.array([[0.9, 0.0], [0.8, 0.0], [0.0, 0.3]]))
    second = Table(np.full((3, 2), 0.5))
    boxes = np.array([[0, 0, 10, 10], [1, 0, 10, 10], [2, 20, 10, 30]], np.float32)
    Ensemble([first, second], cascade=2)(IMAGE, boxes)
    assert second.asked == [[0, 2]]


def test_factors_count_in_the_mean_and_in_the_choice() -> None:
    first = Table(np.array([[0.1, 0.2], [0.9, 0.0], [0.0, 0.3], [0.3, 0.4], [0.0, 0.0]]))
    second = Table(np.full((5, 2), 0.5))
    factors = np.array([1, 0.1, 1, 0.5, 1], np.float32)
    scores = Ensemble([first, second], cascade=2)(IMAGE, numbered_boxes(5), factors=factors)
    assert second.asked == [[2, 0]]
    expected = first.scores * factors[:, None]
    expected[[0, 2]] = (first.scores[[0, 2]] + 0.5) / 2
    np.testing.assert_allclose(scores, expected, rtol=1e-6)


@given(
    seed=st.integers(0, 10_000),
    count=st.integers(0, 20),
    cascade=st.sampled_from([None, 1, 5]),
    threshold=st.sampled_from([0.0, 0.1, 0.4, 0.5, 1.0]),
    weights=st.sampled_from([(1, 1, 1), (3, 1, 2), (0, 1, 0), (1, 0, 0), (20, 20, 1)]),
    known=st.booleans(),
    telling=st.sets(st.integers(0, 2)),
)
@settings(max_examples=100, deadline=None)
def test_of_what_cannot_reach_the_threshold_nobody_is_asked_any_more(
    seed: int,
    count: int,
    cascade: int | None,
    threshold: float,
    weights: tuple[float, ...],
    known: bool,
    telling: set[int],
) -> None:
    generator = np.random.default_rng(seed)
    members = [
        Table(
            generator.integers(0, 11, (20, 2)) / 10,  # many ties, many ones
            fit=generator.integers(-9, 10, 20).astype(np.float32) if number in telling else None,
        )
        for number in range(3)
    ]
    factors = (generator.integers(0, 11, count) / 10).astype(np.float32) if known else None
    ensemble = Ensemble(members, weights=weights, cascade=cascade)
    everything = ensemble(IMAGE, numbered_boxes(count), factors=factors)
    found = ensemble(IMAGE, numbered_boxes(count), factors=factors, score_threshold=threshold)
    counts = everything >= threshold
    np.testing.assert_array_equal(found >= threshold, counts)
    np.testing.assert_array_equal(found[counts], everything[counts])
    assert (found[~counts] < threshold).all()
    assert set(members[2].asked[1]) <= set(members[1].asked[1]) <= set(members[1].asked[0])
    if cascade is None:
        shares = np.array(weights) / sum(weights)
        sums = np.zeros((count, 2))
        for number, asked in ((1, members[1]), (2, members[2])):
            sums += shares[number - 1] * members[number - 1].scores[:count]
            best = np.ones(count)
            if factors is not None:
                told = [member.fit[:count] for member in members[:number] if member.fit is not None]
                told_later = any(member.tells_fit for member in members[number:])
                best = highest_fit(factors) if told_later else joint_fit(factors, told)
            shares_left = 1 - shares[:number].sum()
            hopeless = (sums.max(axis=1, initial=0) + shares_left * 1.01) * best < threshold - 1e-6
            assert not set(np.flatnonzero(hopeless).tolist()) & set(asked.asked[1])


def test_what_members_tell_of_the_fit_changes_the_factors_of_what_they_saw() -> None:
    random = np.random.default_rng(2)
    members = [
        Table(random.random((6, 2))),
        Table(random.random((6, 2)), fit=random.normal(0, 2, 6).astype(np.float32)),
        Table(random.random((6, 2))),
        Table(random.random((6, 2)), fit=random.normal(0, 2, 6).astype(np.float32)),
    ]
    factors = random.uniform(0.1, 0.9, 6).astype(np.float32)
    scores = Ensemble(members, weights=(2, 1, 1, 1), cascade=4)(IMAGE, numbered_boxes(6), factors=factors)
    seen = members[1].asked[0]
    assert len(seen) == 4
    for row in range(6):
        factor, mean = factors[row], members[0].scores[row]
        if row in seen:
            mean = np.average([member.scores[row] for member in members], axis=0, weights=(2, 1, 1, 1))
            told = [member.fit[row] for member in members if member.fit is not None]
            own = np.log(factor / (1 - factor))
            factor = 1 / (1 + np.exp(-min((own + np.mean(told)) / 2, own + RAISE)))
        np.testing.assert_allclose(scores[row], factor * mean, rtol=1e-5)


def test_without_factors_nobody_counts_what_is_told_of_the_fit() -> None:
    random = np.random.default_rng(3)
    members = [Table(random.random((5, 2)), fit=np.full(5, -9, np.float32)) for _ in range(2)]
    scores = Ensemble(members)(IMAGE, numbered_boxes(5))
    np.testing.assert_allclose(scores, (members[0].scores + members[1].scores) / 2, rtol=1e-6)


def test_a_cascade_of_everything_is_no_cascade() -> None:
    random = np.random.default_rng(1)
    members = [Table(random.random((6, 2))) for _ in range(4)]
    boxes = numbered_boxes(6)
    np.testing.assert_array_equal(Ensemble(members, cascade=6)(IMAGE, boxes), Ensemble(members)(IMAGE, boxes))


def test_progress_counts_every_pass() -> None:
    members = [Table(np.ones((7, 2))) for _ in range(3)]
    seen: list[tuple[int, int]] = []
    Ensemble(members, cascade=2)(
        IMAGE, numbered_boxes(7), progress=lambda done, total: seen.append((done, total))
    )
    assert seen == [(0, 11), (7, 11), (7, 11), (9, 11), (9, 11), (11, 11)]


def test_what_is_no_ensemble() -> None:
    table, stranger = Table(np.ones((1, 2))), Table(np.ones((1, 2)), CLASSES[::-1])
    with pytest.raises(ValueError, match="at least one member"):
        Ensemble([])
    with pytest.raises(ValueError, match="member 2 of the ensemble has other classes"):
        Ensemble([table, stranger])
    with pytest.raises(ValueError, match="1 member weights for 2 members"):
        Ensemble([table, table], weights=[1])
    for weights in ([0, 0], [1, -1], [1, float("nan")], [1, float("inf")]):
        with pytest.raises(ValueError, match="member weights are"):
            Ensemble([table, table], weights=weights)
    with pytest.raises(ValueError, match="cascade is 0"):
        Ensemble([table], cascade=0)
