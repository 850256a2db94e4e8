"""A network for pixels of any convention made one for RGB of 0..1, by rewriting its first convolution."""

import copy
from dataclasses import replace

import torch
from torch import nn

from detector.googlenet import GoogLeNet
from detector.inception import TransformInput
from detector.region_classifier import Preprocessing


@torch.no_grad()
def with_rgb_input(network: GoogLeNet, preprocessing: Preprocessing) -> tuple[GoogLeNet, Preprocessing]:
    """A copy of the network whose input is RGB of 0..1 minus a mean, and that convention.

    Exact, up to the rounding of one product in each weight: scale, deviation, channel order and torchvision's
    change of the input go into the weights. A mean stays, although the bias could take it: the convolution pads
    with zeros, so whatever is zero at its input has to stay zero.
    """
    order = slice(None) if preprocessing.channel_order == "RGB" else slice(None, None, -1)
    std = torch.tensor(preprocessing.std, dtype=torch.float64)
    factor = preprocessing.scale / std  # of pixels of 0..255
    offset = -torch.tensor(preprocessing.mean, dtype=torch.float64) / std
    converted = copy.deepcopy(network)
    if isinstance(network.transform_input, TransformInput):
        change = network.transform_input.factor.flatten().double()
        factor, offset = factor * change, offset * change + network.transform_input.offset.flatten().double()
        converted.transform_input = nn.Identity()
        converted.architecture = replace(network.architecture, transform_input=False)
    first = next(module for module in converted.conv1.modules() if isinstance(module, nn.Conv2d))
    weight = first.weight.double() * (255 * factor)[:, None, None]  # (64, 3, 7, 7)
    first.weight.copy_(weight[:, list(range(3))[order]])
    mean = (-offset / (255 * factor)).tolist()[order]
    return converted, replace(
        preprocessing, channel_order="RGB", scale=1 / 255, mean=tuple(mean), std=(1.0, 1.0, 1.0)
    )
