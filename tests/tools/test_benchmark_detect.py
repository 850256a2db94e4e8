"""`tools/benchmark.py detect` and `training`: what they refuse at once, and images that cannot be read."""

import importlib
from collections import Counter
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
from PIL import Image

TOOLS = Path(__file__).resolve().parents[2] / "tools"


@pytest.fixture
def detect(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The benchmark's module, with a detector that finds one box and no networks."""
    monkeypatch.syspath_prepend(TOOLS)
    module = importlib.import_module("benchmarks.detect")

    class Detector:
        """Counts as the real one does."""

        boxes = 1

        def __init__(self) -> None:
            self.timer = SimpleNamespace(counts=Counter[str]())

        def __call__(self, image: np.ndarray) -> None:
            self.timer.counts["boxes"] += 1

    monkeypatch.setattr(module, "load_weights", lambda *_, **__: None)
    monkeypatch.setattr(module, "network_table", lambda *_: "the networks")
    monkeypatch.setattr(module, "build_detector", lambda config: Detector())
    monkeypatch.setattr(module, "Plain", lambda *_: Detector())
    return module


def test_an_image_that_cannot_be_read_costs_no_other_its_row(
    detect: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.png").write_bytes(b"no image")
    assert detect.main(["--images", str(tmp_path)]) == 2
    assert capsys.readouterr().err.endswith("1 of 1 images failed: a.png\n")
    Image.new("RGB", (20, 10)).save(tmp_path / "b.png")
    assert detect.main(["--images", str(tmp_path)]) == 1
    printed = capsys.readouterr()
    assert printed.err.startswith(f"error: {tmp_path / 'a.png'}: ") and len(printed.err.splitlines()) == 2
    assert "20x10" in printed.out and "1 boxes on average" in printed.out


@pytest.mark.parametrize("option", ["--plain-images=-1", "--plain-boxes=0", "--batch-size=0", "--repeats=0"])
def test_counts_are_checked(detect: ModuleType, option: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        detect.main([option])
    assert end.value.code == 2
    assert f"argument {option.split('=')[0]}: " in capsys.readouterr().err


@pytest.mark.parametrize("name", ["first", "num-proposals", "size", "batch", "steps", "rounds", "workers"])
def test_counts_of_the_training_are_checked(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(TOOLS)
    training = importlib.import_module("benchmarks.training")
    with pytest.raises(SystemExit) as end:
        training.main(["--annotations", "a.json", "--images", "photos", f"--{name}=-1"])
    assert end.value.code == 2
    assert f"argument --{name}: '-1' is not a whole number" in capsys.readouterr().err
