"""Weights in 8 bits: a quarter of the space, for files that travel with the package.

Each output channel of a layer has a scale of its own, the largest of its weights divided by 127 (symmetric, per-channel
quantisation, as in the TensorFlow Lite specification). The network still calculates in float32.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

SCALE = ".scale"  # behind the name of a tensor: that of its scales
_LARGEST = 127


def to_eight_bits(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights of two and more dimensions (O, ...) as int8 with scales (O,) float32; the others as they are."""
    stored: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if tensor.ndim < 2 or not tensor.is_floating_point():
            stored[name] = tensor
            continue
        scale = tensor.abs().flatten(1).amax(dim=1) / _LARGEST  # (O,)
        scale = torch.where(scale > 0, scale, torch.ones_like(scale))
        shape = (-1, *(1,) * (tensor.ndim - 1))
        stored[name] = (tensor / scale.view(shape)).round().to(torch.int8)
        stored[name + SCALE] = scale.float()
    return stored


def from_stored(stored: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The float32 tensors of stored ones: 8 bits with their scales, 16 bits, or as they are.

    Raises:
        ValueError: An 8-bit tensor without scales that fit.
    """
    tensors: dict[str, Tensor] = {}
    for name, tensor in stored.items():
        if name.endswith(SCALE) and name.removesuffix(SCALE) in stored:
            continue
        if tensor.dtype == torch.int8:
            scale = stored.get(name + SCALE)
            if scale is None or scale.shape != tensor.shape[:1]:
                raise ValueError(f"tensor {name} has 8 bits but no scale for each of its {len(tensor)} rows")
            tensors[name] = tensor * scale.view(-1, *(1,) * (tensor.ndim - 1))
        else:
            tensors[name] = tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor
    return tensors
