"""Pretraining: auxiliary classifiers, batches of images, and a run from folders to weights."""

import csv
import shutil
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console

from detector.googlenet import Logits
from detector.training.classification_data import read_folders
from detector.training.classify import ImageBatches, Pretraining, classification_losses, pretrain
from detector.training.fit import FitConfig
from detector.training.problems import Problems
from detector.training.processes import Processes
from detector.weights import load_weights

QUIET = Console(quiet=True)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two of the 1000 synsets: dark and bright noise."""
    folder = tmp_path_factory.mktemp("cls")
    generator = np.random.default_rng(0)
    for name, low in (("n01440764", 0), ("n01443537", 155)):
        (folder / name).mkdir()
        for number in range(5):
            pixels = generator.integers(low, low + 100, (50, 60, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{number}.png")
    return folder


def test_auxiliary_losses_count_a_third() -> None:
    logits = torch.randn(2, 10)
    losses = classification_losses(Logits(logits, logits, logits), torch.tensor([1, 2]))
    torch.testing.assert_close(losses["auxiliary"], 0.6 * losses["class"])
    assert set(classification_losses(logits, torch.tensor([1, 2]))) == {"class"}


def test_image_batches_repeat_and_replace_what_cannot_be_read(images: Path, tmp_path: Path) -> None:
    data = read_folders(images, Problems("refuse"))
    problems = Problems()
    arguments = {"batch_size": 4, "size": 16, "colour_strength": 0.2, "seed": 3}
    batches = ImageBatches(data, problems=problems, **arguments)  # type: ignore[arg-type]
    assert batches.steps_per_epoch == 3
    whole = batches.batch(5, slice(0, 4))
    assert whole.inputs.shape == (4, 3, 16, 16) and whole.inputs.dtype == torch.uint8
    parts = [batches.batch(5, share) for share in (slice(0, 2), slice(2, 4))]
    assert torch.equal(torch.cat([part.inputs for part in parts]), whole.inputs)
    (tmp_path / "n01440764").mkdir()
    (tmp_path / "n01440764" / "a.png").write_bytes(b"not an image")
    (tmp_path / "n01440764" / "b.png").write_bytes((images / "n01440764" / "0.png").read_bytes())
    broken = ImageBatches(read_folders(tmp_path, problems), problems=problems, **arguments)  # type: ignore[arg-type]
    assert broken.batch(0, slice(0, 4)).inputs.shape[0] == 4
    assert problems.counts["unreadable image"] == 2


def test_pretraining_from_folders_to_weights(images: Path, tmp_path: Path) -> None:
    config = Pretraining(
        images=str(images), validation_images=str(images), output=str(tmp_path / "out"), images_per_batch=4,
        size=32, device="cpu", fit=FitConfig(steps=2, learning_rate=0.001, averaging=0.5, log_every=1),
    )  # fmt: skip
    assert pretrain(replace(config, dry_run=True), QUIET) is None
    path = pretrain(config, QUIET)
    assert path is not None
    with (tmp_path / "out" / "log.csv").open() as file:
        first, last = csv.DictReader(file)
    assert float(first["auxiliary"]) > 0 and float(last["loss"]) > 0
    assert 0 <= float(last["top_1"]) <= float(last["top_5"]) <= 1
    detector = load_weights(path)  # a classifier of the 1000 is a zero-shot detector of the 200
    assert len(detector.classes) == 200
    with pytest.raises(ValueError, match="--images is missing"):
        pretrain(replace(config, images=""), QUIET)
    more = replace(config, weights=str(path), output=str(tmp_path / "more"), auxiliary=False)
    assert pretrain(more, QUIET) == tmp_path / "more" / "model.safetensors"


def test_a_batch_that_processes_cannot_share_is_refused_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("detector.training.classify.processes", lambda _: nullcontext(Processes(0, 3)))
    config = Pretraining(images=str(tmp_path / "absent"), output=str(tmp_path / "out"), device="cpu")
    with pytest.raises(ValueError, match="a batch of 32 cannot be divided among 3 processes evenly"):
        pretrain(config, QUIET)
    assert not (tmp_path / "out").exists()


def test_resuming_needs_the_same_labels(images: Path, tmp_path: Path) -> None:
    names = [path.relative_to(images).as_posix() for path in sorted(images.rglob("*.png"))]
    listed = tmp_path / "train.txt"
    config = Pretraining(
        images=str(images), image_list=str(listed), output=str(tmp_path / "out"), images_per_batch=4,
        size=32, device="cpu", auxiliary=False, fit=FitConfig(steps=1),
    )  # fmt: skip
    listed.write_text("".join(f"{name} 0\n" for name in names))
    pretrain(config, QUIET)
    elsewhere = tmp_path / "elsewhere"
    shutil.copytree(images, elsewhere)
    pretrain(replace(config, images=str(elsewhere), resume=True), QUIET)
    listed.write_text("".join(f"{name} 1\n" for name in names))
    with pytest.raises(ValueError, match=r"other settings \(labels\)"):
        pretrain(replace(config, resume=True), QUIET)


@pytest.mark.parametrize(
    "change",
    [{"images_per_batch": 0}, {"size": 0}, {"seed": -1}, {"dropout": 3.0}, {"colour_strength": -3.0}],
)
def test_numbers_out_of_range_are_named(change: dict[str, float]) -> None:
    ((name, value),) = change.items()
    with pytest.raises(ValueError, match=rf"--{name.replace('_', '-')} is {value}, but must"):
        Pretraining(**change)  # type: ignore[arg-type]
