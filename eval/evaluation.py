"""What an evaluation says: one row a class, and the means over them."""

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from eval.average_precision import AREA, ELEVEN_POINTS, HUNDRED_AND_ONE_POINTS
from eval.dataset import Annotations, Detections
from eval.matching import Matches


class ClassResult(NamedTuple):
    """One row of the table; `ap` and `recall` in [0, 1], NaN for a class without ground truth."""

    id: int
    wnid: str
    name: str
    ap: float
    recall: float
    num_gt: int
    num_detections: int


@dataclass(frozen=True)
class Evaluation:
    """What a protocol says about one set of detections. Means run over the classes that have ground truth.

    `matches` holds the outcome of every detection (None for coco, which has ten thresholds); `summary` the
    further figures of a protocol by their usual names (COCO's twelve).
    """

    protocol: str
    iou: float
    classes: tuple[ClassResult, ...]
    detections: Detections
    annotations: Annotations
    matches: Matches | None = None
    summary: dict[str, float] = field(default_factory=dict)

    @property
    def num_images(self) -> int:
        """Images evaluated, with or without boxes."""
        return len(self.annotations.images)

    @property
    def images_unseen(self) -> int:
        """Annotated images that the detector is known not to have looked at: their objects count as missed."""
        seen = self.detections.images_seen
        return 0 if seen is None else self.num_images - seen

    @property
    def style(self) -> int:
        """How this protocol reads the curve: one of the styles of eval.average_precision."""
        return {"voc2007": ELEVEN_POINTS, "coco": HUNDRED_AND_ONE_POINTS}.get(self.protocol, AREA)

    @property
    def counted(self) -> list[ClassResult]:
        """The classes that have ground truth."""
        return [row for row in self.classes if row.num_gt > 0]

    @property
    def mean_ap(self) -> float:
        """Mean AP, NaN if no class has ground truth."""
        return float(np.mean([row.ap for row in self.counted])) if self.counted else float("nan")

    @property
    def median_ap(self) -> float:
        """Median AP, NaN if no class has ground truth."""
        return float(np.median([row.ap for row in self.counted])) if self.counted else float("nan")
