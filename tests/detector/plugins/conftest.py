"""What tests of the plug-ins share: weights of an unusual input convention, pixels, and two images with boxes."""

from pathlib import Path

import pytest
import torch
from plugin_scenes import NARROW_TORCHVISION, Scene, real_scene, synthetic_scene
from torch import Tensor

from detector.googlenet import GoogLeNet
from detector.safetensors_file import WeightsCard, write_weights_file
from detector.taxonomy import DetectionClass
from detector.weights import CAFFE_INPUT, TORCHVISION_INPUT


@pytest.fixture(params=["synthetic", "real"])
def scene(request: pytest.FixtureRequest) -> Scene:
    if request.param == "synthetic":
        return synthetic_scene()
    return real_scene(request.getfixturevalue("shared") / "train_boxes")


@pytest.fixture(scope="session")
def bgr_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A weights file of the paper's network, random, which wants BGR of 0..255 minus a mean as BVLC's does."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "bgr.safetensors"
    classes = (DetectionClass(1, "cat"), DetectionClass(2, "dog"))
    card = WeightsCard("random", "random weights for tests", "CC0", "detection", CAFFE_INPUT, classes)
    write_weights_file(path, GoogLeNet(3).state_dict(), card)
    return path


@pytest.fixture(scope="session")
def torchvision_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A weights file of a narrow network, random, which rescales its input as torchvision's does."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "torchvision.safetensors"
    network = GoogLeNet(architecture=NARROW_TORCHVISION)
    with torch.no_grad():
        network(torch.randn(4, 3, 64, 64))  # so that its batch norms have seen something
    card = WeightsCard(
        *("random", "random weights for tests", "CC0", "cls1000", TORCHVISION_INPUT),
        architecture=NARROW_TORCHVISION,
    )
    write_weights_file(path, network.state_dict(), card)
    return path


@pytest.fixture
def pixels() -> Tensor:
    """RGB pixels (2, 3, 70, 97) of 0..255, which no stride divides."""
    return torch.randint(0, 256, (2, 3, 70, 97), generator=torch.Generator().manual_seed(1)).float()


@pytest.fixture
def normalised(pixels: Tensor) -> Tensor:
    """The same pixels as detectors normalise them: 0..1 minus ImageNet's mean, divided by its deviation."""
    mean = torch.tensor([0.485, 0.456, 0.406])[:, None, None]
    std = torch.tensor([0.229, 0.224, 0.225])[:, None, None]
    return (pixels / 255 - mean) / std
