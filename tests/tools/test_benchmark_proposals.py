"""`tools/benchmark.py proposals`: its table without OpenCV contrib, and what it says of a wrong interpreter."""

import importlib
import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

TOOLS = Path(__file__).resolve().parents[2] / "tools"


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch) -> Callable[[list[str]], int]:
    """`main` of the benchmark."""
    monkeypatch.syspath_prepend(TOOLS)
    main: Callable[[list[str]], int] = importlib.import_module("benchmarks.proposals").main
    return main


@pytest.fixture
def arguments(tmp_path: Path) -> list[str]:
    """One image with a square, and its annotations."""
    pixels = np.full((60, 80, 3), 90, np.uint8)
    pixels[10:40, 20:55] = (220, 30, 30)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    content = {
        "images": [{"id": 1, "file_name": "a.png", "width": 80, "height": 60}],
        "categories": [{"id": 1, "name": "square"}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [20, 10, 35, 30], "area": 1050}],
    }
    (tmp_path / "instances.json").write_text(json.dumps(content), encoding="utf-8")
    return ["--images", str(tmp_path / "a.png"), "--annotations", str(tmp_path / "instances.json")]


def test_every_number_is_printed_and_written(
    benchmark: Callable[[list[str]], int],
    arguments: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    result, picture = tmp_path / "result.json", tmp_path / "curves.png"
    options = ["--sides", "single", "fast", "--json", str(result), "--plot", str(picture), "--repeats", "2"]
    assert benchmark([*arguments, *options]) == 0
    output = capsys.readouterr().out
    assert "1 objects in 1 images" in output and "single" in output and "contrib" not in output
    content = json.loads(result.read_text(encoding="utf-8"))
    assert list(content) == ["single", "fast"]
    assert content["fast"]["recall"] == 1.0 and content["fast"]["seconds"] > 0
    assert picture.stat().st_size > 1000


def test_an_interpreter_without_contrib_is_named(
    benchmark: Callable[[list[str]], int], arguments: list[str]
) -> None:
    with pytest.raises(ValueError, match="--contrib-python: this interpreter cannot run"):
        benchmark([*arguments, "--sides", "single", "--contrib-python", sys.executable])


def test_images_without_annotations_are_an_error(
    benchmark: Callable[[list[str]], int], arguments: list[str], tmp_path: Path
) -> None:
    (tmp_path / "b.png").write_bytes((tmp_path / "a.png").read_bytes())
    with pytest.raises(ValueError, match="annotates none of the images"):
        benchmark(["--images", str(tmp_path / "b.png"), *arguments[2:]])
