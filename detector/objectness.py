"""Which boxes are worth a network pass: one pass over the whole image, at two sizes, tells for all of them.

R-CNN's cost is one pass a region, and most regions show no object, or half of one. A small head on features pooled
from a map of the whole image orders the boxes by how well they fit an object of whatever class. The same opinion is a
factor of the scores: a network that sees nothing but the inside of a region cannot tell a part from a whole.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import cv2
import numpy as np
import torch
from torch import Tensor, nn

from detector.box_features import GEOMETRY, WINDOWS, box_features
from detector.googlenet import GoogLeNet
from detector.low_rank import changed
from detector.nms import diverse_order
from detector.region_classifier import Normalize, RegionClassifier
from detector.runtime import RuntimeName, choose_runtime
from detector.tap_classifier import TapClassifier

STRIDE = 32  # pixels of a cell
LAST_STAGE = "inception_5b"
# Of the image in the network, in pixels: learnt from at the first, looked at in both, since the mean of two opinions is
# better than one.
LONG_SIDES = (672, 832)
_SHORTEST = STRIDE


class Chooser(Protocol):
    """Anything that says which boxes of an image to look at."""

    def __call__(self, image: np.ndarray, boxes: np.ndarray, /) -> tuple[np.ndarray, np.ndarray]:
        """RGB uint8 (H, W, 3), boxes (N, 4) -> some of the boxes (M, 4), best first, and their factors (M,), 0..1."""
        ...


class ObjectnessHead(nn.Module):
    """Features of boxes to the logit of how well they fit an object.

    Args:
        channels: Of the map that the features are pooled from.
        hidden: Units of the one hidden layer.
        changes: Of the network that makes the map, see `detector.low_rank`: what it learnt for classes alone is
            not all that tells an object from a part of one.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, channels: int = 1024, hidden: int = 64, changes: nn.ModuleDict | None = None) -> None:
        super().__init__()
        inputs = len(WINDOWS) * channels + GEOMETRY
        self.register_buffer("mean", torch.zeros(inputs))
        self.register_buffer("deviation", torch.ones(inputs))
        self.drop_inputs, self.drop_hidden = nn.Dropout(0.2), nn.Dropout(0.3)
        self.hidden = nn.Linear(inputs, hidden)
        self.output = nn.Linear(hidden, 1)
        self.changes = nn.ModuleDict() if changes is None else changes

    def forward(self, features: Tensor) -> Tensor:
        """(..., inputs) as of `box_features` -> (...)."""
        x = self.drop_inputs((features - self.mean) / self.deviation)
        return self.output(self.drop_hidden(self.hidden(x).relu()))[..., 0]


class ImageFeatures(nn.Module):
    """Pixels of whole images to the map of a stage."""

    def __init__(self, normalize: Normalize, network: GoogLeNet, stage: str) -> None:
        super().__init__()
        self.normalize, self.network, self.stage = normalize, network, stage

    def forward(self, images: Tensor) -> Tensor:
        """(1, 3, H, W) RGB of 0..255 -> (1, D, H/32, W/32), see `GoogLeNet.taps`."""
        return self.network.taps(self.normalize(images), [self.stage])[self.stage]


@dataclass(frozen=True)
class ImageMap:
    """What one pass makes of an image.

    Attributes:
        features: (D, h, w) float32.
        width, height: Of the image, in cells; of the last, partly outside, there may be no feature, and a box that lies
            in it alone is then like any other of its shape and place.
        cells: Of a pixel, (4,) float32, across and down and once more.
    """

    features: np.ndarray
    width: float
    height: float
    cells: np.ndarray


class SharedPass:
    """The pass over an image, once at each of some sizes, and what it says about boxes.

    Args:
        network: Whose last stage makes the map.
        changes: Of the network for this pass, see `ObjectnessHead`.
        stage: That makes the map, one with cells of `STRIDE` pixels.
        long_sides: Of the image in the network, in pixels.
    """

    def __init__(
        self,
        network: RegionClassifier,
        *,
        changes: nn.ModuleDict | None = None,
        stage: str = LAST_STAGE,
        long_sides: Sequence[int] = LONG_SIDES,
        runtime: RuntimeName = "auto",
        device: str | torch.device = "cpu",
    ) -> None:
        trunk = trunk_of(network)
        if changes:
            trunk = changed(trunk, changes)
        self.long_sides = tuple(long_sides)
        self._run = choose_runtime(ImageFeatures(network.normalize, trunk, stage), runtime, device)

    def map_of(self, image: np.ndarray, long_side: int) -> ImageMap:
        """The map of an image, RGB uint8 (H, W, 3), at one size."""
        height, width = image.shape[:2]
        factor = long_side / max(height, width)
        seen = (max(round(width * factor), _SHORTEST), max(round(height * factor), _SHORTEST))
        smaller = factor < 1
        resized = cv2.resize(image, seen, interpolation=cv2.INTER_AREA if smaller else cv2.INTER_LINEAR)
        return ImageMap(
            self._run(resized[None])[0],
            width=seen[0] / STRIDE,
            height=seen[1] / STRIDE,
            cells=np.array([seen[0] / width, seen[1] / height] * 2, np.float32) / STRIDE,
        )

    def __call__(self, image: np.ndarray, boxes: np.ndarray) -> Iterator[np.ndarray]:
        """Features (N, F) float32 of the boxes (N, 4) of an image, RGB uint8 (H, W, 3), at one size after the other.

        Those of 2,400 boxes are 30 MB, and the head needs several times that; hence never more than one.
        """
        for long_side in self.long_sides:
            seen = self.map_of(image, long_side)
            yield box_features(seen.features, boxes * seen.cells, width=seen.width, height=seen.height)


def trunk_of(network: RegionClassifier) -> GoogLeNet:
    """The GoogLeNet in a classifier of regions."""
    body = network.network
    trunk = body.trunk if isinstance(body, TapClassifier) else body
    assert isinstance(trunk, GoogLeNet)
    return trunk


@dataclass
class BoxChooser:
    """The boxes of an image by their objectness.

    Attributes:
        shared: What is known of the boxes.
        head: What that says about their fit.
    """

    shared: SharedPass
    head: ObjectnessHead

    @torch.inference_mode()
    def __call__(self, image: np.ndarray, boxes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The boxes (N, 4) of an image, RGB uint8 (H, W, 3), best first, and their expected IoUs (N,)."""
        if not len(boxes):
            return boxes, np.empty(0, np.float32)
        head = self.head.eval()
        logits = [head(torch.from_numpy(features)) for features in self.shared(image, boxes)]
        fit = torch.stack(logits).mean(dim=0).sigmoid().numpy()
        chosen = diverse_order(boxes, fit)
        return boxes[chosen], fit[chosen]
