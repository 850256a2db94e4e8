"""A wider network that computes what a narrow one does, and goes on learning from there.

Chen, Goodfellow, Shlens, *Net2Net: Accelerating Learning via Knowledge Transfer* (ICLR 2016): a wider layer has copies
of some of its channels, and what looks at a channel looks at a share of each of its copies.
"""

from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor, nn

from detector.architecture import TABLE_1, Architecture
from detector.googlenet import GoogLeNet


class Copies(NamedTuple):
    """Channels of a wider network, in terms of those of the narrow one."""

    source: Tensor  # (W,) which channel each is a copy of
    share: Tensor  # (W,) how much of it counts: 1 in all for the copies of a channel


def wider(architecture: Architecture, width: float) -> Architecture:
    """The same with another width.

    Raises:
        ValueError: It has norms, which would see the copies, no Inception modules with reductions, or more width.
    """
    if architecture.norm != "none" or not architecture.reductions:
        raise ValueError("--width needs a network without LRN and without batch norm: see --no-lrn")
    if width < architecture.width:
        raise ValueError(
            f"--width is {width}, but must be at least {architecture.width}, the width of the first weights"
        )
    return replace(architecture, width=width)


@torch.no_grad()
def widened(network: GoogLeNet, width: float, *, seed: int) -> GoogLeNet:
    """A network of another `width` and the same outputs.

    The copies of a channel count unequally, by chance: so they get different gradients, and become different.

    Args:
        network: Without auxiliary classifiers.

    Raises:
        ValueError: As `wider`.
    """
    before = network.architecture
    wide = GoogLeNet(network.num_classes, architecture=wider(before, width), dropout=network.dropout.p)
    generator = torch.Generator().manual_seed(seed)

    def widen(path: str, inputs: Copies) -> Copies:
        narrow_layer, layer = network.get_submodule(path), wide.get_submodule(path)
        assert isinstance(narrow_layer, nn.Conv2d) and isinstance(layer, nn.Conv2d)
        assert narrow_layer.bias is not None and layer.bias is not None
        outputs = copies(narrow_layer.out_channels, layer.out_channels, generator)
        seen = narrow_layer.weight[outputs.source][:, inputs.source]
        layer.weight.copy_(seen * inputs.share[:, None, None])
        layer.bias.copy_(narrow_layer.bias[outputs.source])
        return outputs

    x = Copies(torch.arange(3), torch.ones(3))
    for name in ("conv1", "conv2_reduce", "conv2"):
        x = widen(name, x)
    for number, widths in TABLE_1.items():
        name = f"inception_{number}"
        branches = (widths.conv1x1, widths.conv3x3, widths.conv5x5, widths.pool_proj)
        x = joined(
            [
                widen(f"{name}.conv1x1", x),
                widen(f"{name}.conv3x3", widen(f"{name}.reduce3x3", x)),
                widen(f"{name}.conv5x5", widen(f"{name}.reduce5x5", x)),
                widen(f"{name}.pool_proj", x),
            ],
            [before.scaled(channels) for channels in branches],
        )
    outputs = network.classifier
    wide.classifier = nn.Linear(wide.num_features, outputs.out_features)
    wide.classifier.weight.copy_(outputs.weight[:, x.source] * x.share)
    wide.classifier.bias.copy_(outputs.bias)
    return wide


def copies(channels: int, count: int, generator: torch.Generator) -> Copies:
    """All `channels` once, and as many of them again, by chance, as make `count`."""
    more = torch.randint(channels, (count - channels,), generator=generator)
    source = torch.cat([torch.arange(channels), more])
    amount = 0.5 + torch.rand(count, generator=generator)
    return Copies(source, amount / torch.zeros(channels).index_add_(0, source, amount)[source])


def joined(branches: list[Copies], channels: list[int]) -> Copies:
    """Of branches one after the other, which have so many `channels` in the narrow network."""
    offsets = [sum(channels[:number]) for number in range(len(channels))]
    return Copies(
        torch.cat([branch.source + offset for branch, offset in zip(branches, offsets, strict=True)]),
        torch.cat([branch.share for branch in branches]),
    )
