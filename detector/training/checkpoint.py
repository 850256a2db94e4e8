"""Where a run stands, in one safetensors file: weights, their average, the optimiser's memory, the step.

Every step seeds its own random numbers, so there is no state of a generator to keep.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.optim import Optimizer

from eval.atomic import temporary_name

FILE = "checkpoint.safetensors"
NO_CHECKPOINT = "{}: no checkpoint to resume from; start without --resume"
# Where data and weights come from: said where a run is another one, but not compared. What they come to is, by digests.
TOLD = ("data", "weights", "teacher", "images", "image_list")
# What does not change the result of a run of any kind.
BYSTANDERS = ("output", "resume", "dry_run", "device")
_FORMAT = "googlenet-rcnn-training/1"
_DIGEST = re.compile(r'"[0-9a-f]{64}"')


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

    Args:
        settings: Have to be those of the stopped run, but for `TOLD`.

    Returns:
        The number of steps done, and the state of the gradient scaler.

    Raises:
        FileNotFoundError: There is no checkpoint.
        OSError: It is damaged.
        ValueError: It is of a run with other settings.
    """
    if not path.is_file():
        raise FileNotFoundError(NO_CHECKPOINT.format(path))
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    except SafetensorError as error:
        raise OSError(f"{path}: a damaged checkpoint ({error})") from None
    if metadata.get("format") != _FORMAT:
        raise ValueError(f"{path}: is not a checkpoint of this project")
    about = json.loads(metadata["about"])
    changes = _changes(about["settings"], json.loads(json.dumps(dict(settings))))
    if any(name.split(".")[0] not in TOLD for name in changes):
        raise ValueError(
            f"{path}: the stopped run had other settings ({'; '.join(changes.values())}); use the same ones, or start"
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


def _changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, str]:
    """What differs, by name, in words."""
    then, here = _flat(before), _flat(now)
    found = {}
    for name in sorted(then | here):
        if then.get(name) != here.get(name):
            old, new = (json.dumps(side.get(name), ensure_ascii=False) for side in (then, here))
            found[name] = name if _DIGEST.fullmatch(new) else f"{name} {old}, now {new}"
    return found


def _flat(values: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    """`{"fit": {"steps": 3}}` as `{"fit.steps": 3}`."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        found |= _flat(value, f"{before}{name}.") if isinstance(value, dict) else {before + name: value}
    return found
