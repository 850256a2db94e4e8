"""The paper's auxiliary classifiers: they push gradients into the middle of the network, and go after training.

Szegedy et al., section 5: on the outputs of 4a and 4d an average pool of 5x5 with stride 3, a 1x1 convolution of 128
channels, 1024 units, 70 % dropout, and the classes; their losses count 0.3.
"""

from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn

from detector.googlenet import TABLE_1, GoogLeNet, convolution
from detector.stages import run_between, run_on, run_to

WEIGHT = 0.3  # of each auxiliary loss
_CELLS = 4  # a side of the pooled map


class Logits(NamedTuple):
    """Outputs (R, classes) of the classifier and of the two auxiliary ones."""

    main: Tensor
    aux_4a: Tensor
    aux_4d: Tensor


class AuxiliaryHead(nn.Module):
    """One auxiliary classifier on a feature map."""

    def __init__(self, channels: int, num_classes: int) -> None:
        super().__init__()
        self.projection = convolution(channels, 128, 1)
        self.hidden = nn.Linear(128 * _CELLS**2, 1024)
        self.dropout = nn.Dropout(0.7)
        self.classifier = nn.Linear(1024, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Features (R, channels, H, W) -> logits (R, classes)."""
        # 14x14 of an input of 224 gives the paper's 4x4; other sizes are averaged to as many cells.
        pooled = F.avg_pool2d(x, 5, 3) if x.shape[-1] == 14 else F.adaptive_avg_pool2d(x, _CELLS)
        hidden = F.relu(self.hidden(F.relu(self.projection(pooled)).flatten(1)))
        return self.classifier(self.dropout(hidden))


class WithAuxiliaries(nn.Module):
    """A network and its auxiliary classifiers, for training."""

    def __init__(self, network: GoogLeNet) -> None:
        super().__init__()
        self.network = network
        classes = network.classifier.out_features
        self.aux_4a = AuxiliaryHead(TABLE_1["4a"].out_channels, classes)
        self.aux_4d = AuxiliaryHead(TABLE_1["4d"].out_channels, classes)

    def forward(self, x: Tensor) -> Tensor | Logits:
        """Normalised images (R, 3, H, W) -> all logits while training, else the network's own (R, classes)."""
        if not self.training:
            return self.network(x)
        at_4a = run_to(self.network, x, "inception_4a")
        at_4d = run_between(self.network, at_4a, "inception_4a", "inception_4d")
        main = run_on(self.network, at_4d, "inception_4d")
        return Logits(main, self.aux_4a(at_4a), self.aux_4d(at_4d))
