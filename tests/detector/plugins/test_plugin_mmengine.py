"""GoogLeNet as a backbone of MMEngine; and, where MMDetection is installed, its RetinaNet from our configuration."""

import importlib
import runpy
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from plugin_scenes import NARROW, NARROW_SLIM, SIDE, Scene, assert_same_features, expected_features
from torch import Tensor

from detector.plugins.backbone import LEVELS

mmengine = pytest.importorskip("mmengine", reason="needs mmengine, which the extra `test` installs")
from mmengine.registry import MODELS  # noqa: E402

import detector.plugins.mmengine  # noqa: E402, F401  (registers the backbone)

CONFIGS = sorted((Path(__file__).parents[3] / "configs" / "mmdet").glob("*.py"))


def build(**options: Any) -> Any:
    return MODELS.build({"type": "GoogLeNetBackbone", **options})


@pytest.mark.parametrize("out_indices", [(0, 1, 2, 3, 4), (2, 3), (1,)])
def test_registry_builds_it(out_indices: tuple[int, ...]) -> None:
    model = build(width=NARROW.width, out_indices=out_indices)
    model.init_weights()
    maps = model(torch.randn(2, 3, 64, 96))
    assert isinstance(maps, tuple)
    assert [part.shape[1:] for part in maps] == [
        (channels, 64 >> index + 1, 96 >> index + 1)
        for index, channels in zip(out_indices, model.out_channels, strict=True)
    ]
    sum(part.square().mean() for part in maps).backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_features_are_those_of_the_network(bgr_weights: Path, pixels: Tensor, normalised: Tensor) -> None:
    model = build(weights=str(bgr_weights), out_indices=(0, 1, 2, 3, 4))
    model.init_weights()  # what MMEngine's runner calls leaves the weights alone
    with torch.inference_mode():
        assert_same_features(model.eval()(normalised), expected_features(bgr_weights, pixels, LEVELS))


def test_frozen_stages_and_norm_eval() -> None:
    model = build(norm="batch", width=NARROW.width, frozen_stages=2, norm_eval=True)
    model.train()
    assert not any(norms_in_training(model))
    frozen = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
    assert frozen == {
        name for name, _ in model.named_parameters() if ".conv" in name.split("inception")[0] or "_3" in name
    }
    untrained = build(norm="batch", width=NARROW.width).train()
    assert all(norms_in_training(untrained))


def norms_in_training(model: torch.nn.Module) -> list[bool]:
    found = [part.training for part in model.modules() if isinstance(part, torch.nn.BatchNorm2d)]
    assert found
    return found


@pytest.mark.parametrize("several", [False, True])
def test_batch_norms_of_a_checkpoint_stay_as_they_are(tmp_path: Path, several: bool) -> None:
    """Unless told otherwise: whether the weights come at once or with `init_weights`."""
    init: Any = {"type": "Pretrained", "checkpoint": str(tmp_path / "trained.pth")}
    other = {"type": "Constant", "layer": "Linear", "val": 0}
    init = [other, init] if several else init
    options = {"norm": "batch", "width": NARROW.width}
    assert not any(norms_in_training(build(**options, init_cfg=init).train()))
    assert all(norms_in_training(build(**options, init_cfg=init, norm_eval=False).train()))
    assert all(norms_in_training(build(**options, init_cfg=other).train()))


def test_init_cfg_reads_a_checkpoint(tmp_path: Path, normalised: Tensor) -> None:
    torch.manual_seed(1)
    trained = build(width=NARROW.width).eval()
    torch.save(trained.state_dict(), tmp_path / "trained.pth")
    init = {"type": "Pretrained", "checkpoint": str(tmp_path / "trained.pth")}
    model = build(width=NARROW.width, init_cfg=init).eval()
    model.init_weights()
    with torch.inference_mode():
        for ours, theirs in zip(model(normalised), trained(normalised), strict=True):
            assert torch.equal(ours, theirs)


def test_a_checkpoint_brings_torchvisions_change_of_the_input(
    torchvision_weights: Path, tmp_path: Path, pixels: Tensor, normalised: Tensor
) -> None:
    torch.save(build(weights=str(torchvision_weights)).state_dict(), tmp_path / "trained.pth")
    init = {"type": "Pretrained", "checkpoint": str(tmp_path / "trained.pth")}
    model = build(**vars(NARROW_SLIM), init_cfg=init).eval()
    model.init_weights()
    with torch.inference_mode():
        found = model(normalised)
    assert_same_features(found, expected_features(torchvision_weights, pixels, LEVELS[1:]))


def test_wrong_options_are_named() -> None:
    with pytest.raises(ValueError, match="out_indices are"):
        build(out_indices=(5,))
    with pytest.raises(ValueError, match="frozen_stages is 5"):
        build(frozen_stages=5)
    with pytest.raises(ValueError, match="norm is 'group'"):
        build(norm="group")
    with pytest.raises(TypeError, match="GoogLeNet has no option depth; those of its architecture are norm,"):
        build(depth=50)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_configurations_fit_the_backbone(path: Path) -> None:
    """The files are Python: what they say of backbone and neck agrees, also where MMDetection is missing."""
    config = runpy.run_path(str(path))
    for name in config["custom_imports"]["imports"]:
        importlib.import_module(name)
    backbone = config["model"]["backbone"]
    assert backbone.pop("_delete_") and backbone.pop("weights") == "torchvision"
    model = MODELS.build(backbone)
    assert config["model"]["neck"]["in_channels"] == list(model.out_channels)


@pytest.fixture
def mmdet() -> Iterator[Any]:
    """MMDetection. mmcv-lite lacks the compiled operations; RetinaNet trains without them on a CPU."""
    pytest.importorskip(
        "mmdet", reason="needs mmdet (not in the extra `test`: it wants old releases of mmcv)"
    )
    absent = importlib.util.find_spec("mmcv._ext") is None
    if absent:

        class Absent(types.ModuleType):
            def __getattr__(self, name: str) -> Any:
                if name.startswith("__"):
                    raise AttributeError(name)
                return lambda *_, **__: pytest.fail(f"mmcv's compiled {name} was called")

        sys.modules["mmcv._ext"] = Absent("mmcv._ext")
    yield importlib.import_module("mmdet")
    if absent:
        del sys.modules["mmcv._ext"]


def test_retinanet_of_our_configuration_learns(mmdet: Any, scene: Scene) -> None:
    from mmdet.registry import MODELS as DETECTORS
    from mmdet.structures import DetDataSample
    from mmdet.utils import register_all_modules
    from mmengine.config import Config
    from mmengine.structures import InstanceData

    register_all_modules()
    config = Config.fromfile(next(path for path in CONFIGS if "retinanet" in path.stem))
    config.model.backbone.weights = None
    config.model.backbone.width = NARROW.width
    config.model.neck.in_channels = [120, 208, 256]
    config.model.neck.out_channels = config.model.bbox_head.in_channels = 32
    config.model.bbox_head.feat_channels = 32
    torch.manual_seed(0)
    model = DETECTORS.build(config.model)
    model.init_weights()
    model.train()
    samples = []
    for boxes, labels in zip(scene.boxes, scene.labels, strict=True):
        sample = DetDataSample(metainfo={"img_shape": (SIDE, SIDE), "pad_shape": (SIDE, SIDE)})
        sample.gt_instances = InstanceData(bboxes=boxes, labels=labels)
        samples.append(sample)
    data = {"inputs": [(image.flip(0) * 255).byte() for image in scene.images], "data_samples": samples}
    optimiser = torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9)
    losses = []
    for _ in range(8):
        batch = model.data_preprocessor(data, training=True)
        loss, _ = model.parse_losses(model(**batch, mode="loss"))
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), config.optim_wrapper.clip_grad.max_norm)
        optimiser.step()
        losses.append(loss.item())
    assert sum(losses[-3:]) / 3 < 0.97 * losses[0], losses
