"""Caffe's and torchvision's files, and the change to RGB input."""

import struct
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from detector.architecture import PAPER, SLIM, TORCHVISION, Architecture
from detector.caffemodel import read_caffemodel
from detector.foreign_weights import CAFFE_NAMES, caffe_tensors
from detector.googlenet import GoogLeNet
from detector.region_classifier import Normalize, Preprocessing
from detector.rgb_input import with_rgb_input
from detector.weights import BVLC, CAFFE_INPUT, TORCHVISION_INPUT, load_network


def varint(value: int) -> bytes:
    low, rest = value & 0x7F, value >> 7
    return bytes([low | 0x80]) + varint(rest) if rest else bytes([low])


def field(number: int, value: int | bytes) -> bytes:
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    return varint(number << 3 | 2) + varint(len(value)) + value


def new_layer(name: str, blobs: Iterable[np.ndarray]) -> bytes:
    """A `LayerParameter`, with shapes of their own number of dimensions."""
    message = field(1, name.encode()) + field(2, b"Convolution") + field(10, 1)
    for blob in blobs:
        shape = field(1, b"".join(varint(side) for side in blob.shape))
        message += field(7, field(7, shape) + field(5, blob.astype("<f4").tobytes()))
    return field(100, message)


def old_layer(name: str, blobs: Iterable[np.ndarray]) -> bytes:
    """A `V1LayerParameter`, all of whose blobs have four dimensions; learning rates come as single floats."""
    message = field(2, b"data") + field(4, name.encode()) + field(5, 4)
    message += varint(7 << 3 | 5) + struct.pack("<f", 1.0)
    for blob in blobs:
        sides = (1,) * (4 - blob.ndim) + blob.shape
        shape = b"".join(field(number, side) for number, side in enumerate(sides, 1))
        message += field(6, shape + field(5, blob.astype("<f4").tobytes()))
    return field(2, message)


@pytest.mark.parametrize("layer", [new_layer, old_layer])
def test_a_caffemodel_goes_to_its_layers(layer: type, tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = GoogLeNet(auxiliary=True).eval()
    state = network.state_dict()
    message = field(1, b"GoogleNet") + layer("data", [])
    for blob in CAFFE_NAMES:
        name = blob.removesuffix("/weight")
        if blob.endswith("/weight"):
            ours = CAFFE_NAMES[blob].removesuffix(".weight")
            message += layer(name, [state[f"{ours}.weight"].numpy(), state[f"{ours}.bias"].numpy()])
    path = tmp_path / "x.caffemodel"
    path.write_bytes(message)

    whole, card = load_network(path, auxiliary=True)
    assert all(torch.equal(tensor, state[name]) for name, tensor in whole.state_dict().items())
    assert whole.state_dict().keys() == state.keys()
    assert card.preprocessing == CAFFE_INPUT and card.outputs == "cls1000"
    without, _ = load_network(path)
    assert not without.auxiliary
    x = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        assert torch.equal(without.eval()(x), network(x))

    path.write_bytes(message[:-1000])
    with pytest.raises(OSError, match=r"x\.caffemodel: not a readable caffemodel \(field .* beyond the end"):
        load_network(path)
    path.write_bytes(field(1, b"GoogleNet") + layer("conv1/7x7_s2", [np.zeros((64, 3, 7, 7)), np.zeros(64)]))
    with pytest.raises(ValueError, match=r"x\.caffemodel: has no tensor conv2_reduce\.weight"):
        load_network(path)


def test_the_released_caffemodel(shared: Path) -> None:
    """Where somebody has put it beside its numpy form: the same numbers."""
    path = shared / "weights" / "bvlc_googlenet.caffemodel"
    if not path.is_file():
        pytest.skip(f"needs BVLC's own file, and {path} does not exist")
    expected = load_network(BVLC)[0].state_dict()
    found = load_network(path)[0].state_dict()
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())


@settings(max_examples=200, deadline=None)
@given(data=st.binary(max_size=40))
def test_no_bytes_surprise_the_reader(data: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.getbasetemp() / "any.caffemodel"
    for content in (data, field(100, data), field(100, field(7, data)), field(2, field(6, field(7, data)))):
        path.write_bytes(content)
        try:
            blobs = read_caffemodel(path)
        except OSError as error:
            assert "not a readable caffemodel" in str(error)
        else:
            assert all(blob.dtype == np.float32 for blob in blobs.values())


def test_floats_may_come_singly_or_as_doubles(tmp_path: Path) -> None:
    shape = field(7, field(1, 3))
    singly = b"".join(varint(5 << 3 | 5) + struct.pack("<f", value) for value in (1, 2, 3))
    doubles = field(8, struct.pack("<3d", 1, 2, 3))
    for number, data in enumerate((singly, doubles)):
        path = tmp_path / f"{number}.caffemodel"
        path.write_bytes(field(100, field(1, b"layer") + field(7, shape + data)))
        np.testing.assert_array_equal(read_caffemodel(path)["layer/weight"], [1, 2, 3])


def test_archives_of_something_else_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "names.npz", names=np.array(["a.jpg"]))
    with pytest.raises(OSError, match=r"names\.npz: .*\(names is of str\d+, not of floating point numbers"):
        caffe_tensors(tmp_path / "names.npz")
    np.save(tmp_path / "one.npy", np.ones(3))
    (tmp_path / "one.npy").rename(tmp_path / "one.npz")
    with pytest.raises(OSError, match=r"one\.npz: .*\(it holds a single array"):
        caffe_tensors(tmp_path / "one.npz")


def test_damaged_archives_are_named(tmp_path: Path) -> None:
    """Wherever it is that a byte is another one."""
    path = tmp_path / "x.npz"
    blobs: dict[str, Any] = {"conv1/7x7_s2/weight": np.arange(12, dtype=np.float32)}
    np.savez_compressed(path, **blobs)
    whole = path.read_bytes()
    refused = 0
    for place in range(len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 9]) + whole[place + 1 :])
        try:
            caffe_tensors(path)
        except OSError as error:
            assert str(error).startswith(f"{path}: not a readable numpy archive of weights (")
            refused += 1
    assert refused > len(whole) / 2


def test_numbers_may_be_of_any_order_of_bytes_and_size(tmp_path: Path) -> None:
    for kind in (">f4", "<f4", ">f8", "<f2", "g"):
        blobs: dict[str, Any] = {"conv1/7x7_s2/bias": np.array([1, 0.5, -2], kind)}
        np.savez(tmp_path / "x.npz", **blobs)
        tensor = caffe_tensors(tmp_path / "x.npz")["conv1.bias"]
        assert tensor.dtype == torch.float32 and tensor.tolist() == [1, 0.5, -2]


def test_a_state_dict_of_another_network_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.pth"
    torch.save({"layer1.0.conv1.weight": torch.zeros(1)}, path)
    with pytest.raises(ValueError, match=r"x\.pth: has no tensor conv1\.conv\.weight"):
        load_network(path)
    torch.save([1, 2], path)
    with pytest.raises(OSError, match=r"x\.pth: not a readable state dict"):
        load_network(path)
    with pytest.raises(FileNotFoundError, match="no such file"):
        load_network(tmp_path / "none.pth")


@pytest.mark.parametrize("auxiliary", [False, True])
def test_a_torchvision_file_with_and_without_auxiliary_classifiers(auxiliary: bool, tmp_path: Path) -> None:
    torchvision = pytest.importorskip("torchvision")
    torch.manual_seed(0)
    model = torchvision.models.googlenet(weights=None, init_weights=False, aux_logits=auxiliary).eval()
    assert sum(p.numel() for name, p in model.named_parameters() if not name.startswith("aux")) == 6_624_904
    torch.save(model.state_dict(), tmp_path / "x.pth")
    network, card = load_network(tmp_path / "x.pth", auxiliary=True)
    assert network.architecture == TORCHVISION and card.preprocessing == TORCHVISION_INPUT
    network = GoogLeNet(
        architecture=SLIM
    )  # torchvision's without weights of its own takes its input as it is
    network.load_state_dict(load_network(tmp_path / "x.pth")[0].state_dict())
    for size in (64, 75):
        x = torch.randn(2, 3, size, size)
        with torch.inference_mode():
            assert torch.equal(network.eval()(x), model(x))


@pytest.mark.parametrize("preprocessing", [CAFFE_INPUT, TORCHVISION_INPUT])
@pytest.mark.parametrize("architecture", [PAPER, TORCHVISION])
def test_the_change_to_rgb_input_is_exact(preprocessing: Preprocessing, architecture: Architecture) -> None:
    torch.manual_seed(0)
    narrow = replace(architecture, width=1 / 8)
    network = GoogLeNet(5, architecture=narrow).eval()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    converted, convention = with_rgb_input(network, preprocessing)
    assert convention.channel_order == "RGB" and convention.scale == 1 / 255 and convention.std == (1, 1, 1)
    assert all(torch.equal(network.state_dict()[name], tensor) for name, tensor in before.items())
    pixels = torch.randint(0, 256, (2, 3, 50, 64), dtype=torch.uint8)
    with torch.inference_mode():
        # in double precision, to see that only roundings differ; also at the border, where zeros are padded
        old = network.double().taps(Normalize(preprocessing).double()(pixels), ["conv1", "pool5"])
        new = converted.double().taps(Normalize(convention).double()(pixels), ["conv1", "pool5"])
    for name in old:
        torch.testing.assert_close(new[name], old[name], rtol=1e-5, atol=1e-5 * old[name].abs().max().item())
