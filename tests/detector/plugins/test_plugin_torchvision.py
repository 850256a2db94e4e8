"""GoogLeNet under torchvision's own detectors: they train, and see what the weights were trained on."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from plugin_scenes import NARROW, NARROW_SLIM, SIDE, Scene, assert_same_features, expected_features
from torch import Tensor, nn
from torchvision.models import googlenet
from torchvision.models.detection import FCOS, FasterRCNN, RetinaNet
from torchvision.models.detection.anchor_utils import DefaultBoxGenerator
from torchvision.models.detection.ssd import SSD, SSDHead

from detector.plugins.backbone import LEVELS
from detector.plugins.torchvision import googlenet_fpn


def build(detector: Callable[..., nn.Module], backbone: nn.Module) -> nn.Module:
    if detector is SSD:  # it takes a list of channels, where the others take a number
        anchors = DefaultBoxGenerator([[2, 3]] * 5)
        head = SSDHead([32] * 5, anchors.num_anchors_per_location(), num_classes=3)
        return SSD(backbone, anchors, (SIDE, SIDE), num_classes=3, head=head)
    small: dict[str, Any] = {"min_size": SIDE, "max_size": SIDE}
    if detector is FasterRCNN:
        small |= {
            "rpn_pre_nms_top_n_train": 100,
            "rpn_post_nms_top_n_train": 50,
            "box_batch_size_per_image": 32,
        }
    return detector(backbone, num_classes=3, **small)


@pytest.mark.parametrize(("detector", "stride"), [(FasterRCNN, 4), (RetinaNet, 8), (FCOS, 8), (SSD, 8)])
def test_detectors_learn(detector: Callable[..., nn.Module], stride: Any, scene: Scene) -> None:
    torch.manual_seed(0)
    backbone = googlenet_fpn(architecture=NARROW, finest_stride=stride, out_channels=32)
    model = build(detector, backbone).train()
    targets = [
        {"boxes": boxes, "labels": labels} for boxes, labels in zip(scene.boxes, scene.labels, strict=True)
    ]
    optimiser = torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9)
    losses = []
    for _ in range(8):
        loss = sum(model(scene.images, targets).values())
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        losses.append(loss.item())
    assert sum(losses[-3:]) / 3 < 0.97 * losses[0], losses
    assert all(parameter.grad is not None for parameter in model.parameters())
    with torch.inference_mode():
        found = model.eval()(scene.images)
    assert [set(part) for part in found] == [{"boxes", "labels", "scores"}] * len(scene.images)


@pytest.mark.parametrize(
    ("stride", "names"), [(4, ["0", "1", "2", "3", "pool"]), (8, ["0", "1", "2", "p6", "p7"])]
)
def test_levels(stride: Any, names: list[str]) -> None:
    backbone = googlenet_fpn(architecture=NARROW, finest_stride=stride, out_channels=16).eval()
    with torch.inference_mode():
        levels = backbone(torch.randn(1, 3, 128, 192))
    assert list(levels) == names and backbone.out_channels == 16
    for level, features in enumerate(levels.values()):
        step = stride * 2**level
        assert features.shape == (1, 16, -(-128 // step), -(-192 // step))


def test_the_detectors_own_normalisation_reaches_the_weights(bgr_weights: Path, pixels: Tensor) -> None:
    """From pixels of 0..1 through Faster R-CNN's transform, untouched, to the features `forward` is made of."""
    backbone = googlenet_fpn(bgr_weights)
    side = {"min_size": min(pixels.shape[2:]), "max_size": max(pixels.shape[2:])}
    model = FasterRCNN(backbone, num_classes=3, **side).eval()
    model.transform.size_divisible = 1  # no padding, so that the maps compare
    with torch.inference_mode():
        images, _ = model.transform(list(pixels / 255))
        found = backbone.body(images.tensors)
    assert_same_features(found, expected_features(bgr_weights, pixels, LEVELS[1:]))


def test_torchvisions_own_weights_keep_their_input_scaling(tmp_path: Path, normalised: Tensor) -> None:
    """torchvision's GoogLeNet rescales its input in `forward`, which its own feature extractors leave out."""
    torch.manual_seed(0)
    theirs = googlenet(weights=None, aux_logits=False, transform_input=True, init_weights=False).eval()
    torch.save(theirs.state_dict(), tmp_path / "googlenet.pth")
    expected: list[Tensor] = []
    for layer in (theirs.conv3, theirs.inception3b, theirs.inception4e, theirs.inception5b):
        layer.register_forward_hook(lambda _, __, output: expected.append(output))
    body = googlenet_fpn(tmp_path / "googlenet.pth").body.eval()
    with torch.inference_mode():
        theirs(normalised)
        assert_same_features(body(normalised), expected)


def test_a_checkpoint_brings_torchvisions_change_of_the_input(
    torchvision_weights: Path, pixels: Tensor, normalised: Tensor
) -> None:
    model = googlenet_fpn(architecture=NARROW_SLIM).eval()
    model.load_state_dict(googlenet_fpn(torchvision_weights).state_dict())
    with torch.inference_mode():
        found = model.body(normalised)
    assert_same_features(found, expected_features(torchvision_weights, pixels, LEVELS[1:]))


def test_frozen_levels() -> None:
    trained = {
        frozen: sum(
            part.numel()
            for part in googlenet_fpn(architecture=NARROW, frozen_levels=frozen).body.parameters()
            if part.requires_grad
        )
        for frozen in range(6)
    }
    assert sorted(trained.values(), reverse=True) == list(trained.values())
    assert len(set(trained.values())) == 6 and trained[5] == 0
    with pytest.raises(ValueError, match="frozen_levels is 6"):
        googlenet_fpn(frozen_levels=6)
    with pytest.raises(ValueError, match="finest_stride is 16"):
        googlenet_fpn(finest_stride=16)  # type: ignore[arg-type]
