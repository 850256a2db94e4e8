"""The picture of a run's course."""

from pathlib import Path

import pytest
from PIL import Image

from detector.training.curves import draw_curves
from detector.training.run_log import COLUMNS


@pytest.mark.parametrize("measured", [False, True])
@pytest.mark.parametrize("steps", [0, 1, 30])
def test_any_log_can_be_drawn(tmp_path: Path, steps: int, measured: bool) -> None:
    lines = [",".join(COLUMNS)]
    for step in range(1, steps + 1):
        values = {"step": step, "loss": 1 / step, "class": 0.5 / step} | (
            {"mean_ap": 0.1} if measured else {}
        )
        lines.append(",".join(str(values.get(name, "")) for name in COLUMNS))
    (tmp_path / "log.csv").write_text("\n".join(lines) + "\n")
    draw_curves(tmp_path / "log.csv", tmp_path / "curves.png")
    with Image.open(tmp_path / "curves.png") as picture:
        assert picture.height == (560 if measured and steps else 280)
    first = (tmp_path / "curves.png").read_bytes()
    draw_curves(tmp_path / "log.csv", tmp_path / "curves.png")
    assert (tmp_path / "curves.png").read_bytes() == first
