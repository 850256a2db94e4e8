"""What the two heads that judge boxes have in common: the model they are added to, their rate, their file."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

from detector.googlenet import GoogLeNet
from detector.region_classifier import RegionClassifier
from detector.safetensors_file import read_weights_file, write_weights_file
from detector.weights import MODEL_FILE, find_weights, load_weights

LOG_EVERY = 50  # steps
_WARMUP = 100  # steps


def model_for_head(weights: str | None) -> tuple[Path, RegionClassifier]:
    """The file of a model that a head can be added to, and the model.

    Raises:
        OSError, ValueError: No such file, none of this project, or one without a whole network.
    """
    source = find_weights(weights)
    if not isinstance(source, Path) or source.suffix != ".safetensors":
        raise ValueError("--weights: a head is added to a .safetensors model of this project; name one")
    classifier = load_weights(source)
    if not isinstance(classifier.network, GoogLeNet):
        raise ValueError(f"--weights {source}: has no whole network, whose map could be used")
    return source, classifier


def warm_up_and_fall(optimizer: torch.optim.Optimizer, steps: int) -> LambdaLR:
    """Rates that rise at first and then go down to zero along a line."""
    return LambdaLR(optimizer, lambda step: min(1, (step + 1) / _WARMUP) * (1 - step / steps))


def write_with_head(source: Path, folder: Path, prefix: str, head: nn.Module, **card_changes: Any) -> Path:
    """Write the model of a file into a folder, with a head, whose tensors' names begin with `prefix`.

    A head of this kind that the file had is left out.
    """
    tensors, card = read_weights_file(source)
    kept = {name: tensor for name, tensor in tensors.items() if not name.startswith(prefix)}
    learnt = {f"{prefix}{name}": tensor for name, tensor in head.state_dict().items()}
    path = folder / MODEL_FILE
    write_weights_file(path, kept | learnt, replace(card, **card_changes))
    return path
