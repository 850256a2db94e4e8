"""Where a run stands, in one safetensors file: weights, their average, the optimiser's memory, the step.

Every step seeds its own random numbers, so there is no state of a generator to keep.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.optim import Optimizer

from eval.atomic import temporary_name

FILE = "checkpoint.safetensors"
_FORMAT = "googlenet-rcnn-training/1"


def save_checkpoint(
    path: Path,
    *,
    step: int,
    network: nn.Module,
    average: nn.Module,
    optimizer: Optimizer,
    scaler: Mapping[str, Any],
    settings: Mapping[str, Any],
) -> None:
    """Write where the run stands after `step` steps; an older file stays whole until this one is complete."""
    tensors: dict[str, Tensor] = {}
    for part, module in (("network", network), ("average", average)):
        tensors |= {f"{part}.{name}": tensor for name, tensor in module.state_dict().items()}
    for index, state in optimizer.state_dict()["state"].items():
        tensors |= {
            f"optimizer.{index}.{name}": value for name, value in state.items() if isinstance(value, Tensor)
        }
    whole = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    about = {"step": step, "scaler": dict(scaler), "settings": dict(settings)}
    with temporary_name(path) as temporary:
        save_file(whole, temporary, metadata={"format": _FORMAT, "about": json.dumps(about, sort_keys=True)})


def load_checkpoint(
    path: Path,
    *,
    network: nn.Module,
    average: nn.Module,
    optimizer: Optimizer,
    settings: Mapping[str, Any],
) -> tuple[int, dict[str, Any]]:
    """Bring everything to where a run stood.

    Returns:
        The number of steps done, and the state of the gradient scaler.

    Raises:
        FileNotFoundError: There is no checkpoint.
        OSError: It is damaged.
        ValueError: It is of a run with other settings.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no checkpoint to resume from; start without --resume")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    except SafetensorError as error:
        raise OSError(f"{path}: a damaged checkpoint ({error})") from None
    if metadata.get("format") != _FORMAT:
        raise ValueError(f"{path}: is not a checkpoint of this project")
    about = json.loads(metadata["about"])
    now = json.loads(json.dumps(dict(settings)))
    if changed := [
        key for key in sorted(about["settings"] | now) if about["settings"].get(key) != now.get(key)
    ]:
        raise ValueError(
            f"{path}: the stopped run had other settings ({', '.join(changed)}); use the same ones, or start"
            " again without --resume"
        )
    for part, module in (("network", network), ("average", average)):
        prefix = f"{part}."
        module.load_state_dict(
            {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}
        )
    states: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        if name.startswith("optimizer."):
            _, index, what = name.split(".", 2)
            states.setdefault(int(index), {})[what] = tensor
    optimizer.load_state_dict({"state": states, "param_groups": optimizer.state_dict()["param_groups"]})
    return int(about["step"]), dict(about["scaler"])
