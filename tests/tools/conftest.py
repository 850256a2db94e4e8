"""What tests of the command lines share: a model that runs, and photos."""

from pathlib import Path

import pytest
import torch

from detector.googlenet import GoogLeNet
from detector.safetensors_file import WeightsCard, write_weights_file
from detector.taxonomy import DET200
from detector.weights import CAFFE_INPUT


@pytest.fixture(scope="session")
def random_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The real network with random weights: it runs as a trained one does, and finds nonsense."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("models") / "random.safetensors"
    network = GoogLeNet(len(DET200) + 1)
    torch.nn.init.normal_(network.classifier.weight, std=0.3)
    card = WeightsCard("random", "random weights for tests", "CC0", "detection", CAFFE_INPUT, DET200)
    write_weights_file(path, network.state_dict(), card)
    return path


@pytest.fixture(scope="session")
def photos() -> Path:
    """Folder of real photos under free licences."""
    skimage = pytest.importorskip("skimage")
    return Path(skimage.__file__).parent / "data"
