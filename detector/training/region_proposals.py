"""The proposals of training images: read from files, or made on the fly and kept for the next run."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from detector.images import read_image
from detector.training.problems import Problems
from detector.training.training_set import AnnotatedImage, TrainingSet
from proposals import ProposalFile, SelectiveSearch
from proposals.files import by_rank, read_shard, write_shard

Progress = Callable[[int, int], None]


def boxes_of_images(
    training_set: TrainingSet,
    problems: Problems,
    *,
    num_proposals: int | None,
    search: SelectiveSearch,
    proposal_files: Sequence[str] | None = None,
    keep: Path | None = None,
    progress: Progress = lambda done, total: None,
) -> tuple[TrainingSet, list[np.ndarray]]:
    """Best-ranked boxes of every image, and the images that have some: unreadable ones are problems.

    Args:
        num_proposals: Most boxes of an image; None takes all.
        search: Makes the boxes where `proposal_files` is None.
        keep: File for boxes that were made, by the images' content; what it holds is not made again.
        progress: Called with the numbers of images done and to do.
    """
    stored = None if proposal_files is None else ProposalFile(list(proposal_files))
    made = _kept(keep, search.settings)
    images: list[AnnotatedImage] = []
    boxes: list[np.ndarray] = []
    read: set[Path] = set()
    fresh = 0
    for done, image in enumerate(training_set.images):
        progress(done, len(training_set))
        try:
            if stored is not None:
                found = stored.boxes(image.name)
                if image.path not in read:  # said now, not after hours of training
                    read_image(image.path)
                    read.add(image.path)
            elif (place := _place(image)) in made:
                found = made[place]
            else:
                found = made[place] = search(image.pixels())
                fresh += 1
                if keep is not None and fresh % 200 == 0:  # so that a stopped run loses little
                    _keep(keep, made, search.settings)
        except (OSError, ValueError) as error:
            unreadable = stored is None or isinstance(error, OSError)
            problems.add("unreadable image" if unreadable else "image without proposals", str(error))
            continue
        images.append(image)
        boxes.append(found[:num_proposals])
    progress(len(training_set), len(training_set))
    if not images:
        raise ValueError(
            f"none of the {len(training_set)} training images can be used ({problems.summary()})"
        )
    if keep is not None and fresh:
        _keep(keep, made, search.settings)
    return replace(training_set, images=tuple(images)), boxes


def _place(image: AnnotatedImage) -> str:
    """What the boxes of an image go by in the file that keeps them; another picture under its name has others."""
    side = "" if image.stored_side is None else f"@{image.stored_side}"
    return f"{image.path.name}{side} {image.digest}"


def _kept(path: Path | None, settings: dict[str, Any]) -> dict[str, np.ndarray]:
    if path is None or not path.is_file():
        return {}
    shard = read_shard(path)
    if shard.settings != settings:
        return {}  # made in another way: to be made again
    return {name: shard.proposals(index).boxes for index, name in enumerate(shard.names)}


def _keep(path: Path, made: dict[str, np.ndarray], settings: dict[str, Any]) -> None:
    write_shard(path, {name: by_rank(boxes) for name, boxes in made.items()}, settings)
