"""What a run has logged."""

import csv
from pathlib import Path


def column(folder: str | Path, name: str) -> list[float]:
    with (Path(folder) / "log.csv").open() as file:
        return [float(row[name]) for row in csv.DictReader(file) if row[name]]
