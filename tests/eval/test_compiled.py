"""Compiled functions: kept from run to run, compiled anew where what they call has changed, and needing no folder."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CALLER = """
from eval.compiled import compiled
from package.callee import NUMBER, inner

@compiled
def outer(value):
    return inner(value) + NUMBER
"""
CALLEE = """
from eval.compiled import compiled

NUMBER = {number}

@compiled(inline="always")
def inner(value):
    return {factor} * value
"""
PROGRAM = """
from numba.core import config
from package.caller import outer
print(outer(10), sum(outer.stats.cache_hits.values()), config.CACHE_DIR)
"""


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A function that calls another file's."""
    folder = tmp_path / "package"
    folder.mkdir()
    (folder / "caller.py").write_text(CALLER)
    (folder / "callee.py").write_text(CALLEE.format(number=1, factor=2))
    return folder


def run(package: Path, **places: str) -> list[str]:
    """What the function returns, how often it was loaded, and numba's own folder afterwards, if it is set."""
    environment = {name: value for name, value in os.environ.items() if name != "NUMBA_CACHE_DIR"}
    environment |= {"PYTHONPATH": os.pathsep.join((str(ROOT), str(package.parent))), **places}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True, check=True
    )
    return done.stdout.split()


@pytest.mark.parametrize("chosen", [True, False])
def test_what_a_function_calls_may_change(package: Path, tmp_path: Path, chosen: bool) -> None:
    places = {"NUMBA_CACHE_DIR": str(tmp_path / "chosen")} if chosen else {}
    assert run(package, **places)[:2] == ["21", "0"]
    assert run(package, **places) == ["21", "1", *places.values()]
    (package / "callee.py").write_text(CALLEE.format(number=5, factor=3))
    assert run(package, **places)[:2] == ["35", "0"]
    kept = list((tmp_path / "chosen" if chosen else package / "__pycache__").glob("compiled-*"))
    assert len(kept) == (2 if chosen else 1)  # the user's own folder may serve other copies of the sources


def test_the_users_folder_serves_where_the_packages_cannot_be_written(package: Path, tmp_path: Path) -> None:
    (package / "__pycache__").write_text("a file, in which nobody, not even root, can make a folder")
    places = {"XDG_CACHE_HOME": str(tmp_path / "home")}
    assert run(package, **places)[:2] == ["21", "0"]
    assert run(package, **places)[:2] == ["21", "1"]
    (package / "callee.py").write_text(CALLEE.format(number=5, factor=3))
    assert run(package, **places)[:2] == ["35", "0"]


def test_no_folder_is_needed(package: Path) -> None:
    (package / "__pycache__").write_text("no folder")
    nowhere = str(package / "__pycache__")
    assert run(package, XDG_CACHE_HOME=nowhere, NUMBA_CACHE_DIR=nowhere)[:2] == ["21", "0"]
