"""What is prepared ahead is what would have been prepared in turn."""

import threading
import time

import pytest

from detector.ahead import ahead


@pytest.mark.parametrize("workers", [0, 1, 3, 20])
@pytest.mark.parametrize("count", [0, 1, 7])
def test_in_order_with_each_ones_error(workers: int, count: int) -> None:
    def prepare(number: int) -> int:
        time.sleep(0.002 * ((number * 5) % 3))  # they finish in another order
        if number % 3 == 2:
            raise ValueError(f"{number} is bad")
        return number * number

    seen: list[tuple[int, int | str]] = []
    for number, result in ahead(prepare, range(count), workers):
        try:
            seen.append((number, result()))
        except ValueError as error:
            seen.append((number, str(error)))
    assert seen == [(n, f"{n} is bad" if n % 3 == 2 else n * n) for n in range(count)]


def test_no_more_wait_than_there_are_workers() -> None:
    started: list[int] = []
    for number, result in ahead(started.append, range(10), 2):
        result()
        assert max(started) <= number + 2


def test_without_workers_nothing_is_done_before_it_is_asked_for() -> None:
    started: list[int] = []
    for number, result in ahead(started.append, range(3), 0):
        assert number not in started
        result()
    assert started == [0, 1, 2]


def test_an_interruption_cancels_what_waits() -> None:
    release = threading.Event()
    started: list[int] = []

    def prepare(number: int) -> None:
        started.append(number)
        release.wait(5)

    rest = ahead(prepare, range(10), 1)
    _, result = next(rest)
    release.set()
    result()
    rest.close()  # type: ignore[attr-defined]  # a generator
    assert len(started) <= 2
