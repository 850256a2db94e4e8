"""Teaching what a network sees of a region to tell how well its box fits: the head of `detector.region_fit`."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from rich.console import Console
from scipy.stats import spearmanr
from torch import nn

from detector.configuration import choose_device
from detector.nms import diverse_order
from detector.objectness import BoxChooser, ImageFeatures, SharedPass, trunk_of
from detector.region_classifier import Preprocessing
from detector.region_fit import STAGE, FitHead, joint_fit
from detector.regions import warp_regions
from detector.runtime import Precision, Runtime, RuntimeName, choose_runtime
from detector.training.curves import draw_curves
from detector.training.data import (
    DataConfig,
    held_out_part,
    read_data,
    region_search,
    write_not_learnt_from,
)
from detector.training.display import bar, left_out
from detector.training.heads import LOG_EVERY, model_for_head, warm_up_and_fall, write_with_head
from detector.training.objectness_fit import best_iou, fit_target
from detector.training.problems import Problems
from detector.training.ranges import at_least
from detector.training.region_proposals import boxes_of_images
from detector.training.run_log import RunLog
from detector.training.start import output_folder
from detector.training.training_set import AnnotatedImage, TrainingSet
from detector.weights import FIT, find_weights, load_objectness, load_weights

_AT_A_TIME = 8  # regions of the network


@dataclass(frozen=True)
class RegionFitting:
    """How the head learns.

    Attributes:
        images: Most images to learn from, drawn from all; each picture once before the small copy of any.
        best: Best boxes of an image, repeats later: what an ensemble's members look at.
        drawn: So many of these are learnt from,
        good: with so many of those that fit an object (IoU of 0.5 and more), and two thirds as many that nearly do.
        epochs: Passes over the regions.
        batch_size: Regions in a batch.
        learning_rate: Of AdamW; it goes down to zero along a line.
        weight_decay: Of AdamW.
        precision: Of the network's arithmetic.
    """

    images: int = 3000
    best: int = 120
    drawn: int = 9
    good: int = 3
    epochs: int = 8
    batch_size: int = 256
    learning_rate: float = 0.001
    weight_decay: float = 0.02
    precision: Precision = "float32"

    def __post_init__(self) -> None:
        """Refuse what makes no sense."""
        at_least(self, 1, "images", "best", "drawn", "epochs", "batch_size", part="fit")
        at_least(self, 0, "good", "learning_rate", "weight_decay", part="fit")


@dataclass(frozen=True)
class RegionFitTraining:
    """A run of `train.py fit`.

    Attributes:
        data: Annotated images and proposals; all of these, whatever `num_proposals` says.
        weights: A model of this project, whose regions show enough of a box's surroundings.
        chooser: A model with objectness, which chooses the boxes in the ensemble as well.
        output: Folder of the model, which is the same with the head.
        fit: How the head learns.
        runtime: How the networks run, see `detector.runtime`.
        device: `auto` takes a GPU if there is one; the head itself learns on the CPU.
        seed: Of every random choice.
    """

    data: DataConfig = field(default_factory=DataConfig)
    weights: str | None = None
    chooser: str = "googlenet-det200"
    output: str = "with_fit"
    fit: RegionFitting = field(default_factory=RegionFitting)
    runtime: RuntimeName = "auto"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse numbers that make no sense."""
        at_least(self, 0, "seed")


@dataclass(frozen=True)
class LearntRegions:
    """The boxes (M, 4) of an image that are learnt from, how well they fit, and how well the chooser thinks they do.

    Both are (M,) float32 of 0..1.
    """

    image: AnnotatedImage
    boxes: np.ndarray
    targets: np.ndarray
    objectness: np.ndarray


def train_region_fit(config: RegionFitTraining, console: Console) -> Path:
    """Train the head and return the file of the model that has it.

    Where images are held out, it is printed how well the head ranks their regions.

    Raises:
        OSError, ValueError: What keeps the head from being made, in one sentence.
    """
    if config.weights is None:
        raise ValueError("--weights is missing: name the member of an ensemble that is to tell of the fit")
    source, classifier = model_for_head(config.weights)
    chooser = _chooser(config)
    # Before the long work, so that a precision or runtime that is not there shows now.
    maps = choose_runtime(
        ImageFeatures(classifier.normalize, trunk_of(classifier), STAGE),
        config.runtime, choose_device(config.device),
        size=classifier.preprocessing.size, precision=config.fit.precision,
    )  # fmt: skip
    output = output_folder(config.output, weights=config.weights, chooser=config.chooser)
    regions, held = _regions(config, chooser, output, console)
    features = _features(maps, classifier.preprocessing, regions, console)
    targets = np.concatenate([found.targets for found in regions])
    with RunLog(output, 0) as log, bar(console, "training") as progress:
        head = learn_head(
            features, targets, config.fit, seed=config.seed, log=log.write, progress=progress
        )  # fmt: skip
    draw_curves(output / "log.csv", output / "curves.png")
    path = write_with_head(source, output, FIT, head)
    if held:
        _tell_ranking(held, head, _features(maps, classifier.preprocessing, held, console), console)
    return path


def _chooser(config: RegionFitTraining) -> BoxChooser:
    try:
        source = find_weights(config.chooser)
    except FileNotFoundError as error:
        raise FileNotFoundError(str(error).replace("--weights", "--chooser")) from None
    found = load_objectness(source)
    if found is None:
        raise ValueError(f"--chooser {config.chooser}: has no objectness (train.py objectness adds it)")
    head, long_sides = found
    shared = SharedPass(
        load_weights(source),
        changes=head.changes,
        long_sides=long_sides[:1],  # one opinion will do to draw boxes to learn from
        runtime=config.runtime,
        device=choose_device(config.device),
    )
    return BoxChooser(shared, head)


def _regions(
    config: RegionFitTraining, chooser: BoxChooser, output: Path, console: Console
) -> tuple[list[LearntRegions], list[LearntRegions]]:
    """Boxes of some of the images to learn from, and of those held out, among the best as the chooser sees them."""
    generator = np.random.default_rng(config.seed)

    def regions_of(whole: TrainingSet, fit: RegionFitting, problems: Problems) -> list[LearntRegions]:
        some = whole.select(_drawn(whole, generator)[: fit.images])
        with bar(console, "proposals") as progress:
            images, boxes = boxes_of_images(
                some, problems,
                num_proposals=None, search=region_search(config.data.proposals, config.seed),
                proposal_files=config.data.proposal_files, keep=output / "proposals.npz", progress=progress,
            )  # fmt: skip
        return _chosen(images, boxes, chooser, fit, generator, console)

    problems = Problems(config.data.problems, left_out(console))
    images = read_data(config.data, problems)
    write_not_learnt_from(output, images)
    regions = regions_of(images, config.fit, problems)
    if problems.counts:
        console.print(f"left out in all: {problems.summary()}")
    if not regions:
        raise ValueError("none of the images has a box that says anything")
    console.print(f"{len(regions):,} images, {sum(len(found.boxes) for found in regions):,} regions")
    held: list[LearntRegions] = []
    if config.data.hold_out:
        others = read_data(held_out_part(config.data), Problems())
        # As an ensemble meets them: without those that are only there to learn from.
        held = regions_of(others, replace(config.fit, good=0), Problems())
    return regions, held


def _drawn(images: TrainingSet, generator: np.random.Generator) -> np.ndarray:
    """Positions in an order of chance, but each picture once before the small copy of any comes: others teach more."""
    order = generator.permutation(len(images))
    pictures = np.unique([str(image.path) for image in images.images], return_inverse=True)[1][order]
    first = np.zeros(len(images), np.bool_)
    first[np.unique(pictures, return_index=True)[1]] = True
    return np.asarray(np.concatenate([order[first], order[~first]]))


def _chosen(
    images: TrainingSet,
    boxes: list[np.ndarray],
    chooser: BoxChooser,
    fit: RegionFitting,
    generator: np.random.Generator,
    console: Console,
) -> list[LearntRegions]:
    regions = []
    with bar(console, "choice") as progress:
        for position, (image, proposed) in enumerate(zip(images.images, boxes, strict=True)):
            progress(position, len(images))
            ranked, objectness = chooser(image.pixels(), proposed)
            found = sampled_regions(image, ranked, objectness, fit, generator)
            if len(found.boxes):
                regions.append(found)
    return regions


def sampled_regions(
    image: AnnotatedImage,
    boxes: np.ndarray,
    objectness: np.ndarray,
    fit: RegionFitting,
    generator: np.random.Generator,
) -> LearntRegions:
    """Some of the boxes (N, 4) of an image, by their objectness (N,): best, good and nearly good ones."""
    best, ignored = best_iou(boxes, image)
    top = diverse_order(boxes, objectness)[: fit.best]
    good, nearly = np.flatnonzero(best >= 0.5), np.flatnonzero((best < 0.5) & (best > 0.25))
    rows = np.unique(
        np.concatenate(
            [
                generator.permutation(top)[: fit.drawn],
                generator.permutation(good)[: fit.good],
                generator.permutation(nearly)[: fit.good * 2 // 3],
            ]
        )
    )
    rows = rows[~ignored[rows]]
    return LearntRegions(image, boxes[rows], fit_target(best[rows]), objectness[rows])


def _features(
    maps_of: Runtime, seen: Preprocessing, regions: list[LearntRegions], console: Console
) -> np.ndarray:
    """(M, D, h, w) float16 of all regions: 100 KB each."""
    features: np.ndarray | None = None
    count, done = sum(len(found.boxes) for found in regions), 0
    with bar(console, "regions") as progress:
        for found in regions:
            progress(done, count)
            pixels = found.image.pixels()
            for first in range(0, len(found.boxes), _AT_A_TIME):
                some = warp_regions(
                    pixels, found.boxes[first : first + _AT_A_TIME],
                    size=seen.size, context=seen.context, crop=seen.crop, fill=seen.mean_colour(),
                )  # fmt: skip
                maps = maps_of(some)
                if features is None:
                    features = np.empty((count, *maps.shape[1:]), np.float16)
                features[done : done + len(maps)] = maps
                done += len(maps)
    assert features is not None
    return features


@torch.inference_mode()
def _tell_ranking(held: list[LearntRegions], head: FitHead, features: np.ndarray, console: Console) -> None:
    """Print how the ranks of held-out regions by objectness, head, and both, agree with those by the fit itself."""
    fit = np.concatenate([found.targets for found in held])
    objectness = np.concatenate([found.objectness for found in held])
    rows = range(0, len(features), 256)
    logits = np.concatenate(
        [head(torch.from_numpy(features[k : k + 256]).float())[:, 0].numpy() for k in rows]
    )
    opinions = {"the objectness": objectness, "the head": logits, "both": joint_fit(objectness, [logits])}
    if len(np.unique(fit)) < 2:
        console.print("the held-out regions all fit alike, so nothing tells how well the head ranks them")
        return
    ranks = ", ".join(
        f"{spearmanr(fit, opinion).statistic:.3f} by {who}" for who, opinion in opinions.items()
    )
    regions = f"{len(fit):,} regions of {len(held):,} held-out images"
    console.print(f"{regions}, rank correlation with their fit: {ranks}", soft_wrap=True)


def learn_head(
    features: np.ndarray,
    targets: np.ndarray,
    fit: RegionFitting,
    *,
    seed: int,
    log: Callable[[int, dict[str, float]], None] = lambda step, values: None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> FitHead:
    """Learn the targets (M,) of regions by their maps (M, D, h, h), half of the batches mirrored.

    Args:
        log: Told of the step and of its values every `LOG_EVERY` steps.
        progress: Told of the steps done and to do.
    """
    torch.manual_seed(seed)
    head = FitHead(features.shape[1], features.shape[-1]).train()
    size = min(fit.batch_size, len(targets))
    steps = fit.epochs * (len(targets) // size)
    optimizer = torch.optim.AdamW(head.parameters(), lr=fit.learning_rate, weight_decay=fit.weight_decay)
    schedule = warm_up_and_fall(optimizer, steps)
    wanted = torch.from_numpy(targets)
    losses: list[float] = []
    for step in range(steps):
        first = step % (len(targets) // size) * size
        if first == 0:
            order = torch.randperm(len(targets))
        rows = order[first : first + size]
        maps = torch.from_numpy(features[rows.numpy()]).float()
        if torch.rand(1) < 0.5:
            maps = maps.flip(3)
        loss = F.binary_cross_entropy_with_logits(head(maps)[:, 0], wanted[rows])
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(head.parameters(), 5.0)
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
        progress(step + 1, steps)
        if (step + 1) % LOG_EVERY == 0 or step + 1 == steps:
            log(step + 1, {"loss": float(np.mean(losses)), "learning_rate": float(schedule.get_last_lr()[0])})
            losses.clear()
    return head.eval()
