"""The numbers of GoogLeNet and its relatives: table 1 of the paper, the names of the stages, the variants.

Szegedy et al., *Going deeper with convolutions* (CVPR 2015).
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple


class InceptionWidths(NamedTuple):
    """Channels of the branches of one Inception module: one row of table 1."""

    conv1x1: int
    reduce3x3: int
    conv3x3: int
    reduce5x5: int
    conv5x5: int
    pool_proj: int


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

# Every stage in the order of the computation, with the name TF-slim gives its output (none for the norms).
SLIM_NAMES = {
    "conv1": "Conv2d_1a_7x7",
    "pool1": "MaxPool_2a_3x3",
    "norm1": None,
    "conv2_reduce": "Conv2d_2b_1x1",
    "conv2": "Conv2d_2c_3x3",
    "norm2": None,
    "pool2": "MaxPool_3a_3x3",
    "inception_3a": "Mixed_3b",
    "inception_3b": "Mixed_3c",
    "pool3": "MaxPool_4a_3x3",
    "inception_4a": "Mixed_4b",
    "inception_4b": "Mixed_4c",
    "inception_4c": "Mixed_4d",
    "inception_4d": "Mixed_4e",
    "inception_4e": "Mixed_4f",
    "pool4": "MaxPool_5a_2x2",
    "inception_5a": "Mixed_5b",
    "inception_5b": "Mixed_5c",
    "pool5": "AvgPool_0a_7x7",
}


@dataclass(frozen=True)
class Architecture:
    """What tells one GoogLeNet from another; the defaults are the paper's network.

    Attributes:
        norm: `lrn` normalises twice by the energy of neighbouring channels, as the paper does; `batch` follows
            every convolution with a batch norm, as TF-slim does, with slim's 2x2 in place of the last 3x3 pool
            (on 224x224 pixels both leave 7x7); `none` does neither.
        true_5x5: 5x5 convolutions in the Inception modules; TF-slim, and torchvision after it, have 3x3 there.
        reductions: 1x1 convolutions before the larger ones and after the pool (figure 2b of the paper);
            without them it is the naive module (figure 2a), whose cost grows from stage to stage.
        width: Factor on the channels of all convolutions.
        transform_input: The input is normalised by ImageNet's mean and deviation, and the network was trained on
            -1..1: an exact first step changes the one into the other, as torchvision's does.
    """

    norm: Literal["lrn", "batch", "none"] = "lrn"
    true_5x5: bool = True
    reductions: bool = True
    width: float = 1.0
    transform_input: bool = False

    def __post_init__(self) -> None:
        if self.norm not in ("lrn", "batch", "none"):
            raise ValueError(f"norm is {self.norm!r}, but must be lrn, batch or none")
        if not self.width > 0:
            raise ValueError(f"width is {self.width}, but must be above 0")

    def scaled(self, channels: int) -> int:
        """Channels of the paper's network -> of this one."""
        return max(1, round(channels * self.width))

    def stages(self) -> tuple[str, ...]:
        """The names of the stages this network has, in order."""
        return tuple(name for name in SLIM_NAMES if self.norm == "lrn" or not name.startswith("norm"))


PAPER = Architecture()
SLIM = Architecture(norm="batch", true_5x5=False)
TORCHVISION = Architecture(norm="batch", true_5x5=False, transform_input=True)
VARIANTS = {
    "the paper's": PAPER,
    "batch norm, 3x3 for 5x5 (TF-slim, torchvision)": SLIM,
    "batch norm, true 5x5": Architecture(norm="batch"),
    "no norm": Architecture(norm="none"),
    "wider by a quarter": Architecture(width=1.25),
    "naive Inception modules": Architecture(reductions=False),
}
