"""Caffe's `.caffemodel` files, read without Caffe: the few fields of its protocol buffers that hold weights.

The file is one `NetParameter` message of caffe.proto. Its layers are `LayerParameter` messages, or in files of
2014, such as BVLC's GoogLeNet, the older `V1LayerParameter`; the numbers of the fields read here are below.
"""

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np

# (field of the layers in NetParameter) -> (fields of the name and the blobs in a layer)
LAYER_FIELDS = {2: (4, 6), 100: (1, 7)}
LEGACY_SHAPE = (1, 2, 3, 4)  # num, channels, height, width
DATA, SHAPE, DOUBLE_DATA = 5, 7, 8  # of BlobProto
DIMENSIONS = 1  # of BlobShape

_VARINT, _EIGHT_BYTES, _LENGTH, _FOUR_BYTES = 0, 1, 2, 5  # wire types


def read_caffemodel(path: str | Path) -> dict[str, np.ndarray]:
    """Read the weights of all layers that have some, auxiliary heads included where the file has them.

    Returns:
        `<layer>/weight` (convolutions (out, in, height, width), inner products (out, in)) and `<layer>/bias` (out,),
        float32. Layers with more than two blobs keep the others as `<layer>/2`, `<layer>/3`, ...

    Raises:
        OSError: No such file, not a Caffe model, or cut off.
    """
    message = memoryview(Path(path).read_bytes())
    tensors: dict[str, np.ndarray] = {}
    try:
        for field, layer in _fields(message):
            if field in LAYER_FIELDS and isinstance(layer, memoryview):
                tensors |= _read_layer(layer, *LAYER_FIELDS[field])
    except (ValueError, OverflowError) as error:
        raise OSError(f"{path}: not a readable Caffe model ({error})") from None
    if not tensors:
        raise OSError(f"{path}: not a readable Caffe model (no layer has weights)")
    return tensors


def _read_layer(layer: memoryview, name_field: int, blobs_field: int) -> dict[str, np.ndarray]:
    name, blobs = "", []
    for field, value in _fields(layer):
        if field == name_field and isinstance(value, memoryview):
            name = str(value, "utf-8")
        elif field == blobs_field and isinstance(value, memoryview):
            blobs.append(value)
    kinds = ["weight", "bias", *map(str, range(2, len(blobs)))]
    return {
        f"{name}/{kind}": _read_blob(blob, f"{name}/{kind}") for kind, blob in zip(kinds, blobs, strict=False)
    }


def _read_blob(blob: memoryview, name: str) -> np.ndarray:
    legacy = dict.fromkeys(LEGACY_SHAPE, 0)
    shape: list[int] | None = None
    chunks = []
    for field, value in _fields(blob):
        if field in legacy and isinstance(value, int):
            legacy[field] = value
        elif field == SHAPE and isinstance(value, memoryview):
            shape = _dimensions(value)
        elif field in (DATA, DOUBLE_DATA) and isinstance(value, memoryview):  # packed, or one number a field
            chunks.append(np.frombuffer(value, "<f4" if field == DATA else "<f8"))
    values = np.concatenate(chunks).astype(np.float32) if chunks else np.empty(0, np.float32)
    if shape is None:
        shape = _without_padding([legacy[field] for field in LEGACY_SHAPE])
    if math.prod(shape) != len(values):
        raise ValueError(f"{name} has {len(values)} values, but its shape is {tuple(shape)}")
    return values.reshape(shape)


def _without_padding(shape: list[int]) -> list[int]:
    """Old files have four axes always: (1, 1, out, in) is an inner product, (1, 1, 1, out) a bias."""
    if shape[:3] == [1, 1, 1]:
        return shape[3:]
    return shape[2:] if shape[:2] == [1, 1] else shape


def _dimensions(shape: memoryview) -> list[int]:
    dimensions: list[int] = []
    for field, value in _fields(shape):
        if field != DIMENSIONS:
            continue
        if isinstance(value, int):
            dimensions.append(value)
        else:  # packed
            position = 0
            while position < len(value):
                size, position = _varint(value, position)
                dimensions.append(size)
    return dimensions


def _fields(message: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """The fields of a message in their order: integers as such, all others as the bytes they take.

    Raises:
        ValueError: The bytes are no message.
    """
    position = 0
    while position < len(message):
        key, position = _varint(message, position)
        wire_type = key & 7
        if wire_type == _VARINT:
            number, position = _varint(message, position)
            yield key >> 3, number
            continue
        if wire_type == _LENGTH:
            length, position = _varint(message, position)
        elif wire_type in (_FOUR_BYTES, _EIGHT_BYTES):
            length = 4 if wire_type == _FOUR_BYTES else 8
        else:
            raise ValueError(f"unknown wire type {wire_type}")
        if length > len(message) - position:
            raise ValueError("it ends in the middle of a field")
        yield key >> 3, message[position : position + length]
        position += length


def _varint(message: memoryview, position: int) -> tuple[int, int]:
    """A number in groups of seven bits, lowest first -> (number, position behind it)."""
    number = 0
    for shift in range(0, 70, 7):
        if position >= len(message):
            raise ValueError("it ends in the middle of a number")
        byte = message[position]
        position += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return number, position
    raise ValueError("a number has more than 64 bits")
