"""This project's weights files: safetensors, with a card in the header that says what the tensors are for."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from detector.architecture import PAPER, Architecture
from detector.region_classifier import Preprocessing
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
            `quality`: these and, last, the region's IoU with an object; `independent`: `classes`, each on its own.
        preprocessing: The input convention of the network.
        classes: What a network with other outputs than `cls1000` tells apart.
        tap: The stage whose features a `TapClassifier` judges; None for the whole network.
        grid: Of that classifier.
        architecture: Of the network; files written before there were others are the paper's network.
    """

    name: str
    origin: str
    licence: str
    outputs: Literal["cls1000", "detection", "quality", "independent"]
    preprocessing: Preprocessing
    classes: tuple[DetectionClass, ...] = field(default=())
    tap: str | None = None
    grid: int = 1
    architecture: Architecture = PAPER


def write_weights_file(path: str | Path, tensors: dict[str, Tensor], card: WeightsCard) -> None:
    """Write tensors, in the precision they have, and their card."""
    whole = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    with temporary_name(path) as temporary:
        save_file(whole, temporary, metadata={"format": FORMAT, "card": json.dumps(asdict(card))})


def read_weights_file(path: Path) -> tuple[dict[str, Tensor], WeightsCard]:
    """Read what `write_weights_file` wrote.

    Raises:
        OSError: Not a safetensors file, or damaged.
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
    try:
        fields = json.loads(metadata["card"])
        fields["classes"] = tuple(DetectionClass(**kind) for kind in fields["classes"])
        convention = fields["preprocessing"]
        convention |= {key: tuple(convention[key]) for key in ("mean", "std")}
        fields["preprocessing"] = Preprocessing(**convention)
        fields["architecture"] = Architecture(**fields.get("architecture", {}))
        return tensors, WeightsCard(**fields)
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: the card in its header is damaged ({error})") from None
