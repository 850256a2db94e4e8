"""From a few annotated photos to a detector of their classes: proposals, features, SVMs, one weights file."""

from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from rich.console import Console

from detector.configuration import choose_device
from detector.googlenet import GoogLeNet
from detector.region_classifier import RegionClassifier
from detector.runtime import RuntimeName, choose_runtime
from detector.safetensors_file import WeightsCard, write_weights_file
from detector.tap_classifier import TapClassifier
from detector.training.data import DataConfig, read_regions, write_not_learnt_from
from detector.training.display import bar, left_out
from detector.training.features import StageFeatures, cached_features, region_features, source_of
from detector.training.problems import Problems
from detector.training.ranges import at_least
from detector.training.region_picture import write_region_picture
from detector.training.sampling import RegionTable, annotated_objects, table_summary, thinned
from detector.training.start import output_folder, stage_name, start_weights
from detector.training.svm import LinearClassifier, SVMConfig, feature_scale, train_class
from detector.weights import MODEL_FILE, OBJECTNESS, find_weights, load_objectness


@dataclass(frozen=True)
class SVMTraining:
    """A run of `train.py svm`.

    Attributes:
        data: Annotated images and proposals.
        svm: The SVMs.
        weights: What the features come from, as for detection.
        output: Folder of the model and what belongs to it.
        tap: The stage whose features are used.
        grid: Cells a side that these are averaged over.
        size: Side of a region in pixels; None takes that of the weights. Smaller is faster and coarser.
        context: Pixels of surroundings on each side of a region; None takes that of the weights, in proportion.
        objectness: Keep the opinion that the weights have of boxes, as an order of the boxes and a factor of the
            scores (`detector.objectness`), if `tap` is not before the last stage, whose map that looks at. It
            knows things of everyday photos; turn it off for what is nothing like them.
        max_positives: Most proposals on objects of an image that are used, besides the annotated boxes.
        max_backgrounds: Most background regions of an image that are used.
        batch_size: Regions the network sees at a time.
        runtime: How the network runs, see `detector.runtime`.
        device: `auto` takes a GPU if there is one.
        seed: Of every random choice.
        dry_run: Read the data, draw the picture of regions, and stop.
    """

    data: DataConfig = field(default_factory=DataConfig)
    svm: SVMConfig = field(default_factory=SVMConfig)
    weights: str | None = None
    output: str = "my_detector"
    tap: str = "pool5"
    grid: int = 1
    size: int | None = None
    context: int | None = None
    objectness: bool = True
    max_positives: int = 30
    max_backgrounds: int = 200
    batch_size: int = 8
    runtime: RuntimeName = "auto"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    seed: int = 0
    dry_run: bool = False

    def __post_init__(self) -> None:
        """Refuse numbers that make no sense."""
        at_least(self, 1, "grid", "batch_size")
        at_least(self, 0, "max_positives", "max_backgrounds", "seed")


def train_svms(config: SVMTraining, console: Console) -> Path | None:
    """Make a detector and return its file; None after a dry run.

    Raises:
        OSError, ValueError: What keeps a detector from being made, in one sentence.
    """
    problems = Problems(config.data.problems, left_out(console))
    classifier, name = start_weights(config.weights, config.size, config.context)
    assert isinstance(classifier.network, GoogLeNet)
    config = replace(config, tap=stage_name(classifier.network, config.tap))
    _check_grid(config, classifier)
    output = output_folder(config.output, weights=config.weights)
    console.print(f"features: {name}, {config.tap}", markup=False, soft_wrap=True)
    with bar(console, "proposals") as progress:
        table = read_regions(
            config.data, problems, seed=config.seed, keep=output / "proposals.npz", progress=progress
        )
    table = thinned(
        table, positives=config.max_positives, backgrounds=config.max_backgrounds, seed=config.seed
    )
    console.print(", ".join(f"{count:,} {what}" for what, count in table_summary(table)))
    if problems.counts:
        console.print(f"left out in all: {problems.summary()}")
    write_region_picture(
        output / "regions.jpg", table, preprocessing=classifier.preprocessing, seed=config.seed
    )
    write_not_learnt_from(output, table.training_set)
    if config.dry_run:
        return None
    features = _features(config, classifier, table, output, console)
    scale = feature_scale(features, config.seed)
    labels = np.flatnonzero(table.training_set.counts())
    trained = []
    for label in labels.tolist():
        kind = table.training_set.classes[label].name
        console.print(f"SVM of {kind}", markup=False)
        trained.append(
            train_class(
                features,
                table,
                label,
                config.svm,
                scale=scale,
                seed=config.seed,
                report=lambda line: console.print(f"  {line}"),
            )
        )
    path = output / MODEL_FILE
    _write(path, config, classifier, table, labels, trained, name)
    return path


def _check_grid(config: SVMTraining, classifier: RegionClassifier) -> None:
    """Refuse a grid finer than the map that it averages: it would hold every cell many times."""
    if config.grid == 1:
        return
    if config.tap == "pool5":
        raise ValueError(
            f"--grid is {config.grid}, but pool5 is one cell; a grid needs a stage before it, as --tap inception_5b"
        )
    assert isinstance(classifier.network, GoogLeNet)
    size = classifier.preprocessing.size
    with torch.inference_mode():
        cells = classifier.network.taps(torch.zeros(1, 3, size, size), [config.tap])[config.tap].shape[-1]
    if config.grid > cells:
        raise ValueError(
            f"--grid is {config.grid}, but of a region of {size} pixels {config.tap} has {cells}x{cells} cells"
        )


def _features(
    config: SVMTraining, classifier: RegionClassifier, table: RegionTable, output: Path, console: Console
) -> np.ndarray:
    preprocessing = classifier.preprocessing
    key = source_of(classifier) | {"tap": config.tap, "grid": config.grid}
    run = choose_runtime(
        StageFeatures(classifier, config.tap, config.grid),
        config.runtime,
        choose_device(config.device),
        size=preprocessing.size,
    )
    blocks = partial(region_features, table, run, preprocessing=preprocessing, batch_size=config.batch_size)
    with bar(console, "features") as progress:
        return cached_features(output / "features.npy", table, blocks, key=key, progress=progress)


def _write(
    path: Path,
    config: SVMTraining,
    classifier: RegionClassifier,
    table: RegionTable,
    labels: np.ndarray,
    trained: list[LinearClassifier],
    name: str,
) -> None:
    """The trunk up to the tap and the SVMs as its linear layer, as one weights file."""
    trunk = classifier.network
    assert isinstance(trunk, GoogLeNet)
    weight = torch.from_numpy(np.stack([svm.weight for svm in trained])).float()  # (C, D)
    network = TapClassifier(
        trunk, tap=config.tap, grid=config.grid, in_features=weight.shape[1], outputs=len(weight)
    )
    tensors = network.state_dict() | {
        "head.weight": weight,
        "head.bias": torch.tensor([svm.bias for svm in trained]).float(),
    }
    opinion = load_objectness(find_weights(config.weights)) if config.objectness else None
    if opinion is not None and config.tap in trunk.stages[-2:]:
        head, long_sides = opinion
        tensors |= {OBJECTNESS + name: tensor for name, tensor in head.state_dict().items()}
    else:
        long_sides = None
    card = WeightsCard(
        name=path.parent.name,
        origin=f"SVMs on {annotated_objects(table)}; features of {name}",
        licence="that of the features' weights and of the training images",
        outputs="independent",
        preprocessing=classifier.preprocessing,
        classes=tuple(table.training_set.classes[label] for label in labels),
        architecture=trunk.architecture,
        tap=config.tap,
        grid=config.grid,
        objectness=long_sides,
    )
    write_weights_file(path, tensors, card)
