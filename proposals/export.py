"""Proposals for other frameworks, in the pickles that those read."""

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np

from proposals.files import Proposals, written_whole

ExportFormat = Literal["detectron2", "mmdetection", "mmdetection3"]
_XYXY_ABSOLUTE = 0  # detectron2.structures.BoxMode.XYXY_ABS


def export(
    path: str | Path,
    proposals: Mapping[str, Proposals],
    export_format: ExportFormat,
    ids: Mapping[str, int | str] | None = None,
) -> None:
    """Write one pickle.

    Args:
        path: of the file.
        proposals: by image name, in the order of the dataset.
        export_format: `detectron2` is the dict of `detectron2.data.load_proposals_into_dataset`;
            `mmdetection` (2.x) the list of (N, 5) arrays, xyxy and score, in the order of the dataset;
            `mmdetection3` (3.x) a dict from image path to boxes and scores.
        ids: image ids of the dataset for detectron2; without it the image's file name without suffix.
    """
    with written_whole(path) as file:
        # Protocol 2 and plain numpy arrays: any Python 3 reads it.
        pickle.dump(_as(export_format, proposals, ids), file, protocol=2)


def _as(
    export_format: ExportFormat, proposals: Mapping[str, Proposals], ids: Mapping[str, int | str] | None
) -> Any:
    match export_format:
        case "detectron2":
            if ids is not None:
                unknown = [name for name in proposals if name not in ids]
                if unknown:
                    raise ValueError(
                        f"{unknown[0]}: not among the images of the annotations, so it has no id"
                    )
            return {
                "ids": [ids[name] if ids is not None else Path(name).stem for name in proposals],
                "boxes": [of_image.boxes for of_image in proposals.values()],
                "objectness_logits": [of_image.scores for of_image in proposals.values()],
                "bbox_mode": _XYXY_ABSOLUTE,
            }
        case "mmdetection":
            return [
                np.concatenate([of_image.boxes, of_image.scores[:, None]], axis=1)
                for of_image in proposals.values()
            ]
        case "mmdetection3":
            return {
                name: {"bboxes": of_image.boxes, "scores": of_image.scores}
                for name, of_image in proposals.items()
            }
    raise ValueError(f"export format {export_format!r}: expected detectron2, mmdetection or mmdetection3")
