"""Which boxes to look at first: pooled features against counted pixels, the order, the detector around it."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from detector.architecture import Architecture
from detector.box_features import GEOMETRY, box_features
from detector.configuration import DetectorConfig, build_detector
from detector.googlenet import GoogLeNet
from detector.objectness import BoxChooser, ObjectnessHead, SharedPass
from detector.region_scorer import no_progress
from detector.safetensors_file import WeightsCard, read_weights_file, write_weights_file
from detector.stage_timer import StageTimer
from detector.taxonomy import DET200
from detector.weights import CAFFE_INPUT, load_objectness, load_weights

NARROW = Architecture(width=0.25)
CARD = WeightsCard(
    "narrow", "random", "CC0", "members", CAFFE_INPUT, architecture=NARROW, objectness=(96,), classes=DET200
)
CARD = replace(CARD, preprocessing=replace(CAFFE_INPUT, size=32, context=2))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A narrow detector and head of random weights."""
    torch.manual_seed(0)
    network = GoogLeNet(1002, architecture=NARROW)
    head = ObjectnessHead(network.classifier.in_features, hidden=4)
    path = tmp_path_factory.mktemp("objectness") / "model.safetensors"
    tensors = {f"objectness.{name}": tensor for name, tensor in head.state_dict().items()}
    write_weights_file(path, network.state_dict() | tensors, CARD, eight_bits=True)
    return path


def boxes_in(count: int, width: float, height: float, seed: int) -> np.ndarray:
    generator = np.random.default_rng(seed)
    points = generator.random((count, 2, 2)) * (width - 1, height - 1)
    return np.concatenate([points.min(axis=1), points.max(axis=1) + 0.5], axis=1).astype(np.float32)


@given(st.integers(0, 10_000))
@settings(max_examples=30, deadline=None)
def test_pooling_is_the_mean_over_fine_points(seed: int) -> None:
    generator = np.random.default_rng(seed)
    features = generator.random((2, 3, 4)).astype(np.float32)
    low = generator.integers(0, (15, 11), (5, 2))
    high = generator.integers(low + 1, (17, 13))
    boxes = np.concatenate([low, high], axis=1) / 4  # on quarters of cells
    found = box_features(features, boxes, width=4, height=3)
    assert found.shape == (5, 3 * 2 + GEOMETRY) and np.isfinite(found).all()
    fine = features.repeat(4, axis=1).repeat(4, axis=2)  # quarters of cells
    for row, (x1, y1, x2, y2) in zip(found, (boxes * 4).round().astype(int), strict=True):
        expected = np.sqrt(fine[:, y1:y2, x1:x2].mean(axis=(1, 2)))
        np.testing.assert_allclose(row[:2], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("shape", [(40, 60), (1, 500), (500, 1), (1, 1)])
def test_a_choice_orders_the_boxes(model: Path, shape: tuple[int, int]) -> None:
    loaded = load_objectness(model)
    assert loaded is not None
    head, long_sides = loaded
    assert long_sides == (96,)
    boxes = boxes_in(12, shape[1], shape[0], seed=1)
    image = np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)
    chosen, fit = BoxChooser(SharedPass(load_weights(model), long_sides=(96, 128), runtime="torch"), head)(
        image, boxes
    )
    assert fit.shape == (12,) and ((fit > 0) & (fit < 1)).all()
    assert sorted(chosen.tolist()) == sorted(boxes.tolist())
    logits = [
        head(
            torch.from_numpy(
                next(SharedPass(load_weights(model), long_sides=[side], runtime="torch")(image, boxes))
            )
        )
        for side in (96, 128)
    ]
    expected = ((logits[0] + logits[1]) / 2).sigmoid()
    np.testing.assert_allclose(sorted(fit), sorted(expected.tolist()), rtol=1e-5)
    openvino = BoxChooser(SharedPass(load_weights(model), long_sides=(96, 128), runtime="openvino"), head)
    again, fit_again = openvino(image, boxes)
    np.testing.assert_array_equal(again, chosen)
    np.testing.assert_allclose(fit_again, fit, rtol=1e-5)
    assert [len(part) for part in openvino(image, boxes[:0])] == [0, 0]


def test_exact_means_every_box_and_agrees_where_both_look(model: Path) -> None:
    image = np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8)
    boxes = boxes_in(30, 80, 60, seed=2)
    seen: list[int] = []
    config = DetectorConfig(
        weights=str(model), score_threshold=0.0, nms_iou=1.0, soft_nms=None, num_proposals=10
    )
    fast, exact = build_detector(config), build_detector(replace(config, exact=True, max_detections=10_000))
    assert exact.max_boxes is None
    few = fast(image, boxes=boxes, progress=lambda done, total: seen.append(total))
    assert set(seen) == {10}
    seen.clear()
    everything = exact(image, boxes=boxes, progress=lambda done, total: seen.append(total))
    assert set(seen) == {30}
    reference = {
        (label, *box): score
        for label, box, score in zip(
            everything.labels.tolist(), everything.boxes.tolist(), everything.scores.tolist(), strict=True
        )
    }
    for label, box, score in zip(few.labels.tolist(), few.boxes.tolist(), few.scores.tolist(), strict=True):
        assert reference[label, *box] == pytest.approx(score, abs=2e-6)
    plain = build_detector(replace(config, objectness=False))
    assert plain.choose is None and plain.max_boxes == 10


def test_the_expected_fit_is_a_factor_of_all_scores(model: Path) -> None:
    image = np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8)
    boxes = boxes_in(8, 80, 60, seed=3)
    config = DetectorConfig(
        weights=str(model), score_threshold=0.0, nms_iou=1.0, soft_nms=None, num_proposals=8
    )
    with_factor = build_detector(config)
    assert isinstance(with_factor.choose, BoxChooser)
    chosen, fit = with_factor.choose(image, boxes)
    plain = with_factor.scorer(
        image, chosen, factors=None, score_threshold=0.0, timer=StageTimer(), progress=no_progress
    )
    expected = plain * fit[:, None]
    found = with_factor(image, boxes=boxes)
    assert len(found) == 100
    for box, label, score in zip(found.boxes, found.labels, found.scores, strict=True):
        place = int(np.flatnonzero((chosen == box).all(axis=1))[0])
        assert score == pytest.approx(expected[place, label], abs=1e-6)


def test_files_with_one_size_are_read_as_before(model: Path, tmp_path: Path) -> None:
    tensors, _ = read_weights_file(model)
    card = replace(CARD, objectness=96)  # type: ignore[arg-type]
    write_weights_file(tmp_path / "older.safetensors", tensors, card)
    found = load_objectness(tmp_path / "older.safetensors")
    assert found is not None and found[1] == (96,)


def test_weights_without_a_head_have_no_opinion(model: Path, tmp_path: Path) -> None:
    network = GoogLeNet(1002, architecture=NARROW)
    write_weights_file(tmp_path / "plain.safetensors", network.state_dict(), replace(CARD, objectness=None))
    assert load_objectness(tmp_path / "plain.safetensors") is None
    assert build_detector(DetectorConfig(weights=str(tmp_path / "plain.safetensors"))).choose is None
