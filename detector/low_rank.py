"""Changes of a network that take little space: to the weights of a convolution the product of two thin matrices.

Hu et al., *LoRA: Low-Rank Adaptation of Large Language Models* (ICLR 2022): what a network needs for another task is
a change of low rank. So one network can do two things, and a file of it is a few per cent larger.
"""

import copy
from collections.abc import Iterable, Mapping
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

Network = TypeVar("Network", bound=nn.Module)


class LowRankChange(nn.Module):
    """A change of weights (O, ...): at first none.

    Args:
        outputs: O.
        inputs: Of the weights of one output.
        rank: Of the change, at most.
    """

    def __init__(self, outputs: int, inputs: int, rank: int) -> None:
        super().__init__()
        self.down = nn.Parameter(torch.randn(rank, inputs) / inputs**0.5)
        self.up = nn.Parameter(torch.zeros(outputs, rank))

    def forward(self, weight: Tensor) -> Tensor:
        """Weights (O, ...) -> the changed ones."""
        return weight + (self.up @ self.down).view_as(weight)


def new_changes(network: nn.Module, stages: Iterable[str], rank: int) -> nn.ModuleDict:
    """For every convolution of these stages of a network a change, by its name; none with rank 0."""
    changes = nn.ModuleDict()
    for stage in stages if rank else ():
        for name, module in network.get_submodule(stage).named_modules():
            if isinstance(module, nn.Conv2d):
                changes[_key(f"{stage}.{name}")] = LowRankChange(
                    module.out_channels, module.weight[0].numel(), rank
                )
    return changes


def stored_changes(tensors: Mapping[str, Tensor], prefix: str) -> nn.ModuleDict:
    """Changes of the sizes of those in a state dict, under names that begin with `prefix`; not their values."""
    changes = nn.ModuleDict()
    for name, up in tensors.items():
        if name.startswith(prefix) and name.endswith(".up"):
            key = name.removeprefix(prefix).removesuffix(".up")
            down = tensors.get(f"{prefix}{key}.down", up.T)
            changes[key] = LowRankChange(len(up), down.shape[-1], up.shape[-1])
    return changes


def learn_changes(network: nn.Module, changes: nn.ModuleDict) -> None:
    """Make the network calculate with its changes, which learn; its own weights do not."""
    network.requires_grad_(False)
    for key, change in changes.items():
        parametrize.register_parametrization(network.get_submodule(_name(key)), "weight", change)


@torch.no_grad()
def changed(network: Network, changes: nn.ModuleDict) -> Network:
    """A copy of a network, with changes.

    Raises:
        ValueError: They are those of another network.
    """
    network = copy.deepcopy(network)
    for key, change in changes.items():
        try:
            weight = network.get_submodule(_name(key)).weight
            assert isinstance(weight, Tensor)
            weight.copy_(copy.deepcopy(change).to(weight.device)(weight))  # which may be on a GPU already
        except (AttributeError, RuntimeError):
            raise ValueError(f"the change of {_name(key)} is that of another network") from None
    return network


def _key(name: str) -> str:
    return name.replace(".", "/")  # a dot would end the name of a part of the dictionary


def _name(key: str) -> str:
    return key.replace("/", ".")
