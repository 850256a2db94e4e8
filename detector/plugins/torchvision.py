"""GoogLeNet under torchvision's detectors: a feature pyramid for Faster R-CNN, RetinaNet, FCOS and Mask R-CNN."""

from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from torch import Tensor, nn
from torchvision.ops.feature_pyramid_network import FeaturePyramidNetwork, LastLevelMaxPool, LastLevelP6P7

from detector.architecture import Architecture
from detector.plugins.backbone import LEVELS, Backbone, build_backbone, last_of


class PyramidBackbone(nn.Module):
    """A backbone and a feature pyramid over its maps, as torchvision's detectors want it.

    Attributes:
        out_channels: Channels of every level: what torchvision's detectors, but for SSD, ask a backbone for.
    """

    def __init__(self, body: Backbone, fpn: FeaturePyramidNetwork, out_channels: int) -> None:
        super().__init__()
        self.body, self.fpn, self.out_channels = body, fpn, out_channels

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Images (B, 3, H, W), normalised by ImageNet's mean and deviation -> levels `0`, `1`, ..., finest first."""
        return self.fpn(OrderedDict((str(level), features) for level, features in enumerate(self.body(x))))


def googlenet_fpn(
    weights: str | Path | None = None,
    *,
    finest_stride: Literal[4, 8] = 4,
    out_channels: int = 256,
    frozen_levels: int = 0,
    architecture: Architecture | None = None,
    norm_eval: bool | None = None,
    checkpointing: bool = False,
    norm_layer: Callable[..., nn.Module] | None = None,
) -> PyramidBackbone:
    """GoogLeNet with a feature pyramid: five levels that fit the default anchors of torchvision's detectors.

    These detectors normalise images by ImageNet's mean and deviation unless told otherwise; the backbone turns that
    into what its weights were trained on, so leave `image_mean` and `image_std` alone.

    Args:
        weights: `torchvision`, `bvlc`, a model that ships (`googlenet-det200`, ...), a weights file, the folder of a
            training run, or None for random ones.
        finest_stride: 4 for Faster R-CNN and Mask R-CNN (strides 4, 8, 16, 32, 64), 8 for RetinaNet and FCOS
            (8, 16, 32, 64, 128).
        out_channels: Channels of every level.
        frozen_levels: How many of the backbone's five levels (strides 2, 4, 8, 16, 32) keep their weights.
        architecture: Of a network with random weights.
        norm_eval: Keep batch norms in inference mode; by default those of trained weights.
        checkpointing: Less memory while training, for a third more time.
        norm_layer: Of the pyramid's convolutions.
    """
    if finest_stride not in (4, 8):
        raise ValueError(f"finest_stride is {finest_stride}, but must be 4 or 8")
    body = build_backbone(
        weights,
        taps=LEVELS[1:] if finest_stride == 4 else LEVELS[2:],
        architecture=architecture,
        freeze=last_of(frozen_levels),
        norm_eval=norm_eval,
        checkpointing=checkpointing,
    )
    coarser = LastLevelMaxPool() if finest_stride == 4 else LastLevelP6P7(out_channels, out_channels)
    fpn = FeaturePyramidNetwork(list(body.channels), out_channels, coarser, norm_layer)
    return PyramidBackbone(body, fpn, out_channels)
