"""Teaching a trained network's map to tell which boxes fit an object: the head of `detector.objectness`."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from rich.console import Console

from detector.configuration import choose_device
from detector.objectness import LONG_SIDES, BoxChooser, SharedPass, trunk_of
from detector.runtime import RuntimeName
from detector.training.curves import draw_curves
from detector.training.data import DataConfig, held_out_part, read_with_boxes, write_not_learnt_from
from detector.training.display import bar, left_out
from detector.training.heads import model_for_head, write_with_head
from detector.training.objectness_fit import FROZEN, MappedImage, ObjectnessFit, fit_objectness
from detector.training.problems import Problems
from detector.training.ranges import at_least
from detector.training.run_log import RunLog
from detector.training.sampling import overlaps
from detector.training.start import output_folder
from detector.training.training_set import IGNORE, TrainingSet
from detector.weights import OBJECTNESS

_COUNTS = (50, 100, 200, 400)  # boxes that the recall is told of


@dataclass(frozen=True)
class ObjectnessTraining:
    """A run of `train.py objectness`.

    Attributes:
        data: Annotated images and proposals; all of these, whatever `num_proposals` says.
        weights: A model of this project; its network makes the map.
        output: Folder of the model, which is the same with the head.
        fit: How the head learns, and with it the last stages of the network.
        runtime: How the network runs before these stages, see `detector.runtime`.
        device: `auto` takes a GPU if there is one.
        seed: Of every random choice.
    """

    data: DataConfig = field(default_factory=DataConfig)
    weights: str | None = None
    output: str = "with_objectness"
    fit: ObjectnessFit = field(default_factory=ObjectnessFit)
    runtime: RuntimeName = "auto"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse numbers that make no sense."""
        at_least(self, 0, "seed")


def train_objectness(config: ObjectnessTraining, console: Console) -> Path:
    """Train the head and return the file of the model that has it.

    Where images are held out, the recall of their best boxes is printed.

    Raises:
        OSError, ValueError: What keeps the head from being made, in one sentence.
    """
    source, classifier = model_for_head(config.weights)
    device = choose_device(config.device)
    output = output_folder(config.output, weights=config.weights)
    problems = Problems(config.data.problems, left_out(console))
    images, boxes = _read(config, problems, output, console)
    write_not_learnt_from(output, images)
    held = None
    if config.data.hold_out:
        others = replace(config, data=held_out_part(config.data))
        # Before the long work, so that what is wrong with it shows now.
        held = _read(others, Problems(), output, console)
    if problems.counts:
        console.print(f"left out in all: {problems.summary()}")
    mapped = _maps(
        images,
        boxes,
        SharedPass(
            classifier, stage=FROZEN, long_sides=LONG_SIDES[:1], runtime=config.runtime, device=device
        ),
        console,
    )
    console.print(f"{len(images):,} images, {sum(map(len, boxes)):,} boxes")
    with RunLog(output, 0) as log, bar(console, "training") as progress:
        head = fit_objectness(
            mapped, trunk_of(classifier), config.fit,
            device=device, seed=config.seed, log=log.write, progress=progress,
        )  # fmt: skip
    draw_curves(output / "log.csv", output / "curves.png")
    path = write_with_head(source, output, OBJECTNESS, head, objectness=LONG_SIDES)
    if held is not None:
        shared = SharedPass(classifier, changes=head.changes, runtime=config.runtime, device=device)
        _tell_recall(*held, BoxChooser(shared, head), console)
    return path


def _maps(
    images: TrainingSet, boxes: list[np.ndarray], shared: SharedPass, console: Console
) -> list[MappedImage]:
    """Every image as the first stages see it at the first size, half a megabyte each."""
    mapped = []
    with bar(console, "maps") as progress:
        for position, (image, proposed) in enumerate(zip(images.images, boxes, strict=True)):
            progress(position, len(images))
            mapped.append(
                MappedImage.of(image, proposed, shared.map_of(image.pixels(), shared.long_sides[0]))
            )
    return mapped


def _read(
    config: ObjectnessTraining, problems: Problems, output: Path, console: Console
) -> tuple[TrainingSet, list[np.ndarray]]:
    data = replace(config.data, num_proposals=None)
    with bar(console, "proposals") as progress:
        return read_with_boxes(
            data, problems, seed=config.seed, keep=output / "proposals.npz", progress=progress
        )


@torch.inference_mode()
def _tell_recall(images: TrainingSet, boxes: list[np.ndarray], chooser: BoxChooser, console: Console) -> None:
    """Print how many objects of the held-out images the best boxes find, before and after ordering."""
    objects, found = 0, np.zeros((2, len(_COUNTS)), np.int64)
    for image, proposed in zip(images.images, boxes, strict=True):
        true = image.boxes[image.labels != IGNORE]
        objects += len(true)
        if not len(true) or not len(proposed):
            continue
        for way, ranked in enumerate((proposed, chooser(image.pixels(), proposed)[0])):
            hit = np.maximum.accumulate(overlaps(ranked, true)[0] >= 0.5, axis=0)
            found[way] += np.array([hit[min(count, len(hit)) - 1].sum() for count in _COUNTS])
    for name, row in zip(("as proposed", "by objectness"), found, strict=True):
        shares = ", ".join(
            f"{hits / max(objects, 1):.3f} of {count}" for hits, count in zip(row, _COUNTS, strict=True)
        )
        console.print(f"{objects} held-out objects, recall {name}: {shares} boxes", soft_wrap=True)
