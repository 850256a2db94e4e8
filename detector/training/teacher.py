"""What a zero-shot classifier thinks of regions: training holds on to it where nobody has said what they show."""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from detector.googlenet import GoogLeNet
from detector.region_classifier import RegionClassifier
from detector.runtime import Runtime
from detector.taxonomy import DetectionClass, ZeroShotScores
from detector.training.features import (
    Progress,
    cached_features,
    mapped,
    name_of_file,
    region_features,
    source_of,
)
from detector.training.sampling import RegionTable

_BLOCK = 128  # regions that are judged at a time
Blocks = Callable[..., Iterator[np.ndarray]]  # start: int -> opinions (n, C + 1) of the regions from there on


class Teacher(NamedTuple):
    """A network's opinion of every region of a table, for `losses.teacher_loss`."""

    probabilities: np.ndarray  # (R, C + 1)
    weight: float
    label_shares: np.ndarray | None = (
        None  # (C,), of a label against the teacher's opinion of an object's class
    )

    def __reduce__(self) -> tuple[Any, ...]:
        """For worker processes, see `name_of_file`."""
        return _teacher, (name_of_file(self.probabilities), self.weight, self.label_shares)


def _teacher(probabilities: np.ndarray | str, weight: float, shares: np.ndarray | None) -> Teacher:
    return Teacher(mapped(probabilities), weight, shares)


def label_shares(objects: np.ndarray, teacher_objects: float, least: float) -> np.ndarray | None:
    """How much a label counts against the teacher's opinion, by class; None where it is all that counts.

    As if the teacher had shown `teacher_objects` more objects of every class: where thousands of boxes tell what a
    person looks like, a classifier's opinion is noise, and where four tell of the banjo, it is most of what is known.

    Args:
        objects: (C,) annotated objects of each class; one in a small copy of an image counts once more.
        teacher_objects: So many objects the teacher's opinion is worth; 0 leaves `least` alone.
        least: Share of the labels of the rarest classes, and of all if `teacher_objects` is 0.

    Returns:
        (C,) float32 of `least`..1.
    """
    if teacher_objects:
        shares = np.maximum(objects / (objects + teacher_objects), least)
    else:
        shares = np.full(len(objects), least)
    return None if (shares == 1).all() else shares.astype(np.float32)


def check_judge(judge: RegionClassifier, classes: tuple[DetectionClass, ...] | None = None) -> None:
    """Say what cannot be a teacher, before the long work.

    Args:
        classes: Of the training data, where they are known.

    Raises:
        ValueError: The judge has learnt its scores, or has other classes than the data.
    """
    if not isinstance(judge.class_scores, ZeroShotScores):
        raise ValueError(
            "--teacher-weight: these weights have no zero-shot scores to hold on to; for the 200 ILSVRC classes add"
            " --teacher bvlc, for classes of your own --teacher-weight 0"
        )
    if classes is not None and classes != judge.classes:
        raise ValueError(
            "--teacher-weight: zero-shot scores are of the 200 ILSVRC classes, and the training data has others; use"
            " --teacher-weight 0"
        )


def kept_opinions(
    judge: RegionClassifier, table: RegionTable, blocks: Blocks, path: Path, *, progress: Progress
) -> np.ndarray:
    """Opinions (R, C + 1) float16 of all regions, from the file `path` where they are in it."""
    return cached_features(path, table, blocks, key=source_of(judge) | {"teacher": True}, progress=progress)


def opinions_of_pixels(judge: RegionClassifier, run: Runtime, table: RegionTable, batch_size: int) -> Blocks:
    """Of a judge that `run` runs, on regions cut from their images."""
    return partial(
        region_features,
        table,
        lambda pixels: with_background(torch.from_numpy(run(pixels))).numpy(),
        preprocessing=judge.preprocessing,
        batch_size=batch_size,
    )


def opinions_of_features(
    judge: RegionClassifier, features: np.ndarray, tap: str, device: torch.device
) -> Blocks:
    """Of a judge whose own features (R, ...) of the stage `tap` are known."""

    @torch.inference_mode()
    def blocks(*, start: int) -> Iterator[np.ndarray]:
        network = judge.eval().to(device).to(memory_format=torch.channels_last).network
        assert isinstance(network, GoogLeNet)
        for first in range(start, len(features), _BLOCK):
            block = torch.from_numpy(features[first : first + _BLOCK].astype(np.float32)).to(device)
            yield with_background(judge.class_scores(network.resume(block, after=tap))).cpu().numpy()

    return blocks


def with_background(scores: Tensor) -> Tensor:
    """Scores of the classes (R, C) -> probabilities (R, C + 1): background is what is none of the classes."""
    return torch.cat([scores, (1 - scores.sum(dim=1, keepdim=True)).clamp_min(0)], dim=1)


def doubted(opinions: np.ndarray, table: RegionTable, trust: float) -> np.ndarray:
    """Opinions (R, C + 1) with, on background of images with boxes, only a share of what is said of the classes."""
    if trust == 1:
        return opinions
    background = len(table.training_set.classes)
    rows = (table.labels == background) & table.drawn[table.image]
    changed = np.array(opinions)
    changed[rows, :-1] *= np.float16(trust)
    changed[rows, -1] = (1 - changed[rows, :-1].astype(np.float32).sum(axis=1)).clip(0)
    return changed
