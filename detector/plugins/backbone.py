"""What every plug-in is made of: GoogLeNet's feature maps, for images normalised the way detectors' code does it."""

from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from detector.architecture import PAPER, Architecture
from detector.googlenet import GoogLeNet
from detector.region_classifier import Preprocessing
from detector.rgb_input import take_out_transform
from detector.weights import find_weights, load_network

IMAGENET_INPUT = Preprocessing(
    channel_order="RGB", scale=1 / 255, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)
)
# The last feature map of each stride: 2, 4, 8, 16, 32, like the stem and the four stages of a ResNet.
LEVELS = ("conv1", "conv2", "inception_3b", "inception_4e", "inception_5b")
TWO_ARCHITECTURES = "give either weights, which bring their architecture, or an architecture, but not both"


class InputConversion(nn.Module):
    """Pixels as a framework normalises them -> pixels as the weights were trained on. Exact.

    Detectors normalise by ImageNet's mean and deviation; BVLC's weights want BGR of 0..255 minus a mean. Both are
    the same pixels up to a linear map of the colour, which stands here as a 1x1 convolution. It is part of the
    state dict, so that a checkpoint of a trained detector brings its own. It comes before the first convolution
    rather than into it, because that one pads with zeros, which mean another colour in each convention.

    Args:
        given: The convention of the images that come in.
        wanted: That of the weights; None, for a network that is not trained yet, changes nothing.
    """

    matrix: Tensor
    offset: Tensor

    def __init__(self, wanted: Preprocessing | None = None, *, given: Preprocessing = IMAGENET_INPUT) -> None:
        super().__init__()
        matrix, offset = torch.eye(3, dtype=torch.float64), torch.zeros(3, dtype=torch.float64)
        if wanted is not None:
            given_scale, given_offset = _scale_and_offset(given)
            wanted_scale, wanted_offset = _scale_and_offset(wanted)
            if given.channel_order != wanted.channel_order:
                matrix = matrix.flip(0)
            # pixel = (given - given_offset) / given_scale, in the channel order of `given`
            matrix = wanted_scale[:, None] * matrix / given_scale
            offset = wanted_offset - matrix @ given_offset
            if given.channel_order == wanted.channel_order and torch.allclose(wanted_scale, given_scale):
                matrix = torch.eye(3, dtype=torch.float64)  # the same convention: not even a rounding error
        self.register_buffer("matrix", matrix.float())  # (3, 3): wanted channel, given channel
        self.register_buffer("offset", offset.float())

    def forward(self, x: Tensor) -> Tensor:
        """(R, 3, H, W) -> the same shape."""
        return F.conv2d(x, self.matrix[:, :, None, None].to(x.dtype), self.offset.to(x.dtype))


class Backbone(nn.Module):
    """Normalised images -> feature maps of some stages, the finest first.

    Every parameter of it takes part (which distributed training demands): what a network has behind its deepest tap
    is taken out of it.

    Args:
        network: Becomes part of this module and loses its later stages and its classifiers.
        taps: Stages in the order of the computation, by their own names or TF-slim's.
        wanted: The input convention of the network's weights, see `InputConversion`.
        given: The convention of the images that come in.

    Attributes:
        channels: Of each feature map.
        strides: Pixels of the image a step of each feature map.
    """

    def __init__(
        self,
        network: GoogLeNet,
        *,
        taps: Sequence[str] = LEVELS,
        wanted: Preprocessing | None = None,
        given: Preprocessing = IMAGENET_INPUT,
    ) -> None:
        super().__init__()
        order = [name for info in network.feature_info for name in (info.module, info.slim_name)]
        unknown = [tap for tap in taps if tap not in order]
        if not taps or unknown or sorted(set(taps), key=order.index) != list(taps):
            raise ValueError(
                f"taps are {', '.join(taps) or 'missing'}, but must be different stages in the order"
                f" {', '.join(network.stages)}"
            )
        self.taps = tuple(taps)
        self.input = InputConversion(wanted, given=given)
        info = {name: part for part in network.feature_info for name in (part.module, part.slim_name)}
        self.channels = tuple(info[tap].channels for tap in taps)
        self.strides = tuple(info[tap].stride for tap in taps)
        self.network = _cut(network, network.stages.index(info[taps[-1]].module))

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """(R, 3, H, W) -> for each tap (R, channels, H/stride, W/stride); no size is too odd, from 31 pixels on."""
        features = self.network.taps(self.input(x), self.taps)
        return tuple(features[tap] for tap in self.taps)


def build_backbone(
    weights: str | Path | None = None,
    *,
    taps: Sequence[str] = LEVELS,
    architecture: Architecture | None = None,
    freeze: str | None = None,
    norm_eval: bool | None = None,
    checkpointing: bool = False,
    given: Preprocessing = IMAGENET_INPUT,
) -> Backbone:
    """A backbone with or without trained weights.

    Args:
        weights: What `tools/detect.py --weights` takes: `torchvision`, `bvlc`, the name of a model that ships
            (`googlenet-det200`, ...), a file, or the folder of a training run. None: random ones.
        taps: Stages to give the feature maps of.
        architecture: Of a network with random weights, by default the paper's; trained ones bring their own.
        freeze: Fix the network up to and including this stage.
        norm_eval: Keep all batch norms in inference mode: by default those of trained weights, since the one or
            two images a step of detectors say little about the statistics.
        checkpointing: Less memory while training, for a third more time.
        given: The convention of the images that come in.

    Raises:
        ValueError: No such stage, or weights and architecture are both given.
        OSError: The weights are missing or damaged.
    """
    wanted = None
    if weights is None:
        network = GoogLeNet(0, architecture=architecture or PAPER)
        if network.architecture.transform_input:
            wanted = take_out_transform(network, IMAGENET_INPUT)
    elif architecture is not None:
        raise ValueError(TWO_ARCHITECTURES)
    else:
        network, wanted = trained_network(weights)
    backbone = Backbone(network, taps=taps, wanted=wanted, given=given)
    network.checkpointing = checkpointing
    network.freeze(freeze, norm_eval=weights is not None if norm_eval is None else norm_eval)
    return backbone


def trained_network(weights: str | Path) -> tuple[GoogLeNet, Preprocessing]:
    """A trained network, in training mode as new modules are, and the input convention it was trained with.

    torchvision's change of the input is part of that convention, and so of what `InputConversion` brings into a
    checkpoint, and no longer of the network.
    """
    network, card = load_network(find_weights(str(weights)))
    return network.train(), take_out_transform(network, card.preprocessing)


def changed(architecture: Architecture, changes: dict[str, Any]) -> Architecture:
    """The architecture with other values for some of its fields, as plug-ins take them: by keyword.

    Raises:
        TypeError: There is no such option.
    """
    known = [field.name for field in fields(Architecture)]
    for name in changes:
        if name not in known:
            raise TypeError(
                f"GoogLeNet has no option {name}; those of its architecture are {', '.join(known)}"
            )
    return replace(architecture, **changes)


def last_of(frozen_levels: int) -> str | None:
    """The last of so many levels that keep their weights, for `build_backbone`'s `freeze`; None of 0.

    Raises:
        ValueError: There are not so many.
    """
    if not 0 <= frozen_levels <= len(LEVELS):
        raise ValueError(f"frozen_levels is {frozen_levels}, but must be 0 to {len(LEVELS)}")
    return LEVELS[frozen_levels - 1] if frozen_levels else None


def _scale_and_offset(convention: Preprocessing) -> tuple[Tensor, Tensor]:
    """Normalised = scale * pixel of 0..255 + offset, per channel in the channel order of the convention."""
    std, mean = (torch.tensor(values, dtype=torch.float64) for values in (convention.std, convention.mean))
    return convention.scale / std, -mean / std


def _cut(network: GoogLeNet, deepest: int) -> GoogLeNet:
    for name in network.stages[deepest + 1 :]:
        if hasattr(network, name):  # pool5 is no module
            setattr(network, name, nn.Identity())
    network.classifier = nn.Identity()  # type: ignore[assignment]  # what num_classes=0 has
    network.num_classes, network.auxiliary = 0, False
    for name in ("aux_4a", "aux_4d"):
        if hasattr(network, name):
            delattr(network, name)
    return network
