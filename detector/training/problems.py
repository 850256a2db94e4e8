"""What is wrong with training data: refused at once, or left out, named and counted at the end."""

import sys
from collections import Counter
from collections.abc import Callable
from typing import Any, Literal

Policy = Literal["skip", "refuse"]
SHOWN = 3  # problems of a kind that are named when they occur; all are counted


class Problems:
    """Collects what is wrong with the data, each in one sentence.

    Args:
        policy: `refuse` raises ValueError at the first; `skip` leaves out what it is about.
        report: Told the first few problems of each kind when they occur. Another process, such as one that prepares
            batches, has a copy, which tells stderr and counts on its own.
    """

    def __init__(
        self, policy: Policy = "skip", report: Callable[[str], None] = lambda sentence: None
    ) -> None:
        self.policy = policy
        self.report = report
        self.counts: Counter[str] = Counter()

    def add(self, kind: str, sentence: str) -> None:
        """Note a problem of a kind, such as "box outside the image".

        Raises:
            ValueError: The policy is to refuse.
        """
        if self.policy == "refuse":
            raise ValueError(sentence)
        self.note(kind, sentence)

    def note(self, kind: str, sentence: str) -> None:
        """Note what may well be meant, and is never refused."""
        self.counts[kind] += 1
        if self.counts[kind] <= SHOWN:
            self.report(sentence)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"report": _tell}  # a display stays in the process that has the screen

    def summary(self) -> str:
        """One line: how many of each kind were left out; empty if there were none."""
        return ", ".join(f"{count} x {kind}" for kind, count in sorted(self.counts.items()))


def _tell(sentence: str) -> None:
    print(f"left out: {sentence}", file=sys.stderr)
