"""Scenes on disk, as a data set."""

import json
from pathlib import Path
from typing import Any

import pytest
from made_up_scenes import scene
from PIL import Image


@pytest.fixture(scope="session")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `images/` and `instances.json` of 8 scenes."""
    folder = tmp_path_factory.mktemp("scenes")
    (folder / "images").mkdir()
    content: dict[str, Any] = {
        "images": [],
        "annotations": [],
        "categories": [{"id": 1, "name": "square"}, {"id": 2, "name": "disc"}],
    }
    for seed in range(8):
        image, rows = scene(seed)
        Image.fromarray(image).save(folder / "images" / f"{seed}.png")
        content["images"].append({"id": seed + 1, "file_name": f"{seed}.png"})
        for category, box in rows:
            content["annotations"].append(
                {"id": len(content["annotations"]) + 1, "image_id": seed + 1, "category_id": category,
                 "iscrowd": 0, "bbox": box}
            )  # fmt: skip
    (folder / "instances.json").write_text(json.dumps(content))
    return folder
