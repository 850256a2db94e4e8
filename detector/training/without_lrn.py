"""A network without LRN that starts from one with it: a member of an ensemble that is not the others once more.

LRN divides every activation by the energy around it. Its average effect is a factor for each channel, and a factor
before a convolution is a factor of its weights; what is left is for training to make up for.
"""

from dataclasses import replace

import torch
from torch import Tensor, nn

from detector.architecture import Architecture
from detector.googlenet import GoogLeNet
from detector.inception import Inception


def lrn_free(architecture: Architecture) -> Architecture:
    """The same without LRN.

    Raises:
        ValueError: It has none, or no Inception modules with reductions.
    """
    if architecture.norm != "lrn" or not architecture.reductions:
        raise ValueError("--no-lrn starts from a network with LRN, and the first weights are of another")
    return replace(architecture, norm="none")


@torch.no_grad()
def without_lrn(network: GoogLeNet, images: Tensor) -> GoogLeNet:
    """A copy of a network with LRN in which constant factors stand for it.

    Args:
        network: With LRN and Inception modules with reductions, without auxiliary classifiers.
        images: Normalised regions (R, 3, S, S) for whose activations the factors are the best, in least squares.

    Raises:
        ValueError: As `lrn_free`.
    """
    architecture = lrn_free(network.architecture)
    plain = GoogLeNet(network.num_classes, architecture=architecture, dropout=network.dropout.p)
    plain.classifier = network.classifier  # maybe with more outputs than there are classes
    plain.load_state_dict(network.state_dict())
    plain.to(images.device)
    plain.eval()
    wanted = network.eval().taps(images, ["norm1", "norm2"])
    scale_inputs([plain.conv2_reduce], factors(plain.taps(images, ["pool1"])["pool1"], wanted["norm1"]))
    third = plain.inception_3a
    assert isinstance(third, Inception)
    # The pool between is of no matter: the largest value is the largest after multiplication as well.
    scale_inputs(
        [third.conv1x1, third.reduce3x3, third.reduce5x5, third.pool_proj],
        factors(plain.taps(images, ["conv2"])["conv2"], wanted["norm2"]),
    )
    return plain


def factors(given: Tensor, wanted: Tensor) -> Tensor:
    """The factors (C,) that bring the channels of `given` (R, C, H, W) nearest to `wanted`; 1 for silent ones."""
    over = (0, 2, 3)
    energy = given.square().sum(over)
    return torch.where(energy > 0, (given * wanted).sum(over) / energy, 1.0)


def scale_inputs(convolutions: list[nn.Module], factor: Tensor) -> None:
    """Make convolutions see their inputs multiplied with the factors (C,)."""
    for layer in convolutions:
        assert isinstance(layer, nn.Conv2d)
        layer.weight.mul_(factor[:, None, None])
