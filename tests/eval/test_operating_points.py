"""All classes together, against counting by hand."""

import math
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from random_scenes import random_scene

from eval.coco_metrics import match_coco
from eval.dataset import Category, ImageSet, make_annotations, make_detections
from eval.matching import IGNORED, TRUE_POSITIVE
from eval.operating_points import OperatingPoint, all_classes
from eval.protocols import evaluate
from eval.report import write_report


@given(st.integers(0, 2**32), st.sampled_from(["ilsvrc", "iou50", "voc2012", "coco"]))
@settings(max_examples=60, deadline=None)
def test_shares_are_those_counted_one_by_one(seed: int, protocol: str) -> None:
    scene = random_scene(seed)
    result = evaluate(scene.detections, scene.annotations, protocol=protocol)
    matches = result.matches or match_coco(scene.detections, scene.annotations)[0]
    middle = float(np.median(scene.detections.scores)) if len(scene.detections) else 0.0
    found = all_classes(result, (middle, -math.inf))
    for point in found.points:
        shown = [
            outcome == TRUE_POSITIVE
            for position, outcome in zip(matches.order, matches.outcome, strict=True)
            if outcome != IGNORED and scene.detections.scores[position] >= point.score
        ]
        assert point.detections == len(shown)
        for value, of in ((point.precision, len(shown)), (point.recall, matches.positives.sum())):
            assert value == pytest.approx(sum(shown) / of) if of else math.isnan(value)
    assert math.isnan(found.average_precision) == (matches.positives.sum() == 0)


@pytest.mark.parametrize("protocol", ["ilsvrc", "voc2007", "voc2012"])
def test_of_a_single_class_the_average_precision_is_its_own(protocol: str) -> None:
    checked = 0
    for seed in range(40):
        scene = random_scene(seed, classes=1)
        result = evaluate(scene.detections, scene.annotations, protocol=protocol)
        if result.classes[0].num_gt:
            assert all_classes(result).average_precision == pytest.approx(result.classes[0].ap)
            checked += 1
    assert checked > 20


def test_classes_are_ranked_in_one_list(tmp_path: Path) -> None:
    images = ImageSet(np.array([1]), ("a",))
    boxes = [[0, 0, 50, 50], [100, 100, 150, 150]]
    annotations = make_annotations(
        images,
        [Category(1, "cat"), Category(2, "dog")],
        image=[0, 0],
        label=[0, 1],
        boxes=boxes,
        last_pixel=False,
    )
    detections = make_detections(
        image=[0, 0, 0], label=[0, 0, 1], scores=[0.9, 0.6, 0.3], last_pixel=False,
        boxes=[boxes[0], boxes[1], boxes[1]],
    )  # fmt: skip
    result = evaluate(detections, annotations)
    assert result.mean_ap == 1
    found = all_classes(result, (0.5, 0.3, 0.95))
    assert found.average_precision == pytest.approx((1 + 2 / 3) / 2)  # the wrong cat comes before the dog
    assert found.points[:2] == (OperatingPoint(0.5, 2, 0.5, 0.5), OperatingPoint(0.3, 3, 2 / 3, 1.0))
    assert found.points[2].detections == 0 and math.isnan(found.points[2].precision)
    page = tmp_path / "page.html"
    write_report(page, result, title="found", together=all_classes(result))
    text = page.read_text(encoding="utf-8")
    assert "All classes together: average precision 0.8333" in text
    rows = re.findall(r"<tr><td>([\d.]+)</td><td>(\d+)</td>\s*<td>(\S+)</td><td>(\S+)</td></tr>", text)
    assert rows[0] == ("0.5", "2", "0.5000", "0.5000")
    assert rows[2] == ("0.3", "3", "0.6667", "1.0000") and len(rows) == 5
