"""From what a network was trained to name to what a detector reports: the 200 ILSVRC detection classes.

The 1000 classification classes and the 200 detection classes (DET) are nodes of the same WordNet trees. 495 of
the 1000 fall under one of the 200, none under two, and every one of the 200 has at least one; so a network with
1000 classification outputs is a 200-class detector at once.
"""

import csv
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

import torch
from torch import Tensor, nn

from eval.ilsvrc import DET_CLASSES


@dataclass(frozen=True)
class DetectionClass:
    """A class a detector reports.

    Attributes:
        id: Category id in result files: the official 1..200 for the DET classes.
        name: What people read.
        wnid: WordNet id, for classes that have one.
    """

    id: int
    name: str
    wnid: str = ""


DET200: tuple[DetectionClass, ...] = tuple(
    DetectionClass(det.det_id, det.name, det.wnid) for det in DET_CLASSES
)


@dataclass(frozen=True)
class ClassificationClass:
    """One of the 1000 ILSVRC classification classes, and the detection class it falls under, if any."""

    index: int
    wnid: str
    name: str
    det_id: int | None


@cache
def classification_classes() -> tuple[ClassificationClass, ...]:
    """The 1000 classes in the order of the networks' outputs (sorted by WordNet id)."""
    table = files("detector") / "data" / "cls1000_to_det200.csv"
    return tuple(
        ClassificationClass(
            index=int(row["cls_index"]),
            wnid=row["cls_wnid"],
            name=row["cls_name"],
            det_id=int(row["det_id"]) if row["det_id"] else None,
        )
        for row in csv.DictReader(table.read_text(encoding="utf-8").splitlines())
    )


def membership() -> Tensor:
    """(1000, 200): 1 where the classification class falls under the detection class, else 0."""
    matrix = torch.zeros(len(classification_classes()), len(DET200))
    for classification in classification_classes():
        if classification.det_id is not None:
            matrix[classification.index, classification.det_id - 1] = 1
    return matrix


class ZeroShotScores(nn.Module):
    """Score of a DET class: the sum of the softmax over the classification classes that fall under it.

    Args:
        temperature: Divides the logits; above 1 it softens the distribution.
    """

    membership: Tensor  # (1000, 200)

    def __init__(self, temperature: float = 1.0) -> None:
        super().__init__()
        if not temperature > 0:
            raise ValueError(f"temperature is {temperature}, but must be above 0")
        self.temperature = temperature
        self.register_buffer("membership", membership(), persistent=False)

    def forward(self, logits: Tensor) -> Tensor:
        """Logits (R, 1000) -> scores (R, 200); a row sums to at most 1, the rest is none of the 200."""
        return (logits / self.temperature).softmax(dim=1) @ self.membership


class TrainedScores(nn.Module):
    """Scores of a network trained for detection: softmax over the classes and, last, background."""

    def forward(self, logits: Tensor) -> Tensor:
        """Logits (R, C + 1) -> scores (R, C)."""
        return logits.softmax(dim=1)[:, :-1]
