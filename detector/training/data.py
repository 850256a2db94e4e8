"""The data of a training run: what to read, how to sample regions, and what came of it."""

import inspect
import os
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from detector.images import find_images
from detector.taxonomy import DetectionClass
from detector.training.det_lists import read_class_lists
from detector.training.image_labels import read_image_labels
from detector.training.problems import Policy, Problems
from detector.training.ranges import at_least, share
from detector.training.readers import read_training_set
from detector.training.region_proposals import Progress, boxes_of_images
from detector.training.sampling import RegionTable, region_table
from detector.training.training_set import (
    AnnotatedImage,
    TrainingSet,
    annotated_image,
    join,
    merged,
    name_empty_classes,
)
from eval.atomic import writing
from proposals import SelectiveSearch

NOT_LEARNT_FROM = "not_learnt_from.txt"


@dataclass(frozen=True)
class DataConfig:
    """Annotated images and their proposals.

    Attributes:
        annotations: COCO JSON files, or folders, tars or zips of VOC or ILSVRC XML. The boxes of an image that several
            of them tell of are those of all.
        images: For each of them the folder of its images; one serves all.
        image_list: Only the images in this list (ImageSets, R-CNN's val1 and val2).
        class_lists: Folder of ILSVRC DET lists train_1.txt .. train_200.txt.
        unlabelled: Folders of images without any boxes: what they show is left to the teacher.
        image_labels: CSV files `file,det_id` of images with one known object and no box, in the folder of the same
            name: the whole image stands for it, and what else is there is left to the teacher.
        hold_out: Share of the annotated images, chosen by their names, that is kept out of training.
        held_out: Read these instead of the others: to validate on.
        first: Only so many annotated images, from the start.
        small_copies: Learn from every image a second time, as if it had been stored at so many pixels squared: a
            detector that has only seen sharp photos does worse on small or blurred ones.
        problems: `skip` leaves out unusable boxes and images and counts them; `refuse` stops at the first.
        num_proposals: Boxes of an image, best-ranked first; None takes all.
        proposal_files: Files or folders of proposals computed before, instead of making them.
        proposals: Arguments of `proposals.SelectiveSearch`.
        positive_iou: Proposals with at least this IoU with an object are its positives.
        background_iou: Proposals below this IoU with every object are background.
    """

    annotations: list[str] = field(default_factory=list)
    images: list[str] = field(default_factory=list)
    image_list: str | None = None
    class_lists: str | None = None
    unlabelled: list[str] = field(default_factory=list)
    image_labels: list[str] = field(default_factory=list)
    hold_out: float = 0.0
    held_out: bool = False
    first: int | None = None
    small_copies: int | None = None
    problems: Policy = "skip"
    num_proposals: int | None = 400
    proposal_files: list[str] | None = None
    proposals: dict[str, Any] = field(default_factory=dict)
    positive_iou: float = 0.5
    background_iou: float = 0.5

    def __post_init__(self) -> None:
        """Refuse numbers that make no sense."""
        at_least(self, 1, "first", "num_proposals", part="data")
        at_least(self, 16, "small_copies", part="data")
        share(self, "positive_iou", "background_iou", part="data")
        share(self, "hold_out", part="data", below_one=True)


def read_data(config: DataConfig, problems: Problems) -> TrainingSet:
    """All annotated images of a configuration.

    Raises:
        OSError, ValueError: Nothing to train on, or a problem where problems are refused.
    """
    if not config.annotations:
        raise ValueError("--data.annotations is missing: name COCO JSON files or folders of XML files")
    if not config.images:
        raise ValueError("--data.images is missing (short: --images): name the folder that the photos are in")
    if len(config.images) not in (1, len(config.annotations)):
        raise ValueError(
            f"{len(config.annotations)} annotation sources have {len(config.images)} image folders;"
            " give one for each, or one for all"
        )
    folders = config.images * (len(config.annotations) if len(config.images) == 1 else 1)
    labelled = None if config.class_lists is None else read_class_lists(config.class_lists)
    whole = merged(
        join(
            [
                read_training_set(source, images, problems, image_list=config.image_list, labelled=labelled)
                for source, images in zip(config.annotations, folders, strict=True)
            ]
        ),
        problems,
    )
    annotated = whole.images
    whole = _share_of(whole, config)
    if config.first is not None:
        whole = whole.select(range(min(config.first, len(whole))))
    if not whole.counts().any():
        boxes = sum(len(image.boxes) for image in whole.images)
        why = f"all {boxes} are to be ignored" if boxes else f"none of the {len(whole)} images has one"
        told = f" ({problems.summary()})" if problems.counts else ""
        raise ValueError(f"{', '.join(config.annotations)}: no boxes to learn from: {why}{told}")
    name_empty_classes(whole, problems)
    everything = join(
        [
            whole,
            *(_unlabelled(folder, whole.classes, problems) for folder in config.unlabelled),
            *(read_image_labels(file, whole.classes, problems) for file in config.image_labels),
        ]
    )
    everything = replace(everything, kept_out=_others(annotated, everything))
    if config.small_copies is None:
        return everything
    return everything.with_small_copies(config.small_copies)


def _share_of(whole: TrainingSet, config: DataConfig) -> TrainingSet:
    """The images that are held out, or those that are not; an image's place hangs on nothing but its name."""
    places = [zlib.crc32(os.fsencode(image.name)) / 2**32 for image in whole.images]
    chosen = [index for index, place in enumerate(places) if (place < config.hold_out) == config.held_out]
    if not chosen:
        raise ValueError(f"--data.hold_out {config.hold_out} leaves none of the {len(whole)} images")
    return whole.select(chosen)


def _others(annotated: Sequence[AnnotatedImage], learnt: TrainingSet) -> tuple[str, ...]:
    """The names of the images that are not learnt from; XML's have no suffix, which tells a name from a number."""
    used = {image.path.resolve() for image in learnt.images}
    return tuple(
        image.name if image.name.endswith(image.path.suffix) else image.name + image.path.suffix
        for image in annotated
        if image.path.resolve() not in used
    )


def held_out_part(config: DataConfig) -> DataConfig:
    """The annotated images that are held out, once each: what joins these in training is learnt from."""
    return replace(config, held_out=True, problems="skip", unlabelled=[], image_labels=[], small_copies=None)


def write_not_learnt_from(folder: Path, training_set: TrainingSet) -> None:
    """Write the names of `TrainingSet.kept_out`, one a line, as `--image-list` takes them; none, no file."""
    path = folder / NOT_LEARNT_FROM
    path.unlink(missing_ok=True)
    if training_set.kept_out:
        with writing(path) as file:
            file.writelines(f"{name}\n" for name in training_set.kept_out)


def _unlabelled(folder: str, classes: tuple[DetectionClass, ...], problems: Problems) -> TrainingSet:
    """The images of a folder, each with no box and no class that is completely labelled."""
    nothing = np.empty(0, np.int64)
    found = [
        annotated_image(
            file.name, file.path, nothing, nothing, np.zeros(len(classes), np.bool_), problems, drawn=False
        )
        for file in find_images([folder])
    ]
    return TrainingSet(classes, tuple(image for image in found if image is not None))


def read_with_boxes(
    config: DataConfig,
    problems: Problems,
    *,
    seed: int,
    keep: Path | None = None,
    progress: Progress = lambda done, total: None,
    validation: TrainingSet | None = None,
) -> tuple[TrainingSet, list[np.ndarray]]:
    """The usable images of a configuration and the proposals (N, 4) of each.

    Args:
        seed: Of the ranking of proposals.
        keep: File for proposals that are made, see `boxes_of_images`.
        progress: Called with the numbers of images done and to do.
        validation: Images to measure on, whose classes have to be the same.

    Raises:
        OSError, ValueError: As `read_data`, or the classes differ.
    """
    search = region_search(config.proposals, seed)
    whole = read_data(config, problems)
    if validation is not None and validation.classes != whole.classes:
        raise ValueError("the validation images have other classes than the training images")
    return boxes_of_images(
        whole,
        problems,
        num_proposals=config.num_proposals,
        search=search,
        proposal_files=config.proposal_files,
        keep=keep,
        progress=progress,
    )


def region_search(arguments: dict[str, Any], seed: int) -> SelectiveSearch:
    """The search of `DataConfig.proposals`.

    Raises:
        ValueError: It has no such argument, or not of this value.
    """
    known = [name for name in inspect.signature(SelectiveSearch).parameters if name != "seed"]
    for name, value in arguments.items():
        if name not in known:
            raise ValueError(f"--data.proposals has no {name!r}; it has {', '.join(known)}")
        try:
            SelectiveSearch(**{name: value})
        except TypeError:  # a value of another type
            raise ValueError(f"--data.proposals.{name} is {value!r}, which is no value for it") from None
    return SelectiveSearch(**arguments, seed=seed)


def read_regions(
    config: DataConfig,
    problems: Problems,
    *,
    seed: int,
    keep: Path | None = None,
    progress: Progress = lambda done, total: None,
    validation: TrainingSet | None = None,
) -> RegionTable:
    """The regions of all images of a configuration; the arguments are those of `read_with_boxes`."""
    training_set, boxes = read_with_boxes(
        config, problems, seed=seed, keep=keep, progress=progress, validation=validation
    )
    return region_table(
        training_set,
        boxes.__getitem__,
        positive_iou=config.positive_iou,
        background_iou=config.background_iou,
    )
