"""Where weights come from: one record for each known set, one search order, one loader.

Weights travel with their input convention and their classes; whoever loads them gets a `RegionClassifier` that
takes RGB pixels and gives detection scores, whatever the network inside was trained on.
"""

import hashlib
import os
import pickle
import urllib.error
import zipfile
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from detector.architecture import TABLE_1
from detector.googlenet import GoogLeNet
from detector.region_classifier import Preprocessing, RegionClassifier
from detector.safetensors_file import read_weights_file
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
        outputs: `cls1000`: the ILSVRC classification classes; `detection`: classes and, last, background.
    """

    name: str
    origin: str
    licence: str
    file_name: str
    sha256: str
    preprocessing: Preprocessing
    outputs: Literal["cls1000", "detection"]


BVLC = WeightsRecord(
    name="bvlc",
    origin="BVLC GoogLeNet: the paper's network trained with Caffe on ILSVRC 2012 classification",
    licence="released by BVLC for unrestricted use",
    file_name="bvlc_googlenet.npz",
    sha256="1299219d96cf5877ee13d061fd625c145c8cfeb5ff84fed033d68d96797099bb",
    preprocessing=CAFFE_INPUT,
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
    outputs="cls1000",
)
SHIPPED_FILE = "googlenet-det200.safetensors"  # the record of our own files is inside them
RECORDS = {record.name: record for record in (BVLC, TORCHVISION)}

HOW_TO_GET_WEIGHTS = (
    "this version of the package ships no trained model, so name one: --weights torchvision downloads"
    " torchvision's ImageNet GoogLeNet (50 MB, once), --weights FILE takes bvlc_googlenet.npz or a .safetensors"
    " file of this project"
)


def shared_folder() -> Path:
    """Where data and weights that are not part of the project lie: `$DETECTOR_SHARED`, else `../shared`."""
    return Path(os.environ.get("DETECTOR_SHARED", Path(__file__).resolve().parents[2] / "shared"))


def find_weights(choice: str | None = None) -> WeightsRecord | Path:
    """Settle which weights to use.

    Args:
        choice: The path of a file, or the name of a record (`bvlc`, `torchvision`). By default the first of:
            the model shipped in the package; torchvision's, if it was downloaded before (nothing is downloaded
            unasked); the BVLC model in the shared folder.

    Raises:
        FileNotFoundError: Nothing there; the message says how to get weights.
    """
    if choice is not None:
        if Path(choice).is_file():
            return Path(choice)
        if choice in RECORDS:
            return RECORDS[choice]
        known = " or ".join(RECORDS)
        raise FileNotFoundError(f"--weights {choice}: neither a file nor one of the known weights ({known})")
    shipped = Path(str(files("detector"))) / "models" / SHIPPED_FILE
    if shipped.is_file():
        return shipped
    if _torchvision_cache().is_file():
        return TORCHVISION
    if _bvlc_path().is_file():
        return BVLC
    raise FileNotFoundError(f"no weights found: {HOW_TO_GET_WEIGHTS}")


def load_weights(source: WeightsRecord | Path, *, temperature: float = 1.0) -> RegionClassifier:
    """Read weights into their network.

    Args:
        source: What `find_weights` gives.
        temperature: Of the softmax of networks with the 1000 classification outputs (see `ZeroShotScores`).

    Raises:
        OSError: The file is missing, damaged, or of another kind.
        ValueError: A tensor is missing, left over or of the wrong shape: the message names it.
    """
    if isinstance(source, Path) and source.suffix != ".npz":
        return _load_own(source, temperature)
    if source is TORCHVISION:
        network = _load_torchvision()
        preprocessing = TORCHVISION.preprocessing
    else:
        if isinstance(source, WeightsRecord):
            _verify(_bvlc_path(), source)
        network = _load_bvlc(source if isinstance(source, Path) else _bvlc_path())
        preprocessing = BVLC.preprocessing
    return RegionClassifier(
        network=network,
        preprocessing=preprocessing,
        class_scores=ZeroShotScores(temperature),
        classes=DET200,
    )


def describe(source: WeightsRecord | Path) -> str:
    """One line that says which weights these are."""
    return f"{source.name} ({source.origin})" if isinstance(source, WeightsRecord) else str(source)


def _bvlc_path() -> Path:
    return shared_folder() / "weights" / BVLC.file_name


def _load_bvlc(path: Path) -> GoogLeNet:
    """Caffe's blobs, stored as `<caffe layer>/weight` and `<caffe layer>/bias` in a numpy archive."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            blobs = {name: torch.from_numpy(archive[name]) for name in archive.files}
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise OSError(f"{path}: not a readable numpy archive of weights ({error})") from None
    network = GoogLeNet()
    load_state(network, {_name_of(blob): tensor for blob, tensor in blobs.items()}, path)
    return network


def _name_of(blob: str) -> str:
    """`inception_3a/5x5_reduce/bias` -> `inception_3a.reduce5x5.bias`; a stranger keeps its name."""
    return _CAFFE_NAMES.get(blob, blob)


def _caffe_names() -> dict[str, str]:
    layers = {
        "conv1/7x7_s2": "conv1",
        "conv2/3x3_reduce": "conv2_reduce",
        "conv2/3x3": "conv2",
        "loss3/classifier": "classifier",
    }
    branches = {
        "1x1": "conv1x1",
        "3x3_reduce": "reduce3x3",
        "3x3": "conv3x3",
        "5x5_reduce": "reduce5x5",
        "5x5": "conv5x5",
        "pool_proj": "pool_proj",
    }
    for module in TABLE_1:
        for caffe, ours in branches.items():
            layers[f"inception_{module}/{caffe}"] = f"inception_{module}.{ours}"
    return {
        f"{caffe}/{kind}": f"{ours}.{kind}" for caffe, ours in layers.items() for kind in ("weight", "bias")
    }


_CAFFE_NAMES = _caffe_names()


def load_state(network: nn.Module, tensors: dict[str, Tensor], path: Path) -> None:
    """Fill `network` with `tensors`; complain about the first that is missing, left over or misshapen."""
    wanted = network.state_dict()
    for name, parameter in wanted.items():
        if name not in tensors:
            raise ValueError(f"{path}: has no tensor {name} (of shape {tuple(parameter.shape)})")
        if tensors[name].shape != parameter.shape:
            raise ValueError(
                f"{path}: tensor {name} has the shape {tuple(tensors[name].shape)},"
                f" but the network needs {tuple(parameter.shape)}"
            )
    if unknown := sorted(set(tensors) - set(wanted)):
        raise ValueError(f"{path}: tensor {unknown[0]} belongs to no layer of the network")
    network.load_state_dict({name: tensor.float() for name, tensor in tensors.items()})


def _torchvision_cache() -> Path:
    return Path(torch.hub.get_dir()) / "checkpoints" / TORCHVISION.file_name


def _load_torchvision() -> nn.Module:
    """torchvision's own network, whose `forward` also undoes the input scaling it was not trained with."""
    from torchvision.models import GoogLeNet_Weights, googlenet  # here: importing it takes a second

    try:
        return googlenet(weights=GoogLeNet_Weights.IMAGENET1K_V1, progress=True)
    except urllib.error.URLError as error:
        raise OSError(
            f"torchvision's weights could not be downloaded ({error.reason}): connect to the network, or put"
            f" {TORCHVISION.file_name} into {_torchvision_cache().parent}"
        ) from None
    except (RuntimeError, EOFError, pickle.UnpicklingError) as error:
        reason = str(error).splitlines()[0]
        raise OSError(f"{_torchvision_cache()}: damaged ({reason}); delete it to download it again") from None


def _load_own(path: Path, temperature: float) -> RegionClassifier:
    tensors, card = read_weights_file(path)
    zero_shot = card.outputs == "cls1000"
    network = GoogLeNet(1000 if zero_shot else len(card.classes) + 1)
    load_state(network, tensors, path)
    return RegionClassifier(
        network=network,
        preprocessing=card.preprocessing,
        class_scores=ZeroShotScores(temperature) if zero_shot else TrainedScores(),
        classes=DET200 if zero_shot else card.classes,
    )


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
