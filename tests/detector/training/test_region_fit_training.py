"""The head that tells how well regions fit: what it learns from, what it can learn, the model that comes of it."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from detector.architecture import Architecture
from detector.googlenet import GoogLeNet
from detector.safetensors_file import WeightsCard, read_weights_file, write_weights_file
from detector.training.data import DataConfig
from detector.training.objectness import ObjectnessTraining, train_objectness
from detector.training.objectness_fit import ObjectnessFit, best_iou
from detector.training.problems import Problems
from detector.training.readers import read_training_set
from detector.training.region_fit import (
    RegionFitting,
    RegionFitTraining,
    learn_head,
    sampled_regions,
    train_region_fit,
)
from detector.weights import CAFFE_INPUT, FIT, load_fit, load_objectness, load_weights


@pytest.fixture
def config(scenes: Path, tmp_path: Path) -> RegionFitTraining:
    torch.manual_seed(0)
    architecture = Architecture(width=0.25)
    card = WeightsCard(
        "start", "random", "CC0", "cls1000", replace(CAFFE_INPUT, size=64), architecture=architecture
    )
    start = tmp_path / "start.safetensors"
    write_weights_file(start, GoogLeNet(architecture=architecture).state_dict(), card)
    data = DataConfig(
        [str(scenes / "instances.json")], [str(scenes / "images")], proposals={"mode": "single"}, hold_out=0.4
    )
    return RegionFitTraining(
        data, str(start), output=str(tmp_path / "out"), fit=RegionFitting(images=3, epochs=2)
    )


def test_what_can_be_seen_is_learnt_and_again_alike() -> None:
    generator = np.random.default_rng(0)
    targets = generator.random(200).astype(np.float32).round()
    features = generator.random((200, 16, 3, 3)).astype(np.float16)
    features[targets == 1, 3, :, 0] += 4  # a mark at the left
    features[targets == 0, 3, :, 1] += 4
    fit = RegionFitting(epochs=40, batch_size=50, learning_rate=0.01)
    losses: list[float] = []
    steps: list[tuple[int, int]] = []

    def learnt() -> dict[str, torch.Tensor]:
        return learn_head(
            features, targets, fit, seed=1,
            log=lambda step, values: losses.append(values["loss"]),
            progress=lambda done, total: steps.append((done, total)),
        ).state_dict()  # fmt: skip

    head = learnt()
    assert losses[-1] < 0.3 * losses[0]
    assert steps[-1] == (160, 160)
    again = learnt()
    assert all(torch.equal(tensor, again[name]) for name, tensor in head.items())


@given(seed=st.integers(0, 1000), count=st.integers(0, 40), good=st.integers(0, 4))
@settings(max_examples=30, deadline=None)
def test_regions_are_drawn_from_the_best_and_from_those_that_fit(
    scenes: Path, seed: int, count: int, good: int
) -> None:
    image = read_training_set(scenes / "instances.json", scenes / "images", Problems()).images[0]
    generator = np.random.default_rng(seed)
    corners = generator.uniform(0, 60, (count, 2))
    boxes = np.concatenate([corners, corners + generator.uniform(5, 60, (count, 2))], axis=1)
    boxes = np.concatenate([boxes, image.boxes]).astype(np.float32)
    fit = RegionFitting(best=5, drawn=2, good=good)
    found = sampled_regions(image, boxes, np.linspace(1, 0.1, len(boxes)), fit, generator)
    assert len(found.boxes) == len(found.targets) <= 2 + good + good * 2 // 3
    assert len({tuple(box) for box in found.boxes.tolist()}) == len(found.boxes)
    rows = [next(i for i, box in enumerate(boxes) if (box == one).all()) for one in found.boxes]
    best, ignored = best_iou(boxes, image)
    np.testing.assert_allclose(found.targets, np.clip((best[rows] - 0.2) / 0.5, 0, 1), rtol=1e-6)
    assert not ignored[rows].any()
    np.testing.assert_array_equal(found.objectness, np.linspace(1, 0.1, len(boxes))[rows])
    assert sum(best[rows] >= 0.5) >= min(good, sum(best >= 0.5))


def test_the_model_is_the_same_with_a_head(config: RegionFitTraining) -> None:
    console = Console(record=True, quiet=False, width=200, file=None)
    with console.capture() as printed:
        path = train_region_fit(config, console)
    assert "3 images" in printed.get()
    correlations = re.search(
        r"(\d+) regions of (\d+) held-out images, rank correlation with their fit: "
        r"(\S+) by the objectness, (\S+) by the head, (\S+) by both",
        printed.get(),
    )
    assert correlations is not None
    assert 0 < int(correlations[1]) <= 9 * int(correlations[2])
    assert all(-1 <= float(correlations[k]) <= 1 for k in (3, 4, 5))
    assert (path.parent / "curves.png").is_file() and (path.parent / "not_learnt_from.txt").is_file()
    head = load_fit(path)
    assert head is not None
    assert head(torch.rand(2, 256, 2, 2)).shape == (2, 1)
    regions = torch.rand(2, 3, 64, 64) * 255
    before, after = (load_weights(Path(file)).eval()(regions) for file in (config.weights or "", path))
    assert torch.equal(before, after)
    # another head beside it leaves it there
    data, fit = replace(config.data, hold_out=0.0, first=2), ObjectnessFit(rank=0, epochs=1)
    both = train_objectness(
        ObjectnessTraining(data, str(path), config.output + "3", fit=fit), Console(quiet=True)
    )
    assert load_objectness(both) is not None
    kept = load_fit(both)
    assert kept is not None and torch.equal(kept.hidden.weight, head.hidden.weight)
    # a second time takes the place of the first
    again = train_region_fit(
        replace(config, weights=str(path), output=config.output + "2"), Console(quiet=True)
    )
    first, second = (
        {name: part for name, part in read_weights_file(file)[0].items() if name.startswith(FIT)}
        for file in (path, again)
    )
    assert first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("norm", ["lrn", "none"])
def test_a_head_for_regions_that_the_stride_does_not_divide_is_found_again(
    config: RegionFitTraining, tmp_path: Path, norm: Literal["lrn", "none"]
) -> None:
    architecture = Architecture(norm=norm, width=0.25)
    card = WeightsCard(
        "odd", "random", "CC0", "cls1000", replace(CAFFE_INPUT, size=176), architecture=architecture
    )
    start = tmp_path / "odd.safetensors"
    write_weights_file(start, GoogLeNet(architecture=architecture).state_dict(), card)
    path = train_region_fit(
        replace(config, weights=str(start), fit=RegionFitting(images=1, epochs=1)), Console(quiet=True)
    )
    head = load_fit(path)
    assert head is not None and head(torch.rand(2, 256, 5, 5)).shape == (2, 1)


def test_bad_settings(config: RegionFitTraining) -> None:
    quiet = Console(quiet=True)
    with pytest.raises(ValueError, match=r"added to a \.safetensors model"):
        train_region_fit(replace(config, weights="bvlc"), quiet)
    with pytest.raises(ValueError, match="--weights is missing: name the member"):
        train_region_fit(replace(config, weights=None), quiet)
    with pytest.raises(FileNotFoundError, match="--chooser nobody: neither a file nor one of the known"):
        train_region_fit(replace(config, chooser="nobody"), quiet)
    with pytest.raises(ValueError, match="--precision tf32 is for GPUs"):
        train_region_fit(replace(config, fit=RegionFitting(precision="tf32"), device="cpu"), quiet)
    with pytest.raises(ValueError, match=r"has no objectness \(train\.py objectness adds it\)"):
        train_region_fit(replace(config, chooser=config.weights or ""), quiet)
    with pytest.raises(ValueError, match=r"--fit\.images is 0, but must be at least 1"):
        RegionFitting(images=0)
    with pytest.raises(ValueError, match=r"--seed is -1, but must be at least 0"):
        RegionFitTraining(seed=-1)
