"""Images that are known to show an object, but not where: ImageNet's labels without boxes."""

import csv
from pathlib import Path

import numpy as np

from detector.taxonomy import DetectionClass
from detector.training.problems import Problems
from detector.training.training_set import AnnotatedImage, TrainingSet, annotated_image, image_size


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
    images: list[AnnotatedImage] = []
    with path.open(newline="", encoding="utf-8") as file:
        rows = csv.DictReader(file)
        if not {"file", "det_id"} <= set(rows.fieldnames or ()):
            raise ValueError(f"{path}: its first line must name the columns `file` and `det_id`")
        for row in rows:
            image = _labelled_image(path, row, positions, problems)
            if image is not None:
                images.append(image)
    return TrainingSet(classes, tuple(images))


def _labelled_image(
    path: Path, row: dict[str, str], positions: dict[int, int], problems: Problems
) -> AnnotatedImage | None:
    file = path.with_suffix("") / row["file"]
    label = positions.get(int(row["det_id"])) if row["det_id"].isdigit() else None
    if label is None:
        problems.add(
            "unknown class", f"{path}: {row['file']} has class {row['det_id']!r}, which is none of ours"
        )
        return None
    try:
        width, height = image_size(file)
    except OSError as error:
        problems.add("unreadable image", str(error))
        return None
    whole = np.array([[0, 0, width, height]])
    nothing = np.zeros(len(positions), np.bool_)
    return annotated_image(row["file"], file, whole, np.array([label]), nothing, problems, drawn=False)
