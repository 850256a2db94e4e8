"""Lines of seven numbers (the ILSVRC submission format) to arrays, compiled and in parallel chunks."""

# numba infers the types of compiled functions, so they carry no annotations.
# mypy: allow-untyped-defs, no-check-untyped-defs

import itertools
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from eval.compiled import compiled
from eval.number_parser import ASK_PYTHON, MALFORMED, parse_integer, parse_number
from eval.parallel import thread_count, thread_map

FIELDS = 7  # image_index det_id confidence xmin ymin xmax ymax
_NEWLINE, _SPACE = 10, 32
_CHUNK_BYTES = 1 << 22  # enough work to hide the hand-over between threads


class Rows(NamedTuple):
    """The numbers of N lines; `bad_line` is the byte where the first unreadable line begins, -1 if none."""

    image_index: npt.NDArray[np.int64]  # (N,)
    class_id: npt.NDArray[np.int64]  # (N,)
    scores: npt.NDArray[np.float64]  # (N,) confidence
    boxes: npt.NDArray[np.float64]  # (N, 4)
    bad_line: int


@compiled
def _parse_lines(text, start, stop, image_index, class_id, scores, boxes, row, doubtful):
    """Fill the arrays from `row` on; return (next row, start of the first bad line or -1, doubts).

    `doubtful` (K, 4) collects (row, field, begin, end) of numbers that Python has to round. A line is bad
    when it is not two integers and five numbers, or when `doubtful` is full.
    """
    at, doubts = start, 0
    while at < stop:
        while at < stop and (text[at] == _SPACE or 9 <= text[at] <= 13):  # also skips blank lines
            at += 1
        if at >= stop:
            break
        line = at
        for field in range(FIELDS):
            if field > 0:
                begin = at
                while at < stop and text[at] != _NEWLINE and (text[at] == _SPACE or 9 <= text[at] <= 13):
                    at += 1
                if at == begin:
                    return row, line, doubts
            if field < 2:
                whole, at, found = parse_integer(text, at, stop)
                if not found:
                    return row, line, doubts
                if field == 0:
                    image_index[row] = whole
                else:
                    class_id[row] = whole
            else:
                begin = at
                value, at, status = parse_number(text, at, stop)
                if status == MALFORMED:
                    return row, line, doubts
                if status == ASK_PYTHON:
                    if doubts == len(doubtful):
                        return row, line, doubts
                    doubtful[doubts, 0], doubtful[doubts, 1] = row, field
                    doubtful[doubts, 2], doubtful[doubts, 3] = begin, at
                    doubts += 1
                if field == 2:
                    scores[row] = value
                else:
                    boxes[row, field - 3] = value
        while at < stop and text[at] != _NEWLINE:
            if text[at] != _SPACE and not 9 <= text[at] <= 13:
                return row, line, doubts
            at += 1
        row += 1
    return row, -1, doubts


def _chunk_bounds(text: npt.NDArray[np.uint8]) -> list[int]:
    """Cut points at line starts, so that each chunk is whole lines."""
    pieces = max(1, min(len(text) // _CHUNK_BYTES, 8 * thread_count()))
    bounds = [0]
    for piece in range(1, pieces):
        at = max(len(text) * piece // pieces, bounds[-1])
        newline = bytes(text[at : at + (1 << 16)]).find(b"\n")
        if newline >= 0:  # a line of more than 64 KiB is no detection: its chunk simply grows
            bounds.append(at + newline + 1)
    return [*bounds, len(text)]


def parse_rows(text: npt.NDArray[np.uint8]) -> Rows:
    """Parse `text` (bytes of a file) into rows; numbers equal `float` of their text to the last bit."""
    bounds = _chunk_bounds(text)
    chunks = list(itertools.pairwise(bounds))
    lines = thread_map(lambda chunk: int(np.count_nonzero(text[slice(*chunk)] == _NEWLINE)), chunks)
    lines[-1] += len(text) > 0 and text[-1] != _NEWLINE
    offsets = np.concatenate(([0], np.cumsum(lines)))
    image_index = np.empty(offsets[-1], np.int64)
    class_id = np.empty(offsets[-1], np.int64)
    scores = np.empty(offsets[-1])
    boxes = np.empty((offsets[-1], 4))

    def parse(piece: int) -> tuple[int, int]:
        # Numbers that Python has to round are few; where they fill their place, there is one for all.
        for room in (64 + lines[piece] // 4, (FIELDS - 2) * lines[piece]):
            doubtful = np.empty((room, 4), np.int64)
            stop, bad_line, doubts = _parse_lines(
                text, *chunks[piece], image_index, class_id, scores, boxes, offsets[piece], doubtful
            )
            if doubts < room:
                break
        for row, field, begin, end in doubtful[:doubts].tolist():
            value = float(bytes(text[begin:end]))
            if field == 2:
                scores[row] = value
            else:
                boxes[row, field - 3] = value
        return int(stop), int(bad_line)

    parsed = thread_map(parse, range(len(chunks)))
    bad_line = next((bad for _, bad in parsed if bad >= 0), -1)
    end = 0
    for (stop, _), offset in zip(parsed, offsets, strict=False):
        # Close the gaps that blank lines left.
        rows = stop - offset
        if end != offset:
            for array in (image_index, class_id, scores, boxes):
                array[end : end + rows] = array[offset:stop]
        end += rows
    return Rows(image_index[:end], class_id[:end], scores[:end], boxes[:end], bad_line)
