"""This project's weights files: safetensors, with a card in the header that says what the tensors are for."""

import hashlib
import json
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Literal

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from detector.architecture import PAPER, Architecture
from detector.region_classifier import Preprocessing
from detector.stored_weights import from_stored, to_eight_bits
from detector.taxonomy import DetectionClass
from eval.atomic import temporary_name

FORMAT = "googlenet-rcnn/1"


@dataclass(frozen=True)
class WeightsCard:
    """What a weights file says about itself, as JSON under the key `card` of the safetensors header.

    Attributes:
        name: Of the model.
        origin: How it came about and what it was initialised from.
        licence: Under which terms it may be used.
        outputs: `cls1000`: the ILSVRC classification classes; `detection`: `classes` and, last, background;
            `quality`: these and, last, the region's IoU with an object; `members`: the 1000 classification
            classes, background and the IoU; `independent`: `classes`, each on its own.
        preprocessing: The input convention of the network.
        classes: What a network with other outputs than `cls1000` tells apart.
        tap: The stage whose features a `TapClassifier` judges; None for the whole network.
        grid: Of that classifier.
        objectness: Long sides of the images that the head `objectness.*` was trained with; None without such a head.
        architecture: Of the network; files written before there were others are the paper's network.
    """

    name: str
    origin: str
    licence: str
    outputs: Literal["cls1000", "detection", "quality", "members", "independent"]
    preprocessing: Preprocessing
    classes: tuple[DetectionClass, ...] = field(default=())
    tap: str | None = None
    grid: int = 1
    objectness: tuple[int, ...] | None = None
    architecture: Architecture = PAPER


def write_weights_file(
    path: str | Path, tensors: dict[str, Tensor], card: WeightsCard, *, eight_bits: bool = False
) -> None:
    """Write tensors and their card, with a digest of both.

    Args:
        eight_bits: Store weights as `detector.stored_weights` describes; otherwise in the precision they have.
    """
    whole = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    if eight_bits:
        whole = {name: tensor.contiguous() for name, tensor in to_eight_bits(whole).items()}
    text = json.dumps(asdict(card))
    with temporary_name(path) as temporary:
        save_file(whole, temporary, metadata={"format": FORMAT, "card": text, "sha256": _digest(whole, text)})


def pack(
    source: Path, path: Path, *, name: str, origin: str | None = None, licence: str | None = None
) -> float:
    """Write a model of this project anew, small enough to travel: weights in 8 bits, under a name of its own.

    Args:
        origin, licence: For the card, where they are to say more than before.

    Returns:
        The largest relative error of a layer's weights, as the ratio of Euclidean norms.
    """
    tensors, card = read_weights_file(source)
    card = replace(card, name=name, origin=origin or card.origin, licence=licence or card.licence)
    write_weights_file(path, tensors, card, eight_bits=True)
    stored, _ = read_weights_file(path)
    return max(
        float((stored[part] - tensor).norm() / tensor.norm().clamp_min(1e-30))
        for part, tensor in tensors.items()
        if tensor.ndim > 1
    )


def _digest(tensors: dict[str, Tensor], card: str) -> str:
    digest = hashlib.sha256(card.encode())
    for name in sorted(tensors):
        digest.update(name.encode())
        digest.update(tensors[name].contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def read_weights_file(path: Path) -> tuple[dict[str, Tensor], WeightsCard]:
    """Read what `write_weights_file` wrote; weights stored in fewer bits become float32.

    Raises:
        OSError: Not a safetensors file, or damaged: its content has another digest than its header says.
        ValueError: A safetensors file that this project did not write.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != FORMAT:
                raise ValueError(
                    f"{path}: safetensors, but its header does not say it is a model of this project"
                )
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    except SafetensorError as error:
        raise OSError(f"{path}: not a readable safetensors file ({error})") from None
    digest = metadata.get("sha256")  # files of the first version have none
    if digest is not None and digest != _digest(tensors, metadata.get("card", "")):
        raise OSError(f"{path}: damaged: its content has another SHA-256 than its header says; get it anew")
    try:
        tensors = from_stored(tensors)
        fields = json.loads(metadata["card"])
        fields["classes"] = tuple(DetectionClass(**kind) for kind in fields["classes"])
        convention = fields["preprocessing"]
        convention |= {key: tuple(convention[key]) for key in ("mean", "std")}
        fields["preprocessing"] = Preprocessing(**convention)
        sides = fields.get("objectness")
        fields["objectness"] = (sides,) if isinstance(sides, int) else sides and tuple(sides)
        fields["architecture"] = Architecture(**fields.get("architecture", {}))
        return tensors, WeightsCard(**fields)
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: the card in its header is damaged ({error})") from None
