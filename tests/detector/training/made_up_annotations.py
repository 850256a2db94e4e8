"""Pictures and annotations as data sets have them."""

import json
from pathlib import Path
from typing import Any

from PIL import Image


def picture(path: Path, size: tuple[int, int] = (40, 30)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size).save(path)


def xml(path: Path, *objects: tuple[str, tuple[int, int, int, int], bool]) -> None:
    rows = "".join(
        f"<object><name>{name}</name><difficult>{int(difficult)}</difficult><bndbox><xmin>{b[0]}</xmin>"
        f"<ymin>{b[1]}</ymin><xmax>{b[2]}</xmax><ymax>{b[3]}</ymax></bndbox></object>"
        for name, b, difficult in objects
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"<annotation>{rows}</annotation>")


def coco(folder: Path, **changes: Any) -> Path:
    content: dict[str, Any] = {
        "images": [{"id": 5, "file_name": "a.png", "labelled_classes": [3]}, {"id": 6, "file_name": "b.png"}],
        "categories": [{"id": 3, "name": "three"}, {"id": 1, "name": "one"}],
        "annotations": [
            {"id": 1, "image_id": 5, "category_id": 3, "iscrowd": 0, "bbox": [1, 2, 10, 20]},
            {"id": 2, "image_id": 5, "category_id": 0, "iscrowd": 1, "bbox": [0, 0, 5, 5]},
            {"id": 3, "image_id": 6, "category_id": 1, "iscrowd": 0, "bbox": [30, 20, 12, 12]},
        ],
    } | changes
    for name in ("a.png", "b.png"):
        picture(folder / name)
    path = folder / "instances.json"
    path.write_text(json.dumps(content))
    return path
