"""GoogLeNet made by `timm.create_model`: the same network, with timm's options."""

import warnings
from pathlib import Path

import pytest
import torch
from plugin_scenes import NARROW, assert_same_features, expected_features
from torch import Tensor

from detector.googlenet import GoogLeNet
from detector.plugins.backbone import LEVELS
from detector.region_classifier import Normalize
from detector.weights import load_weights

timm = pytest.importorskip("timm", reason="needs timm, which the extra `test` installs")
import detector.plugins.timm  # noqa: E402, F401  (registers the models)

MODELS = ["googlenet_rcnn", "googlenet_rcnn_bn"]


def test_models_are_listed() -> None:
    assert timm.list_models("googlenet_rcnn*") == MODELS
    assert timm.list_models("googlenet_rcnn*", pretrained=True) == [
        "googlenet_rcnn.bvlc_in1k",
        "googlenet_rcnn_bn.tv_in1k",
    ]


@pytest.mark.parametrize(("name", "parameters"), list(zip(MODELS, [6_998_552, 6_624_904], strict=True)))
def test_classifier(name: str, parameters: int) -> None:
    model = timm.create_model(name)
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters
    assert model.num_features == model.head_hidden_size == 1024
    narrow = timm.create_model(name, width=NARROW.width, num_classes=7).eval()
    x = torch.randn(2, 3, 65, 64)
    with torch.inference_mode():
        assert narrow(x).shape == (2, 7)
        assert torch.equal(narrow.forward_head(narrow.forward_features(x)), narrow(x))
        last, maps = narrow.forward_intermediates(x, indices=[1, 4])
        assert torch.equal(last, narrow.forward_features(x)) and len(maps) == 2
        assert torch.equal(last, maps[1])
        narrow.reset_classifier(0)
        assert torch.equal(narrow(x), last.mean(dim=(2, 3)))
        narrow.reset_classifier(3)
        assert narrow(x).shape == (2, 3)
    assert narrow.get_classifier().out_features == 3
    without = timm.create_model(name, width=NARROW.width, num_classes=0)
    assert isinstance(without.get_classifier(), torch.nn.Identity)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("out_indices", [(0, 1, 2, 3, 4), (2, 3), (-1,), 2])
def test_features_only(name: str, out_indices: tuple[int, ...] | int) -> None:
    model = timm.create_model(name, width=NARROW.width, features_only=True, out_indices=out_indices)
    maps = model(torch.randn(2, 3, 64, 96))
    picked = list(range(5))[-out_indices:] if isinstance(out_indices, int) else [i % 5 for i in out_indices]
    assert model.feature_info.channels() == [part.shape[1] for part in maps]
    assert model.feature_info.reduction() == [64 // part.shape[2] for part in maps]
    assert model.feature_info.module_name() == [f"network.{LEVELS[index]}" for index in picked]
    sum(part.square().mean() for part in maps).backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_weights_of_a_file_with_the_input_they_want(
    bgr_weights: Path, pixels: Tensor, normalised: Tensor
) -> None:
    with warnings.catch_warnings(action="error"):
        features = timm.create_model("googlenet_rcnn", features_only=True, weights=bgr_weights).eval()
    whole = timm.create_model("googlenet_rcnn", num_classes=3, weights=bgr_weights).eval()
    with pytest.warns(UserWarning, match="has 3 outputs: the classifier of 5 begins anew"):
        other = timm.create_model("googlenet_rcnn", num_classes=5, weights=bgr_weights).eval()
    classifier = load_weights(bgr_weights).eval()
    with torch.inference_mode():
        assert_same_features(features(normalised), expected_features(bgr_weights, pixels, LEVELS))
        logits = classifier.network(Normalize(classifier.preprocessing)(pixels))
        assert_same_features([whole(normalised)], [logits])
        assert other(normalised).shape == (2, 5)


@pytest.mark.parametrize("name", MODELS)
def test_weights_and_an_architecture_are_refused(name: str, bgr_weights: Path) -> None:
    with pytest.raises(ValueError, match="give either weights, which bring their architecture, or"):
        timm.create_model(name, weights=bgr_weights, width=NARROW.width)
    overlay = {"file": str(bgr_weights), "custom_load": True}
    with pytest.raises(ValueError, match="give either weights, which bring their architecture, or"):
        timm.create_model(name, pretrained=True, pretrained_cfg_overlay=overlay, norm="none")


def test_weights_and_other_pretrained_ones_are_refused(bgr_weights: Path) -> None:
    def create(file: str) -> torch.nn.Module:
        overlay = {"file": file, "custom_load": True}
        return timm.create_model(
            "googlenet_rcnn",
            weights=str(bgr_weights),
            pretrained=True,
            pretrained_cfg_overlay=overlay,
            features_only=True,
        )

    with pytest.raises(ValueError, match="give either pretrained=True, which is another"):
        create("another")
    create(str(bgr_weights))


def test_weights_go_into_either_model(bgr_weights: Path, normalised: Tensor) -> None:
    made = [timm.create_model(name, weights=bgr_weights, num_classes=3).eval() for name in MODELS]
    with torch.inference_mode():
        assert torch.equal(made[0](normalised), made[1](normalised))


def test_a_file_that_timm_would_read_past_is_refused(bgr_weights: Path) -> None:
    overlay = {"file": str(bgr_weights)}
    with pytest.raises(ValueError, match="weights=FILE"):
        timm.create_model("googlenet_rcnn", pretrained=True, pretrained_cfg_overlay=overlay)


def test_pretrained_tag(shared: Path, pixels: Tensor, normalised: Tensor) -> None:
    model = timm.create_model("googlenet_rcnn.bvlc_in1k", pretrained=True, features_only=True).eval()
    with torch.inference_mode():
        found = model(normalised)
    weights = shared / "weights" / "bvlc_googlenet.npz"
    assert_same_features(found, expected_features(weights, pixels, LEVELS))


@pytest.mark.parametrize("transform_input", [False, True])
def test_checkpoints_bring_torchvisions_change_of_the_input(
    torchvision_weights: Path, transform_input: bool, tmp_path: Path, normalised: Tensor
) -> None:
    """By timm's ways to save and load, into models that were or were not made to have that change."""
    name, options = "googlenet_rcnn_bn", {"width": NARROW.width, "transform_input": transform_input}
    trained = timm.create_model(name, weights=torchvision_weights).eval()
    torch.save(trained.state_dict(), tmp_path / "checkpoint.pth")
    read = timm.create_model(name, checkpoint_path=tmp_path / "checkpoint.pth", **options)
    timm.models.save_for_hf(trained, tmp_path / "folder", model_args={"weights": None} | options)
    found = timm.create_model(f"local-dir:{tmp_path / 'folder'}", pretrained=True)
    expected = load_weights(torchvision_weights).eval().network(normalised)
    with torch.inference_mode():
        for model in (trained, read.eval(), found.eval()):
            assert_same_features([model(normalised)], [expected])


def test_data_config_is_what_the_model_wants() -> None:
    config = timm.data.resolve_model_data_config(timm.create_model("googlenet_rcnn", width=NARROW.width))
    assert config["mean"] == (0.485, 0.456, 0.406) and config["std"] == (0.229, 0.224, 0.225)
    assert config["input_size"] == (3, 224, 224)


def test_timms_own_tools_work_on_it() -> None:
    """Layer-wise learning rates, gradient checkpointing, and what timm cannot have."""
    from timm.optim import param_groups_layer_decay

    model = timm.create_model("googlenet_rcnn", width=NARROW.width, num_classes=4)
    groups = param_groups_layer_decay(model, layer_decay=0.5)
    assert sum(len(group["params"]) for group in groups) == len(list(model.parameters()))
    assert len({group["lr_scale"] for group in groups}) == 11  # the stem, nine modules, the classifier
    model.set_grad_checkpointing()
    assert isinstance(model.network, GoogLeNet) and model.network.checkpointing
    for options in ({"in_chans": 1}, {"drop_path_rate": 0.1}, {"output_stride": 16}):
        with pytest.raises(ValueError, match="in_chans=3, drop_path_rate=0 and output_stride=32 only"):
            timm.create_model("googlenet_rcnn", **options)
    timm.create_model("googlenet_rcnn", width=NARROW.width, drop_path_rate=0.0)
    with pytest.raises(
        TypeError, match="GoogLeNet has no option norm_layer; those of its architecture are norm,"
    ):
        timm.create_model("googlenet_rcnn", norm_layer=torch.nn.BatchNorm2d)


@pytest.mark.parametrize("name", MODELS)
def test_without_a_pool_it_gives_the_last_feature_map(name: str) -> None:
    model = timm.create_model(name, width=NARROW.width, num_classes=0, global_pool="").eval()
    x = torch.randn(2, 3, 64, 96)
    with torch.inference_mode():
        features = model.forward_features(x)
        assert features.shape == (2, model.num_features, 2, 3)
        for found in (model(x), model.forward_head(features), model.forward_head(features, pre_logits=True)):
            assert torch.equal(found, features)
        with pytest.raises(ValueError, match="global_pool is '', but GoogLeNet has 'avg', or ''"):
            model.reset_classifier(3)
        model.reset_classifier(3, "avg")
        assert model(x).shape == (2, 3)
        model.reset_classifier(0)
        assert torch.equal(model(x), features.mean(dim=(2, 3)))
        model.reset_classifier(0, global_pool="")
        assert torch.equal(model(x), features)
    for options in ({"global_pool": ""}, {"global_pool": "max", "num_classes": 0}):
        with pytest.raises(ValueError, match="global_pool is"):
            timm.create_model(name, **options)


def test_device_and_kind_of_numbers(bgr_weights: Path) -> None:
    x = torch.randn(1, 3, 64, 64, dtype=torch.float64)
    with pytest.warns(UserWarning, match="begins anew"):
        trained = timm.create_model("googlenet_rcnn", weights=bgr_weights, num_classes=5, dtype=x.dtype)
    for model in (trained, timm.create_model("googlenet_rcnn", width=NARROW.width, dtype=x.dtype)):
        model.reset_classifier(4)
        assert model(x).dtype == x.dtype
    model = timm.create_model("googlenet_rcnn", device="meta", dtype=torch.bfloat16)
    model.reset_classifier(4)
    assert {(part.device.type, part.dtype) for part in model.parameters()} == {("meta", torch.bfloat16)}
