"""The `annotations` or results array of COCO JSON to arrays, compiled and in parallel chunks.

Only the layout that writers really produce is read here: an array of objects with plain keys and numbers.
Everything else makes `parse_records` return None, and the caller lets Python's json decide what it means.
"""

# numba infers the types of compiled functions, so they carry no annotations.
# mypy: allow-untyped-defs, no-check-untyped-defs

import itertools
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from eval.compiled import compiled
from eval.json_template import (
    AREA,
    BOX,
    CATEGORY,
    CROWD,
    ID,
    IGNORE,
    IMAGE,
    NO_TEMPLATE,
    SCORE,
    Template,
    parse_alike,
    template_of,
)
from eval.number_parser import ASK_PYTHON, OK, parse_integer, parse_number
from eval.parallel import thread_count, thread_map

HAS_ID, HAS_IMAGE, HAS_CATEGORY, HAS_BOX, HAS_SCORE, HAS_AREA, HAS_IGNORE = 1, 2, 4, 8, 16, 32, 64
_QUOTE, _BACKSLASH, _COMMA, _COLON = 34, 92, 44, 58
_OPEN, _CLOSE, _OPEN_ARRAY, _CLOSE_ARRAY = 123, 125, 91, 93
_CHUNK_BYTES = 1 << 22
_KEYS = tuple(
    np.frombuffer(key, np.uint8).copy()
    for key in (b"id", b"image_id", b"category_id", b"iscrowd", b"ignore", b"score", b"area", b"bbox")
)


class Records(NamedTuple):
    """N objects; `present` tells which of the optional values each has, `end` is the byte after the array."""

    whole: npt.NDArray[np.int64]  # (4, N) id, image_id, category_id, iscrowd (0 where absent)
    boxes: npt.NDArray[np.float64]  # (N, 4) bbox: x, y, width, height
    scores: npt.NDArray[np.float64]  # (N,)
    areas: npt.NDArray[np.float64]  # (N,)
    present: npt.NDArray[np.uint8]  # (N,) HAS_ID | HAS_IMAGE | ...
    ignore: npt.NDArray[np.bool_]  # (N,) whether `ignore` is there and 1
    end: int


@compiled
def skip_space(text, at, stop):
    """First byte from `at` on that is not JSON white space."""
    while at < stop and (text[at] == 32 or text[at] == 10 or text[at] == 13 or text[at] == 9):
        at += 1
    return at


@compiled
def skip_value(text, at, stop):
    """Byte after the JSON value that starts at `at`, -1 if it does not end before `stop`."""
    depth = 0
    while at < stop:
        byte = text[at]
        if byte == _QUOTE:
            at += 1
            while at < stop and text[at] != _QUOTE:
                at += 2 if text[at] == _BACKSLASH else 1
            if at >= stop:
                return -1
            at += 1
            if depth == 0:
                return at
            continue
        if byte in (_OPEN, _OPEN_ARRAY):
            depth += 1
        elif byte in (_CLOSE, _CLOSE_ARRAY):
            depth -= 1
            if depth == 0:
                return at + 1
            if depth < 0:
                return at
        elif depth == 0 and (byte == _COMMA or byte <= 32):
            return at
        at += 1
    return -1


@compiled
def _is_key(text, start, name):
    for i in range(len(name)):  # noqa: SIM110 (this is compiled)
        if text[start + i] != name[i]:
            return False
    return True


@compiled
def _parse_objects(
    text, at, limit, stop, keys, words, masks, start, lengths, targets, alike, whole, boxes, scores, areas,
    present, row, doubtful,
):  # fmt: skip
    """Read objects from `at` until the array ends or an object would start at or after `limit`.

    Returns (next row, where it stopped, doubtful numbers); stopping at -1 means a layout not read here.
    `doubtful` (K, 4) collects (row, column, begin, end) of numbers that Python has to round. The arrays of a
    template (eval.json_template) come one by one; `alike` is what its objects have, 0 without a template.
    """
    doubts = 0
    others = 0  # objects of another form in a row; where they are many, the template is given up
    while at < limit:
        if alike != 0 and others < 8:
            before = row
            row, at = parse_alike(
                text, at, limit, stop, words, masks, start, lengths, targets, alike, whole, boxes, scores, areas,
                present, row,
            )  # fmt: skip
            others = 0 if row > before else others + 1
            if at >= limit:
                break
        if text[at] != _OPEN or row >= len(scores):
            return row, -1, doubts
        at = skip_space(text, at + 1, stop)
        seen = 0
        whole[CROWD, row] = 0
        while at < stop and text[at] != _CLOSE:
            if text[at] != _QUOTE:
                return row, -1, doubts
            at += 1
            begin = at
            while at < stop and text[at] != _QUOTE:
                if text[at] == _BACKSLASH:
                    return row, -1, doubts
                at += 1
            name_end = at
            at = skip_space(text, at + 1, stop)
            if at >= stop or text[at] != _COLON:
                return row, -1, doubts
            at = skip_space(text, at + 1, stop)
            column, count, target = -1, 0, -1
            length = name_end - begin  # no two of the keys are equally long but bbox and area
            if length == 4 and _is_key(text, begin, keys[BOX]):
                if at >= stop or text[at] != _OPEN_ARRAY:
                    return row, -1, doubts
                at, column, count = skip_space(text, at + 1, stop), 0, 4
                seen |= HAS_BOX
            elif length == 4 and _is_key(text, begin, keys[AREA]):
                column, count = AREA, 1
                seen |= HAS_AREA
            elif length == 5 and _is_key(text, begin, keys[SCORE]):
                column, count = SCORE, 1
                seen |= HAS_SCORE
            elif length == 8 and _is_key(text, begin, keys[IMAGE]):
                target = IMAGE
            elif length == 11 and _is_key(text, begin, keys[CATEGORY]):
                target = CATEGORY
            elif length == 2 and _is_key(text, begin, keys[ID]):
                target = ID
            elif length == 7 and _is_key(text, begin, keys[CROWD]):
                target = CROWD
            elif length == 6 and _is_key(text, begin, keys[IGNORE]):
                target = IGNORE
                seen |= HAS_IGNORE
            if count > 0:
                for i in range(count):
                    begin = at
                    value, at, status = parse_number(text, at, stop)
                    if status == ASK_PYTHON:
                        if doubts == len(doubtful):
                            return row, -1, doubts
                        doubtful[doubts, 0], doubtful[doubts, 1] = row, column + i
                        doubtful[doubts, 2], doubtful[doubts, 3] = begin, at
                        doubts += 1
                    elif status != OK:
                        return row, -1, doubts
                    if column == SCORE:
                        scores[row] = value
                    elif column == AREA:
                        areas[row] = value
                    else:
                        boxes[row, i] = value
                        at = skip_space(text, at, stop)
                        if at >= stop or text[at] != (_COMMA if i < 3 else _CLOSE_ARRAY):
                            return row, -1, doubts
                        at = skip_space(text, at + 1, stop)
            elif target >= 0:
                value, at, found = parse_integer(text, at, stop)
                if not found:
                    return row, -1, doubts
                whole[target, row] = value
                if target < CROWD:
                    seen |= HAS_ID << target
            else:
                at = skip_value(text, at, stop)
                if at < 0:
                    return row, -1, doubts
            at = skip_space(text, at, stop)
            if at < stop and text[at] == _COMMA:
                at = skip_space(text, at + 1, stop)
                if at < stop and text[at] == _CLOSE:
                    return row, -1, doubts
            elif at >= stop or text[at] != _CLOSE:
                return row, -1, doubts
        present[row] = seen
        row += 1
        at = skip_space(text, at + 1, stop)
        if at < stop and text[at] == _COMMA:
            at = skip_space(text, at + 1, stop)
        elif at < stop and text[at] == _CLOSE_ARRAY:
            return row, at, doubts
        else:
            return row, -1, doubts
    return row, at, doubts


@compiled
def _next_object(text, at, stop):
    """Start of the first `{` after a `}` and a comma: most likely where an object of the array begins."""
    while at < stop:
        if text[at] == _CLOSE:
            comma = skip_space(text, at + 1, stop)
            if comma < stop and text[comma] == _COMMA:
                start = skip_space(text, comma + 1, stop)
                if start < stop and text[start] == _OPEN:
                    return start
        at += 1
    return stop


def parse_records(text: npt.NDArray[np.uint8], start: int, *, stop: int | None = None) -> Records | None:
    """Parse the array that opens at byte `start`; None if it is not of the layout read here.

    Chunks begin where an object seems to begin. Each must end exactly where the next begins, which proves the
    guesses right from the first chunk on; a wrong guess (braces within a string) means parsing in one piece.
    """
    stop = len(text) if stop is None else stop
    first = int(skip_space(text, start + 1, stop))
    if first < stop and text[first] == _CLOSE_ARRAY:
        none = np.empty(0)
        return Records(
            np.empty((4, 0), np.int64), np.empty((0, 4)), none, none, np.empty(0, np.uint8), np.empty(0, np.bool_),
            first + 1,
        )  # fmt: skip
    pieces = max(1, min((stop - first) // _CHUNK_BYTES, 8 * thread_count()))
    cuts = {
        int(_next_object(text, first + (stop - first) * piece // pieces, stop)) for piece in range(1, pieces)
    }
    template = template_of(text, first)
    for bounds in ([first, *sorted(cuts - {stop}), stop], [first, stop]):
        records = _parse_chunks(text, bounds, template)
        if records is not None:
            return records
    return None


def _parse_chunks(
    text: npt.NDArray[np.uint8], bounds: list[int], template: Template | None
) -> Records | None:
    chunks = list(itertools.pairwise(bounds))
    # Opening braces: as many as objects, or more where objects hold objects.
    counts = thread_map(lambda chunk: int(np.count_nonzero(text[slice(*chunk)] == _OPEN)), chunks)
    offsets = np.concatenate(([0], np.cumsum(counts)))
    total = int(offsets[-1])
    whole, boxes = np.empty((5, total), np.int64), np.empty((total, 4))
    scores, areas, present = np.empty(total), np.empty(total), np.empty(total, np.uint8)

    def parse(piece: int) -> tuple[int, int]:
        begin, limit = chunks[piece]
        top = offsets[piece + 1]
        doubtful = np.empty((64 + counts[piece] // 4, 4), np.int64)
        row, at, doubts = _parse_objects(
            text, begin, limit, bounds[-1], _KEYS, *(template or NO_TEMPLATE), whole[:, :top], boxes[:top],
            scores[:top], areas[:top], present[:top], offsets[piece], doubtful,
        )  # fmt: skip
        for item, column, number_start, number_end in doubtful[:doubts].tolist():
            value = float(bytes(text[number_start:number_end]))
            if column == SCORE:
                scores[item] = value
            elif column == AREA:
                areas[item] = value
            else:
                boxes[item, column] = value
        return int(row), int(at)

    parsed = thread_map(parse, range(len(chunks)))
    # Every chunk but the last that has objects ends where the next begins; that last one ends at the bracket.
    at = parsed[0][1]
    last = 0
    while at >= 0 and last + 1 < len(chunks) and at == chunks[last + 1][0]:
        last += 1
        at = parsed[last][1]
    if at < 0 or at >= len(text) or text[at] != _CLOSE_ARRAY:
        return None
    end = 0
    for (stop, _), offset in zip(parsed[: last + 1], offsets, strict=False):
        rows = stop - offset
        if end != offset:  # close the gaps that nested objects left
            for array in (boxes, scores, areas, present):
                array[end : end + rows] = array[offset:stop]
            whole[:, end : end + rows] = whole[:, offset:stop]
        end += rows
    ignore = (present[:end] & HAS_IGNORE) != 0
    if ignore.any():  # else that row was never written, and costs no memory
        ignore &= whole[IGNORE, :end] == 1
    return Records(
        whole[:IGNORE, :end], boxes[:end], scores[:end], areas[:end], present[:end], ignore, at + 1
    )
