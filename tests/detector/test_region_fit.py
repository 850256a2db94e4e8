"""A member's opinion on the fit of boxes: the joint fit, the pass that gives it, and its file."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from detector.architecture import Architecture
from detector.configuration import DetectorConfig, build_detector
from detector.googlenet import GoogLeNet
from detector.region_fit import RAISE, FitHead, ScoresAndFit, highest_fit, joint_fit
from detector.region_scorer import RegionScorer
from detector.runtime import choose_runtime
from detector.safetensors_file import WeightsCard, pack, read_weights_file, write_weights_file
from detector.stage_timer import StageTimer
from detector.weights import CAFFE_INPUT, FIT, MODELS, load_fit, load_network, load_weights

NARROW = Architecture(width=0.25)
IMAGE = np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8)
BOXES = np.array([[0, 0, 80, 60], [10, 5, 40, 50], [30, 30, 31, 31]], np.float32)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A narrow network of 64 pixels with a head of fit, as a file."""
    torch.manual_seed(0)
    network, head = GoogLeNet(architecture=NARROW), FitHead(256, 2, reduced=4, hidden=8)
    card = WeightsCard(
        "narrow", "random", "CC0", "cls1000", replace(CAFFE_INPUT, size=64), architecture=NARROW
    )
    path = tmp_path / "narrow.safetensors"
    tensors = {f"{FIT}{name}": tensor for name, tensor in head.state_dict().items()}
    write_weights_file(path, network.state_dict() | tensors, card)
    return path


fits = st.floats(0, 1)
logits = st.floats(-50, 50)


@given(st.lists(st.tuples(fits, logits, logits), max_size=9))
def test_the_joint_fit_of_each_box(rows: list[tuple[float, float, float]]) -> None:
    objectness, first, second = np.array(rows).reshape(-1, 3).T
    found = joint_fit(objectness, [first, second])
    assert found.shape == (len(rows),) and found.dtype == np.float32
    for value, (own, *told) in zip(found, rows, strict=True):
        own = min(max(own, 1e-6), 1 - 1e-6)
        logit = math.log(own / (1 - own))
        expected = min((logit + sum(told) / 2) / 2, logit + RAISE)
        assert value == pytest.approx(1 / (1 + math.exp(-expected)), rel=1e-5)


@given(st.lists(st.tuples(fits, logits), max_size=9))
def test_no_opinion_raises_a_fit_above_the_highest(rows: list[tuple[float, float]]) -> None:
    objectness, told = np.array(rows).reshape(-1, 2).T
    most = highest_fit(objectness)
    assert most.dtype == np.float32
    assert (joint_fit(objectness, []).astype(np.float32) <= most).all()
    assert (joint_fit(objectness, [told]) <= most).all()
    assert (joint_fit(objectness, [np.full(len(rows), 50.0)]) <= most).all()


def test_without_opinions_the_objectness_stays() -> None:
    objectness = np.array([0, 0.2, 1], np.float32)
    np.testing.assert_array_equal(joint_fit(objectness, []), objectness)


@pytest.mark.parametrize("runtime", ["torch", "openvino"])
def test_one_pass_tells_what_two_do(model: Path, runtime: str) -> None:
    if runtime == "openvino":
        pytest.importorskip("openvino")
    classifier, head = load_weights(model), load_fit(model)
    assert head is not None
    regions = np.random.default_rng(1).integers(0, 256, (3, 64, 64, 3), np.uint8)
    seen = choose_runtime(ScoresAndFit(classifier, head), runtime, size=64)(regions)  # type: ignore[arg-type]
    pixels = torch.from_numpy(regions).permute(0, 3, 1, 2)
    with torch.inference_mode():
        scores = classifier.eval()(pixels)
        assert isinstance(classifier.network, GoogLeNet)
        maps = classifier.network.features(classifier.normalize(pixels))
        fit = head.eval()(maps)
    np.testing.assert_allclose(seen[:, :-1], scores, atol=1e-5)
    np.testing.assert_allclose(seen[:, -1:], fit, atol=1e-4)


def test_a_scorer_tells_of_the_fit_and_counts_it_beside_factors(model: Path) -> None:
    plain, telling = RegionScorer(load_weights(model)), RegionScorer(load_weights(model), fit=load_fit(model))
    assert telling.tells_fit and not plain.tells_fit
    scores = plain(IMAGE, BOXES)
    np.testing.assert_allclose(telling(IMAGE, BOXES), scores, atol=1e-5)
    factors = np.array([0.9, 0.5, 0.0], np.float32)
    np.testing.assert_array_equal(plain(IMAGE, BOXES, factors=factors), scores * factors[:, None])
    _, fit = telling.look(IMAGE, BOXES, timer=StageTimer())
    assert fit is not None
    expected = scores * joint_fit(factors, [fit])[:, None]
    np.testing.assert_allclose(telling(IMAGE, BOXES, factors=factors), expected, atol=1e-5)
    nothing = telling(IMAGE, BOXES[:0], factors=factors[:0])
    assert nothing.shape == (0, 200)


def test_the_head_travels_with_its_model_and_only_who_asks_for_it_gets_it(
    model: Path, tmp_path: Path
) -> None:
    head = load_fit(model)
    assert head is not None
    packed = tmp_path / "packed.safetensors"
    pack(model, packed, name="packed")
    small = load_fit(packed)
    assert small is not None
    for name, tensor in head.state_dict().items():
        torch.testing.assert_close(small.state_dict()[name], tensor, atol=0.01, rtol=0)
    network, _ = load_network(model)
    assert not any(name.startswith(FIT) for name in network.state_dict())


def test_a_model_without_a_head_tells_nothing(model: Path, tmp_path: Path) -> None:
    network, card = load_network(model)
    plain = tmp_path / "plain.safetensors"
    write_weights_file(plain, network.state_dict(), card)
    assert load_fit(plain) is None


@pytest.mark.parametrize("name", ["reduce.weight", "reduce.bias", "hidden.weight", "output.bias"])
@pytest.mark.parametrize("left", [None, torch.zeros(3), torch.zeros(0, 2)])
def test_a_damaged_head_is_named(model: Path, tmp_path: Path, name: str, left: torch.Tensor | None) -> None:
    head = FitHead(256, 2, reduced=4, hidden=8).state_dict()
    del head[name]
    if left is not None:
        head[name] = left
    network, card = load_network(model)
    damaged = tmp_path / "damaged.safetensors"
    write_weights_file(damaged, network.state_dict() | {f"{FIT}{part}": head[part] for part in head}, card)
    with pytest.raises(ValueError, match=r"damaged\.safetensors: (has no tensor|tensor) \w+\.(weight|bias)"):
        load_fit(damaged)


def test_the_member_that_sees_most_around_a_box_tells_of_its_fit() -> None:
    telling = {path.stem for path in MODELS.glob("*.safetensors") if load_fit(path) is not None}
    assert telling == {"googlenet-det200-wide"}


def test_a_head_for_regions_of_another_size_is_refused(model: Path, tmp_path: Path) -> None:
    tensors, card = read_weights_file(model)
    other = tmp_path / "other.safetensors"
    write_weights_file(other, tensors, replace(card, preprocessing=replace(CAFFE_INPUT, size=96)))
    with pytest.raises(
        ValueError, match=r"other\.safetensors: tensor hidden\.weight has the shape \(8, 16\)"
    ):
        load_fit(other)


def test_a_detector_asks_members_for_the_fit_beside_the_objectness_and_with_their_own_context() -> None:
    def tells(**options: Any) -> bool:
        weights = options.pop("weights", ["googlenet-det200", "googlenet-det200-wide"])
        return build_detector(DetectorConfig(weights=weights, **options)).scorer.tells_fit

    assert tells() and tells(exact=True)
    assert not tells(objectness=False) and not tells(context=8)
    assert not tells(weights="googlenet-det200-wide")
