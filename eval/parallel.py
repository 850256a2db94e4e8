"""Threads for compiled loops: numba code runs without the interpreter's lock, so plain threads suffice."""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


def thread_count() -> int:
    """Cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def thread_map(function: Callable[[T], R], tasks: Sequence[T]) -> list[R]:
    """`[function(task) for task in tasks]` on all cores, results in the order of the tasks."""
    workers = min(thread_count(), len(tasks))
    if workers <= 1:
        return [function(task) for task in tasks]
    with ThreadPoolExecutor(workers) as pool:
        return list(pool.map(function, tasks))
