"""Ctrl-C between two steps: the step in progress ends first, so that a run can go on from there."""

import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

_STOPPING = b"\nstopping after this step; Ctrl-C again stops at once\n"


@contextmanager
def interruptible(active: bool) -> Iterator[Callable[[], bool]]:
    """Give a function that says whether Ctrl-C was pressed within; a second one interrupts as usual.

    Where Ctrl-C is ignored, as in a run that a shell put into the background, it goes on being so.

    Args:
        active: False changes nothing: several processes would end after different steps.
    """
    asked = False
    before = signal.getsignal(signal.SIGINT)
    if not active or before is signal.SIG_IGN or threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return

    def note(_signal: int, _frame: FrameType | None) -> None:
        nonlocal asked
        asked = True
        signal.signal(signal.SIGINT, before)
        os.write(2, _STOPPING)  # not by `print`, which this may have interrupted

    signal.signal(signal.SIGINT, note)
    try:
        yield lambda: asked
    finally:
        signal.signal(signal.SIGINT, before)


def until(asked: Callable[[], bool], batches: Iterable[Any]) -> Iterator[Any]:
    """The batches up to that in whose step it was asked to stop; Ctrl-C ends the processes that prepare them, too."""
    try:
        for batch in batches:
            if asked():
                return
            yield batch
            if asked():
                return
    except RuntimeError:
        if not asked():
            raise
