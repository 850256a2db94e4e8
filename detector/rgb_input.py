"""A network's input convention changed: torchvision's first step taken out, or the whole made RGB of 0..1."""

import copy
from dataclasses import replace

import torch
from torch import nn

from detector.googlenet import GoogLeNet
from detector.inception import TransformInput
from detector.region_classifier import Preprocessing


def take_out_transform(network: GoogLeNet, preprocessing: Preprocessing) -> Preprocessing:
    """The convention that the network wants once torchvision's change of the input is taken out of it, if it is there.

    Exact. What is left of the network is all in its state dict, which that change is not.

    Args:
        network: Changed in place.
        preprocessing: What it wanted until now.
    """
    change = network.transform_input
    if not isinstance(change, TransformInput):
        return preprocessing
    network.transform_input = nn.Identity()
    network.architecture = replace(network.architecture, transform_input=False)
    mean, std, factor, offset = (
        torch.as_tensor(values, dtype=torch.float64).flatten()
        for values in (preprocessing.mean, preprocessing.std, change.factor, change.offset)
    )
    std = std / factor
    mean = mean - offset * std
    return replace(preprocessing, mean=tuple(mean.tolist()), std=tuple(std.tolist()))


@torch.no_grad()
def with_rgb_input(network: GoogLeNet, preprocessing: Preprocessing) -> tuple[GoogLeNet, Preprocessing]:
    """A copy of the network whose input is RGB of 0..1 minus a mean, and that convention.

    Exact, up to the rounding of one product in each weight: scale, deviation, channel order and torchvision's
    change of the input go into the weights. A mean stays, although the bias could take it: the convolution pads
    with zeros, so whatever is zero at its input has to stay zero.
    """
    converted = copy.deepcopy(network)
    preprocessing = take_out_transform(converted, preprocessing)
    order = slice(None) if preprocessing.channel_order == "RGB" else slice(None, None, -1)
    std = torch.tensor(preprocessing.std, dtype=torch.float64)
    factor = preprocessing.scale / std  # of pixels of 0..255
    offset = -torch.tensor(preprocessing.mean, dtype=torch.float64) / std
    first = next(module for module in converted.conv1.modules() if isinstance(module, nn.Conv2d))
    weight = first.weight.double() * (255 * factor)[:, None, None]  # (64, 3, 7, 7)
    first.weight.copy_(weight[:, list(range(3))[order]])
    mean = (-offset / (255 * factor)).tolist()[order]
    return converted, replace(
        preprocessing, channel_order="RGB", scale=1 / 255, mean=tuple(mean), std=(1.0, 1.0, 1.0)
    )
