"""Weights of other frameworks by the names of this project's network: Caffe's and torchvision's."""

import zipfile
import zlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from detector.architecture import TABLE_1
from detector.caffemodel import read_caffemodel

_BRANCHES = {  # Caffe's, ours, torchvision's
    "1x1": ("conv1x1", "branch1"),
    "3x3_reduce": ("reduce3x3", "branch2.0"),
    "3x3": ("conv3x3", "branch2.1"),
    "5x5_reduce": ("reduce5x5", "branch3.0"),
    "5x5": ("conv5x5", "branch3.1"),
    "pool_proj": ("pool_proj", "branch4.1"),
}


# What numpy and zipfile raise about other files and damaged ones.
_DAMAGED = (ValueError, OSError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error)


def caffe_tensors(path: Path) -> dict[str, Tensor]:
    """float32 weights of a `.caffemodel`, or of its blobs as `<caffe layer>/weight` and `/bias` in a numpy archive.

    Blobs of layers that GoogLeNet does not have keep their names.

    Raises:
        OSError: The file is missing, damaged or of another kind.
    """
    blobs = read_caffemodel(path) if path.suffix == ".caffemodel" else _read_numpy(path)
    # copies: what lies in a file's memory cannot be written, nor has it always this machine's order of bytes
    return {
        CAFFE_NAMES.get(blob, blob): torch.from_numpy(array.astype(np.float32))
        for blob, array in blobs.items()
    }


def torchvision_tensors(path: Path) -> dict[str, Tensor]:
    """Weights of a state dict of `torchvision.models.googlenet`, without its auxiliary classifiers.

    Those are left out because torchvision's pool differs from the paper's, and its file has them untrained.

    Raises:
        OSError: The file is missing, damaged or of another kind.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)  # never runs what a file says
    except FileNotFoundError:
        raise FileNotFoundError(f"{path}: no such file") from None
    except Exception as error:  # a damaged pickle makes its reader fail in any way there is
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise OSError(f"{path}: not a readable state dict, or damaged ({reason})") from None
    if not isinstance(state, dict) or not all(isinstance(tensor, Tensor) for tensor in state.values()):
        raise OSError(f"{path}: not a readable state dict (it holds something else than tensors by name)")
    return torchvision_names(state)


def torchvision_names(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """A state dict of `torchvision.models.googlenet` -> the same by our names; strangers keep theirs."""
    tensors = {}
    for name, tensor in state.items():
        layer, _, kind = name.rpartition(".")
        convolution, _, part = layer.rpartition(".")
        if convolution in _TORCHVISION_NAMES and part in ("conv", "bn"):
            name = f"{_TORCHVISION_NAMES[convolution]}.{'conv' if part == 'conv' else 'norm'}.{kind}"
        elif layer == "fc":
            name = f"classifier.{kind}"
        if not name.startswith(("aux1.", "aux2.")):
            tensors[name] = tensor
    return tensors


def _read_numpy(path: Path) -> dict[str, np.ndarray]:
    try:
        archive = np.load(path, allow_pickle=False)
        if not isinstance(archive, np.lib.npyio.NpzFile):
            raise ValueError("it holds a single array")
        with archive:
            arrays = {name: archive[name] for name in archive.files}
        for name, array in arrays.items():
            if array.dtype.kind != "f":
                raise ValueError(f"{name} is of {array.dtype.name}, not of floating point numbers")
        return arrays
    except _DAMAGED as error:
        raise OSError(f"{path}: not a readable numpy archive of weights ({error})") from None


def _caffe_names() -> dict[str, str]:
    layers = {
        "conv1/7x7_s2": "conv1",
        "conv2/3x3_reduce": "conv2_reduce",
        "conv2/3x3": "conv2",
        "loss3/classifier": "classifier",
    }
    for module in TABLE_1:
        for caffe, (ours, _) in _BRANCHES.items():
            layers[f"inception_{module}/{caffe}"] = f"inception_{module}.{ours}"
    for loss, auxiliary in (("loss1", "aux_4a"), ("loss2", "aux_4d")):
        for layer in ("conv", "fc", "classifier"):
            layers[f"{loss}/{layer}"] = f"{auxiliary}.{layer}"
    return {
        f"{caffe}/{kind}": f"{ours}.{kind}" for caffe, ours in layers.items() for kind in ("weight", "bias")
    }


def _torchvision_names() -> dict[str, str]:
    layers = {"conv1": "conv1", "conv2": "conv2_reduce", "conv3": "conv2"}
    for module in TABLE_1:
        for ours, torchvision in _BRANCHES.values():
            layers[f"inception{module}.{torchvision}"] = f"inception_{module}.{ours}"
    return layers


CAFFE_NAMES = _caffe_names()
_TORCHVISION_NAMES = _torchvision_names()
