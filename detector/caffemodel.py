"""Caffe's .caffemodel files, read without Caffe: just the names and the weights of the layers.

A file is one `NetParameter` in Protocol Buffers' wire format: fields of a number, a wire type and a value, nested.
Only these of caffe.proto matter here:

    NetParameter      layers = 2 (V1LayerParameter, before 2015), layer = 100 (LayerParameter)
    V1LayerParameter  name = 4, blobs = 6 (BlobProto)
    LayerParameter    name = 1, blobs = 7 (BlobProto)
    BlobProto         num, channels, height, width = 1..4 (before 2015), data = 5 (float), shape = 7 (BlobShape),
                      double_data = 8
    BlobShape         dim = 1
"""

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np

_VARINT, _FIXED64, _BYTES, _FIXED32 = (
    0,
    1,
    2,
    5,
)  # the wire types of proto2 (3 and 4, groups, Caffe never had)

# of a NetParameter: number of its layer field -> numbers of the layer's name and blobs
_LAYER_FIELDS = {2: (4, 6), 100: (1, 7)}


def read_caffemodel(path: Path) -> dict[str, np.ndarray]:
    """The blobs of every layer that has some: `<layer>/weight` and `<layer>/bias`, float32.

    Weights of convolutions are (out, in, height, width), those of inner products (out, in).

    Raises:
        OSError: No such file, or not a caffemodel.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise FileNotFoundError(f"{path}: no such file") from None
    blobs: dict[str, np.ndarray] = {}
    try:
        for number, layer in _fields(memoryview(data)):
            if number in _LAYER_FIELDS and isinstance(layer, memoryview):
                blobs |= _layer(layer, *_LAYER_FIELDS[number])
    except ValueError as error:
        raise OSError(f"{path}: not a readable caffemodel ({error})") from None
    if not blobs:
        raise OSError(f"{path}: not a readable caffemodel (it has no layers with weights)")
    return blobs


def _layer(message: memoryview, name_field: int, blobs_field: int) -> dict[str, np.ndarray]:
    name = ""
    messages = []
    for number, value in _fields(message):
        if number == name_field and isinstance(value, memoryview):
            name = bytes(value).decode()
        elif number == blobs_field and isinstance(value, memoryview):
            messages.append(value)
    return {
        f"{name}/{kind}": _blob(blob, f"{name}/{kind}", filled)
        for kind, filled, blob in zip(("weight", "bias"), (2, 3), messages, strict=False)
    }


def _blob(message: memoryview, name: str, filled: int) -> np.ndarray:
    """Of an old file's four sides the first `filled` are dropped if they only fill up: all of them are 1."""
    old_shape = {1: 0, 2: 0, 3: 0, 4: 0}
    shape: tuple[int, ...] | None = None
    parts: list[np.ndarray] = []
    for number, value in _fields(message):
        if number in old_shape and isinstance(value, int):
            old_shape[number] = value
        elif number == 7 and isinstance(value, memoryview):
            shape = _dimensions(value)
        elif number in (5, 8) and isinstance(value, memoryview):  # packed, or one number a field
            parts.append(np.frombuffer(value, "<f4" if number == 5 else "<f8"))
    with np.errstate(over="ignore"):  # refused below
        data = np.concatenate(parts).astype(np.float32) if parts else np.zeros(0, np.float32)
    if not np.isfinite(data).all():
        raise ValueError(f"{name} has values that are no finite float32 numbers")
    if shape is None:  # inner products are (1, 1, out, in) then, biases (1, 1, 1, out)
        shape = tuple(old_shape.values())
        if shape[:filled] == (1,) * filled:
            shape = shape[filled:]
    if math.prod(shape) != data.size:
        raise ValueError(f"{name} has {data.size} values, but its shape is {shape}")
    return data.reshape(shape)


def _dimensions(message: memoryview) -> tuple[int, ...]:
    dimensions: list[int] = []
    for number, value in _fields(message):
        if number == 1 and isinstance(value, int):
            dimensions.append(value)
        elif number == 1 and isinstance(value, memoryview):  # packed
            position = 0
            while position < len(value):
                dimension, position = _varint(value, position)
                dimensions.append(dimension)
    return tuple(dimensions)


def _fields(message: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Number and value of every field: varints as integers, all else as bytes."""
    position = 0
    while position < len(message):
        key, position = _varint(message, position)
        number, wire_type = key >> 3, key & 7
        if wire_type == _VARINT:
            value, position = _varint(message, position)
            yield number, value
            continue
        if wire_type == _BYTES:
            length, position = _varint(message, position)
        elif wire_type in (_FIXED32, _FIXED64):
            length = 4 if wire_type == _FIXED32 else 8
        else:
            raise ValueError(f"field {number} has the unknown wire type {wire_type}")
        if position + length > len(message):
            raise ValueError(f"field {number} goes on beyond the end of the file")
        yield number, message[position : position + length]
        position += length


def _varint(message: memoryview, position: int) -> tuple[int, int]:
    """An integer in groups of seven bits, the lowest first, and the position behind it."""
    value = 0
    for shift in range(0, 70, 7):
        if position >= len(message):
            raise ValueError("it ends within a number")
        byte = message[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if not byte & 0x80:
            return value, position
    raise ValueError("a number is longer than 64 bits")
