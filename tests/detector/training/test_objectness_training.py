"""The head that orders boxes: what it can learn, and the model that comes of it."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console

from detector.architecture import Architecture
from detector.box_features import GEOMETRY, WINDOWS
from detector.googlenet import GoogLeNet
from detector.safetensors_file import WeightsCard, write_weights_file
from detector.training.data import DataConfig
from detector.training.objectness import ObjectnessTraining, best_iou, fit_head, sampled, train_objectness
from detector.training.problems import Problems
from detector.training.readers import read_training_set
from detector.weights import CAFFE_INPUT, load_objectness, load_weights


@pytest.fixture
def config(scenes: Path, tmp_path: Path) -> ObjectnessTraining:
    torch.manual_seed(0)
    architecture = Architecture(width=0.25)
    card = WeightsCard("start", "random", "CC0", "cls1000", CAFFE_INPUT, architecture=architecture)
    start = tmp_path / "start.safetensors"
    write_weights_file(start, GoogLeNet(architecture=architecture).state_dict(), card)
    data = DataConfig(
        [str(scenes / "instances.json")],
        [str(scenes / "images")],
        proposals={"mode": "single"},
        hold_out=0.4,
    )
    return ObjectnessTraining(data, str(start), str(tmp_path / "out"), epochs=2, each=5)


def test_a_head_learns_what_can_be_seen() -> None:
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(2000, len(WINDOWS) * 4 + GEOMETRY, generator=generator)
    targets = (features[:, 2] > 0).float()
    head = fit_head(features, targets, ObjectnessTraining(epochs=20, batch_size=32))
    with torch.inference_mode():
        right = ((head(features) > 0).float() == targets).float().mean()
    assert right > 0.9
    again = fit_head(features, targets, ObjectnessTraining(epochs=20, batch_size=32))
    assert torch.equal(head.hidden.weight, again.hidden.weight)


def test_the_model_is_the_same_with_a_head(config: ObjectnessTraining) -> None:
    console = Console(record=True, quiet=False, width=200, file=None)
    with console.capture() as printed:
        path = train_objectness(config, console)
    assert "held-out objects, recall by objectness" in printed.get()
    found = load_objectness(path)
    assert found is not None and found[1] == 672
    regions = torch.rand(2, 3, 224, 224) * 255
    before, after = (load_weights(Path(file)).eval()(regions) for file in (config.weights or "", path))
    assert torch.equal(before, after)


def test_boxes_on_what_is_to_be_ignored_say_nothing(scenes: Path) -> None:
    image = read_training_set(scenes / "instances.json", scenes / "images", Problems()).images[0]
    ignored = replace(image, labels=np.full_like(image.labels, -1))
    best, nothing = best_iou(image.boxes, image)
    assert best.tolist() == [1.0] * len(best) and not nothing.any()
    best, nothing = best_iou(image.boxes, ignored)
    assert not best.any() and nothing.all()


def test_sampled_boxes_keep_their_rank_among_all(scenes: Path) -> None:
    image = read_training_set(scenes / "instances.json", scenes / "images", Problems()).images[0]
    boxes = np.concatenate([np.tile([[0.0, 0.0, 1.0, 1.0]], (50, 1)), image.boxes]).astype(np.float32)
    found, targets = sampled(
        image, boxes, lambda _, all_boxes: np.arange(len(all_boxes))[:, None], 3, np.random.default_rng(0)
    )
    assert len(found) == 3 + min(3, len(image.boxes))
    assert np.array_equal(targets > 0, found[:, 0] >= 50)


def test_bad_settings(config: ObjectnessTraining) -> None:
    quiet = Console(quiet=True)
    for change, words in (
        ({"epochs": 0}, "must be at least 1"),
        ({"weights": "bvlc"}, "added to a .safetensors model"),
    ):
        with pytest.raises((ValueError, OSError), match=words):
            train_objectness(replace(config, **change), quiet)
