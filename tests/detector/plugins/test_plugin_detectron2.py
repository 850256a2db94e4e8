"""GoogLeNet as a backbone of detectron2, where that is installed: PyPI does not have it.

Its compiled operations (rotated boxes, deformable convolutions) are not needed: without them they are stood in for.
"""

import importlib.util
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from plugin_scenes import Scene, assert_same_features, expected_features
from torch import Tensor

LEVELS = ("conv2", "inception_3b", "inception_4e", "inception_5b")


@pytest.fixture
def config() -> Iterator[Any]:
    """A configuration of Faster R-CNN on our backbone, a narrow one behind it."""
    detectron2 = pytest.importorskip("detectron2", reason="needs detectron2, which is not on PyPI")
    absent = importlib.util.find_spec("detectron2._C") is None
    if absent:
        sys.modules["detectron2._C"] = detectron2._C = types.ModuleType("detectron2._C")
    from detectron2.config import CfgNode, get_cfg

    import detector.plugins.detectron2  # noqa: F401  (registers the backbone)

    made = get_cfg()
    made.MODEL.DEVICE = "cpu"
    made.MODEL.META_ARCHITECTURE = "GeneralizedRCNN"
    made.MODEL.BACKBONE.NAME = "build_googlenet_fpn_backbone"
    made.MODEL.WEIGHTS, made.MODEL.GOOGLENET = "", CfgNode({"WEIGHTS": ""})
    made.MODEL.FPN.IN_FEATURES, made.MODEL.FPN.OUT_CHANNELS = list(LEVELS), 32
    made.MODEL.RPN.IN_FEATURES = ["p2", "p3", "p4", "p5", "p6"]
    made.MODEL.ANCHOR_GENERATOR.SIZES = [[16], [32], [64], [128], [256]]
    made.MODEL.ROI_HEADS.NAME, made.MODEL.ROI_HEADS.NUM_CLASSES = "StandardROIHeads", 3
    made.MODEL.ROI_HEADS.IN_FEATURES = ["p2", "p3", "p4", "p5"]
    made.MODEL.ROI_BOX_HEAD.NAME = "FastRCNNConvFCHead"
    made.MODEL.ROI_BOX_HEAD.NUM_FC, made.MODEL.ROI_BOX_HEAD.FC_DIM = 1, 64
    made.MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION = 7
    yield made
    if absent:
        del sys.modules["detectron2._C"], detectron2._C


def test_features_are_those_of_the_network(config: Any, bgr_weights: Path, pixels: Tensor) -> None:
    from detectron2.modeling import build_backbone

    config.MODEL.GOOGLENET.WEIGHTS = str(bgr_weights)
    body = build_backbone(config).bottom_up.eval()
    mean, std = (
        torch.tensor(part)[:, None, None] for part in (config.MODEL.PIXEL_MEAN, config.MODEL.PIXEL_STD)
    )
    with torch.inference_mode():
        maps = body((pixels.flip(1) - mean) / std)
        assert_same_features([maps[name] for name in LEVELS], expected_features(bgr_weights, pixels, LEVELS))
    assert {name: part.shape[1] for name, part in maps.items()} == {
        name: shape.channels for name, shape in body.output_shape().items()
    }


def test_a_number_of_frozen_levels_that_there_is_not_is_refused(config: Any) -> None:
    from detectron2.modeling import build_backbone

    config.MODEL.BACKBONE.FREEZE_AT = 7
    with pytest.raises(ValueError, match="frozen_levels is 7, but must be 0 to 5"):
        build_backbone(config)


def test_faster_rcnn_learns(config: Any, scene: Scene) -> None:
    from detectron2.modeling import build_model
    from detectron2.structures import Boxes, Instances
    from detectron2.utils.events import EventStorage

    torch.manual_seed(0)
    model = build_model(config).train()
    batch = []
    for image, boxes, labels in zip(scene.images, scene.boxes, scene.labels, strict=True):
        truth = Instances(tuple(image.shape[1:]), gt_boxes=Boxes(boxes.clone()), gt_classes=labels)
        batch.append({"image": (image.flip(0) * 255).byte(), "instances": truth})
    learning = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimiser = torch.optim.SGD(learning, lr=0.01, momentum=0.9)
    losses = []
    with EventStorage():
        for _ in range(8):
            loss = sum(model(batch).values())
            optimiser.zero_grad()
            loss.backward()
            assert all(parameter.grad is not None for parameter in learning)
            torch.nn.utils.clip_grad_norm_(learning, 10)
            optimiser.step()
            losses.append(loss.item())
    assert sum(losses[-3:]) / 3 < 0.97 * losses[0], losses
