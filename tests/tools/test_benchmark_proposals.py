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


def test_ratios_can_be_read_where_eighty_columns_are_all_there_is(
    benchmark: Callable[[list[str]], int],
    arguments: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    module = sys.modules["benchmarks.proposals"]

    class Contrib:
        """Says that it took as long as it does on a photo."""

        version = "5.0"

        def __init__(self, python: str, folder: Path) -> None:
            self.took = module.Took(1.75, 1.5)

        def __call__(self, image: object) -> object:
            return np.array([[0, 0, 9, 9]], np.float32)

        def close(self) -> None:
            """Nothing to end."""

    monkeypatch.setattr(module, "ContribSearch", Contrib)
    monkeypatch.setenv("COLUMNS", "80")
    sides = ["--sides", "quality", "fast, superpixel_scale 2", "fast, min_box_side 20"]
    assert benchmark([*arguments, *sides, "--contrib-python", "python"]) == 0
    output = capsys.readouterr().out
    assert "…" not in output and max(map(len, output.splitlines())) <= 80
    words = " ".join(output.replace("│", " ").replace("┃", " ").split())
    assert "seconds CPU s contrib takes of CPU s" in words, output
    assert "OpenCV contrib fast 1.750 1.500 1.0 times 1.0 times" in words
    assert "the paper's, on VOC07 10097 0.991 0.879" in words


def test_the_image_of_the_annotations_is_measured(
    benchmark: Callable[[list[str]], int], arguments: list[str], tmp_path: Path
) -> None:
    for folder, colour in (("x", "white"), ("y", "black")):
        (tmp_path / folder).mkdir()
        Image.new("RGB", (20, 10), colour).save(tmp_path / folder / "1.png")
    (tmp_path / "a.png").rename(tmp_path / "y" / "1.png")
    truth = tmp_path / "instances.json"
    truth.write_text(truth.read_text(encoding="utf-8").replace("a.png", "y/1.png"), encoding="utf-8")
    (tmp_path / "x" / "2.png").write_bytes((tmp_path / "x" / "1.png").read_bytes())
    result = tmp_path / "result.json"
    options = ["--images", str(tmp_path), *arguments[2:], "--sides", "single", "--json", str(result)]
    assert benchmark(options) == 0
    content = json.loads(result.read_text(encoding="utf-8"))
    assert content["single"]["recall"] == 1.0  # of the square; the other is of one colour
    with pytest.raises(ValueError, match=r"would both be y/1\.png of the annotations"):
        benchmark(["--images", str(tmp_path / "x"), str(tmp_path / "y"), *arguments[2:]])


def test_an_interpreter_without_contrib_is_named(
    benchmark: Callable[[list[str]], int], arguments: list[str]
) -> None:
    with pytest.raises(ValueError, match="--contrib-python: this interpreter cannot run"):
        benchmark([*arguments, "--sides", "single", "--contrib-python", sys.executable])


def test_an_interpreter_that_dies_is_no_reader_of_ours_gone(
    benchmark: Callable[[list[str]], int], arguments: list[str], tmp_path: Path
) -> None:
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\nexec <&-\necho 5.0\n")
    python.chmod(0o755)
    with pytest.raises(ValueError, match="--contrib-python: this interpreter cannot run"):
        benchmark([*arguments, "--sides", "single", "--contrib-python", str(python)])


def test_an_image_that_cannot_be_read_costs_no_other_its_measurement(
    benchmark: Callable[[list[str]], int],
    arguments: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    truth = tmp_path / "instances.json"
    content = json.loads(truth.read_text(encoding="utf-8"))
    content["images"].insert(0, {"id": 2, "file_name": "0.png", "width": 80, "height": 60})
    truth.write_text(json.dumps(content), encoding="utf-8")
    (tmp_path / "0.png").write_bytes(b"no image")
    options = ["--images", str(tmp_path), *arguments[2:], "--sides", "single"]
    assert benchmark(options) == 1
    printed = capsys.readouterr()
    assert "1 objects in 1 images" in printed.out
    assert printed.err.splitlines()[1] == "1 of 2 images failed: 0.png"
    (tmp_path / "a.png").write_bytes(b"nor this")
    assert benchmark(options) == 2


def test_results_that_cannot_be_written_are_refused_before_the_work(
    benchmark: Callable[[list[str]], int],
    arguments: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys.modules["benchmarks.proposals"], "_run", None)
    truth, picture = arguments[3], str(tmp_path / "curves.png")
    for options, message in (
        (["--json", truth], "--json would take the place of the file of --annotations"),
        (["--plot", arguments[1]], "--plot would take the place of the file of --images"),
        (["--json", picture, "--plot", picture], "would take the place"),
        (["--plot", str(tmp_path / "curves")], "curves: is no name of a picture"),
        (["--json", str(tmp_path / "no" / "result.json")], "there is no folder"),
        (["--json", str(tmp_path)], "--json is a folder"),
    ):
        with pytest.raises((ValueError, OSError), match=message):
            benchmark([*arguments, *options])


def test_images_without_annotations_are_an_error(
    benchmark: Callable[[list[str]], int], arguments: list[str], tmp_path: Path
) -> None:
    (tmp_path / "b.png").write_bytes((tmp_path / "a.png").read_bytes())
    with pytest.raises(ValueError, match="annotates none of the images"):
        benchmark(["--images", str(tmp_path / "b.png"), *arguments[2:]])
