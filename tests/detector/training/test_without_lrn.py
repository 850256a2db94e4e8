"""A network whose LRN became factors in its weights: the same as the network with these factors in the place of LRN."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from detector.architecture import Architecture
from detector.googlenet import GoogLeNet
from detector.training.without_lrn import factors, without_lrn

NARROW = Architecture(width=0.25)


class Factors(nn.Module):
    """What stands for LRN: its average effect on the images it sees first."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.norm = norm
        self.factor: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        if self.factor is None:
            self.factor = factors(x, self.norm(x))
        return x * self.factor[:, None, None]


@pytest.fixture
def network() -> GoogLeNet:
    torch.manual_seed(1)
    return GoogLeNet(7, architecture=NARROW).eval()


@torch.no_grad()
def test_the_factors_are_in_the_weights(network: GoogLeNet) -> None:
    images = torch.rand(3, 3, 64, 48) * 200 - 100
    plain = without_lrn(network, images).eval()
    assert plain.architecture == replace(NARROW, norm="none") and "norm1" not in plain.stages
    exact = network(images)
    second = network.taps(images, ["norm2"])["norm2"]
    network.norm1 = Factors(network.norm1)  # type: ignore[assignment]
    seen = network.taps(images, ["conv2"])["conv2"]
    network.norm2 = Factors(nn.Identity())  # type: ignore[assignment]
    network.norm2.factor = factors(seen, second)
    for pixels in (images, torch.rand(2, 3, 33, 70) * 255):
        torch.testing.assert_close(plain(pixels), network(pixels), rtol=1e-4, atol=1e-5)
    assert not torch.allclose(exact, plain(images), rtol=1e-3)  # LRN had an effect here


@torch.no_grad()
def test_where_lrn_does_nothing_nothing_changes(network: GoogLeNet) -> None:
    images = torch.rand(2, 3, 40, 40) * 1e-3
    torch.testing.assert_close(without_lrn(network, images).eval()(images), network(images))


def test_the_factor_is_the_best_one_and_one_for_silent_channels() -> None:
    torch.manual_seed(0)
    given, wanted = torch.rand(4, 3, 5, 5), torch.rand(4, 3, 5, 5)
    given[:, 1] = 0
    found = factors(given, wanted)
    assert found[1] == 1
    for channel in (0, 2):
        x, y = (values[:, channel].reshape(-1, 1) for values in (given, wanted))
        torch.testing.assert_close(found[channel], torch.linalg.lstsq(x, y).solution[0, 0])


@pytest.mark.parametrize("architecture", [replace(NARROW, norm="none"), replace(NARROW, reductions=False)])
def test_other_networks_are_refused(architecture: Architecture) -> None:
    with pytest.raises(ValueError, match="starts from a network with LRN"):
        without_lrn(GoogLeNet(7, architecture=architecture), torch.zeros(1, 3, 32, 32))
