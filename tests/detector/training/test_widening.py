"""A wider network computes what the narrow one does, and its copied channels grow apart."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from detector.architecture import Architecture
from detector.googlenet import GoogLeNet
from detector.training.widening import copies, widened

NARROW = Architecture(norm="none", width=0.25)


def network() -> GoogLeNet:
    torch.manual_seed(2)
    return GoogLeNet(7, architecture=NARROW).eval()


@pytest.mark.parametrize("width", [0.25, 0.3, 0.375, 0.8])
@torch.no_grad()
def test_the_outputs_stay(width: float) -> None:
    narrow, images = network(), torch.rand(3, 3, 64, 48) * 200 - 100
    wide = widened(narrow, width, seed=1).eval()
    assert wide.architecture == replace(NARROW, width=width)
    assert wide.num_features == GoogLeNet(7, architecture=wide.architecture).num_features
    torch.testing.assert_close(wide(images), narrow(images), rtol=1e-4, atol=1e-4)


def test_copies_get_gradients_of_their_own() -> None:
    wide = widened(network(), 0.5, seed=0).train()
    output = wide(torch.rand(2, 3, 48, 48) * 100)
    assert isinstance(output, Tensor)
    output.square().sum().backward()
    gradient = wide.get_submodule("inception_3a.conv3x3").weight.grad
    assert isinstance(gradient, Tensor)
    rows = gradient.flatten(1)
    rows = rows[rows.any(dim=1)]  # silent channels learn nothing
    assert len(rows) > 40 and len(rows.unique(dim=0)) == len(rows)


def test_the_shares_of_a_channel_add_up() -> None:
    found = copies(5, 23, torch.Generator().manual_seed(0))
    assert found.source[:5].tolist() == list(range(5)) and len(found.source) == 23
    torch.testing.assert_close(torch.zeros(5).index_add_(0, found.source, found.share), torch.ones(5))
    assert (found.share > 0).all()


@pytest.mark.parametrize(
    ("architecture", "width", "words"),
    [
        (Architecture(width=0.25), 0.5, "see --no-lrn"),
        (Architecture(width=0.25, norm="batch"), 0.5, "see --no-lrn"),
        (NARROW, 0.2, "at least 0.25"),
    ],
)
def test_what_cannot_be_widened(architecture: Architecture, width: float, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        widened(GoogLeNet(7, architecture=architecture), width, seed=0)
