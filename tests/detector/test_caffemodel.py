"""Caffe's files: what protocol buffers' own library writes is read back, and anything else is refused."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detector.caffemodel import read_caffemodel


@pytest.fixture(scope="module")
def caffe() -> Any:
    """The messages of caffe.proto that matter, built with protocol buffers' own library."""
    descriptor_pb2, descriptor_pool, message_factory = (
        pytest.importorskip(f"google.protobuf.{module}")
        for module in ("descriptor_pb2", "descriptor_pool", "message_factory")
    )

    kinds = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="caffe.proto", package="caffe", syntax="proto2")

    def message(name: str, *fields: tuple[str, int, Any, bool]) -> None:
        described = file.message_type.add(name=name)
        for field, number, kind, repeated in fields:
            entry = described.field.add(name=field, number=number)
            entry.label = kinds.LABEL_REPEATED if repeated else kinds.LABEL_OPTIONAL
            if isinstance(kind, str):
                entry.type, entry.type_name = kinds.TYPE_MESSAGE, f".caffe.{kind}"
            else:
                entry.type = kind
                entry.options.packed = repeated and kind != kinds.TYPE_STRING

    message("BlobShape", ("dim", 1, kinds.TYPE_INT64, True))
    message(
        "BlobProto",
        *(
            (name, i, kinds.TYPE_INT32, False)
            for i, name in enumerate(("num", "channels", "height", "width"), 1)
        ),
        ("data", 5, kinds.TYPE_FLOAT, True),
        ("diff", 6, kinds.TYPE_FLOAT, True),
        ("shape", 7, "BlobShape", False),
        ("double_data", 8, kinds.TYPE_DOUBLE, True),
    )
    texts = kinds.TYPE_STRING
    message(
        "V1LayerParameter",
        ("bottom", 2, texts, True),
        ("name", 4, texts, False),
        ("type", 5, kinds.TYPE_INT32, False),
        ("blobs", 6, "BlobProto", True),
    )
    message(
        "LayerParameter",
        ("name", 1, texts, False),
        ("type", 2, texts, False),
        ("loss_weight", 5, kinds.TYPE_FLOAT, True),
        ("blobs", 7, "BlobProto", True),
    )
    message(
        "NetParameter",
        ("name", 1, texts, False),
        ("layers", 2, "V1LayerParameter", True),
        ("layer", 100, "LayerParameter", True),
    )
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("caffe.NetParameter"))


SHAPES = st.lists(
    st.sampled_from([(4, 2, 3, 3), (6, 3, 1, 1), (5, 7), (1000, 4), (3, 1, 5, 5), (1, 4, 3, 3), (1, 9)]),
    min_size=1,
    max_size=4,
)


def write(
    caffe: Any, path: Path, shapes: list[tuple[int, ...]], *, old: bool, double: bool
) -> dict[str, Any]:
    """A file with a layer of each shape, named `stage/0`, `stage/1`, ...; returns what is in it."""
    random, expected = np.random.default_rng(len(shapes)), {}
    net = caffe(name="GoogLeNet")
    for index, shape in enumerate(shapes):
        layer = (net.layers if old else net.layer).add(name=f"stage/{index}")
        for kind, size in (("weight", shape), ("bias", shape[:1])):
            values = random.standard_normal(size).astype(np.float32)
            expected[f"stage/{index}/{kind}"] = values
            blob = layer.blobs.add()
            (blob.double_data if double else blob.data).extend(values.ravel().tolist())
            blob.diff.extend([0.5] * 3)
            if old:
                blob.num, blob.channels, blob.height, blob.width = (1,) * (4 - len(size)) + tuple(size)
            else:
                blob.shape.dim.extend(size)
    (net.layers if old else net.layer).add(name="relu")
    path.write_bytes(net.SerializeToString())
    return expected


@settings(max_examples=25, deadline=None)
@given(shapes=SHAPES, old=st.booleans(), double=st.booleans())
def test_files_of_both_formats_are_read_back(
    caffe: Any,
    tmp_path_factory: pytest.TempPathFactory,
    shapes: list[tuple[int, ...]],
    old: bool,
    double: bool,
) -> None:
    path = tmp_path_factory.mktemp("caffe") / "x.caffemodel"
    expected = write(caffe, path, shapes, old=old, double=double)
    found = read_caffemodel(path)
    assert list(found) == list(expected)
    assert all(np.array_equal(found[name], expected[name]) for name in expected)


def test_numbers_that_are_not_packed(tmp_path: Path) -> None:
    """As writers of protocol buffers 2 without [packed=true] put them: one field a number."""
    blob = b"".join(b"\x2d" + np.float32(value).tobytes() for value in (1.5, -2.0))
    blob += b"\x3a\x02\x08\x02"  # shape { dim: 2 }
    layer = b"\x0a\x01a" + b"\x3a" + bytes([len(blob)]) + blob
    (tmp_path / "x.caffemodel").write_bytes(b"\xa2\x06" + bytes([len(layer)]) + layer)
    assert read_caffemodel(tmp_path / "x.caffemodel")["a/weight"].tolist() == [1.5, -2.0]


def test_what_is_no_caffe_model_is_refused(caffe: Any, tmp_path: Path) -> None:
    path = tmp_path / "x.caffemodel"
    write(caffe, path, [(4, 2, 3, 3)], old=True, double=False)
    whole = path.read_bytes()
    damaged = [b"", b"these are no weights", b"\xff" * 40, whole[:-1], whole[: len(whole) // 2], whole[1:]]
    for content in damaged:
        path.write_bytes(content)
        with pytest.raises(OSError, match=r"x\.caffemodel: not a readable caffemodel \("):
            read_caffemodel(path)
    with pytest.raises(FileNotFoundError):
        read_caffemodel(tmp_path / "absent.caffemodel")


def test_a_blob_of_another_size_than_its_shape_is_named(caffe: Any, tmp_path: Path) -> None:
    net = caffe()
    blob = net.layer.add(name="conv1").blobs.add()
    blob.data.extend([1.0, 2.0, 3.0])
    blob.shape.dim.extend([2, 2])
    (tmp_path / "x.caffemodel").write_bytes(net.SerializeToString())
    with pytest.raises(OSError, match=r"conv1/weight has 3 values, but its shape is \(2, 2\)"):
        read_caffemodel(tmp_path / "x.caffemodel")


@settings(max_examples=200, deadline=None)
@given(
    content=st.binary(max_size=60)
    | st.builds(lambda inside: b"\x12" + bytes([len(inside)]) + inside, st.binary(max_size=60))
    | st.builds(  # a layer with one damaged blob
        lambda inside: b"\x12" + bytes([len(inside) + 2]) + b"\x32" + bytes([len(inside)]) + inside,
        st.binary(max_size=60),
    )
)
def test_no_bytes_end_in_anything_but_arrays_or_one_sentence(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    path = tmp_path_factory.getbasetemp() / "fuzz.caffemodel"
    path.write_bytes(content)
    try:
        blobs = read_caffemodel(path)
    except OSError as error:
        assert "fuzz.caffemodel: not a readable caffemodel (" in str(error)
    else:
        assert all(blob.dtype == np.float32 for blob in blobs.values())
