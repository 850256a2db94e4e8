"""GoogLeNet as a row of named stages: run to one of them, or on from there.

Names are Caffe's: `pool4` is the input of `inception_5a`, and `pool5` the pooled features of the classifier.
"""

from collections.abc import Callable, Iterable

import torch.nn.functional as F
from torch import Tensor, nn

from detector.googlenet import TABLE_1, GoogLeNet, max_pool

_INCEPTIONS = [f"inception_{name}" for name in TABLE_1]
STAGES = ("conv1", "conv2", *_INCEPTIONS[:2], "pool3", *_INCEPTIONS[2:7], "pool4", *_INCEPTIONS[7:], "pool5")


def run_to(network: GoogLeNet, x: Tensor, tap: str) -> Tensor:
    """Normalised images (R, 3, H, W) -> output of the stage `tap`; what comes after is not computed."""
    return _run(network, x, STAGES[: position(tap) + 1])


def run_between(network: GoogLeNet, features: Tensor, after: str, until: str) -> Tensor:
    """Output of the stage `after` -> output of the later stage `until`."""
    return _run(network, features, STAGES[position(after) + 1 : position(until) + 1])


def run_on(network: GoogLeNet, features: Tensor, tap: str) -> Tensor:
    """Output of the stage `tap` -> logits: `run_on(run_to(x, tap), tap)` equals `network(x)`."""
    return network.classifier(network.dropout(_run(network, features, STAGES[position(tap) + 1 :])))


def position(tap: str) -> int:
    """Where the stage stands, from 0.

    Raises:
        ValueError: No such stage.
    """
    if tap not in STAGES:
        raise ValueError(f"{tap!r} is no stage of the network; it has {', '.join(STAGES)}")
    return STAGES.index(tap)


def modules_of(network: GoogLeNet, stages: Iterable[str]) -> list[nn.Module]:
    """The layers of the stages that have weights."""
    names = {"conv1": ["conv1"], "conv2": ["conv2_reduce", "conv2"]}
    return [
        network.get_submodule(name)
        for stage in stages
        if not stage.startswith("pool")
        for name in names.get(stage, [stage])
    ]


def freeze(network: GoogLeNet, tap: str | None) -> None:
    """Keep the weights of all stages up to and including `tap` as they are; None trains everything."""
    network.requires_grad_(True)
    for module in modules_of(network, STAGES[: position(tap) + 1] if tap else ()):
        module.requires_grad_(False)


def _run(network: GoogLeNet, x: Tensor, stages: Iterable[str]) -> Tensor:
    special: dict[str, Callable[[Tensor], Tensor]] = {
        "conv1": lambda x: network.norm1(max_pool(F.relu(network.conv1(x)))),
        "conv2": lambda x: max_pool(network.norm2(F.relu(network.conv2(F.relu(network.conv2_reduce(x)))))),
        "pool3": max_pool,
        "pool4": max_pool,
        "pool5": lambda x: x.mean(dim=(2, 3)),
    }
    for stage in stages:
        x = special[stage](x) if stage in special else network.get_submodule(stage)(x)
    return x
