"""GoogLeNet as a backbone of detectron2: importing this file registers `build_googlenet_fpn_backbone`.

    from detectron2.config import CfgNode as CN

    cfg.MODEL.BACKBONE.NAME = "build_googlenet_fpn_backbone"
    cfg.MODEL.FPN.IN_FEATURES = ["conv2", "inception_3b", "inception_4e", "inception_5b"]
    cfg.MODEL.WEIGHTS, cfg.MODEL.GOOGLENET = "", CN({"WEIGHTS": "torchvision"})

Seen to run with detectron2 0.6, which is not on PyPI. The pixels it gives are the ones its configuration says (BGR of
0..255 minus a mean by default); they are turned into those the weights want.
"""

from pathlib import Path
from typing import Any

from detectron2.layers import ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY, Backbone
from detectron2.modeling.backbone.fpn import FPN, LastLevelMaxPool
from torch import Tensor

from detector.plugins.backbone import IMAGENET_INPUT, LEVELS, build_backbone, last_of
from detector.region_classifier import Preprocessing


class GoogLeNetBackbone(Backbone):
    """Normalised images (B, 3, H, W) -> feature maps by the names of `out_features`.

    Args:
        weights: `torchvision`, `bvlc`, a model that ships (`googlenet-det200`, ...), a weights file, the folder of a
            training run, or None for random ones.
        out_features: Names of `detector.plugins.backbone.LEVELS`, in their order.
        frozen_levels: How many of the five levels keep their weights.
        given: How the images are normalised.
    """

    def __init__(
        self,
        weights: str | Path | None = None,
        out_features: tuple[str, ...] = LEVELS[1:],
        frozen_levels: int = 2,
        given: Preprocessing = IMAGENET_INPUT,
    ) -> None:
        super().__init__()
        self.body = build_backbone(weights, taps=out_features, freeze=last_of(frozen_levels), given=given)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """See the class."""
        return dict(zip(self.body.taps, self.body(x), strict=True))

    def output_shape(self) -> dict[str, ShapeSpec]:
        """Channels and stride of each feature map."""
        return {
            name: ShapeSpec(channels=channels, stride=stride)
            for name, channels, stride in zip(
                self.body.taps, self.body.channels, self.body.strides, strict=True
            )
        }

    @property
    def size_divisibility(self) -> int:
        """Sides of the images are padded to a multiple of it, so that the levels of a pyramid fit each other."""
        return 32


@BACKBONE_REGISTRY.register()
def build_googlenet_fpn_backbone(cfg: Any, input_shape: ShapeSpec) -> FPN:
    """GoogLeNet with a feature pyramid, from detectron2's configuration; levels `p2` to `p6`."""
    blue_first = cfg.INPUT.FORMAT == "BGR"
    body = GoogLeNetBackbone(
        cfg.MODEL.GOOGLENET.WEIGHTS or None,
        tuple(cfg.MODEL.FPN.IN_FEATURES),
        frozen_levels=cfg.MODEL.BACKBONE.FREEZE_AT,
        given=Preprocessing(
            channel_order="BGR" if blue_first else "RGB",
            scale=1.0,
            mean=tuple(cfg.MODEL.PIXEL_MEAN),
            std=tuple(cfg.MODEL.PIXEL_STD),
        ),
    )
    return FPN(
        bottom_up=body,
        in_features=cfg.MODEL.FPN.IN_FEATURES,
        out_channels=cfg.MODEL.FPN.OUT_CHANNELS,
        norm=cfg.MODEL.FPN.NORM,
        top_block=LastLevelMaxPool(),
        fuse_type=cfg.MODEL.FPN.FUSE_TYPE,
    )
