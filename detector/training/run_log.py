"""The course of a run as a plain CSV and for TensorBoard."""

import csv
from pathlib import Path
from types import TracebackType
from typing import Any

from eval.atomic import writing

COLUMNS = ("step", "epoch", "learning_rate", "loss", "class", "quality", "teacher", "auxiliary",
           "regions_per_second", "mean_ap", "top_1", "top_5")  # fmt: skip


class RunLog:
    """`log.csv` and `tensorboard/` in the folder of a run; a resumed run drops the lines it will do again.

    Args:
        folder: Of the run.
        step: Steps done before.
        active: False writes nothing: only one of several processes has a log.
    """

    def __init__(self, folder: Path, step: int, active: bool = True) -> None:
        self._active = active
        if not active:
            return
        self._path = folder / "log.csv"
        rows: list[dict[str, str]] = []
        if step and self._path.is_file():
            with self._path.open(encoding="utf-8", newline="") as old:
                rows = [row for row in csv.DictReader(old) if (row["step"] or "0").isdecimal()]
            rows = [row for row in rows if 0 < int(row["step"]) <= step and None not in row.values()]
        with writing(self._path) as new:
            lines = csv.DictWriter(new, COLUMNS, lineterminator="\n")
            lines.writeheader()
            lines.writerows(rows)
        self._file = self._path.open("a", encoding="utf-8", newline="")
        self._lines = csv.DictWriter(self._file, COLUMNS, lineterminator="\n")
        self._board = _board(folder / "tensorboard", step)

    def __enter__(self) -> "RunLog":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exception: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._active:
            self._file.close()
            if self._board is not None:
                self._board.close()

    def write(self, step: int, values: dict[str, float]) -> None:
        """One line: values of the columns by name; columns without a value stay empty."""
        if not self._active:
            return
        self._lines.writerow({"step": step} | {name: f"{value:.8g}" for name, value in values.items()})
        self._file.flush()
        if self._board is not None:
            for name, value in values.items():
                self._board.add_scalar(name, value, step)


def _board(folder: Path, step: int) -> Any:
    """TensorBoard's writer; None where an environment has been stripped of it, which must not stop training."""
    try:
        from torch.utils.tensorboard import (
            SummaryWriter,
        )  # here: it takes a second and is needed nowhere else
    except ImportError:
        return None
    return SummaryWriter(str(folder), purge_step=step + 1)
