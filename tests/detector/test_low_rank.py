"""Changes of low rank: what they do to a network, and what they leave alone."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from detector.architecture import Architecture
from detector.googlenet import GoogLeNet
from detector.low_rank import changed, learn_changes, new_changes, stored_changes
from detector.objectness import ObjectnessHead, SharedPass
from detector.safetensors_file import WeightsCard, write_weights_file
from detector.weights import CAFFE_INPUT, load_objectness, load_weights

NARROW = Architecture(width=0.25)
STAGES = ("inception_5a", "inception_5b")


def some_changes(network: nn.Module, rank: int) -> nn.ModuleDict:
    torch.manual_seed(1)
    changes = new_changes(network, STAGES, rank)
    for change in changes.values():
        nn.init.normal_(change.get_parameter("up"), std=0.1)
    return changes


@pytest.mark.parametrize("norm", ["lrn", "batch"])
def test_a_changed_network_has_the_sum_as_weights(norm: str) -> None:
    torch.manual_seed(0)
    network = GoogLeNet(3, architecture=Architecture(width=0.25, norm=norm)).eval()  # type: ignore[arg-type]
    images = torch.rand(2, 3, 64, 64)
    before = network(images)
    assert torch.equal(changed(network, new_changes(network, STAGES, 2))(images), before)  # at first none
    changes = some_changes(network, 2)
    assert len(changes) == 12
    other = changed(network, changes)
    assert not torch.allclose(other(images), before, atol=1e-4)
    assert torch.equal(network(images), before)
    plain = dict(network.state_dict())
    for name, tensor in other.state_dict().items():
        key = name.removesuffix(".weight").replace(".", "/")
        if key in changes:
            up, down = changes[key].get_parameter("up"), changes[key].get_parameter("down")
            expected = plain[name] + (up @ down).reshape(tensor.shape)
            torch.testing.assert_close(tensor, expected)
            assert torch.linalg.matrix_rank((tensor - plain[name]).flatten(1)) <= 2
        else:
            assert torch.equal(tensor, plain[name])
    learning = changed(network, nn.ModuleDict())
    learn_changes(learning, changes)
    torch.testing.assert_close(learning(images), other(images))
    learning(images).sum().backward()
    assert all(parameter.grad is not None for parameter in changes.parameters())
    assert {name for name, parameter in learning.named_parameters() if parameter.requires_grad} == {
        f"{key.replace('/', '.')}.parametrizations.weight.0.{part}"
        for key in changes
        for part in ("up", "down")
    }


def test_rank_0_is_no_change() -> None:
    assert len(new_changes(GoogLeNet(0, architecture=NARROW), STAGES, 0)) == 0


def test_changes_of_another_network_are_refused() -> None:
    changes = some_changes(GoogLeNet(0, architecture=NARROW), 2)
    with pytest.raises(ValueError, match=r"change of inception_5a\.conv1x1 is that of another network"):
        changed(GoogLeNet(0, architecture=Architecture(width=0.5)), changes)


def test_changes_follow_a_network_to_its_device() -> None:
    network = GoogLeNet(0, architecture=NARROW)
    changes = some_changes(network, 3)
    there = changed(network.to("meta"), changes)  # stands for a GPU: nothing of the CPU may be added to it
    assert all(parameter.is_meta for parameter in there.parameters())
    assert not any(parameter.is_meta for parameter in changes.parameters())


def test_a_file_brings_its_changes(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = GoogLeNet(1002, architecture=NARROW)
    head = ObjectnessHead(network.classifier.in_features, 4, some_changes(network, 3))
    card = WeightsCard(
        "narrow", "random", "CC0", "members", CAFFE_INPUT, architecture=NARROW, objectness=(96,)
    )
    tensors = {f"objectness.{name}": tensor for name, tensor in head.state_dict().items()}
    path = tmp_path / "model.safetensors"
    write_weights_file(path, network.state_dict() | tensors, card)
    found = load_objectness(path)
    assert found is not None
    for name, tensor in head.state_dict().items():
        assert torch.equal(found[0].state_dict()[name], tensor)
    image = np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8)
    boxes = np.array([[0, 0, 80, 60], [10, 10, 50, 50]], np.float32)
    classifier = load_weights(path)
    plain, other = (
        next(SharedPass(classifier, changes=changes, long_sides=[96], runtime="torch")(image, boxes))
        for changes in (None, found[0].changes)
    )
    assert not np.allclose(plain, other, atol=1e-3)
    without = {name: tensor for name, tensor in tensors.items() if not name.endswith("conv1x1.down")}
    write_weights_file(path, network.state_dict() | without, card)
    with pytest.raises(ValueError, match=r"changes\.inception_5a/conv1x1\.down"):
        load_objectness(path)
    assert list(stored_changes({}, "changes.")) == []
