"""Where the seconds go: one clock a stage of the pipeline."""

import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock


class StageTimer:
    """Adds up the wall time of named stages and counts what they worked on.

    Stages of several threads may run at once: then the sum is more than has passed.
    """

    def __init__(self) -> None:
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self.counts: Counter[str] = Counter()
        self._lock = Lock()

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time the block; a stage may run any number of times."""
        start = time.perf_counter()
        try:
            yield
        finally:
            with self._lock:
                self.seconds[name] += time.perf_counter() - start

    def count(self, name: str, number: int) -> None:
        """Add to a count."""
        self.counts[name] += number
