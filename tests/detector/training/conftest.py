"""Scenes on disk, as a data set."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from made_up_scenes import scene
from PIL import Image

from detector.architecture import Architecture
from detector.googlenet import GoogLeNet
from detector.safetensors_file import WeightsCard, write_weights_file
from detector.training.data import DataConfig
from detector.training.finetuning import Finetuning
from detector.training.fit import FitConfig
from detector.weights import CAFFE_INPUT


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


@pytest.fixture(scope="session")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A narrow classifier with random weights."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("start") / "start.safetensors"
    narrow = Architecture(width=0.25)
    wanted = replace(CAFFE_INPUT, size=32, context=2)
    card = WeightsCard("start", "random weights for tests", "CC0", "cls1000", wanted, architecture=narrow)
    write_weights_file(path, GoogLeNet(architecture=narrow).state_dict(), card)
    return path


@pytest.fixture
def config(scenes: Path, start: Path, tmp_path: Path) -> Finetuning:
    return Finetuning(
        data=DataConfig(
            [str(scenes / "instances.json")], [str(scenes / "images")], num_proposals=30,
            proposals={"mode": "single"},
        ),
        fit=FitConfig(steps=4, learning_rate=0.01, averaging=0.5, log_every=1, checkpoint_every=2),
        weights=str(start), output=str(tmp_path / "out"), freeze="pool4", cache=True, quality=True,
        positives=4, backgrounds=8, size=32, context=2, device="cpu",
    )  # fmt: skip


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Bits depend on the number of threads: as many here as in the processes that tests start."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
