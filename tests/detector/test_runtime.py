"""Every way of running a network computes what the plain PyTorch module computes."""

import subprocess
import sys
from copy import deepcopy
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from detector.architecture import TORCHVISION, VARIANTS, Architecture
from detector.googlenet import GoogLeNet
from detector.openvino_graph import UnknownOperationError, openvino_graph
from detector.region_classifier import Normalize, Preprocessing, RegionClassifier
from detector.runtime import Precision, choose_runtime, openvino_runtime, torch_runtime
from detector.taxonomy import DET200, DetectionClass, TrainedScores, ZeroShotScores

CONVENTIONS = [
    Preprocessing("BGR", scale=1.0, mean=(104.0, 117.0, 123.0), size=64),
    Preprocessing("RGB", scale=1 / 255, mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.4), size=65),
]


class Zoo(nn.Module):
    """A network with the layers that GoogLeNet does not have but others do."""

    def __init__(self) -> None:
        super().__init__()
        norm = nn.BatchNorm2d(8)
        nn.init.normal_(norm.running_mean)  # type: ignore[arg-type]  # it has one
        nn.init.uniform_(norm.running_var, 0.5, 2)  # type: ignore[arg-type]
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2, bias=False), norm, nn.ReLU())
        self.pool = nn.MaxPool2d(3, 2, ceil_mode=True)
        self.wide = nn.Conv2d(8, 8, 3, padding=2, dilation=2)
        self.average = nn.AdaptiveAvgPool2d(1)
        self.drop = nn.Dropout(0.5)
        self.fc = nn.Linear(8 * 5, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(self.stem(x))
        x = torch.relu(self.wide(x)) * torch.sigmoid(x) + x - 0.5
        x = torch.cat([self.average(x).flatten(1), F.adaptive_avg_pool2d(x, 2).flatten(1)], dim=1)
        x = F.dropout(self.drop(x), training=self.training)
        return self.fc(torch.sqrt(x * x + 1.0) / 100)


def classifier(network: nn.Module, preprocessing: Preprocessing, outputs: int) -> RegionClassifier:
    zero_shot = outputs == 1000
    return RegionClassifier(
        network=network,
        preprocessing=preprocessing,
        class_scores=ZeroShotScores(2.0) if zero_shot else TrainedScores(),
        classes=DET200
        if zero_shot
        else tuple(DetectionClass(label, f"class {label}") for label in range(1, outputs)),
    )


@pytest.mark.parametrize("preprocessing", CONVENTIONS)
@pytest.mark.parametrize("outputs", [1000, 3])
def test_openvino_agrees_with_the_module(preprocessing: Preprocessing, outputs: int) -> None:
    torch.manual_seed(0)
    network = GoogLeNet(outputs) if outputs == 1000 else Zoo()
    if outputs == 1000:
        nn.init.normal_(network.classifier.weight, std=0.5)  # type: ignore[union-attr, arg-type]
    module = classifier(network, preprocessing, outputs)
    plain, compiled = torch_runtime(module), openvino_runtime(module, preprocessing.size)
    random = np.random.default_rng(0)
    for count in (1, 3, 8):
        side = preprocessing.size
        regions = random.integers(0, 256, (count, side, side, 3), dtype=np.uint8)
        expected = plain(regions)
        assert expected.shape == (count, len(module.classes)) and expected.std() > 1e-5
        np.testing.assert_allclose(compiled(regions), expected, atol=1e-6, rtol=1e-4)


def test_images_of_any_size() -> None:
    torch.manual_seed(0)
    module = nn.Sequential(Normalize(CONVENTIONS[1]), GoogLeNet(7))
    plain, compiled = torch_runtime(module), openvino_runtime(module)
    random = np.random.default_rng(0)
    for height, width in ((33, 64), (96, 47), (33, 64), (65, 131)):
        images = random.integers(0, 256, (2, height, width, 3), dtype=np.uint8)
        np.testing.assert_allclose(compiled(images), plain(images), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("architecture", [*VARIANTS.values(), TORCHVISION], ids=[*VARIANTS, "torchvision"])
def test_openvino_knows_every_variant(architecture: Architecture) -> None:
    torch.manual_seed(0)
    network = GoogLeNet(4, architecture=replace(architecture, width=architecture.width / 8), auxiliary=True)
    network(torch.randn(4, 3, 64, 64))  # moves batch norm's statistics
    nn.init.normal_(network.classifier.weight, std=0.5)
    module = classifier(network, CONVENTIONS[1], 4)
    regions = np.random.default_rng(0).integers(0, 256, (3, 65, 65, 3), dtype=np.uint8)
    expected = torch_runtime(module)(regions)
    assert expected.std() > 1e-5
    np.testing.assert_allclose(openvino_runtime(module)(regions), expected, atol=1e-6, rtol=1e-4)


def test_openvino_knows_batch_norms_that_were_converted() -> None:
    torch.manual_seed(0)
    network = nn.SyncBatchNorm.convert_sync_batchnorm(Zoo())
    regions = np.random.default_rng(0).integers(0, 256, (3, 65, 65, 3), dtype=np.uint8)
    module = classifier(network, CONVENTIONS[1], 3)
    np.testing.assert_allclose(openvino_runtime(module)(regions), torch_runtime(module)(regions), atol=1e-6)


def test_bfloat16_is_near_float32() -> None:
    torch.manual_seed(0)
    module = classifier(Zoo(), CONVENTIONS[1], 3)
    regions = np.random.default_rng(0).integers(0, 256, (5, 65, 65, 3), dtype=np.uint8)
    expected = torch_runtime(module)(regions)
    for name in ("torch", "openvino"):
        found = choose_runtime(module, name, precision="bfloat16")(regions)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, expected, atol=0.02)
    assert (choose_runtime(module, "torch", precision="bfloat16")(regions) != expected).any()
    assert torch.backends.cudnn.allow_tf32  # as it was found


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize(("precision", "most"), [("float32", 1e-5), ("tf32", 5e-3), ("bfloat16", 5e-2)])
def test_a_gpu_agrees_with_the_module(precision: Precision, most: float) -> None:
    torch.manual_seed(0)
    module = classifier(GoogLeNet(1000), CONVENTIONS[0], 1000)
    nn.init.normal_(module.network.classifier.weight, std=0.5)  # type: ignore[union-attr, arg-type]
    regions = np.random.default_rng(0).integers(0, 256, (5, 64, 64, 3), dtype=np.uint8)
    expected = torch_runtime(module)(regions)
    found = choose_runtime(deepcopy(module), "auto", "cuda", precision=precision)(regions)
    assert expected.std() > 1e-5
    np.testing.assert_allclose(found, expected, atol=most)


def test_results_of_successive_batches_are_not_the_same_memory() -> None:
    module = classifier(Zoo(), CONVENTIONS[0], 3)
    for run in (torch_runtime(module), openvino_runtime(module)):
        black, white = (np.full((2, 64, 64, 3), value, np.uint8) for value in (0, 255))
        first = run(black)
        kept = first.copy()
        run(white)
        assert (first == kept).all()


class Strange(nn.Module):
    """An operation nobody has thought of."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.fft.fft(x.mean(dim=(2, 3))).abs()


class Branching(nn.Module):
    """A program that depends on its values, which no trace can follow."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mean(dim=(2, 3)) if x.sum() > 0 else x.sum(dim=(2, 3))


@pytest.mark.parametrize("network", [Strange(), Branching()])
def test_a_network_that_openvino_cannot_run(network: nn.Module) -> None:
    module = classifier(network, CONVENTIONS[0], 3)
    with pytest.raises(UnknownOperationError):
        openvino_graph(module)
    with pytest.raises(ValueError, match=r"--runtime openvino: [^\n]*; use --runtime torch$"):
        choose_runtime(module, "openvino")
    regions = np.full((2, 64, 64, 3), 200, np.uint8)
    np.testing.assert_array_equal(choose_runtime(module, "auto")(regions), torch_runtime(module)(regions))


def test_openvino_is_for_the_cpu() -> None:
    with pytest.raises(ValueError, match="runs on the CPU, not on cuda"):
        choose_runtime(classifier(Zoo(), CONVENTIONS[0], 3), "openvino", "cuda")


SIGNAL_AFTER_NETWORKS = """
import faulthandler, os, signal
from torch import nn
from detector.runtime import openvino_runtime

faulthandler.enable()
signal.signal(signal.SIGUSR1, lambda *_: print("alive"))
first, second = openvino_runtime(nn.Conv2d(3, 4, 1)), openvino_runtime(nn.Conv2d(3, 4, 1))
del first
del second
os.kill(os.getpid(), signal.SIGUSR1)
"""


def test_signals_arrive_after_networks_end() -> None:
    found = subprocess.run(
        [sys.executable, "-c", SIGNAL_AFTER_NETWORKS], capture_output=True, text=True, check=False
    )
    assert (found.returncode, found.stdout) == (0, "alive\n"), found.stderr
