"""`.ci/run` runs commands of the README, and does not pass where it finds none."""

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
README = """
<!-- detect command -->
```sh
echo detecting
```
<!-- test command -->
```sh
echo testing &&
echo in $(basename .venv)
```
"""


@pytest.mark.parametrize(("renamed", "ran"), [("test command", ""), ("detect command", "testing\nin venv\n")])
def test_a_command_that_the_readme_lacks_is_named(tmp_path: Path, renamed: str, ran: str) -> None:
    (tmp_path / ".ci").mkdir()
    shutil.copy(ROOT / ".ci" / "run", tmp_path / ".ci")
    (tmp_path / "README.md").write_text(README.replace(renamed, "other"), encoding="utf-8")
    run = subprocess.run(["bash", tmp_path / ".ci" / "run"], capture_output=True, text=True, check=False)
    assert run.returncode == 1 and ran in run.stdout and "linters" not in run.stdout
    assert run.stderr == f"README.md: no code block after the marker <!-- {renamed} -->\n"
