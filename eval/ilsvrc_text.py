"""Reading of the ILSVRC submission text, plain or gzipped."""

import codecs
import gzip
import mmap
import warnings
import zlib
from pathlib import Path

import numpy as np
import numpy.typing as npt

from eval.dataset import Annotations, Detections, box_areas, positions
from eval.text_files import refuse_pipe
from eval.text_parser import FIELDS, Rows, parse_rows

_NAMES = ("image index", "class id", "confidence", "xmin", "ymin", "xmax", "ymax")
_HUGE = 1e100  # products of coordinates beyond this leave the range of float64
Bytes = npt.NDArray[np.uint8]


def read_detections(path: str | Path, annotations: Annotations) -> Detections:
    """Read a submission whose image indices and class ids are those of `annotations`.

    Raises ValueError, naming file and line, for a line that is not seven finite numbers, an unknown image or
    class, and for a file without detections. Warns of boxes with xmax < xmin.
    """
    text = map_bytes(path)
    rows = parse_rows(text)
    if rows.bad_line >= 0:
        raise ValueError(_explain_line(path, text, rows.bad_line))
    if not len(rows.scores):
        raise ValueError(f"{path}: no detections in it")
    _check_numbers(path, text, rows)
    image = positions(rows.image_index, annotations.images.ids)
    if image.min() < 0:
        raise ValueError(
            f"{_at_row(path, text, int(np.argmax(image < 0)))}: {_strangers(rows.image_index, image)}"
        )
    label = positions(rows.class_id, np.array([category.id for category in annotations.categories], np.int64))
    if label.min() < 0:
        row = int(np.argmax(label < 0))
        raise ValueError(
            f"{_at_row(path, text, row)}: class {rows.class_id[row]} is none of the "
            f"{len(annotations.categories)} known class ids"
        )
    areas = box_areas(rows.boxes, last_pixel=True)
    return Detections(image, label, rows.scores, rows.boxes, areas, last_pixel=True)


def map_bytes(path: str | Path) -> Bytes:
    """The bytes of a file (unpacked if gzipped) as a read-only array, without a copy where possible.

    A byte order mark at the beginning, which some editors write, is left out.
    """
    refuse_pipe(path)
    content = _map_all_bytes(path)
    return content[3:] if bytes(content[:3]) == codecs.BOM_UTF8 else content


def _map_all_bytes(path: str | Path) -> Bytes:
    with Path(path).open("rb") as file:
        if file.read(2) == b"\x1f\x8b":
            file.seek(0)
            try:
                return np.frombuffer(gzip.decompress(file.read()), np.uint8)
            except (EOFError, zlib.error, gzip.BadGzipFile) as error:
                raise ValueError(f"{path}: damaged gzip file ({error})") from error
        file.seek(0, 2)
        if file.tell() == 0:
            raise ValueError(f"{path}: the file is empty")
        return np.frombuffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), np.uint8)


def _check_numbers(path: str | Path, text: Bytes, rows: Rows) -> None:
    """Refuse numbers out of range; warn of boxes without a pixel, which the official demo file has too."""
    boxes = rows.boxes
    # NaN, should it ever get here, passes through min and max and fails every comparison.
    if not (boxes.min() > -_HUGE and boxes.max() < _HUGE and np.abs(rows.scores).max() < np.inf):
        row = int(np.argmin((np.abs(boxes) < _HUGE).all(axis=1) & np.isfinite(rows.scores)))
        numbers = f"confidence {rows.scores[row]:g} or box {_corners(boxes[row])}"
        raise ValueError(f"{_at_row(path, text, row)}: {numbers} is out of range")
    empty = (boxes[:, 2] < boxes[:, 0]) | (boxes[:, 3] < boxes[:, 1])
    if empty.any():
        row = int(np.argmax(empty))
        warnings.warn(
            f"{_at_row(path, text, row)}: box {_corners(boxes[row])} has xmax < xmin or ymax < ymin; such "
            f"boxes ({int(empty.sum()):,} here) are false positives, as for the official program",
            stacklevel=3,
        )


def _corners(box: npt.NDArray[np.float64]) -> str:
    return " ".join(f"{value:g}" for value in box)


def _strangers(ids: npt.NDArray[np.int64], image: npt.NDArray[np.int32]) -> str:
    """How many detections are outside the images, and which images they name."""
    outside = image < 0
    names = np.unique(ids[outside])
    shown = ", ".join(str(name) for name in names[:5]) + (", ..." if len(names) > 5 else "")
    count = int(outside.sum())
    return (
        f"{count:,} detections lie in {len(names):,} other images than those evaluated: not annotated,"
        f" or not in the image list (index {shown})"
    )


def _at_row(path: str | Path, text: Bytes, row: int) -> str:
    """`file:line` of a row; rows are counted without blank lines, lines with them."""
    for number, line in enumerate(bytes(text).splitlines(), start=1):
        row -= bool(line.strip())
        if row < 0:
            return f"{path}:{number}"
    return str(path)


def _explain_line(path: str | Path, text: Bytes, start: int) -> str:
    """What is wrong with the line that begins at byte `start`, in one sentence."""
    number = 1 + int(np.count_nonzero(text[:start] == 10))
    line = bytes(text[start : start + 4096]).split(b"\n", 1)[0]
    words = line.decode("utf-8", "replace").split()
    where = f"{path}:{number}"
    if len(words) != FIELDS:
        return f"{where}: {len(words)} values, expected {FIELDS} ({' '.join(_NAMES)})"
    for name, word in zip(_NAMES, words, strict=True):
        try:
            value = float(word)
        except ValueError:
            return f"{where}: {name} is {word!r}, not a number"
        if not np.isfinite(value):
            return f"{where}: {name} is {word}, expected a finite number"
        if name in _NAMES[:2] and not word.lstrip("+-").isdecimal():
            return f"{where}: {name} is {word}, expected a whole number"
    return f"{where}: the numbers have an unusual form, expected plain decimal ones"
