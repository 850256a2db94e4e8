"""One network with all it needs to judge regions: its input convention before it, its class scores behind it."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from detector.taxonomy import DetectionClass


@dataclass(frozen=True)
class Preprocessing:
    """How a network wants its regions cut out, and its pixels: `(pixels * scale - mean) / std`.

    Attributes:
        channel_order: Order of the channels the network was trained with.
        scale: Factor on pixels of 0..255, before mean and std.
        mean: Subtracted per channel, in the network's channel order and after scaling.
        std: Divisor per channel, likewise.
        size: Side of the square input in pixels.
        context: Pixels of surroundings on each side of a box in that input.
        crop: `warp` stretches a box to the square, `square` takes the square around its longer side.
    """

    channel_order: Literal["RGB", "BGR"]
    scale: float
    mean: tuple[float, float, float]
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)
    size: int = 224
    context: int = 16
    crop: Literal["warp", "square"] = "warp"

    def mean_colour(self) -> tuple[float, float, float]:
        """The mean as an RGB colour of 0..255: a pixel of this colour is zero for the network."""
        red_green_blue = self.mean if self.channel_order == "RGB" else self.mean[::-1]
        return tuple(value / self.scale for value in red_green_blue)  # type: ignore[return-value]


class Normalize(nn.Module):
    """RGB pixels of 0..255 to what a network was trained on."""

    factor: Tensor
    offset: Tensor

    def __init__(self, preprocessing: Preprocessing) -> None:
        super().__init__()
        std = torch.tensor(preprocessing.std)[:, None, None]  # (3, 1, 1)
        mean = torch.tensor(preprocessing.mean)[:, None, None]
        self.reverse_channels = preprocessing.channel_order == "BGR"
        self.register_buffer("factor", preprocessing.scale / std, persistent=False)
        self.register_buffer("offset", -mean / std, persistent=False)

    def forward(self, pixels: Tensor) -> Tensor:
        """(R, 3, H, W) RGB, uint8 or float of 0..255 -> the same shape, float."""
        if self.reverse_channels:
            pixels = pixels.flip(1)
        return pixels * self.factor + self.offset


class RegionClassifier(nn.Module):
    """Pixels of regions in, one probability per detection class out.

    Args:
        network: Normalised images (R, 3, S, S) -> logits (R, outputs).
        preprocessing: The input convention the network's weights were trained with.
        class_scores: Logits (R, outputs) -> probabilities (R, C), see `detector.taxonomy`.
        classes: The C detection classes, in the order of the columns.
    """

    def __init__(
        self,
        *,
        network: nn.Module,
        preprocessing: Preprocessing,
        class_scores: nn.Module,
        classes: tuple[DetectionClass, ...],
    ) -> None:
        super().__init__()
        self.preprocessing = preprocessing
        self.classes = classes
        self.normalize = Normalize(preprocessing)
        self.network = network
        self.class_scores = class_scores

    def forward(self, regions: Tensor) -> Tensor:
        """Regions (R, 3, S, S), RGB uint8 or float of 0..255 -> probabilities (R, C)."""
        return self.class_scores(self.network(self.normalize(regions)))
