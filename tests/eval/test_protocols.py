"""ILSVRC and VOC results against the plain statement of their rules, and against the official program."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import plain_rules
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from random_scenes import random_scene

from eval import ilsvrc, inputs
from eval.dataset import Annotations, Detections, ImageSet, make_annotations, make_detections
from eval.errors import break_down
from eval.evaluation import Evaluation
from eval.protocols import evaluate

SCENES = {
    "seed": st.integers(0, 2**32),
    "images": st.integers(1, 6),
    "classes": st.integers(1, 4),
    "boxes": st.integers(0, 40),
    "detections": st.integers(0, 120),
}


def assert_same(result: Evaluation, reference: list[plain_rules.PlainClass]) -> None:
    for row, plain in zip(result.classes, reference, strict=True):
        assert row.num_gt == plain.positives
        np.testing.assert_allclose([row.ap, row.recall], [plain.ap, plain.recall], rtol=0, atol=1e-12)
    counted = [plain.ap for plain in reference if plain.positives]
    if counted:
        assert result.mean_ap == pytest.approx(np.mean(counted), abs=1e-12)
        assert result.median_ap == pytest.approx(np.median(counted), abs=1e-12)
    else:
        assert np.isnan(result.mean_ap) and np.isnan(result.median_ap)


@settings(max_examples=120, deadline=None)
@given(**SCENES, blacklisted=st.integers(0, 4), iou=st.sampled_from([0.5, 0.3, 0.75]))
def test_ilsvrc_equals_its_rules(
    seed: int, images: int, classes: int, boxes: int, detections: int, blacklisted: int, iou: float
) -> None:
    scene = random_scene(seed, images=images, classes=classes, boxes=boxes, detections=detections)
    rng = np.random.default_rng(seed)
    pairs = [(int(rng.integers(images)), int(rng.integers(classes))) for _ in range(blacklisted)]
    annotations = scene.annotations.with_blacklist(pairs)
    assert_same(
        evaluate(scene.detections, annotations, protocol="ilsvrc", iou=iou),
        plain_rules.ilsvrc(scene.detections, annotations, iou),
    )


@settings(max_examples=120, deadline=None)
@given(**SCENES, protocol=st.sampled_from(["iou50", "voc2007", "voc2012"]))
def test_voc_equals_its_rules(
    seed: int, images: int, classes: int, boxes: int, detections: int, protocol: str
) -> None:
    scene = random_scene(seed, images=images, classes=classes, boxes=boxes, detections=detections)
    assert_same(
        evaluate(scene.detections, scene.annotations, protocol=protocol),
        plain_rules.voc(
            scene.detections,
            scene.annotations,
            eleven_points=protocol == "voc2007",
            heed_difficult=protocol != "iou50",
            strict=protocol == "iou50",
        ),
    )


def one_image(boxes: list[list[float]], detections: list[list[float]]) -> tuple[Annotations, Detections]:
    """One class, one image; detections x1, y1, x2, y2 in falling score."""
    annotations = make_annotations(
        ImageSet(np.array([1]), ("a",)),
        ilsvrc.DET_CATEGORIES,
        image=[0] * len(boxes),
        label=[0] * len(boxes),
        boxes=boxes,
        last_pixel=True,
    )
    count = len(detections)
    return annotations, make_detections(
        image=[0] * count, label=[0] * count, scores=-np.arange(count), boxes=detections, last_pixel=True
    )


def test_a_second_detection_takes_the_next_free_box_in_ilsvrc_only() -> None:
    annotations, detections = one_image([[0, 0, 99, 99], [0, 0, 99, 79]], [[0, 0, 99, 99], [0, 0, 99, 95]])
    assert evaluate(detections, annotations, protocol="ilsvrc").classes[0].recall == 1.0
    assert evaluate(detections, annotations, protocol="voc2012").classes[0].recall == 0.5


def test_of_two_equal_overlaps_the_earlier_box_is_taken() -> None:
    left, right = [0.0, 0, 99, 99], [20.0, 0, 119, 99]
    for boxes, recall in (([left, right], 0.5), ([right, left], 1.0)):
        annotations, detections = one_image(boxes, [[10, 0, 109, 99], [-20, 0, 79, 99]])
        assert evaluate(detections, annotations).classes[0].recall == recall


@pytest.mark.parametrize("seed", range(3))
def test_many_classes_do_not_disturb_each_other(seed: int) -> None:
    scene = random_scene(seed, images=8, classes=60, boxes=200, detections=600)
    rng = np.random.default_rng(seed)
    annotations = scene.annotations.with_blacklist(
        [(int(rng.integers(8)), int(rng.integers(60))) for _ in range(100)]
    )
    assert_same(evaluate(scene.detections, annotations), plain_rules.ilsvrc(scene.detections, annotations))
    assert_same(
        evaluate(scene.detections, scene.annotations, protocol="voc2012"),
        plain_rules.voc(scene.detections, scene.annotations, eleven_points=False, heed_difficult=True),
    )


def test_small_boxes_have_a_lower_threshold() -> None:
    # 9x9: threshold 81 / 361 = 0.224; the detection covers 25 of its 81 pixels (IoU 0.309).
    annotations, detections = one_image([[0, 0, 8, 8]], [[0, 0, 4, 4]])
    assert evaluate(detections, annotations, protocol="ilsvrc").classes[0].ap == 1.0
    assert evaluate(detections, annotations, protocol="iou50").classes[0].ap == 0.0


def test_the_rules_differ_at_an_overlap_of_exactly_one_half() -> None:
    annotations, detections = one_image([[0, 0, 99, 99]], [[0, 0, 99, 49]])
    assert evaluate(detections, annotations, protocol="ilsvrc").classes[0].ap == 1.0
    assert evaluate(detections, annotations, protocol="voc2007").classes[0].ap == pytest.approx(1.0)
    assert evaluate(detections, annotations, protocol="voc2012").classes[0].ap == 1.0
    assert evaluate(detections, annotations, protocol="iou50").classes[0].ap == 0.0
    annotations, detections = one_image([[0, 0, 99, 99]], [[0, 0, 99, 49], [0, 0, 99, 49]])
    for protocol, causes in (("voc2012", {"duplicate": 1}), ("iou50", {"localisation": 2})):
        counts = break_down(evaluate(detections, annotations, protocol=protocol)).counts
        assert {cause: count for cause, count in counts.items() if count} == causes


def test_the_order_of_the_file_breaks_ties_and_the_order_of_images_comes_first() -> None:
    scene = random_scene(8, detections=200)
    same = replace(scene.detections, scores=np.full(200, 0.5))
    assert_same(evaluate(same, scene.annotations), plain_rules.ilsvrc(same, scene.annotations))


def test_without_detections_the_ap_is_zero() -> None:
    scene = random_scene(2, detections=0)
    result = evaluate(scene.detections, scene.annotations)
    assert [row.ap for row in result.counted] == [0.0] * len(result.counted)


def test_huge_values_do_not_break_it() -> None:
    annotations, detections = one_image([[0, 0, 9, 9]], [[-1e80, -1e80, 1e80, 1e80], [0, 0, 9, 9]])
    assert evaluate(detections, annotations).classes[0].ap == 0.5


def test_a_million_detections_in_one_image() -> None:
    annotations, _ = one_image([[0, 0, 9, 9]] * 20, [])
    rng = np.random.default_rng(0)
    corner = rng.integers(0, 9, (1_000_000, 2)).astype(float)
    detections = make_detections(
        image=np.zeros(1_000_000), label=np.zeros(1_000_000), scores=rng.random(1_000_000),
        boxes=np.concatenate((corner, corner + 5), axis=1), last_pixel=True,
    )  # fmt: skip
    assert evaluate(detections, annotations).classes[0].recall == 1.0


def test_unknown_protocol_and_threshold_are_refused() -> None:
    scene = random_scene(0)
    with pytest.raises(ValueError, match="unknown protocol 'voc'"):
        evaluate(scene.detections, scene.annotations, protocol="voc")
    with pytest.raises(ValueError, match="IoU threshold is 50"):
        evaluate(scene.detections, scene.annotations, iou=50)


def test_official_result_to_every_printed_digit(shared: Path) -> None:
    folder = shared / "ilsvrc_det"
    with pytest.warns(
        UserWarning, match=r"blacklist.txt: none of its 409 pairs is of an image that is evaluated"
    ):
        annotations = inputs.read_annotations(
            folder / "official_val2" / "val2_xml.tar.gz",
            image_list=folder / "official_val2" / "val2_index.txt",
            blacklist=folder / "ILSVRC2014_det_validation_blacklist.txt",
        )
    with pytest.warns(UserWarning, match=r"demo.val2.pred.det.txt:34: box .* xmax < xmin"):
        detections = inputs.read_detections(folder / "official_val2" / "demo.val2.pred.det.txt", annotations)
    result = evaluate(detections, annotations)
    official = [
        line.split() for line in (folder / "official_val2" / "official_ap.txt").read_text().splitlines()
    ]
    assert [[str(row.id), f"{row.ap:.10f}"] for row in result.classes] == official
    assert f"{result.mean_ap:.6f} {result.median_ap:.6f}" == "0.601683 0.614881"
