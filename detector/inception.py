"""The parts GoogLeNet is made of: convolutions, local response normalisation, Inception modules, auxiliary heads."""

from collections import OrderedDict
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn
from torch.autograd.function import once_differentiable

from detector.architecture import Architecture, InceptionWidths


class LocalResponseNorm(nn.Module):
    """Divide by the energy of the `size` nearest channels: x / (k + alpha / size * sum x^2)^beta.

    Krizhevsky et al., NIPS 2012, section 3.3, with Caffe's convention that alpha is divided by `size`.
    Equal to `torch.nn.LocalResponseNorm(size, alpha, beta, k)`, which pads and pools in three dimensions and
    takes several times as long: here the sum over channels is a 1x1 convolution whose kernel is a band
    matrix, and the power 0.75 is two square roots.
    """

    band: Tensor
    k: Tensor

    def __init__(self, channels: int, *, size: int = 5, alpha: float = 1e-4, k: float = 1.0) -> None:
        super().__init__()
        index = torch.arange(channels)
        band = (index[:, None] - index[None, :]).abs() <= size // 2
        # constants, so no part of the weights; (channels, channels, 1, 1) and (channels,)
        self.register_buffer("band", band.float()[:, :, None, None], persistent=False)
        self.register_buffer("k", torch.full((channels,), k), persistent=False)
        self.scale = (alpha / size) ** 0.5  # before the square, which would leave the range of 16-bit floats

    def forward(self, x: Tensor) -> Tensor:
        """(R, channels, H, W) -> the same shape."""
        band, k = self.band.to(x.dtype), self.k.to(x.dtype)
        # What writes a graph down cannot look into a gradient made by hand, nor can torch.func's transforms.
        traced = (
            isinstance(x, fx.Proxy)
            or torch.compiler.is_compiling()
            or torch.jit.is_tracing()  # type: ignore[attr-defined]
            or torch._C._are_functorch_transforms_active()
        )
        if not traced and x.requires_grad and torch.is_grad_enabled():
            return _LearningNorm.apply(x, band, k, self.scale)
        scaled = x * self.scale
        energy = F.conv2d(scaled * scaled, band, k)
        root = energy.sqrt()
        return x / (root * root.sqrt())


class _LearningNorm(torch.autograd.Function):
    """The same with its gradient by hand: a third of the passes over memory, which are what it costs.

    With energy s, y = x s^(-3/4), and dy_j/dx_i = s_j^(-3/4) [i = j] - 3/2 alpha/size x_i (x_j s_j^(-7/4)) for the
    neighbours i of j.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, band: Tensor, k: Tensor, scale: float) -> Tensor:
        energy = (x * scale).square_()
        energy = F.conv2d(energy, band, k)
        root = energy.sqrt()
        divisor = root.sqrt().mul_(root)
        ctx.save_for_backward(x, energy, divisor, band)
        ctx.scale = scale
        return x / divisor

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        x, energy, divisor, band = ctx.saved_tensors
        direct = gradient / divisor
        scaled = x * ctx.scale  # once on each side of the sum: its square would be lost in 16-bit floats
        through_energy = F.conv2d((direct * scaled).div_(energy), band).mul_(scaled)
        return direct.sub_(through_energy, alpha=1.5), None, None, None


class TransformInput(nn.Module):
    """Pixels normalised by ImageNet's mean and deviation -> -1..1, bit by bit as torchvision computes it."""

    factor: Tensor
    offset: Tensor

    def __init__(self) -> None:
        super().__init__()
        mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
        factor = torch.tensor([value / 0.5 for value in std])[:, None, None]  # (3, 1, 1)
        offset = torch.tensor([(value - 0.5) / 0.5 for value in mean])[:, None, None]
        self.register_buffer("factor", factor, persistent=False)
        self.register_buffer("offset", offset, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """(R, 3, H, W) -> the same shape."""
        return x * self.factor + self.offset


def convolution(
    in_channels: int,
    out_channels: int,
    kernel_size: int,
    stride: int = 1,
    *,
    norm: Literal["lrn", "batch", "none"] = "lrn",
) -> nn.Module:
    """A convolution that keeps the size (or halves it, with `stride` 2), with its batch norm where `norm` says so.

    Without batch norm it is initialised as the paper's time did, with biases that keep ReLUs alive.
    """
    layer = nn.Conv2d(
        in_channels, out_channels, kernel_size, stride, padding=kernel_size // 2, bias=norm != "batch"
    )
    nn.init.xavier_uniform_(layer.weight)
    if layer.bias is not None:
        nn.init.constant_(layer.bias, 0.2)
        return layer
    return nn.Sequential(OrderedDict(conv=layer, norm=nn.BatchNorm2d(out_channels, eps=0.001)))


def max_pool(x: Tensor, stride: int = 2) -> Tensor:
    """3x3 maximum: halves the size rounding up (`stride` 2), or keeps it (`stride` 1)."""
    return F.max_pool2d(x, 3, stride, padding=1 if stride == 1 else 0, ceil_mode=True)


class Inception(nn.Module):
    """Inception module with dimension reductions (figure 2b): four branches, concatenated by channel."""

    def __init__(self, in_channels: int, widths: InceptionWidths, architecture: Architecture) -> None:
        super().__init__()
        widths = InceptionWidths(*(architecture.scaled(channels) for channels in widths))
        norm, largest = architecture.norm, 5 if architecture.true_5x5 else 3
        self.conv1x1 = convolution(in_channels, widths.conv1x1, 1, norm=norm)
        self.reduce3x3 = convolution(in_channels, widths.reduce3x3, 1, norm=norm)
        self.conv3x3 = convolution(widths.reduce3x3, widths.conv3x3, 3, norm=norm)
        self.reduce5x5 = convolution(in_channels, widths.reduce5x5, 1, norm=norm)
        self.conv5x5 = convolution(widths.reduce5x5, widths.conv5x5, largest, norm=norm)
        self.pool_proj = convolution(in_channels, widths.pool_proj, 1, norm=norm)
        self.out_channels = widths.conv1x1 + widths.conv3x3 + widths.conv5x5 + widths.pool_proj

    def forward(self, x: Tensor) -> Tensor:
        """(R, in_channels, H, W) -> (R, out_channels, H, W)."""
        branches = [
            self.conv1x1(x),
            self.conv3x3(F.relu(self.reduce3x3(x), inplace=True)),
            self.conv5x5(F.relu(self.reduce5x5(x), inplace=True)),
            self.pool_proj(max_pool(x, stride=1)),
        ]
        return F.relu(torch.cat(branches, dim=1), inplace=True)


class NaiveInception(nn.Module):
    """Inception module without reductions (figure 2a): the pool passes all its channels on, so they only grow."""

    def __init__(self, in_channels: int, widths: InceptionWidths, architecture: Architecture) -> None:
        super().__init__()
        widths = InceptionWidths(*(architecture.scaled(channels) for channels in widths))
        norm, largest = architecture.norm, 5 if architecture.true_5x5 else 3
        self.conv1x1 = convolution(in_channels, widths.conv1x1, 1, norm=norm)
        self.conv3x3 = convolution(in_channels, widths.conv3x3, 3, norm=norm)
        self.conv5x5 = convolution(in_channels, widths.conv5x5, largest, norm=norm)
        self.out_channels = widths.conv1x1 + widths.conv3x3 + widths.conv5x5 + in_channels

    def forward(self, x: Tensor) -> Tensor:
        """(R, in_channels, H, W) -> (R, out_channels, H, W)."""
        branches = [self.conv1x1(x), self.conv3x3(x), self.conv5x5(x), max_pool(x, stride=1)]
        return F.relu(torch.cat(branches, dim=1), inplace=True)


class AuxiliaryClassifier(nn.Module):
    """A small classifier on a middle stage, which gives it gradients while training (section 5 of the paper).

    Average pool 5x5 of stride 3, 1x1 convolution to 128 channels, 1024 units, 70 % dropout, linear classifier.
    The loss is added to the main one with the weight 0.3; in inference there is nothing of it.
    """

    def __init__(self, in_channels: int, num_classes: int, architecture: Architecture) -> None:
        super().__init__()
        self.conv = convolution(in_channels, 128, 1, norm=architecture.norm)
        self.fc = nn.Linear(128 * 4 * 4, 1024)
        self.dropout = nn.Dropout(0.7)
        self.classifier = nn.Linear(1024, num_classes)
        for layer in (self.fc, self.classifier):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Feature map (R, in_channels, H, W) -> logits (R, num_classes)."""
        if min(x.shape[2:]) >= 5:
            x = F.avg_pool2d(x, 5, 3)  # (R, in_channels, 4, 4) from the 14x14 of a 224x224 image
        x = F.adaptive_avg_pool2d(x, 4)  # changes nothing there; makes other sizes fit
        x = F.relu(self.conv(x), inplace=True)
        x = F.relu(self.fc(x.flatten(1)), inplace=True)
        return self.classifier(self.dropout(x))
