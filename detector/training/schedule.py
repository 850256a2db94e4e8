"""The learning rate of every step."""

import math
from dataclasses import dataclass
from typing import Literal

from detector.training.ranges import above, at_least


@dataclass(frozen=True)
class Schedule:
    """How the learning rate goes down.

    Attributes:
        kind: `step` is the paper's: times `factor` every `every_epochs`; `cosine` goes down to 0 at the end.
        factor: Of `step`.
        every_epochs: Of `step`.
        warmup_steps: Steps over which the rate first rises from 0; at most a quarter of all, however short the run.
    """

    kind: Literal["step", "cosine", "constant"] = "step"
    factor: float = 0.96
    every_epochs: float = 8
    warmup_steps: int = 0

    def __post_init__(self) -> None:
        """Refuse what makes no sense."""
        above(self, 0, "every_epochs", "factor", part="fit.schedule")
        at_least(self, 0, "warmup_steps", part="fit.schedule")

    def factor_at(self, step: int, *, steps: int, steps_per_epoch: int) -> float:
        """What to multiply the learning rate by in a step, counted from 0, of `steps`."""
        warmup = min(self.warmup_steps, steps // 4)
        if step < warmup:
            return (step + 1) / (warmup + 1)
        if self.kind == "step":
            return self.factor ** math.floor(step / steps_per_epoch / self.every_epochs)
        if self.kind == "cosine":
            share = (step - warmup) / max(steps - warmup, 1)
            return 0.5 * (1 + math.cos(math.pi * min(share, 1.0)))
        return 1.0
