"""Images that are known to show an object, but not where: ImageNet's labels without boxes."""

import csv
import io
from collections.abc import Container, Iterator
from pathlib import Path

import numpy as np

from detector.taxonomy import DetectionClass
from detector.training.problems import Problems
from detector.training.training_set import AnnotatedImage, TrainingSet, annotated_image, image_size
from eval.text_files import read_text


def read_image_labels(
    path: str | Path, classes: tuple[DetectionClass, ...], problems: Problems
) -> TrainingSet:
    """Read a CSV file with the columns `file` and `det_id`; the images lie in the folder `<path without .csv>`.

    The whole image stands for the box of its object, as something that contains it. No class counts as completely
    labelled: there may be more objects, and the smaller regions of this one are nobody's negatives.

    Raises:
        OSError, ValueError: No such file, no such columns, or problems are refused.
    """
    path = Path(path)
    positions = {kind.id: position for position, kind in enumerate(classes)}
    images = [
        _labelled_image(path.with_suffix("") / name, name, positions, known, problems)
        for name, known in label_rows(path, positions, problems)
    ]
    return TrainingSet(classes, tuple(image for image in images if image is not None))


def label_rows(path: str | Path, ids: Container[int], problems: Problems) -> Iterator[tuple[str, int]]:
    """The lines of a CSV file with the columns `file` and `det_id`; those of classes not among `ids` are problems.

    Raises:
        OSError, ValueError: No such file, no such columns, or problems are refused.
    """
    rows = csv.DictReader(io.StringIO(read_text(path), newline=""))
    if not {"file", "det_id"} <= set(rows.fieldnames or ()):
        raise ValueError(f"{path}: its first line must name the columns `file` and `det_id`")
    for row in rows:
        name, known = row["file"], row["det_id"]
        if not name:
            problems.add("line without file", f"{path}:{rows.line_num}: names no file")
        elif known is not None and known.isdecimal() and int(known) in ids:
            yield name, int(known)
        else:
            problems.add("unknown class", f"{path}: {name} has class {known!r}, which is none of ours")


def _labelled_image(
    file: Path, name: str, positions: dict[int, int], known: int, problems: Problems
) -> AnnotatedImage | None:
    try:
        width, height = image_size(file)
    except OSError as error:
        problems.add("unreadable image", str(error))
        return None
    whole = np.array([[0, 0, width, height]])
    nothing = np.zeros(len(positions), np.bool_)
    label = np.array([positions[known]])
    return annotated_image(name, file, whole, label, nothing, problems, drawn=False)
