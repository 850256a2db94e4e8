"""Work on the next things while the one before them is dealt with: a GPU scores, the cores propose."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def ahead(
    prepare: Callable[[Item], Result], items: Iterable[Item], workers: int
) -> Iterator[tuple[Item, Callable[[], Result]]]:
    """Every item in its order, and what gives `prepare(item)`, or raises its error.

    Args:
        prepare: Called from several threads if there are workers.
        items: Asked for one by one, `workers` ahead of what is yielded, so that no more results wait in memory.
        workers: Threads; 0 prepares each item when its result is asked for.
    """
    if workers < 1:
        for item in items:
            yield item, partial(prepare, item)
        return
    pool = ThreadPoolExecutor(workers)
    waiting: deque[tuple[Item, Callable[[], Result]]] = deque()
    try:
        for item in items:
            waiting.append((item, pool.submit(prepare, item).result))
            if len(waiting) > workers:
                yield waiting.popleft()
        while waiting:
            yield waiting.popleft()
    finally:
        pool.shutdown(cancel_futures=True)  # when interrupted, without those that wait
