"""Teaching a trained network's map to tell which boxes fit an object: the head of `detector.objectness`."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from rich.console import Console
from torch import Tensor

from detector.box_features import GEOMETRY, WINDOWS
from detector.configuration import choose_device
from detector.googlenet import GoogLeNet
from detector.objectness import BoxChooser, ObjectnessHead, SharedPass
from detector.runtime import RuntimeName
from detector.safetensors_file import read_weights_file, write_weights_file
from detector.training.data import DataConfig, read_with_boxes
from detector.training.display import bar
from detector.training.problems import Problems
from detector.training.sampling import overlaps
from detector.training.start import output_folder
from detector.training.training_set import IGNORE, AnnotatedImage, TrainingSet
from detector.weights import MODEL_FILE, find_weights, load_weights

_COUNTS = (50, 100, 200, 400)  # boxes that the recall is told of


@dataclass(frozen=True)
class ObjectnessTraining:
    """A run of `train.py objectness`.

    Attributes:
        data: Annotated images and proposals; all of these, whatever `num_proposals` says.
        weights: A model of this project; its network makes the map.
        output: Folder of the model, which is the same with the head.
        epochs: Passes over the sampled boxes.
        learning_rate: Of AdamW at first; it goes down to zero along a line.
        weight_decay: Of AdamW.
        batch_size: Boxes in a batch.
        each: Boxes of an image that are learnt from: so many of each of good, partial and no overlap with an object.
        runtime: How the network runs, see `detector.runtime`.
        device: `auto` takes a GPU if there is one.
        seed: Of every random choice.
    """

    data: DataConfig = field(default_factory=DataConfig)
    weights: str | None = None
    output: str = "with_objectness"
    epochs: int = 8
    learning_rate: float = 0.001
    weight_decay: float = 0.05
    batch_size: int = 256
    each: int = 30
    runtime: RuntimeName = "auto"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    seed: int = 0


def train_objectness(config: ObjectnessTraining, console: Console) -> Path:
    """Train the head and return the file of the model that has it.

    Where images are held out, the recall of their best boxes is printed.

    Raises:
        OSError, ValueError: What keeps the head from being made, in one sentence.
    """
    if config.epochs < 1 or config.each < 1 or config.batch_size < 1:
        raise ValueError("--epochs, --each and --batch-size must be at least 1")
    source = find_weights(config.weights)
    if not isinstance(source, Path) or source.suffix != ".safetensors":
        raise ValueError("--weights: objectness is added to a .safetensors model of this project; name one")
    classifier = load_weights(source)
    if not isinstance(classifier.network, GoogLeNet):
        raise ValueError(f"--weights {source}: has no whole network, whose map could be used")
    device = choose_device(config.device)
    shared = SharedPass(classifier, runtime=config.runtime, device=device)
    output = output_folder(config.output)
    problems = Problems(config.data.problems, lambda line: console.print(f"left out: {line}", soft_wrap=True))
    images, boxes = _read(config, problems, output, console)
    parts = []
    with bar(console, "features") as progress:
        for position, image in enumerate(images.images):
            progress(position, len(images))
            generator = np.random.default_rng((config.seed, position))
            parts.append(sampled(image, boxes[position], shared, config.each, generator))
    features, targets = (np.concatenate(column) for column in zip(*parts, strict=True))
    console.print(f"{len(images):,} images, {len(targets):,} boxes")
    head = fit_head(torch.from_numpy(features), torch.from_numpy(targets), config)
    if config.data.hold_out:
        held = replace(config, data=replace(config.data, held_out=True))
        _tell_recall(*_read(held, problems, output, console), BoxChooser(shared, head), console)
    tensors, card = read_weights_file(source)
    path = output / MODEL_FILE
    write_weights_file(
        path,
        tensors | {f"objectness.{name}": tensor for name, tensor in head.state_dict().items()},
        replace(card, objectness=shared.long_side),
    )
    return path


def _read(
    config: ObjectnessTraining, problems: Problems, output: Path, console: Console
) -> tuple[TrainingSet, list[np.ndarray]]:
    data = replace(config.data, num_proposals=None)
    with bar(console, "proposals") as progress:
        return read_with_boxes(
            data, problems, seed=config.seed, keep=output / "proposals.npz", progress=progress
        )


def best_iou(boxes: np.ndarray, image: AnnotatedImage) -> tuple[np.ndarray, np.ndarray]:
    """Highest IoU (N,) of boxes (N, 4) with an object, and which boxes (N,) say nothing: on what is to be ignored."""
    objects = image.labels != IGNORE
    best, ignored = np.zeros(len(boxes)), np.zeros(len(boxes), np.bool_)
    if objects.any():
        best = overlaps(boxes, image.boxes[objects])[0].max(axis=1)
    if not objects.all():
        ignored = (overlaps(boxes, image.boxes[~objects])[0].max(axis=1) > 0.4) & (best < 0.5)
    return best, ignored


def sampled(
    image: AnnotatedImage,
    boxes: np.ndarray,
    features: Callable[[np.ndarray, np.ndarray], np.ndarray],
    each: int,
    generator: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray]:
    """Features (M, F) and targets (M,) of some boxes (N, 4) of an image, see `ObjectnessTraining.each`."""
    best, ignored = best_iou(boxes, image)
    kinds = (best >= 0.5, (best < 0.5) & (best >= 0.2) & ~ignored, (best < 0.2) & ~ignored)
    rows = np.concatenate([generator.permutation(np.flatnonzero(kind))[:each] for kind in kinds])
    # Half an object is as little use as none, and beyond 0.7 one box is as good as another.
    targets = np.clip((best[rows] - 0.2) / 0.5, 0, 1).astype(np.float32)
    # A box's rank among all is one of its features: sampling first would tell a box's kind by its position.
    return features(image.pixels(), boxes)[rows], targets


def fit_head(features: Tensor, targets: Tensor, config: ObjectnessTraining) -> ObjectnessHead:
    """Learn targets (N,) of 0..1 from features (N, F)."""
    torch.manual_seed(config.seed)
    head = ObjectnessHead((features.shape[1] - GEOMETRY) // len(WINDOWS))
    head.mean.copy_(features.mean(dim=0))
    head.deviation.copy_(features.std(dim=0) + 1e-3)
    optimizer = torch.optim.AdamW(
        head.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay
    )
    head.train()
    for epoch in range(config.epochs):
        for group in optimizer.param_groups:
            group["lr"] = config.learning_rate * (1 - epoch / config.epochs)
        for rows in torch.randperm(len(targets)).split(config.batch_size):
            loss = F.binary_cross_entropy_with_logits(head(features[rows]), targets[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return head.eval()


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
