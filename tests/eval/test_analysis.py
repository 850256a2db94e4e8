"""Intervals, comparison and causes of error against what they claim to be."""

import tracemalloc
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from random_scenes import random_scene

from eval import bootstrap
from eval.average_precision import class_average_precisions
from eval.bootstrap import bootstrap_mean_ap, compare
from eval.coco_metrics import match_coco
from eval.dataset import Annotations, Category, Detections, ImageSet, make_annotations, make_detections
from eval.errors import CAUSES, break_down
from eval.evaluation import Evaluation
from eval.figures import as_svg, precision_recall
from eval.matching import TRUE_POSITIVE
from eval.protocols import evaluate
from eval.report import write_report
from eval.summary import print_comparison, print_evaluation


def drawn(
    annotations: Annotations, detections: Detections, images: np.ndarray
) -> tuple[Annotations, Detections]:
    """A new problem from the drawn images, copies side by side in the order of the originals."""
    images = np.sort(images)
    boxes = [np.flatnonzero(annotations.image == image) for image in images]
    found = [np.flatnonzero(detections.image == image) for image in images]
    g, d = np.concatenate(boxes), np.concatenate(found)
    copies = np.arange(len(images))
    truth = make_annotations(
        ImageSet(np.arange(1, len(images) + 1), tuple(map(str, copies))),
        annotations.categories,
        image=np.repeat(copies, [len(rows) for rows in boxes]),
        label=annotations.label[g],
        boxes=annotations.boxes[g],
        crowd=annotations.crowd[g],
        difficult=annotations.difficult[g],
        last_pixel=annotations.last_pixel,
    )
    owners = np.repeat(copies, [len(rows) for rows in found])
    again = make_detections(
        image=owners, label=detections.label[d], scores=detections.scores[d], boxes=detections.boxes[d],
        last_pixel=detections.last_pixel,
    )  # fmt: skip
    return truth, again


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32), protocol=st.sampled_from(["ilsvrc", "voc2007", "voc2012", "coco"]))
def test_weighting_images_is_evaluating_the_drawn_images(seed: int, protocol: str) -> None:
    scene = random_scene(seed)
    rng = np.random.default_rng(seed)
    # Scores that differ: copies of an image tie only with each other.
    detections = replace(scene.detections, scores=rng.permutation(len(scene.detections)).astype(float))
    result = evaluate(detections, scene.annotations, protocol=protocol)
    images = rng.integers(0, 5, 5)
    weights = np.bincount(images, minlength=5).astype(np.uint16)[None]
    truth, again = drawn(scene.annotations, detections, images)
    anew = evaluate(again, truth, protocol=protocol)
    np.testing.assert_allclose(
        bootstrap._means(result, bootstrap._matched(result), weights)[0], anew.mean_ap, rtol=0, atol=1e-12
    )


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32), detections=st.integers(0, 300))
def test_cocos_outcomes_give_cocos_figures(seed: int, detections: int) -> None:
    scene = random_scene(seed, images=2, classes=2, detections=detections)
    result = evaluate(scene.detections, scene.annotations, protocol="coco")
    matches, outcome = match_coco(scene.detections, scene.annotations)
    np.testing.assert_array_equal(outcome[0], matches.outcome)
    aps = [
        class_average_precisions(row, matches.class_start, matches.positives, style=result.style)
        for row in outcome
    ]
    np.testing.assert_allclose(np.mean(aps, axis=0), [row.ap for row in result.classes], rtol=0, atol=1e-12)
    hits = matches.outcome == TRUE_POSITIVE
    np.testing.assert_array_equal(hits, matches.matched >= 0)
    assert len(np.unique(matches.matched[hits])) == hits.sum()  # no box twice
    scores, label = scene.detections.scores[matches.order], scene.detections.label[matches.order]
    np.testing.assert_array_equal(np.lexsort((-scores, label)), np.arange(len(label)))
    if result.counted:
        breakdown = break_down(result)
        assert breakdown.mean_ap == pytest.approx(result.summary["AP50"], abs=1e-12)
        assert all(breakdown.gain(cause) > -1e-12 for cause in ("duplicate", "background", "missed"))


def test_the_interval_is_repeatable_holds_the_figure_and_narrows_with_more_images() -> None:
    widths = []
    for images in (20, 320):
        scene = random_scene(5, images=images, boxes=4 * images, detections=8 * images)
        result = evaluate(scene.detections, scene.annotations)
        interval = bootstrap_mean_ap(result, replicates=200, seed=3)
        assert interval == bootstrap_mean_ap(result, replicates=200, seed=3)
        assert interval != bootstrap_mean_ap(result, replicates=200, seed=4)
        assert interval.low < interval.value == result.mean_ap < interval.high
        widths.append(interval.high - interval.low)
    assert widths[1] < widths[0] / 2  # four times narrower in theory


def test_draws_are_those_of_the_seed_and_take_little_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(7)
    expected = [np.bincount(rng.integers(0, 900, 900), minlength=900) for _ in range(300)]
    (weights,) = bootstrap._draws(900, 300, 7)
    assert weights.dtype == np.uint16 and (weights == expected).all()
    monkeypatch.setattr(bootstrap, "BLOCK", 90_000)
    tracemalloc.start()
    blocks = [weights.sum() for weights in bootstrap._draws(900, 3000, 7)]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(blocks) == 30 and sum(blocks) == 900 * 3000
    assert peak < 3 * 2 * bootstrap.BLOCK


@pytest.mark.parametrize("protocol", ["ilsvrc", "coco"])
def test_drawing_in_blocks_changes_nothing(protocol: str, monkeypatch: pytest.MonkeyPatch) -> None:
    scene = random_scene(5, images=40, boxes=160, detections=300)
    first = evaluate(scene.detections, scene.annotations, protocol=protocol)
    fewer = make_detections(
        image=scene.detections.image[::2], label=scene.detections.label[::2], scores=scene.detections.scores[::2],
        boxes=scene.detections.boxes[::2], last_pixel=scene.detections.last_pixel,
    )  # fmt: skip
    second = evaluate(fewer, scene.annotations, protocol=protocol)
    at_once = compare(first, second, replicates=50).difference
    monkeypatch.setattr(bootstrap, "BLOCK", 40 * 7)  # seven draws, and at last one
    assert compare(first, second, replicates=50).difference == at_once
    monkeypatch.setattr(bootstrap, "BLOCK", 1)
    assert compare(first, second, replicates=50).difference == at_once


def test_comparing_with_itself_and_with_a_worse_one() -> None:
    scene = random_scene(6, images=60, boxes=240, detections=500)
    first = evaluate(scene.detections, scene.annotations)
    same = compare(first, first, replicates=50)
    assert (same.difference.value, same.difference.low, same.difference.high) == (0, 0, 0)
    assert same.wins == (0, 0, 3) and same.better == 0
    rng = np.random.default_rng(0)
    worse = replace(scene.detections, scores=rng.permutation(scene.detections.scores))
    hits = np.flatnonzero(first.matches.outcome == 1) if first.matches is not None else np.empty(0, int)
    assert len(hits)
    label = worse.label.copy()
    label[first.matches.order[hits[::2]]] = 2  # type: ignore[union-attr]
    second = evaluate(replace(worse, label=label), scene.annotations)
    result = compare(first, second, replicates=200)
    assert result.difference.high < 0 and result.better < 0.01
    assert sum(result.wins) == 3 and result.wins[0] >= 2
    np.testing.assert_allclose(np.mean(result.per_class), result.difference.value)


def test_only_like_is_compared_with_like() -> None:
    scene, other = random_scene(1), random_scene(2)
    first = evaluate(scene.detections, scene.annotations)
    renamed = replace(scene.annotations, categories=tuple(Category(k, "x") for k in range(3)))
    for second in (
        evaluate(scene.detections, scene.annotations, protocol="iou50"),
        evaluate(scene.detections, scene.annotations, iou=0.7),
        evaluate(scene.detections, renamed),
        evaluate(
            other.detections, replace(other.annotations, images=ImageSet(np.arange(7, 12), tuple("abcde")))
        ),
    ):
        with pytest.raises(
            ValueError, match="only results of the same protocol and IoU threshold on the same"
        ):
            compare(first, second)
    for draws in (0, bootstrap.MOST_REPLICATES + 1):
        with pytest.raises(ValueError, match="bootstrap draws, expected 1 to 100000"):
            bootstrap_mean_ap(first, replicates=draws)


def test_draws_without_a_box_favour_nobody() -> None:
    """Of two images one has the only box: a quarter of the draws has none, in the others the second result wins."""
    box = [[0.0, 0, 9, 9]]
    truth = make_annotations(
        ImageSet(np.array([1, 2]), ("a", "b")), [Category(1, "x")], image=[0], label=[0], boxes=box, last_pixel=False
    )  # fmt: skip

    def result_of(boxes: list[list[float]]) -> Evaluation:
        found = make_detections(image=[0], label=[0], scores=[0.5], boxes=boxes, last_pixel=False)
        return evaluate(found, truth)

    worse, better = result_of([[50.0, 50, 60, 60]]), result_of(box)
    comparison = compare(worse, better, replicates=200)
    assert comparison.difference.replicates < 200
    assert comparison.better == 1 and compare(better, worse, replicates=200).better == 0
    assert np.isnan(compare(worse, better, replicates=0).better)


def test_each_cause_of_error() -> None:
    box, shifted, elsewhere = [0, 0, 99, 99], [60, 0, 159, 99], [300, 300, 399, 399]
    annotations = make_annotations(
        ImageSet(np.arange(1, 6), tuple("abcde")),
        [Category(1, "x"), Category(2, "y")],
        image=[0, 1, 2, 3, 4],
        label=[0, 0, 1, 0, 1],
        boxes=[box] * 5,
        last_pixel=True,
    )
    detections = make_detections(
        image=[0, 0, 1, 2, 2, 0],
        label=[0, 0, 0, 0, 0, 1],
        scores=[0.9, 0.8, 0.7, 0.6, 0.5, 0.4],
        # a hit, its duplicate, badly placed, of another class twice, in the background
        boxes=[box, box, shifted, box, box, elsewhere],
        last_pixel=True,
    )
    breakdown = break_down(evaluate(detections, annotations))
    assert breakdown.counts == {
        "duplicate": 1, "localisation": 1, "confusion": 2, "background": 1, "missed": 2,
    }  # fmt: skip
    assert breakdown.per_class.tolist() == [[1, 1, 2, 0, 1], [0, 0, 0, 1, 1]]
    # Class x: 1 hit of 3 boxes, AP 1/3; class y: none of 2.
    assert breakdown.mean_ap == pytest.approx(1 / 6)
    expected = {
        "duplicate": 1 / 6,  # it comes after the only hit
        "localisation": (1 / 3 + 1 / 3 * 2 / 3) / 2,  # a second hit, third in the ranking
        "confusion": (1 / 3 + 1 / 2) / 2,  # the better of the two is the first detection of class y
        "background": 1 / 6,
        "missed": (2 / 3 + 1 / 2) / 2,
    }
    assert breakdown.mean_ap_without == pytest.approx(expected)
    assert breakdown.gain("missed") == pytest.approx(expected["missed"] - 1 / 6)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32), protocol=st.sampled_from(["ilsvrc", "iou50", "voc2007", "voc2012", "coco"])
)
def test_causes_account_for_every_false_positive(seed: int, protocol: str) -> None:
    scene = random_scene(seed)
    annotations = scene.annotations.with_blacklist([(0, 0)] if protocol == "ilsvrc" else [])
    result = evaluate(scene.detections, annotations, protocol=protocol)
    breakdown = break_down(result)
    matches = result.matches or match_coco(scene.detections, annotations)[0]
    assert sum(breakdown.counts[cause] for cause in CAUSES[:-1]) == (matches.outcome == 0).sum()
    unhit = matches.counted.sum() - (matches.outcome == 1).sum()
    assert 0 <= breakdown.counts["missed"] <= unhit
    if result.counted:
        # Taking false positives away or adding first hits never costs anything.
        for cause in ("duplicate", "background", "missed"):
            assert breakdown.gain(cause) >= -1e-12
        assert all(0 <= value <= 1 + 1e-12 for value in breakdown.mean_ap_without.values())


@pytest.mark.parametrize("protocol", ["ilsvrc", "coco"])
def test_a_report_of_annotations_without_a_box(protocol: str, tmp_path: Path) -> None:
    kinds = (Category(1, "a"), Category(2, "b"))
    none = np.empty(0)
    truth = make_annotations(
        ImageSet(np.array([1]), ("x",)),
        kinds,
        image=none,
        label=none,
        boxes=np.empty((0, 4)),
        last_pixel=False,
    )
    found = make_detections(
        image=np.zeros(2), label=np.array([0, 1]), scores=np.array([0.5, 0.4]),
        boxes=np.array([[0.0, 0, 9, 9]] * 2), last_pixel=False,
    )  # fmt: skip
    result = evaluate(found, truth, protocol=protocol)
    breakdown = break_down(result)
    assert breakdown.counts["background"] == 2 and breakdown.counts["missed"] == 0
    comparison = compare(result, result, replicates=10)
    write_report(tmp_path / "x.html", result, title="x", breakdown=breakdown, comparison=comparison)
    assert "</html>" in (tmp_path / "x.html").read_text()


def test_names_are_neither_markup_nor_formulas(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = ("dog [/b]", "x[red]y", r"$\foo$", "50 $", "_e")
    kinds = tuple(Category(k + 1, name) for k, name in enumerate(names))
    count = len(kinds)
    boxes = np.tile([[0.0, 0, 9, 9]], (count, 1))
    truth = make_annotations(
        ImageSet(np.array([1]), ("a",)), kinds, image=np.zeros(count), label=np.arange(count), boxes=boxes,
        last_pixel=False,
    )  # fmt: skip
    found = make_detections(
        image=np.zeros(count), label=np.arange(count), scores=np.ones(count), boxes=boxes, last_pixel=False
    )
    result = evaluate(found, truth)
    print_evaluation(result)
    print_comparison(compare(result, result), result, result, names=("run[best]", "b"))
    printed = capsys.readouterr().out
    assert all(name in printed for name in (*names, "run[best]"))
    write_report(tmp_path / "x.html", result, title="x")
    page = (tmp_path / "x.html").read_text()
    legend = page[page.index("<h2>Precision and recall") :]
    assert all(f"{name} 1.00" in legend for name in ("dog [/b]", "x[red]y", "50 $", "_e"))


def test_figures_name_classes_in_letters_that_their_font_lacks() -> None:
    names = ["猫", "犬", "鳥", "魚", "馬"]
    kinds = tuple(Category(k + 1, name) for k, name in enumerate(names))
    truth = make_annotations(
        ImageSet(np.array([1]), ("a",)), kinds, image=np.zeros(5), label=np.arange(5),
        boxes=np.tile([[0.0, 0, 9, 9]], (5, 1)), last_pixel=False,
    )  # fmt: skip
    found = make_detections(image=[0], label=[0], scores=[1.0], boxes=[[0.0, 0, 9, 9]], last_pixel=False)
    with warnings.catch_warnings(action="error"):
        page = as_svg(precision_recall(evaluate(found, truth)))
    assert "猫 1.00" in page
