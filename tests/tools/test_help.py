"""What `--help` of the command lines says."""

import importlib
import sys
from pathlib import Path

import pytest

TOOLS = Path(__file__).resolve().parents[2] / "tools"


@pytest.mark.parametrize(
    "command",
    [
        "propose",
        "detect",
        *(f"train {kind}" for kind in ("svm", "classify", "finetune", "objectness", "fit", "boxes")),
    ],
)
def test_help_calls_no_value_as_python_does(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    tool, *subcommand = command.split()
    monkeypatch.syspath_prepend(TOOLS)
    monkeypatch.setattr(sys, "argv", [f"{tool}.py", *subcommand, "--help"])
    with pytest.raises(SystemExit) as end:
        importlib.import_module(tool).main()
    text = capsys.readouterr().out
    assert end.value.code == 0 and "--config" in text
    assert "None" not in text  # the command line and YAML files take null
