"""How well a box fits an object, by what a network sees of its region: a second opinion on the objectness.

The head of `detector.objectness` looks at a map of the whole image, whose cells are 32 pixels wide; what a region's
own pass sees is sharper, and with enough context it also shows where the object goes on outside the box. So members
of an ensemble that look at much of a region's surroundings can say how well it fits. Jiang et al., *Acquisition of
localization confidence for accurate object detection* (ECCV 2018), let a network predict the IoU likewise.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from detector.googlenet import GoogLeNet
from detector.region_classifier import RegionClassifier

STAGE = "inception_5b"  # whose map the head sees
RAISE = 0.5  # most that second opinions add to a logit: what is far below a threshold needs no second look
_LEAST = 1e-6  # of a fit, whose logit has no end


class FitHead(nn.Module):
    """The last map of a region to the logit of how well its box fits an object.

    Args:
        channels: Of the map.
        cells: A side of it.
        reduced: Channels that are left of these in each cell.
        hidden: Units of the one hidden layer.
    """

    def __init__(self, channels: int, cells: int, reduced: int = 32, hidden: int = 32) -> None:
        super().__init__()
        self.drop_channels, self.drop_cells, self.drop_hidden = (
            nn.Dropout2d(0.1),
            nn.Dropout(0.3),
            nn.Dropout(0.3),
        )
        self.reduce = nn.Conv2d(channels, reduced, 1)
        self.hidden = nn.Linear(reduced * cells * cells, hidden)
        self.output = nn.Linear(hidden, 1)

    def forward(self, features: Tensor) -> Tensor:
        """Maps (R, channels, cells, cells), not negative -> (R, 1); the square root tames their few large values."""
        x = self.reduce(self.drop_channels(features.sqrt())).relu().flatten(1)
        return self.output(self.drop_hidden(self.hidden(self.drop_cells(x)).relu()))


class ScoresAndFit(nn.Module):
    """A classifier of regions and its head of fit, in one pass."""

    def __init__(self, classifier: RegionClassifier, head: FitHead) -> None:
        super().__init__()
        self.normalize, self.class_scores, self.head = classifier.normalize, classifier.class_scores, head
        assert isinstance(classifier.network, GoogLeNet)
        self.network = classifier.network

    def forward(self, regions: Tensor) -> Tensor:
        """Regions (R, 3, S, S), RGB uint8 or float of 0..255 -> (R, C + 1): probabilities and, last, the logit."""
        features = self.network.taps(self.normalize(regions), [STAGE])[STAGE]
        scores = self.class_scores(self.network.resume(features, after=STAGE))
        return torch.cat([scores, self.head(features)], dim=1)


def joint_fit(objectness: np.ndarray, opinions: Sequence[np.ndarray]) -> np.ndarray:
    """The objectness (N,) of boxes, 0..1, and the logits (N,) of those who saw their regions as one fit (N,) float32.

    It is the mean of the objectness' logit and of the opinions' mean, but at most `RAISE` above the former.
    """
    if not opinions:
        return objectness
    own = _logit(objectness)
    return _sigmoid(np.minimum((own + np.mean(opinions, axis=0, dtype=np.float64)) / 2, own + RAISE))


def highest_fit(objectness: np.ndarray) -> np.ndarray:
    """What `joint_fit` makes at most of an objectness (N,), whatever the opinions will be: (N,) float32."""
    return np.maximum(_sigmoid(_logit(objectness) + RAISE), objectness, dtype=np.float32)


def _logit(fit: np.ndarray) -> np.ndarray:
    fit = np.clip(np.asarray(fit, np.float64), _LEAST, 1 - _LEAST)
    return np.asarray(np.log(fit / (1 - fit)))


def _sigmoid(logit: np.ndarray) -> np.ndarray:
    return np.asarray(1 / (1 + np.exp(-logit)), np.float32)
