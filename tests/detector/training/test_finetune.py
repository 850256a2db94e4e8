"""Fine-tuning as a whole: pixels or cached features, killed and resumed, one process or two."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file

from detector.googlenet import GoogLeNet
from detector.safetensors_file import WeightsCard, write_weights_file
from detector.taxonomy import DET200
from detector.training.data import DataConfig
from detector.training.finetune import Finetuning, finetune
from detector.training.fit import FitConfig
from detector.weights import CAFFE_INPUT, load_weights

ROOT = Path(__file__).resolve().parents[3]
QUIET = Console(quiet=True)


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A classifier with random weights."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("start") / "start.safetensors"
    card = WeightsCard("start", "random weights for tests", "CC0", "cls1000", CAFFE_INPUT)
    write_weights_file(path, GoogLeNet().state_dict(), card)
    return path


@pytest.fixture
def config(scenes: Path, start: Path, tmp_path: Path) -> Finetuning:
    return Finetuning(
        data=DataConfig(
            [str(scenes / "instances.json")], [str(scenes / "images")], num_proposals=30,
            proposals={"mode": "single"},
        ),
        fit=FitConfig(steps=4, learning_rate=0.01, averaging=0.5, log_every=1, checkpoint_every=2),
        weights=str(start), output=str(tmp_path / "out"), freeze="pool4", cache=True, quality=True,
        positives=4, backgrounds=8, size=32, context=2, device="cpu",
    )  # fmt: skip


def column(folder: str | Path, name: str) -> list[float]:
    with (Path(folder) / "log.csv").open() as file:
        return [float(row[name]) for row in csv.DictReader(file) if row[name]]


def test_cached_features_teach_a_detector(config: Finetuning) -> None:
    path = finetune(replace(config, fit=replace(config.fit, steps=24)), QUIET)
    assert path is not None and path.name == "model.safetensors"
    losses = column(config.output, "class")
    assert np.mean(losses[-5:]) < 0.8 * losses[0] and len(column(config.output, "quality")) == 24
    detector = load_weights(path)
    assert [kind.name for kind in detector.classes] == ["square", "disc"]
    scores = detector.eval()(torch.zeros(2, 3, 32, 32))
    assert scores.shape == (2, 2) and (scores >= 0).all() and (scores <= 1).all()
    first = load_file(config.weights or "")
    trained = load_file(path)
    assert torch.equal(trained["inception_4e.conv1x1.weight"], first["inception_4e.conv1x1.weight"])
    assert not torch.equal(trained["inception_5b.conv1x1.weight"], first["inception_5b.conv1x1.weight"])
    assert sorted(p.name for p in Path(config.output).iterdir() if p.is_file()) == [
        "checkpoint.safetensors", "features.json", "features.npy", "log.csv", "model.safetensors",
        "proposals.npz", "regions.jpg",
    ]  # fmt: skip


def test_pixels_and_cached_features_give_the_same_losses(config: Finetuning) -> None:
    plain = replace(config, dropout=0.0, mirror=False, fit=replace(config.fit, steps=2))
    finetune(plain, QUIET)
    cached = column(config.output, "loss")
    finetune(replace(plain, cache=False, output=f"{config.output}-pixels"), QUIET)
    np.testing.assert_allclose(
        column(f"{config.output}-pixels", "loss"), cached, rtol=5e-3
    )  # float16 features


def test_mirrored_features_and_validation(config: Finetuning) -> None:
    validation = replace(config.data, first=2, num_proposals=4)
    finetune(replace(config, cache_mirrored=True, validation=validation), QUIET)
    assert (Path(config.output) / "features_mirrored.npy").exists()
    (mean_ap,) = column(config.output, "mean_ap")
    assert 0 <= mean_ap <= 1


def test_teacher_keeps_scores_of_images_without_boxes(
    config: Finetuning, scenes: Path, tmp_path: Path
) -> None:
    annotated = json.loads((scenes / "instances.json").read_text())
    dog = next(kind for kind in DET200 if kind.name == "dog")
    annotated["categories"] = [{"id": kind.id, "name": kind.name, "wnid": kind.wnid} for kind in DET200]
    for row in annotated["annotations"]:
        row["category_id"] = dog.id
    for image in annotated["images"]:
        image["labelled_classes"] = [dog.id]
    (tmp_path / "dogs.json").write_text(json.dumps(annotated))
    data = replace(
        config.data, annotations=[str(tmp_path / "dogs.json")], unlabelled=[str(scenes / "images")]
    )
    finetune(replace(config, data=data, teacher_weight=1.0), QUIET)
    teacher = column(config.output, "teacher")
    assert len(teacher) == 4 and teacher[0] < 0.05  # the first head scores nearly like its teacher


def test_dry_run_and_bad_settings(config: Finetuning) -> None:
    assert finetune(replace(config, dry_run=True), QUIET) is None
    assert not (Path(config.output) / "features.npy").exists()
    for change, words in (
        ({"freeze": None}, "--cache keeps the features of frozen stages"),
        ({"freeze": "pool9"}, "no stage of the network"),
        ({"cache": False, "teacher_weight": 1.0}, "--teacher-weight needs --cache"),
        ({"teacher_weight": 1.0}, "classes are not those of the zero-shot scores"),
        ({"dropout": 1.0}, "--dropout is 1.0"),
        ({"positives": 0}, "at least 1"),
    ):
        with pytest.raises(ValueError, match=words):
            finetune(replace(config, **change), QUIET)


Command = Callable[..., list[str]]


@pytest.fixture
def command(config: Finetuning) -> Command:
    """The command line of `config`, so that it runs in processes of its own."""

    def line(output: Path, *more: str) -> list[str]:
        data = config.data
        return [
            str(ROOT / "tools" / "train.py"), "finetune", "--annotations", *data.annotations,
            "--images", *data.images, "--data.num_proposals", "30", "--data.proposals", '{"mode": "single"}',
            "--weights", str(config.weights), "--output", str(output), "--freeze", "pool4", "--cache",
            "--positives", "4", "--backgrounds", "8", "--size", "32", "--context", "2", "--device", "cpu",
            "--fit.learning_rate", "0.01", "--fit.averaging", "0.5", "--fit.log_every", "1",
            "--fit.checkpoint_every", "3", *more,
        ]  # fmt: skip

    return line


ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


def test_killed_and_resumed_ends_with_the_same_bits(command: Command, tmp_path: Path) -> None:
    steps = ("--fit.steps", "30")
    subprocess.run([sys.executable, *command(tmp_path / "whole", *steps)], env=ENVIRONMENT, check=True)
    killed = subprocess.Popen([sys.executable, *command(tmp_path / "killed", *steps)], env=ENVIRONMENT)
    log = tmp_path / "killed" / "log.csv"
    deadline = time.monotonic() + 60
    while not (log.exists() and log.read_text().count("\n") > 8) and time.monotonic() < deadline:
        time.sleep(0.005)
    killed.send_signal(signal.SIGKILL)
    assert killed.wait() == -signal.SIGKILL and not (tmp_path / "killed" / "model.safetensors").exists()
    subprocess.run(
        [sys.executable, *command(tmp_path / "killed", *steps, "--resume")], env=ENVIRONMENT, check=True
    )
    expected, found = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "killed"))
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())
    assert column(tmp_path / "killed", "loss") == column(tmp_path / "whole", "loss")


def torchrun(count: int, *more: str) -> list[str]:
    return [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        str(count),
        *more,
    ]


def test_two_processes_give_the_curve_of_one(command: Command, tmp_path: Path) -> None:
    steps = ("--fit.steps", "50", "--dropout", "0")
    subprocess.run([sys.executable, *command(tmp_path / "one", *steps)], env=ENVIRONMENT, check=True)
    subprocess.run([*torchrun(2), *command(tmp_path / "two", *steps)], env=ENVIRONMENT, check=True)
    one, two = column(tmp_path / "one", "loss"), column(tmp_path / "two", "loss")
    assert len(one) == len(two) == 50
    assert np.abs(np.array(one) - two).max() < 1e-3
