"""COCO's figures against pycocotools, which defines them."""

import contextlib
import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from random_scenes import Scene, random_scene

from eval import coco
from eval.coco_metrics import UNDEFINED, accumulate, match_coco, pycocotools_accumulate
from eval.dataset import Category, ImageSet, make_annotations, make_detections
from eval.matching import FALSE_POSITIVE
from eval.protocols import evaluate


def assert_equal_to_pycocotools(scene: Scene) -> None:
    ours = accumulate(scene.detections, scene.annotations)
    reference = pycocotools_accumulate(scene.detections, scene.annotations)
    np.testing.assert_allclose(ours.precision, reference.precision, rtol=0, atol=1e-12)
    np.testing.assert_allclose(ours.recall, reference.recall, rtol=0, atol=1e-12)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    images=st.integers(1, 6),
    classes=st.integers(1, 4),
    boxes=st.integers(0, 40),
    detections=st.integers(1, 120),
)
def test_equals_pycocotools(seed: int, images: int, classes: int, boxes: int, detections: int) -> None:
    assert_equal_to_pycocotools(
        random_scene(
            seed, images=images, classes=classes, boxes=boxes, detections=detections, last_pixel=False
        )
    )


def test_many_classes_do_not_disturb_each_other() -> None:
    assert_equal_to_pycocotools(
        random_scene(2, images=8, classes=60, boxes=200, detections=600, last_pixel=False)
    )


def test_the_cap_of_100_detections_per_image_and_class() -> None:
    assert_equal_to_pycocotools(
        random_scene(3, images=1, classes=1, boxes=30, detections=400, last_pixel=False)
    )


@pytest.mark.parametrize("factor", [1.0, 3.0, 10.0])
def test_large_boxes_fall_into_all_size_ranges(factor: float) -> None:
    scene = random_scene(5, images=4, classes=2, boxes=60, detections=150, last_pixel=False)
    truth, found = scene.annotations, scene.detections
    areas = truth.areas * factor**2
    assert_equal_to_pycocotools(
        Scene(
            replace(truth, boxes=truth.boxes * factor, areas=areas, coco_areas=areas),
            replace(found, boxes=found.boxes * factor, areas=found.areas * factor**2),
        )
    )


def test_the_twelve_figures_and_the_other_engine() -> None:
    scene = random_scene(7, images=10, boxes=80, detections=300, last_pixel=False)
    own = evaluate(scene.detections, scene.annotations, protocol="coco")
    theirs = evaluate(scene.detections, scene.annotations, protocol="coco", engine="pycocotools")
    assert len(own.summary) == 12
    assert own.summary == pytest.approx(theirs.summary, abs=1e-12, nan_ok=True)
    for row, other in zip(own.classes, theirs.classes, strict=True):
        assert row == pytest.approx(other, abs=1e-12)


def test_a_class_without_ground_truth_is_undefined_and_does_not_count() -> None:
    scene = random_scene(1, classes=3, boxes=4, last_pixel=False)
    without = np.flatnonzero(~np.isin(np.arange(3), scene.annotations.label))
    result = evaluate(scene.detections, scene.annotations, protocol="coco")
    arrays = accumulate(scene.detections, scene.annotations)
    for label in without:
        assert np.isnan(result.classes[label].ap)
        assert (arrays.precision[:, :, label] == UNDEFINED).all()
    assert result.mean_ap == pytest.approx(result.summary["AP"], abs=1e-12, nan_ok=True)


def test_the_cap_holds_for_a_class_without_ground_truth_too() -> None:
    one = ImageSet(np.array([1]), ("a",))
    kinds = (Category(1, "boxed"), Category(2, "never"))
    truth = make_annotations(
        one, kinds, image=np.zeros(1), label=np.zeros(1), boxes=np.array([[0.0, 0, 9, 9]]), last_pixel=False
    )
    found = make_detections(
        image=np.zeros(300), label=np.repeat([0, 1], 150), scores=np.tile(np.arange(150.0), 2),
        boxes=np.tile([[50.0, 50, 60, 60]], (300, 1)), last_pixel=False,
    )  # fmt: skip
    matches, _ = match_coco(found, truth)
    for start in (0, 150):
        of_class = slice(start, start + 150)
        assert (matches.outcome[of_class] == FALSE_POSITIVE).sum() == 100
        assert (np.diff(found.scores[matches.order[of_class]]) < 0).all()


def test_files_give_what_pycocotools_makes_of_the_same_files(tmp_path: Path) -> None:
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    rng = np.random.default_rng(0)
    scene = random_scene(11, images=20, classes=5, boxes=120, detections=500, last_pixel=False)
    truth, results = (
        coco.as_instances(scene.annotations),
        coco.as_results(scene.detections, scene.annotations),
    )
    for row in truth["annotations"]:  # a mask is smaller than its box, and coordinates are fractional
        row["area"] *= float(rng.uniform(0.3, 1))
        row["bbox"] = (np.array(row["bbox"]) + rng.random(4)).tolist()
    for row in results:
        row["bbox"] = (np.array(row["bbox"]) + rng.random(4)).tolist()
    (tmp_path / "truth.json").write_text(json.dumps(truth))
    (tmp_path / "results.json").write_text(json.dumps(results, indent=1))
    with contextlib.redirect_stdout(io.StringIO()):
        reference = COCO(str(tmp_path / "truth.json"))
        evaluator = COCOeval(reference, reference.loadRes(str(tmp_path / "results.json")), "bbox")
        evaluator.evaluate()
        evaluator.accumulate()
    annotations = coco.read_annotations(tmp_path / "truth.json")
    ours = accumulate(coco.read_detections(tmp_path / "results.json", annotations), annotations)
    np.testing.assert_allclose(ours.precision, evaluator.eval["precision"][..., -1], rtol=0, atol=1e-12)
    np.testing.assert_allclose(ours.recall, evaluator.eval["recall"], rtol=0, atol=1e-12)
