"""GoogLeNet as in Szegedy et al., *Going deeper with convolutions* (CVPR 2015), table 1.

The paper's own network: true 5x5 convolutions, biases, local response normalisation, no batch norm, pools
that round their output size up. With 1000 classes it has 6,998,552 parameters.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class InceptionWidths(NamedTuple):
    """Channels of the branches of one Inception module: one row of table 1."""

    conv1x1: int
    reduce3x3: int
    conv3x3: int
    reduce5x5: int
    conv5x5: int
    pool_proj: int

    @property
    def out_channels(self) -> int:
        return self.conv1x1 + self.conv3x3 + self.conv5x5 + self.pool_proj


TABLE_1 = {
    "3a": InceptionWidths(64, 96, 128, 16, 32, 32),
    "3b": InceptionWidths(128, 128, 192, 32, 96, 64),
    "4a": InceptionWidths(192, 96, 208, 16, 48, 64),
    "4b": InceptionWidths(160, 112, 224, 24, 64, 64),
    "4c": InceptionWidths(128, 128, 256, 24, 64, 64),
    "4d": InceptionWidths(112, 144, 288, 32, 64, 64),
    "4e": InceptionWidths(256, 160, 320, 32, 128, 128),
    "5a": InceptionWidths(256, 160, 320, 32, 128, 128),
    "5b": InceptionWidths(384, 192, 384, 48, 128, 128),
}


class LocalResponseNorm(nn.Module):
    """Divide by the energy of the `size` nearest channels: x / (k + alpha / size * sum x^2)^beta.

    Krizhevsky et al., NIPS 2012, section 3.3, with Caffe's convention that alpha is divided by `size`.
    Equal to `torch.nn.LocalResponseNorm(size, alpha, beta, k)`, which pads and pools in three dimensions and
    takes several times as long: here the sum over channels is a 1x1 convolution whose kernel is a band
    matrix, and the power 0.75 is two square roots.
    """

    kernel: Tensor
    k: Tensor

    def __init__(self, channels: int, *, size: int = 5, alpha: float = 1e-4, k: float = 1.0) -> None:
        super().__init__()
        index = torch.arange(channels)
        band = (index[:, None] - index[None, :]).abs() <= size // 2
        kernel = band.float()[:, :, None, None] * (alpha / size)  # (channels, channels, 1, 1)
        self.register_buffer("kernel", kernel, persistent=False)  # a constant, so no part of the weights
        self.register_buffer("k", torch.full((channels,), k), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """(R, channels, H, W) -> the same shape."""
        energy = F.conv2d(x * x, self.kernel.to(x.dtype), self.k.to(x.dtype))
        root = energy.sqrt()
        return x / (root * root.sqrt())


def convolution(in_channels: int, out_channels: int, kernel_size: int, stride: int = 1) -> nn.Conv2d:
    """A convolution that keeps the size (or halves it, with `stride` 2), initialised as the paper's time did."""
    layer = nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding=kernel_size // 2)
    nn.init.xavier_uniform_(layer.weight)
    nn.init.constant_(layer.bias, 0.2)  # type: ignore[arg-type]  # the bias is there: keeps ReLUs alive
    return layer


def max_pool(x: Tensor, stride: int = 2) -> Tensor:
    """3x3 maximum: halves the size rounding up (`stride` 2), or keeps it (`stride` 1)."""
    return F.max_pool2d(x, 3, stride, padding=1 if stride == 1 else 0, ceil_mode=True)


class Inception(nn.Module):
    """Inception module with dimension reductions (figure 2b): four branches, concatenated by channel."""

    def __init__(self, in_channels: int, widths: InceptionWidths) -> None:
        super().__init__()
        self.conv1x1 = convolution(in_channels, widths.conv1x1, 1)
        self.reduce3x3 = convolution(in_channels, widths.reduce3x3, 1)
        self.conv3x3 = convolution(widths.reduce3x3, widths.conv3x3, 3)
        self.reduce5x5 = convolution(in_channels, widths.reduce5x5, 1)
        self.conv5x5 = convolution(widths.reduce5x5, widths.conv5x5, 5)
        self.pool_proj = convolution(in_channels, widths.pool_proj, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(R, in_channels, H, W) -> (R, widths.out_channels, H, W)."""
        branches = [
            self.conv1x1(x),
            self.conv3x3(F.relu(self.reduce3x3(x), inplace=True)),
            self.conv5x5(F.relu(self.reduce5x5(x), inplace=True)),
            self.pool_proj(max_pool(x, stride=1)),
        ]
        return F.relu(torch.cat(branches, dim=1), inplace=True)


class GoogLeNet(nn.Module):
    """The paper's network: images to class logits.

    Args:
        num_classes: Outputs of the classifier; 1000 for ILSVRC classification, 201 for detection
            (200 classes and, last, background).
        dropout: Share of the pooled features dropped before the classifier while training (the paper's 40 %).
    """

    def __init__(self, num_classes: int = 1000, *, dropout: float = 0.4) -> None:
        super().__init__()
        self.conv1 = convolution(3, 64, 7, stride=2)
        self.norm1 = LocalResponseNorm(64)
        self.conv2_reduce = convolution(64, 64, 1)
        self.conv2 = convolution(64, 192, 3)
        self.norm2 = LocalResponseNorm(192)
        channels = 192
        for name, widths in TABLE_1.items():
            self.add_module(f"inception_{name}", Inception(channels, widths))
            channels = widths.out_channels
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(channels, num_classes)
        nn.init.xavier_uniform_(self.classifier.weight)
        nn.init.zeros_(self.classifier.bias)

    def features(self, x: Tensor) -> Tensor:
        """Normalised images (R, 3, H, W) -> feature map (R, 1024, H/32, W/32), sizes rounded up."""
        x = max_pool(F.relu(self.conv1(x), inplace=True))  # (R, 64, H/4, W/4)
        x = self.norm1(x)
        x = F.relu(self.conv2_reduce(x), inplace=True)
        x = self.norm2(F.relu(self.conv2(x), inplace=True))
        x = max_pool(x)  # (R, 192, H/8, W/8)
        for name in TABLE_1:
            if name in ("4a", "5a"):
                x = max_pool(x)  # (R, 480, H/16, W/16), then (R, 832, H/32, W/32)
            x = self.get_submodule(f"inception_{name}")(x)
        return x

    def forward(self, x: Tensor) -> Tensor:
        """Normalised images (R, 3, H, W) -> logits (R, num_classes).

        The training size is 224x224; any size from 31 pixels a side passes, since the last pool is global.
        """
        x = self.features(x).mean(dim=(2, 3))  # (R, 1024)
        return self.classifier(self.dropout(x))
