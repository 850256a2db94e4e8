"""Where weights come from: one record for each known set, one search order, one loader.

Weights travel with their input convention and their classes; whoever loads them gets a `RegionClassifier` that
takes RGB pixels and gives detection scores, whatever the network inside was trained on.
"""

import hashlib
import os
import urllib.error
from dataclasses import dataclass, fields
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from detector.architecture import PAPER, Architecture
from detector.architecture import TORCHVISION as TORCHVISION_ARCHITECTURE
from detector.box_features import GEOMETRY, WINDOWS
from detector.class_scores import IndependentScores, MemberScores, QualityScores
from detector.foreign_weights import caffe_tensors, torchvision_tensors
from detector.googlenet import GoogLeNet
from detector.low_rank import stored_changes
from detector.objectness import ObjectnessHead
from detector.region_classifier import Preprocessing, RegionClassifier
from detector.region_fit import FitHead
from detector.safetensors_file import WeightsCard, read_weights_file
from detector.tap_classifier import TapClassifier
from detector.taxonomy import DET200, TrainedScores, ZeroShotScores

CAFFE_INPUT = Preprocessing(channel_order="BGR", scale=1.0, mean=(104.0, 117.0, 123.0))
TORCHVISION_INPUT = Preprocessing(
    channel_order="RGB", scale=1 / 255, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)
)


@dataclass(frozen=True)
class WeightsRecord:
    """What is known about a set of weights.

    Attributes:
        name: What `--weights` calls it.
        origin: Who trained it, on what.
        licence: Under which terms it may be used.
        file_name: The file it is distributed as.
        sha256: Of that file, or its first digits where the distributor names only these.
        preprocessing: The input convention of the network.
        architecture: Of the network.
        outputs: `cls1000`: the ILSVRC classification classes; `detection`: classes and, last, background.
    """

    name: str
    origin: str
    licence: str
    file_name: str
    sha256: str
    preprocessing: Preprocessing
    architecture: Architecture
    outputs: Literal["cls1000", "detection"]

    def card(self, **changes: Any) -> WeightsCard:
        """The same as a weights file of this project would say it of itself."""
        shared = {field.name for field in fields(WeightsCard)} & set(vars(self))
        return WeightsCard(**{name: getattr(self, name) for name in shared} | changes)


BVLC = WeightsRecord(
    name="bvlc",
    origin="BVLC GoogLeNet: the paper's network trained with Caffe on ILSVRC 2012 classification",
    licence="released by BVLC for unrestricted use",
    file_name="bvlc_googlenet.npz",
    sha256="1299219d96cf5877ee13d061fd625c145c8cfeb5ff84fed033d68d96797099bb",
    preprocessing=CAFFE_INPUT,
    architecture=PAPER,
    outputs="cls1000",
)
TORCHVISION = WeightsRecord(
    name="torchvision",
    origin="torchvision GoogLeNet_Weights.IMAGENET1K_V1: batch-norm variant, ported from TensorFlow slim,"
    " trained on ILSVRC 2012 classification",
    licence="torchvision is BSD-3-Clause; its weights come without a statement of their own",
    file_name="googlenet-1378be20.pth",
    sha256="1378be20",
    preprocessing=TORCHVISION_INPUT,
    architecture=TORCHVISION_ARCHITECTURE,
    outputs="cls1000",
)
OBJECTNESS = "objectness."  # before the names of that head's tensors
CHANGES = "changes."  # and, behind it, of what it changes in the network
FIT = "fit."  # likewise, of the head of `detector.region_fit`
MODEL_FILE = "model.safetensors"  # in the folder of a training run
MODELS = Path(str(files("detector"))) / "models"
SHIPPED_FILE = "googlenet-det200.safetensors"  # the record of our own files is inside them
RECORDS = {record.name: record for record in (BVLC, TORCHVISION)}

HOW_TO_GET_WEIGHTS = (
    "the package's own model is missing, so name another: --weights torchvision downloads"
    " torchvision's ImageNet GoogLeNet (50 MB, once), --weights FILE takes bvlc_googlenet.npz (or .caffemodel) or a"
    " .safetensors file of this project"
)


def shared_folder() -> Path:
    """Where data and weights that are not part of the project lie: `$DETECTOR_SHARED`, else `../shared`."""
    return Path(os.environ.get("DETECTOR_SHARED", Path(__file__).resolve().parents[2] / "shared"))


def find_weights(choice: str | None = None, *, classifier: bool = False) -> WeightsRecord | Path:
    """Settle which weights to use.

    Args:
        choice: The path of a file or the folder of a training run, or the name of a record (`bvlc`, `torchvision`) or
            of a model that ships (`googlenet-det200`, ...). By default the first of: `googlenet-det200`; torchvision's,
            if it was downloaded before (nothing is downloaded unasked); the BVLC model in the shared folder.
        classifier: For whole images, which the model that ships has unlearnt in part: by default it comes last.

    Raises:
        FileNotFoundError: Nothing there; the message says how to get weights.
    """
    if choice is not None:
        for path in (Path(choice), Path(choice) / MODEL_FILE, MODELS / f"{choice}.safetensors"):
            if path.is_file():
                return path
        if choice in RECORDS:
            return RECORDS[choice]
        if Path(choice).is_dir():
            raise FileNotFoundError(
                f"--weights {choice}: no {MODEL_FILE} in this folder; has training ended?"
            )
        known = " or ".join([*RECORDS, *sorted(path.stem for path in MODELS.glob("*.safetensors"))])
        raise FileNotFoundError(f"--weights {choice}: neither a file nor one of the known weights ({known})")
    shipped = MODELS / SHIPPED_FILE
    at_hand: list[tuple[Path, WeightsRecord | Path]] = [
        (shipped, shipped),
        (_torchvision_cache(), TORCHVISION),
        (_bvlc_path(), BVLC),
    ]
    if classifier:
        at_hand.append(at_hand.pop(0))
    for path, source in at_hand:
        if path.is_file():
            return source
    raise FileNotFoundError(f"no weights found: {HOW_TO_GET_WEIGHTS}")


def load_weights(source: WeightsRecord | Path, *, temperature: float = 1.0) -> RegionClassifier:
    """Read weights into their network, as a classifier of regions.

    Args:
        source: What `find_weights` gives.
        temperature: Of the softmax of networks with the 1000 classification outputs (see `ZeroShotScores`).

    Raises:
        OSError: The file is missing, damaged, or of another kind.
        ValueError: A tensor is missing, left over or of the wrong shape: the message names it.
    """
    path, tensors, card = _read(source)
    network = _network(path, tensors, card) if card.tap is None else _tap_classifier(path, tensors, card)
    zero_shot = card.outputs == "cls1000"
    scores = {
        "detection": TrainedScores,
        "quality": QualityScores,
        "members": MemberScores,
        "independent": IndependentScores,
    }
    return RegionClassifier(
        network=network,
        preprocessing=card.preprocessing,
        class_scores=ZeroShotScores(temperature) if zero_shot else scores[card.outputs](),
        classes=DET200 if zero_shot else card.classes,
    )


def load_objectness(source: WeightsRecord | Path) -> tuple[ObjectnessHead, tuple[int, ...]] | None:
    """Read the head of `detector.objectness` and the long sides of its images; None if the weights have none."""
    path, tensors, card = _read(source)
    if card.objectness is None:
        return None
    tensors = _head_tensors(tensors, OBJECTNESS)
    hidden = tensors["hidden.weight"] if "hidden.weight" in tensors else torch.zeros(1, GEOMETRY)
    changes = stored_changes(tensors, CHANGES)
    head = ObjectnessHead((hidden.shape[1] - GEOMETRY) // len(WINDOWS), len(hidden), changes)
    load_state(head, tensors, path)
    return head.eval(), card.objectness


def load_fit(source: WeightsRecord | Path) -> FitHead | None:
    """Read the head of `detector.region_fit`; None if the weights have none."""
    path, tensors, card = _read(source)
    tensors = _head_tensors(tensors, FIT)
    if not tensors:
        return None
    if card.tap is not None:
        raise ValueError(f"{path}: has a head of fit, but no whole network whose map it could see")
    reduced, hidden = (
        len(tensors[name]) if name in tensors else 1 for name in ("reduce.bias", "hidden.bias")
    )
    network = GoogLeNet(0, architecture=card.architecture)
    head = FitHead(network.num_features, network.cells(card.preprocessing.size), reduced, hidden)
    load_state(head, tensors, path)
    return head.eval()


def load_network(source: WeightsRecord | Path, *, auxiliary: bool = False) -> tuple[GoogLeNet, WeightsCard]:
    """Read weights into their network, and what is known of them: input convention, classes, architecture.

    Args:
        source: What `find_weights` gives: a record, or a file; by its suffix a `.npz` or `.caffemodel` has Caffe's
            blobs of the paper's network, a `.pth` torchvision's state dict, and any other is of this project.
        auxiliary: Read the auxiliary classifiers too, if the file has them; only training needs them.

    Raises:
        OSError, ValueError: As `load_weights`.
    """
    path, tensors, card = _read(source)
    if card.tap is not None:
        raise ValueError(f"{path}: holds classifiers of features of {card.tap}, not a whole network")
    return _network(path, tensors, card, auxiliary=auxiliary), card


def _read(source: WeightsRecord | Path) -> tuple[Path, dict[str, Tensor], WeightsCard]:
    if source is TORCHVISION:
        path, card = _download_torchvision(), TORCHVISION.card()
        tensors = torchvision_tensors(path)
    elif isinstance(source, WeightsRecord):
        path, card = _bvlc_path(), source.card()
        _verify(path, source)
        tensors = caffe_tensors(path)
    elif source.suffix in (".npz", ".caffemodel"):
        path, card = source, BVLC.card(name=source.stem, origin=str(source))
        tensors = caffe_tensors(path)
    elif source.suffix == ".pth":
        path, card = source, TORCHVISION.card(name=source.stem, origin=str(source))
        tensors = torchvision_tensors(path)
    else:
        path = source
        tensors, card = read_weights_file(path)
    return path, tensors, card


def _network(
    path: Path, tensors: dict[str, Tensor], card: WeightsCard, *, auxiliary: bool = False
) -> GoogLeNet:
    tensors = _without_heads(tensors)
    heads = {name for name in tensors if name.startswith(("aux_4a.", "aux_4d."))}
    if not auxiliary:
        tensors = {name: tensor for name, tensor in tensors.items() if name not in heads}
    network = GoogLeNet(
        _outputs(card),
        architecture=card.architecture,
        auxiliary=auxiliary and bool(heads),
    )
    load_state(network, tensors, path)
    return network


def _outputs(card: WeightsCard) -> int:
    besides = {"detection": 1, "quality": 2, "independent": 0}  # outputs that are no classes
    members = {"cls1000": 1000, "members": 1002}
    return members.get(card.outputs) or len(card.classes) + besides[card.outputs]


def _tap_classifier(path: Path, tensors: dict[str, Tensor], card: WeightsCard) -> TapClassifier:
    assert card.tap is not None
    tensors = _without_heads(tensors)
    trunk = GoogLeNet(architecture=card.architecture)
    features = tensors["head.weight"].shape[-1] if "head.weight" in tensors else 1
    network = TapClassifier(trunk, tap=card.tap, grid=card.grid, in_features=features, outputs=_outputs(card))
    load_state(network, tensors, path)
    return network


def _without_heads(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in tensors.items() if not name.startswith((OBJECTNESS, FIT))}


def _head_tensors(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): part for name, part in tensors.items() if name.startswith(prefix)}


def describe(source: WeightsRecord | Path) -> str:
    """One line that says which weights these are."""
    return f"{source.name} ({source.origin})" if isinstance(source, WeightsRecord) else str(source)


def _bvlc_path() -> Path:
    return shared_folder() / "weights" / BVLC.file_name


def load_state(network: nn.Module, tensors: dict[str, Tensor], path: Path) -> None:
    """Fill `network` with `tensors`; complain about the first that is missing, left over or misshapen."""
    wanted = network.state_dict()
    counters = {name for name in wanted if name.endswith("num_batches_tracked")}  # old files lack them
    for name, parameter in wanted.items():
        if name not in tensors:
            if name in counters:
                continue
            raise ValueError(f"{path}: has no tensor {name} (of shape {tuple(parameter.shape)})")
        if tensors[name].shape != parameter.shape:
            raise ValueError(
                f"{path}: tensor {name} has the shape {tuple(tensors[name].shape)},"
                f" but the network needs {tuple(parameter.shape)}"
            )
    if unknown := sorted(set(tensors) - set(wanted)):
        raise ValueError(f"{path}: tensor {unknown[0]} belongs to no layer of the network")
    network.load_state_dict(tensors | {name: wanted[name] for name in counters - set(tensors)})


def _torchvision_cache() -> Path:
    return Path(torch.hub.get_dir()) / "checkpoints" / TORCHVISION.file_name


def _download_torchvision() -> Path:
    """Where torchvision keeps its weights, which it downloads if they are not there."""
    path = _torchvision_cache()
    if not path.is_file():
        from torchvision.models import GoogLeNet_Weights  # here: importing it takes a second

        try:
            GoogLeNet_Weights.IMAGENET1K_V1.get_state_dict(progress=True, check_hash=True, weights_only=True)
        except urllib.error.URLError as error:
            raise OSError(
                f"torchvision's weights could not be downloaded ({error.reason}): connect to the network, or put"
                f" {TORCHVISION.file_name} into {path.parent}"
            ) from None
        except RuntimeError as error:  # the digest of what came is another
            raise OSError(f"torchvision's weights could not be downloaded whole: {error}") from None
    return path


def _verify(path: Path, record: WeightsRecord) -> None:
    """Make sure that a file is the one its record speaks of."""
    if not path.is_file():
        raise FileNotFoundError(
            f"{path}: no such file; put {record.file_name} there or give its path to --weights"
        )
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if not digest.startswith(record.sha256):
        raise OSError(
            f"{path}: is not the released {record.file_name} (its SHA-256 begins with {digest[:8]}, not"
            f" {record.sha256[:8]}); if it is meant all the same, give its path to --weights"
        )
