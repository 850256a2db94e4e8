"""SVMs on made-up features whose answer is known."""

from typing import Any

import numpy as np
import pytest
from made_up_scenes import made_up_set

from detector.training.sampling import RegionTable, region_table
from detector.training.svm import SVMConfig, _held_out_scores, class_ious, feature_scale, platt, train_class


def gaussian_data(images: int, negatives: int) -> tuple[np.ndarray, RegionTable]:
    """One square and one disc an image, and regions of nothing; features tell them apart along two axes."""
    data = made_up_set(
        [[[0, 0, 40, 40], [50, 50, 90, 90]]] * images, [[0, 1]] * images, [[True, True]] * images
    )
    boxes = np.tile(np.array([[45, 0, 95, 40]], np.float32), (negatives, 1))
    table = region_table(data, lambda _: boxes)
    features = np.random.default_rng(0).normal(size=(len(table), 8))
    for label in (0, 1):
        features[table.labels == label, label] += 6
    return features.astype(np.float16), table


def test_svms_tell_the_classes_apart_and_their_scores_are_chances() -> None:
    features, table = gaussian_data(30, 40)
    scale = feature_scale(features, 0)
    for label in (0, 1):
        svm = train_class(features, table, label, SVMConfig(), scale=scale, seed=0)
        chances = 1 / (1 + np.exp(-svm.scores(features)))
        truth = table.labels == label
        assert (chances[truth] > 0.5).mean() > 0.95 and (chances[~truth] > 0.5).mean() < 0.01
        assert chances.sum() == pytest.approx(truth.sum(), rel=0.2)  # calibrated


def test_a_small_copy_is_no_image_that_has_not_been_seen() -> None:
    data = made_up_set([[[0, 0, 40, 40], [50, 50, 90, 90]]], [[0, 1]], [[True, True]]).with_small_copies(50)
    table = region_table(data, lambda _: np.tile(np.array([[45, 0, 95, 40]], np.float32), (9, 1)))
    told: list[str] = []
    features = np.random.default_rng(0).normal(size=(len(table), 8))
    scores = _held_out_scores(
        features, table, table.labels == 0, table.labels != 0, table.labels >= 0, SVMConfig(), 1.0, 0
    )
    assert scores is None and not told  # of one photo nothing can be held out


def test_mining_finds_the_hard_negatives() -> None:
    features, table = gaussian_data(10, 100)
    hard = np.flatnonzero(table.labels == 2)[:20]
    features[hard, 0] += 3  # half-way to a square, and few of many
    told: list[str] = []
    config = SVMConfig(first_negatives=10, regularisation=1.0)
    svm = train_class(features, table, 0, config, scale=1.0, seed=0, report=told.append)
    assert len(told) > 1 and told[0].startswith("pass 1: 10 positives, 10 negatives")
    everything = train_class(
        features, table, 0, SVMConfig(first_negatives=10**6, regularisation=1.0), scale=1.0, seed=0
    )
    agree = np.corrcoef(svm.scores(features), everything.scores(features))[0, 1]
    assert agree > 0.99  # mining ends where training on all negatives does


def test_unlabelled_images_give_no_negatives() -> None:
    data = made_up_set([[[0, 0, 40, 40]], [[50, 50, 90, 90]]], [[0], [1]], [[True, False], [False, True]])
    table = region_table(data, lambda _: np.empty((0, 4), np.float32))
    with pytest.raises(ValueError, match="class 'square' has no negative region"):
        train_class(np.ones((2, 3)), table, 0, SVMConfig(), scale=1.0, seed=0)


def test_class_ious_looks_at_its_own_class_only() -> None:
    data = made_up_set([[[0, 0, 40, 40], [50, 50, 90, 90]]], [[0, 1]], [[True, True]])
    table = region_table(data, lambda _: np.array([[50, 50, 90, 70]], np.float32))
    assert class_ious(table, 0).tolist() == [1, 0, 0]
    assert class_ious(table, 1).tolist() == [0, 1, 0.5]


def test_platt_is_monotone_and_survives_one_kind() -> None:
    assert platt(np.array([0.0, 1.0]), np.array([True, True])) == (1.0, 0.0)
    slope, offset = platt(np.array([-2.0, -1.0, 1.0, 2.0]), np.array([False, False, True, True]))
    assert slope > 1 and abs(offset) < 1e-2


@pytest.mark.parametrize(
    "change",
    [{"first_negatives": 0}, {"passes": 0}, {"folds": 0}, {"regularisation": 0}, {"negative_iou": 2}],
)
def test_settings_without_sense_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(change))):
        SVMConfig(**change)
