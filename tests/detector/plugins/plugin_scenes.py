"""Two images with boxes to train on, and what the network itself makes of pixels, for the tests of the plug-ins."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from detector.architecture import SLIM, TORCHVISION, Architecture
from detector.googlenet import GoogLeNet
from detector.images import read_image
from detector.region_classifier import Normalize
from detector.weights import load_weights

NARROW = Architecture(width=0.25)
NARROW_SLIM, NARROW_TORCHVISION = (replace(architecture, width=0.25) for architecture in (SLIM, TORCHVISION))
SIDE = 128


@dataclass
class Scene:
    """Images (3, SIDE, SIDE) RGB of 0..1, and for each its boxes (N, 4) xyxy and labels (N,) of 1..2."""

    images: list[Tensor]
    boxes: list[Tensor]
    labels: list[Tensor]


def synthetic_scene() -> Scene:
    """Noise with a red and a green rectangle each."""
    generator = torch.Generator().manual_seed(0)
    boxes = torch.tensor([[10.0, 20.0, 60.0, 90.0], [70.0, 50.0, 120.0, 110.0]])
    images = [torch.rand(3, SIDE, SIDE, generator=generator) * 0.3 for _ in range(2)]
    for image in images:
        for channel, (x1, y1, x2, y2) in enumerate(boxes.int().tolist()):
            image[channel, y1:y2, x1:x2] = 1.0
    return Scene(images, [boxes, boxes.clone()], [torch.tensor([1, 2])] * 2)


def real_scene(folder: Path) -> Scene:
    """The first two images with one to four boxes that are not small, squeezed to SIDE."""
    (annotations,) = (json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))[:1])
    scene = Scene([], [], [])
    for info in annotations["images"]:
        stretch = np.array([SIDE / info["width"], SIDE / info["height"]] * 2)
        found = [
            np.array(part["bbox"]) * stretch
            for part in annotations["annotations"]
            if part["image_id"] == info["id"] and not part["iscrowd"]
        ]
        if not 1 <= len(found) <= 4 or min(min(box[2:]) for box in found) < SIDE / 4:
            continue
        boxes = torch.tensor(np.array(found), dtype=torch.float32)
        boxes[:, 2:] += boxes[:, :2]  # COCO has x, y, width, height
        pixels = torch.tensor(read_image(folder / "images" / info["file_name"])).permute(2, 0, 1)[None] / 255
        scene.images.append(torch.nn.functional.interpolate(pixels, (SIDE, SIDE), mode="area")[0])
        scene.boxes.append(boxes)
        scene.labels.append(torch.ones(len(boxes), dtype=torch.int64))
        if len(scene.images) == 2:
            break
    return scene


def expected_features(weights: Path, pixels: Tensor, taps: tuple[str, ...]) -> list[Tensor]:
    """What the network itself makes of the pixels, without any plug-in."""
    classifier = load_weights(weights).eval()
    assert isinstance(classifier.network, GoogLeNet)
    with torch.inference_mode():
        found = classifier.network.taps(Normalize(classifier.preprocessing)(pixels), taps)
    return [found[tap] for tap in taps]


def assert_same_features(found: Sequence[Tensor], expected: list[Tensor]) -> None:
    """Equal up to the rounding of float32, measured against the largest value of each map."""
    assert [tuple(part.shape) for part in found] == [tuple(part.shape) for part in expected]
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5 * theirs.abs().max().item())
