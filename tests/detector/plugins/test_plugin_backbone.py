"""The backbone inside every plug-in: no input scaling is lost, nothing is computed or trained in vain."""

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from plugin_scenes import NARROW, NARROW_SLIM, NARROW_TORCHVISION, assert_same_features, expected_features
from torch import Tensor

from detector.architecture import Architecture
from detector.googlenet import GoogLeNet
from detector.inception import TransformInput
from detector.plugins.backbone import (
    IMAGENET_INPUT,
    LEVELS,
    Backbone,
    InputConversion,
    build_backbone,
    last_of,
)
from detector.region_classifier import Normalize, Preprocessing

numbers = st.floats(-3, 3).map(lambda value: round(value, 3))
conventions = st.builds(
    Preprocessing,
    channel_order=st.sampled_from(["RGB", "BGR"]),
    scale=st.sampled_from([1.0, 1 / 255]),
    mean=st.tuples(numbers, numbers, numbers),
    std=st.tuples(*[st.floats(0.2, 60.0)] * 3),
)


@settings(max_examples=30, deadline=None)
@given(wanted=conventions, given=conventions)
def test_input_conversion_changes_one_convention_into_the_other(
    wanted: Preprocessing, given: Preprocessing
) -> None:
    pixels = torch.randint(0, 256, (1, 3, 3, 2), generator=torch.Generator().manual_seed(0))
    expected = Normalize(wanted)(pixels)
    found = InputConversion(wanted, given=given)(Normalize(given)(pixels))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4 * (1 + expected.abs().max().item()))


def test_input_conversion_to_the_same_convention_changes_no_bit(normalised: Tensor) -> None:
    assert torch.equal(InputConversion(IMAGENET_INPUT)(normalised), normalised)
    assert torch.equal(InputConversion()(normalised), normalised)


def test_features_are_those_of_the_network(bgr_weights: Path, pixels: Tensor, normalised: Tensor) -> None:
    backbone = build_backbone(bgr_weights).eval()
    with torch.inference_mode():
        found = backbone(normalised)
    assert_same_features(found, expected_features(bgr_weights, pixels, LEVELS))


def test_features_of_real_weights_are_those_of_the_network(
    shared: Path, pixels: Tensor, normalised: Tensor
) -> None:
    weights = shared / "weights" / "bvlc_googlenet.npz"
    with torch.inference_mode():
        found = build_backbone(weights).eval()(normalised)
    assert_same_features(found, expected_features(weights, pixels, LEVELS))


def test_a_checkpoint_brings_its_input_conversion(bgr_weights: Path, normalised: Tensor) -> None:
    trained = build_backbone(bgr_weights).eval()
    restored = build_backbone().eval()
    restored.load_state_dict(trained.state_dict())
    with torch.inference_mode():
        for ours, theirs in zip(restored(normalised), trained(normalised), strict=True):
            assert torch.equal(ours, theirs)


@pytest.mark.parametrize("architecture", [NARROW_SLIM, NARROW_TORCHVISION])
def test_a_checkpoint_brings_torchvisions_change_of_the_input(
    torchvision_weights: Path, architecture: Architecture, pixels: Tensor, normalised: Tensor
) -> None:
    """Once, whether or not the network that takes it was made to have that change."""
    trained = build_backbone(torchvision_weights).eval()
    restored = build_backbone(architecture=architecture).eval()
    restored.load_state_dict(trained.state_dict())
    expected = expected_features(torchvision_weights, pixels, LEVELS)
    with torch.inference_mode():
        assert_same_features(trained(normalised), expected)
        assert_same_features(restored(normalised), expected)


def test_a_random_network_of_torchvisions_changes_its_input_too(normalised: Tensor) -> None:
    backbone = build_backbone(architecture=NARROW_TORCHVISION)
    torch.testing.assert_close(backbone.input(normalised), TransformInput()(normalised), rtol=0, atol=1e-6)


@pytest.mark.parametrize("norm", ["lrn", "batch", "none"])
@pytest.mark.parametrize("taps", [("conv2",), ("inception_3b", "Mixed_4f"), LEVELS])
def test_channels_strides_and_gradients(norm: str, taps: tuple[str, ...]) -> None:
    torch.manual_seed(0)
    architecture = Architecture(norm=norm, width=NARROW.width)  # type: ignore[arg-type]
    backbone = build_backbone(architecture=architecture, taps=taps)
    found = backbone(torch.randn(2, 3, 64, 96))
    for features, channels, stride in zip(found, backbone.channels, backbone.strides, strict=True):
        assert features.shape == (2, channels, 64 // stride, 96 // stride)
    sum(features.square().mean() for features in found).backward()
    for name, parameter in backbone.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


def test_frozen_levels_and_norms_stay_as_they_are() -> None:
    architecture = Architecture(norm="batch", width=NARROW.width)
    backbone = build_backbone(architecture=architecture, freeze="conv2", norm_eval=True)
    before = {name: tensor.clone() for name, tensor in backbone.state_dict().items()}
    backbone.train()
    optimiser = torch.optim.SGD([part for part in backbone.parameters() if part.requires_grad], lr=0.1)
    sum(features.mean() for features in backbone(torch.rand(2, 3, 64, 64))).backward()
    optimiser.step()
    after = backbone.state_dict()
    changed = {name for name, tensor in before.items() if not torch.equal(tensor, after[name])}
    assert changed and not [name for name in changed if name.startswith("network.conv") or "running" in name]


@pytest.mark.parametrize(
    "taps", [(), ("inception_9z",), ("inception_4e", "inception_3b"), ("conv2", "conv2")]
)
def test_wrong_taps_are_named(taps: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match="taps are"):
        Backbone(GoogLeNet(0, architecture=NARROW), taps=taps)


def test_there_are_five_levels_to_freeze() -> None:
    assert [last_of(count) for count in (0, 1, 5)] == [None, LEVELS[0], LEVELS[4]]
    for count in (-1, 6):
        with pytest.raises(ValueError, match=f"frozen_levels is {count}, but must be 0 to 5"):
            last_of(count)


def test_weights_bring_their_architecture(bgr_weights: Path) -> None:
    with pytest.raises(ValueError, match="but not both"):
        build_backbone(bgr_weights, architecture=NARROW)
