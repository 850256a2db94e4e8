"""`tools/benchmark.py eval`: what becomes of sides that fail, and which turn counts."""

import importlib
import os
import sys
from pathlib import Path
from types import ModuleType

import pytest

TOOLS = Path(__file__).resolve().parents[2] / "tools"
SMALL = ["--detections", "50", "--images", "5", "--classes", "3", "--boxes", "10", "--only-ours"]


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The benchmark's module."""
    monkeypatch.syspath_prepend(TOOLS)
    return importlib.import_module("benchmarks.eval")


def test_a_side_that_fails_costs_no_other_its_row(
    benchmark: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "python").write_text("#!/bin/sh\nkill -9 $$\n")
    (tmp_path / "python").chmod(0o755)
    os.symlink(sys.executable, tmp_path / "other")
    against = ["--against", "killed=python", "--against", "json=./other"]
    assert benchmark.main([*SMALL, "--repeats", "1", *against]) == 1
    printed = capsys.readouterr()
    assert printed.err.splitlines()[0] == "killed failed: exit code -9"
    assert printed.err.splitlines()[1].startswith("json failed: exit code 1: ImportError: cannot import name")
    assert "ours, coco" in printed.out and "1.00" in printed.out


def test_the_fastest_turn_counts_as_a_whole(
    benchmark: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    turns = iter([(3.0, 1.0), (2.0, 4.0)] * 3)

    def measure(side: object, files: object) -> dict[str, float]:
        seconds, cpu = next(turns)
        return {"seconds": seconds, "cpu": cpu, "process": 5.0, "memory": 6.0, "ap": 0.5}

    monkeypatch.setattr(benchmark, "_measure", measure)
    monkeypatch.setattr(benchmark, "_own", lambda name, *_: benchmark.Side("ours, coco", "python", ""))
    assert benchmark.main([*SMALL, "--repeats", "2"]) == 0
    assert "2.00 │  1.00 │ 4.00" in capsys.readouterr().out
