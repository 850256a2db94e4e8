"""How one program writes its objects: the same text between the numbers, again and again.

The first object of an array becomes a template, text that has to be there and places where numbers stand. Most
bytes of a results file are such text, and comparing them eight at a time is several times faster than looking
at each. An object of another form is left to the parser that takes all of them.
"""

# numba infers the types of compiled functions, so they carry no annotations.
# mypy: allow-untyped-defs, no-check-untyped-defs

import re
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from eval.compiled import compiled
from eval.number_parser import OK, TEN_TO, parse_number, parse_plain_number
from eval.words import leading_digits, load_word

# Columns of a record, the targets of a template's numbers: those before SCORE are whole numbers.
ID, IMAGE, CATEGORY, CROWD, IGNORE, SCORE, AREA, BOX = 0, 1, 2, 3, 4, 5, 6, 7
NOWHERE = -1
_TARGETS = {
    b"id": ID, b"image_id": IMAGE, b"category_id": CATEGORY, b"iscrowd": CROWD, b"ignore": IGNORE, b"score": SCORE,
    b"area": AREA,
}  # fmt: skip
_LONGEST = 1 << 12  # bytes of an object; longer ones are not boxes and numbers alone
_MOST_NUMBERS, _LONGEST_NUMBER = 32, 64
_MARGIN = 1 << 13  # bytes left in the text below which nothing is compared by words
_KEY = re.compile(rb'"(\w+)"\s*:\s*')
_NUMBER = re.compile(rb"-?\d[\d.eE+-]*")
_NEXT = re.compile(rb"\s*,\s*")
_OPEN, _CLOSE = re.compile(rb"\{\s*"), re.compile(rb"\s*\}\s*,\s*(?=\{)")
_OPEN_BOX, _CLOSE_BOX = re.compile(rb"\[\s*"), re.compile(rb"\s*\]")


class Template(NamedTuple):
    """S numbers and the S + 1 texts around them: text k is the words [start[k], start[k + 1]), masked."""

    words: npt.NDArray[np.uint64]  # (W,)
    masks: npt.NDArray[np.uint64]  # (W,) which bytes of the word belong to the text
    start: npt.NDArray[np.int64]  # (S + 2,)
    lengths: npt.NDArray[np.int64]  # (S + 1,) bytes of each text
    targets: npt.NDArray[np.int64]  # (S,) where the numbers go; BOX to BOX + 3 for a box
    present: int  # what an object of this form has, as the bits of Records.present


def template_of(text: npt.NDArray[np.uint8], start: int) -> Template | None:
    """The template of the object that begins at byte `start`; None if it holds anything but numbers."""
    content = bytes(text[start : start + _LONGEST])
    opened = _OPEN.match(content)
    at = opened.end() if opened else 0
    spans: list[tuple[int, int]] = []
    targets: list[int] = []
    while at and (key := _KEY.match(content, at)):
        at = key.end()
        columns = [_TARGETS.get(key[1], NOWHERE)]
        box = key[1] == b"bbox"
        if box:
            opening = _OPEN_BOX.match(content, at)
            if opening is None:
                return None
            at, columns = opening.end(), [BOX, BOX + 1, BOX + 2, BOX + 3]
        for place, column in enumerate(columns):
            number = _NUMBER.match(content, at)
            comma = _NEXT.match(content, number.end()) if number else None
            if number is None or (place + 1 < len(columns) and comma is None):
                return None
            spans.append(number.span())
            targets.append(column)
            at = comma.end() if comma and place + 1 < len(columns) else number.end()
        if box:
            closing = _CLOSE_BOX.match(content, at)
            if closing is None:
                return None
            at = closing.end()
        comma = _NEXT.match(content, at)
        if comma is None:
            break
        at = comma.end()
    closed = _CLOSE.match(content, at)
    if not spans or len(spans) > _MOST_NUMBERS or closed is None:
        return None
    edges = [0, *(edge for span in spans for edge in span), closed.end()]
    return _packed([content[a:b] for a, b in zip(edges[::2], edges[1::2], strict=True)], targets)


def _packed(texts: list[bytes], targets: list[int]) -> Template:
    words, masks, start = [], [], [0]
    for text in texts:
        for at in range(0, len(text), 8):
            part = text[at : at + 8]
            words.append(int.from_bytes(part, "little"))
            masks.append((1 << 8 * len(part)) - 1)
        start.append(len(words))
    # Records.present: one bit each for id, image_id, category_id, box, score, area, ignore.
    bits = {ID: 1, IMAGE: 2, CATEGORY: 4, BOX: 8, SCORE: 16, AREA: 32, IGNORE: 64}
    present = 0
    for target in targets:
        present |= bits.get(target, 0)
    return Template(
        np.array(words, np.uint64), np.array(masks, np.uint64), np.array(start, np.int64),
        np.array([len(text) for text in texts], np.int64), np.array(targets, np.int64), present,
    )  # fmt: skip


NO_TEMPLATE = _packed([], [])


@compiled
def parse_alike(
    text, at, limit, stop, words, masks, start, lengths, targets, alike, whole, boxes, scores, areas, present, row
):  # fmt: skip
    """Read objects of the template's form from `at` on, up to one that is not or begins at or after `limit`.

    Returns (next row, where that object begins); the row of the object that was given up holds scraps.
    """
    slots = len(targets)
    last = min(limit, stop - _MARGIN)
    says_crowd = False
    for target in targets:
        says_crowd = says_crowd or target == CROWD
    while at < last and row < len(scores):
        begin = at
        for slot in range(slots + 1):
            differing = np.uint64(0)
            place = at
            for w in range(start[slot], start[slot + 1]):
                differing |= (load_word(text, place) ^ words[w]) & masks[w]
                place += 8
            if differing != 0:
                return row, begin
            at += lengths[slot]
            if slot == slots:
                break
            target = targets[slot]
            if 0 <= target < SCORE:
                value, count = leading_digits(load_word(text, at))
                at += count
                if count == 8:
                    more, count = leading_digits(load_word(text, at))
                    value = value * TEN_TO[count] + more
                    at += count
                    if count == 8:
                        return row, begin
                elif count == 0:
                    return row, begin
                whole[target, row] = np.int64(value)
                continue
            number, end, status = parse_plain_number(text, at)
            if status != OK:
                number, end, status = parse_number(text, at, min(at + _LONGEST_NUMBER, stop))
                if status != OK:
                    return row, begin
            at = end
            if target >= BOX:
                boxes[row, target - BOX] = number
            elif target == SCORE:
                scores[row] = number
            elif target == AREA:
                areas[row] = number
        if not says_crowd:
            whole[CROWD, row] = 0
        present[row] = alike
        row += 1
    return row, at
