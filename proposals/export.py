"""Proposals for other frameworks, in the pickles that those read."""

import pickle
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from eval.image_names import image_stem
from proposals.files import Proposals, by_rank, written_whole

ExportFormat = Literal["detectron2", "mmdetection", "mmdetection3"]
_XYXY_ABSOLUTE = 0  # detectron2.structures.BoxMode.XYXY_ABS


class ExportedImage(NamedTuple):
    """An image of the other framework's data set, and its proposals."""

    path: Path
    image_id: int | str  # of the annotations; where those have none, the file name without suffix
    proposals: Proposals


def images_to_export(
    files: Mapping[str, Path],
    found: Mapping[str, Proposals],
    dataset: Sequence[tuple[str, int | str]] | None = None,
) -> list[ExportedImage]:
    """Bring proposals into the order of a data set.

    Args:
        files: the image files of the job by name.
        found: the proposals by name; an image without them, as it could not be read, gets empty ones.
        dataset: names, of the job, and ids of the images to export in their order; None takes all of the job.
    """
    empty = by_rank(np.zeros((0, 4), np.float32))
    if dataset is None:
        dataset = [(name, image_stem(name)) for name in files]
    return [ExportedImage(files[name], image_id, found.get(name, empty)) for name, image_id in dataset]


def check_names(images: Sequence[ExportedImage], export_format: ExportFormat) -> None:
    """Refuse images that have one name in the export; their proposals do not matter, so it can come before these.

    Raises:
        ValueError: the framework could not tell two images from each other.
    """
    match export_format:
        case "detectron2":
            names = [str(image.image_id) for image in images]
        case "mmdetection3":
            names = _path_ends(images)
        case _:
            return  # mmdetection goes by the order
    seen: dict[str, Path] = {}
    for name, image in zip(names, images, strict=True):
        if name in seen:
            raise ValueError(
                f"{image.path} and {seen[name]}: both are {name!r} to this framework, rename one"
            )
        seen[name] = image.path


def export(path: str | Path, images: Sequence[ExportedImage], export_format: ExportFormat) -> None:
    """Write one pickle.

    Args:
        path: of the file.
        images: all of the data set, in its order; those without proposals have empty ones.
        export_format: `detectron2` is the dict of `detectron2.data.load_proposals_into_dataset`;
            `mmdetection` (2.x) the list of (N, 5) arrays, xyxy and score, in the order of the dataset;
            `mmdetection3` (3.x) a dict of boxes and scores by folder and file name.

    Raises:
        ValueError: see `check_names`.
    """
    check_names(images, export_format)
    with written_whole(path) as file:
        # Protocol 2 and plain numpy arrays: any Python 3 with any numpy reads it.
        pickler = pickle.Pickler(file, protocol=2)
        pickler.dispatch_table = {np.ndarray: _reduced}
        pickler.dump(_as(export_format, images))


def _as(export_format: ExportFormat, images: Sequence[ExportedImage]) -> Any:
    match export_format:
        case "detectron2":
            return {
                "ids": [image.image_id for image in images],
                "boxes": [image.proposals.boxes for image in images],
                "objectness_logits": [image.proposals.scores for image in images],
                "bbox_mode": _XYXY_ABSOLUTE,
            }
        case "mmdetection":
            return [
                np.concatenate([image.proposals.boxes, image.proposals.scores[:, None]], axis=1)
                for image in images
            ]
        case "mmdetection3":
            return {
                name: {"bboxes": image.proposals.boxes, "scores": image.proposals.scores}
                for name, image in zip(_path_ends(images), images, strict=True)
            }
    raise ValueError(f"export format {export_format!r}: expected detectron2, mmdetection or mmdetection3")


def _path_ends(images: Sequence[ExportedImage]) -> list[str]:
    """The last two parts of the paths, by which mmdet.datasets.BaseDetDataset looks images up."""
    return ["/".join(image.path.absolute().parts[-2:]) for image in images]


def _reduced(array: NDArray[np.float32]) -> tuple[type, tuple[int], Any]:
    """How to make an array anew: numpy's own way names a private module, which numpy 1 and 2 call differently."""
    state = array.__reduce__()[2]  # shape, type and content, for `__setstate__` of an empty array
    return np.ndarray, (0,), state
