"""From a configuration and the names of images to a result file, with what a person sees on the way."""

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from rich.console import Console

from detector.command_line import check_folder, check_outputs
from detector.configuration import (
    DetectorConfig,
    build_detector,
    labels_of,
    number_of_workers,
    sources,
    stored_boxes,
)
from detector.detections import FILE_NAMES, Format, check_official
from detector.images import ImageFile, find_images
from detector.job import Report, is_picture, plan, run_job
from detector.job_display import JobDisplay
from detector.stage_timer import StageTimer
from detector.weights import WeightsRecord, describe, load_weights
from eval.dataset import Category, ImageSet
from eval.ilsvrc import read_image_list
from eval.image_names import read_name_list
from proposals.files import find_shards


def detect_files(
    config: DetectorConfig,
    patterns: Sequence[str],
    *,
    output: Path,
    format: Format = "coco",
    image_list: str | Path | None = None,
    only: ImageSet | None = None,
    known: tuple[Category, ...] | None = None,
    resume: bool = False,
    pictures: bool = True,
) -> tuple[Report, StageTimer]:
    """Detect in images, showing progress and failures on stderr.

    Args:
        patterns: Files, folders, globs.
        output: Folder of the result file and the pictures.
        image_list: Lines `name`, or ILSVRC's `name index`, which numbers the images: others are left out.
        only: Leave out all other images, and say how many they are.
        known: Likewise all other classes, unless the configuration names those to report, which then all must be known.
        resume: Go on where a run that was stopped had come to.
        pictures: Also write an annotated picture of each image.

    Returns:
        How it went, and the seconds of each stage.

    Raises:
        OSError, ValueError: What keeps the whole job from beginning, in one sentence.
    """
    console = Console(stderr=True, highlight=False)
    check_folder(output)
    images = find_images(patterns, leave_out=lambda path: is_picture(path, output))
    indices = None
    if image_list:
        names = read_name_list(image_list)
        if names is None:
            indices = read_image_list(image_list)
            names = list(indices)
        elif format == "ilsvrc":
            raise ValueError(
                f"{image_list}: --format ilsvrc needs the index of each image, lines `name index`"
            )
        images = _listed(names, images, console, image_list)
    if only is not None:
        images = _those_of(only, images, console, "annotated")
    tasks, unplanned = plan(images, output, indices)
    written = [output / FILE_NAMES[format], *(task.picture for task in tasks if pictures)]
    read: list[tuple[str, str | Path]] = [("image", image.path) for image in images]
    if image_list:
        read.append(("image-list", image_list))
    check_outputs((("output", path) for path in written), read)
    if known is not None:
        config = _of_known_classes(config, known, console)
    detector = build_detector(config)
    if format == "ilsvrc":
        check_official(detector.scorer.classes)
    weights = ", ".join(describe(source) for source in sources(config))
    console.print(f"weights: {weights}", markup=False, soft_wrap=True)
    with JobDisplay(console, total=len(tasks)) as display:
        for sentence in unplanned.values():
            display.failure(sentence)
        report = run_job(
            detector,
            tasks,
            output=output,
            format=format,
            # also where none were named, and where a file of that name has been trained again
            settings=config.what_decides_the_result()
            | {"weights": [weights, *map(_digest, sources(config))]}
            | {"proposal_files": _with_digests(config.proposal_files)},
            boxes_of=stored_boxes(config, [image.name for image in images]),
            workers=number_of_workers(config),
            resume=resume,
            pictures=pictures,
            on_image=display.image,
            on_regions=display.regions,
            on_failure=display.failure,
        )
    report.failures = unplanned | report.failures
    failed, total = len(report.failures), len(images)
    if failed and total > 1:  # of a single one all has been said
        if report.result is None:
            console.print(f"none of the {total} images could be processed; nothing written")
        else:
            these = ", ".join(report.failures)
            console.print(f"{failed} of {total} images failed: {these}", markup=False, soft_wrap=True)
    return report, detector.timer


def _digest(source: WeightsRecord | Path) -> str:
    if isinstance(source, WeightsRecord):
        return source.sha256
    with source.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _with_digests(proposal_files: list[str] | None) -> list[str] | None:
    if proposal_files is None:
        return None
    return [*proposal_files, *map(_digest, find_shards(proposal_files))]


def _listed(
    names: list[str], images: list[ImageFile], console: Console, image_list: str | Path
) -> list[ImageFile]:
    """The images that a list names, and how many others there are on either side."""
    listed = ImageSet(np.arange(len(names)), tuple(names))
    chosen = _those_of(listed, images, console, f"in {image_list}")
    if len(chosen) < len(names):
        absent = f"{len(names) - len(chosen)} of {len(names)} images in {image_list} are not among --image"
        console.print(absent, markup=False, soft_wrap=True)
    return chosen


def _those_of(known: ImageSet, images: list[ImageFile], console: Console, what: str) -> list[ImageFile]:
    """The images that are known, and how many others there are; `what` says what these are not."""
    positions = known.distinct_positions_of([image.name for image in images])
    chosen = [image for image, position in zip(images, positions, strict=True) if position >= 0]
    if not chosen:
        raise ValueError(f"none of the {len(images)} images is {what} (such as {images[0].name})")
    if len(chosen) < len(images):
        left_out = f"{len(images) - len(chosen)} of {len(images)} images are not {what}: left out"
        console.print(left_out, markup=False, soft_wrap=True)
    return chosen


def _of_known_classes(
    config: DetectorConfig, known: tuple[Category, ...], console: Console
) -> DetectorConfig:
    """The configuration, told to report no class that is not known.

    Raises:
        ValueError: It names one that is not, or none of its classes is.
    """
    from eval.coco_lists import translate_categories  # not for those who only detect: it waits for numba

    classes = load_weights(sources(config)[0]).classes
    labels = list(range(len(classes))) if config.classes is None else labels_of(config.classes, classes)
    wanted = [Category(classes[label].id, classes[label].name, classes[label].wnid) for label in labels]
    there = translate_categories(wanted, known) >= 0
    strange = [kind.name for kind, is_there in zip(wanted, there, strict=True) if not is_there]
    if strange and (config.classes is not None or not there.any()):
        names, theirs = (", ".join(map(repr, some[:5])) for some in (strange, [kind.name for kind in known]))
        raise ValueError(
            f"the annotations have no class {names}, which the detector reports; they have {theirs}, ..."
        )
    if strange:
        console.print(
            f"{len(strange)} of {len(wanted)} classes are not among those of the annotations: left out"
        )
        found = [kind.name for kind, is_there in zip(wanted, there, strict=True) if is_there]
        config = replace(config, classes=found)
    return config
