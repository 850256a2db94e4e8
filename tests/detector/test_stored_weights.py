"""Weights in 8 bits: how far they may be off, and files that were changed on the way."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from detector.architecture import Architecture
from detector.googlenet import GoogLeNet
from detector.safetensors_file import WeightsCard, read_weights_file, write_weights_file
from detector.stored_weights import from_stored, to_eight_bits
from detector.weights import CAFFE_INPUT

CARD = WeightsCard("narrow", "random", "CC0", "cls1000", CAFFE_INPUT, architecture=Architecture(width=0.25))


@given(
    hnp.arrays(
        np.float32, st.tuples(st.integers(1, 4), st.integers(1, 5)), elements=st.floats(-1e3, 1e3, width=32)
    )
)
@settings(deadline=None)
def test_every_weight_is_off_by_at_most_half_a_step(values: np.ndarray) -> None:
    found = from_stored(to_eight_bits({"weight": torch.from_numpy(values)}))["weight"].numpy()
    step = np.abs(values).max(axis=1, keepdims=True) / 127
    assert found.dtype == np.float32
    assert (np.abs(found - values) <= step * 0.501 + 1e-30).all()


def test_biases_counters_and_half_precision() -> None:
    tensors = {"bias": torch.tensor([0.1, -7.0]), "seen": torch.tensor(3), "weight": torch.zeros(2, 3)}
    found = from_stored(to_eight_bits(tensors))
    assert sorted(found) == sorted(tensors) and all(torch.equal(found[n], tensors[n]) for n in tensors)
    assert from_stored({"weight": torch.ones(2, 2).half()})["weight"].dtype == torch.float32
    with pytest.raises(ValueError, match="8 bits but no scale"):
        from_stored({"weight": torch.ones(2, 2).to(torch.int8)})


def test_a_file_of_8_bits_is_small_and_close(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = GoogLeNet(architecture=CARD.architecture).eval()
    write_weights_file(tmp_path / "whole.safetensors", network.state_dict(), CARD)
    write_weights_file(tmp_path / "small.safetensors", network.state_dict(), CARD, eight_bits=True)
    sizes = [(tmp_path / f"{name}.safetensors").stat().st_size for name in ("small", "whole")]
    assert sizes[0] < 0.35 * sizes[1]
    tensors, card = read_weights_file(tmp_path / "small.safetensors")
    assert card == CARD
    images = torch.randn(2, 3, 64, 64) * 60
    with torch.inference_mode():
        before = network(images)
        network.load_state_dict(tensors)
        after = network(images)
    assert (before - after).abs().max() < 0.05 * before.abs().max()


def test_a_changed_byte_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    write_weights_file(path, GoogLeNet(architecture=CARD.architecture).state_dict(), CARD)
    content = bytearray(path.read_bytes())
    content[-100] ^= 1
    path.write_bytes(content)
    with pytest.raises(OSError, match=r"model\.safetensors: damaged: .* another SHA-256"):
        read_weights_file(path)
