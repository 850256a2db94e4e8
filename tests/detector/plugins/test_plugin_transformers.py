"""GoogLeNet as a backbone of transformers: alone, and in a DETR that trains, is saved and comes back."""

from pathlib import Path
from typing import Any

import pytest
import torch
from plugin_scenes import NARROW, NARROW_TORCHVISION, SIDE, Scene, assert_same_features, expected_features
from torch import Tensor

from detector.architecture import Architecture
from detector.googlenet import GoogLeNet
from detector.plugins.backbone import LEVELS
from detector.safetensors_file import WeightsCard, write_weights_file
from detector.weights import CAFFE_INPUT

transformers = pytest.importorskip(
    "transformers", reason="needs transformers, which the extra `test` installs"
)
from detector.plugins.transformers import (  # noqa: E402
    GoogLeNetBackbone,
    GoogLeNetConfig,
    googlenet_config,
    take_weights,
)


def detr(**backbone: Any) -> Any:
    config = transformers.DetrConfig(
        backbone_config=GoogLeNetConfig(**backbone),
        num_queries=6,
        d_model=32,
        encoder_layers=1,
        decoder_layers=1,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=64,
        decoder_ffn_dim=64,
        num_labels=2,
        dropout=0.0,
    )
    return transformers.DetrForObjectDetection(config)


@pytest.mark.parametrize("norm", ["lrn", "batch", "none"])
def test_auto_backbone(norm: str) -> None:
    config = GoogLeNetConfig(norm=norm, width=NARROW.width, out_features=["inception_3b", "inception_5b"])
    model = transformers.AutoBackbone.from_config(config)
    assert isinstance(model, GoogLeNetBackbone) and model.out_indices == [2, 4]
    maps = model(torch.randn(2, 3, 65, 96)).feature_maps
    assert [part.shape[1] for part in maps] == model.channels == [120, 256]
    assert [part.shape[2:] for part in maps] == [(8, 12), (2, 3)]
    sum(part.square().mean() for part in maps).backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_features_are_those_of_the_network(bgr_weights: Path, pixels: Tensor, normalised: Tensor) -> None:
    config = googlenet_config(bgr_weights, out_indices=[0, 1, 2, 3, 4])
    model = take_weights(transformers.AutoBackbone.from_config(config), bgr_weights).eval()
    with torch.inference_mode():
        assert_same_features(model(normalised).feature_maps, expected_features(bgr_weights, pixels, LEVELS))


def test_frozen_batch_norms_of_detr_change_nothing(
    tmp_path: Path, pixels: Tensor, normalised: Tensor
) -> None:
    """DETR's own batch norms have another epsilon than the weights were trained with."""
    torch.manual_seed(0)
    architecture = Architecture(norm="batch", width=NARROW.width)
    network = GoogLeNet(1000, architecture=architecture)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d) and module.running_var is not None:
            module.running_var.uniform_(1e-4, 1e-3)  # small, so that the epsilon matters
    path = tmp_path / "batch.safetensors"
    card = WeightsCard("r", "r", "CC0", "cls1000", CAFFE_INPUT, architecture=architecture)
    write_weights_file(path, network.state_dict(), card)
    model = take_weights(detr(**vars(architecture), out_indices=[2, 4]), path)
    body = model.model.backbone.model
    assert not [part for part in body.modules() if isinstance(part, torch.nn.BatchNorm2d)]
    with torch.inference_mode():
        found = body(normalised).feature_maps
    assert_same_features(found, expected_features(path, pixels, (LEVELS[2], LEVELS[4])))


def test_detr_learns(scene: Scene) -> None:
    torch.manual_seed(0)
    model = detr(width=NARROW.width).train()
    pixels = torch.stack(scene.images)
    labels = []
    for boxes, classes in zip(scene.boxes, scene.labels, strict=True):
        centres, sizes = (boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]
        labels.append({"class_labels": classes - 1, "boxes": torch.cat([centres, sizes], dim=1) / SIDE})
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-2)
    losses = []
    for _ in range(10):
        loss = model(pixel_values=pixels, labels=labels).loss
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert sum(losses[-3:]) / 3 < 0.95 * losses[0], losses
    assert all(
        parameter.grad is not None
        for parameter in model.model.backbone.parameters()
        if parameter.requires_grad
    )


@pytest.mark.parametrize("norm", ["lrn", "batch"])
def test_saved_models_come_back_the_same(tmp_path: Path, norm: str, normalised: Tensor) -> None:
    torch.manual_seed(0)
    model = detr(norm=norm, width=NARROW.width, transform_input=norm == "batch").eval()
    model.save_pretrained(tmp_path)
    back = transformers.DetrForObjectDetection.from_pretrained(tmp_path).eval()
    with torch.inference_mode():
        assert torch.equal(model(normalised).pred_boxes, back(normalised).pred_boxes)
        body, body_back = model.model.backbone.model, back.model.backbone.model
        assert torch.equal(body(normalised).feature_maps[0], body_back(normalised).feature_maps[0])


def test_a_saved_backbone_brings_torchvisions_change_of_the_input(
    torchvision_weights: Path, tmp_path: Path, pixels: Tensor, normalised: Tensor
) -> None:
    config = googlenet_config(torchvision_weights, out_indices=[2, 4])
    assert not config.transform_input  # the input conversion has it
    take_weights(GoogLeNetBackbone(config), torchvision_weights).save_pretrained(tmp_path)
    back = GoogLeNetBackbone.from_pretrained(tmp_path).eval()
    with torch.inference_mode():
        found = back(normalised).feature_maps
    assert_same_features(found, expected_features(torchvision_weights, pixels, (LEVELS[2], LEVELS[4])))


def test_old_configurations_cannot_take_weights_that_change_the_input_a_second_time(
    torchvision_weights: Path,
) -> None:
    old = GoogLeNetBackbone(GoogLeNetConfig(**vars(NARROW_TORCHVISION)))
    with pytest.raises(ValueError, match="of another architecture than the backbone; use googlenet_config"):
        take_weights(old, torchvision_weights)


def test_weights_need_a_backbone_of_their_architecture(bgr_weights: Path) -> None:
    with pytest.raises(ValueError, match="of another architecture"):
        take_weights(detr(width=NARROW.width), bgr_weights)
    with pytest.raises(ValueError, match="no GoogLeNet backbone"):
        take_weights(torch.nn.Linear(1, 1), bgr_weights)


def test_timm_backbone_finds_the_timm_models() -> None:
    pytest.importorskip("timm", reason="needs timm, which the extra `test` installs")
    import detector.plugins.timm  # noqa: F401

    config = transformers.TimmBackboneConfig(backbone="googlenet_rcnn", out_indices=[2, 3, 4])
    model = transformers.AutoBackbone.from_config(config)
    maps = model(torch.randn(1, 3, 64, 64)).feature_maps
    assert [part.shape[1] for part in maps] == model.channels == [480, 832, 1024]
