"""A detector small enough to know its answers: what colour is a region?"""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from detector.rcnn import RCNN
from detector.region_classifier import Preprocessing, RegionClassifier
from detector.region_scorer import RegionScorer
from detector.taxonomy import DET200, DetectionClass, TrainedScores

COLOUR_CLASSES = tuple(  # with the synsets of official ids, so that the official format takes them
    DetectionClass(number, name, DET200[number - 1].wnid)
    for number, name in ((3, "red"), (5, "green"), (9, "blue"))
)


class ColourNetwork(nn.Module):
    """Logits: the mean of each channel, and for background a constant."""

    def forward(self, x: Tensor) -> Tensor:
        colour = x.mean(dim=(2, 3)) * 10
        return torch.cat([colour, torch.full_like(colour[:, :1], 2.0)], dim=1)


@pytest.fixture
def colour_classifier() -> RegionClassifier:
    return RegionClassifier(
        network=ColourNetwork(),
        preprocessing=Preprocessing("RGB", scale=1 / 255, mean=(0.0, 0.0, 0.0), size=32),
        class_scores=TrainedScores(),
        classes=COLOUR_CLASSES,
    )


def tiles(image: np.ndarray) -> np.ndarray:
    """Proposals: the tiles of a 4x4 grid, and the whole image."""
    height, width = image.shape[:2]
    xs, ys = np.linspace(0, width, 5), np.linspace(0, height, 5)
    boxes = [(xs[i], ys[j], xs[i + 1], ys[j + 1]) for j in range(4) for i in range(4)]
    return np.array([*boxes, (0, 0, width, height)], np.float32)


@pytest.fixture
def colour_detector(colour_classifier: RegionClassifier) -> RCNN:
    return RCNN(
        proposals=tiles,
        scorer=RegionScorer(colour_classifier, context=0, runtime="torch"),
        score_threshold=0.5,
    )


@pytest.fixture
def red_square() -> np.ndarray:
    """Black, with the tile at column 1, row 2 red."""
    image = np.zeros((80, 120, 3), np.uint8)
    image[40:60, 30:60] = (255, 0, 0)
    return image
