"""The course of a run as a picture: its losses, and what was measured on the way."""

import csv
from pathlib import Path

from matplotlib.figure import Figure

from eval.atomic import temporary_name

LOSSES = ("loss", "class", "quality", "teacher", "auxiliary")
MEASURES = ("mean_ap", "top_1", "top_5")


def draw_curves(log: Path, picture: Path) -> None:
    """Draw the columns of a `log.csv` (see `run_log`) over the steps, losses above and measures below.

    Args:
        log: The file of a run; columns without any value are left out.
        picture: PNG that is written.
    """
    with log.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    groups = [[name for name in names if any(row[name] for row in rows)] for names in (LOSSES, MEASURES)]
    groups = [names for names in groups if names]
    figure = Figure(figsize=(7, 2.8 * max(len(groups), 1)), layout="constrained")
    for place, names in enumerate(groups, start=1):
        axes = figure.add_subplot(len(groups), 1, place)
        for name in names:
            points = [(int(row["step"]), float(row[name])) for row in rows if row[name]]
            axes.plot(*zip(*points, strict=True), label=name, marker="." if len(points) < 20 else "")
        axes.set_xlabel("step")
        axes.set_ylim(bottom=0)
        axes.legend(frameon=False)
        axes.spines[["top", "right"]].set_visible(False)
    with temporary_name(picture) as temporary:
        figure.savefig(temporary, format="png", dpi=100, metadata={"Software": None})
