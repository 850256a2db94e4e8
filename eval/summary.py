"""What an evaluation prints and the tables it writes: terminal, JSON, CSV."""

import csv
import json
import math
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from eval.atomic import writing
from eval.protocols import ClassResult, Evaluation


def print_evaluation(result: Evaluation, *, console: Console | None = None, extremes: int = 10) -> None:
    """Print the per-class table, the worst and best classes, and the means."""
    console = console or Console()
    console.print(_table("classes", list(result.classes)))
    ranked = sorted(result.counted, key=lambda row: row.ap)
    if len(ranked) > extremes:
        console.print(_table(f"worst {extremes}", ranked[:extremes]))
        console.print(_table(f"best {extremes}", ranked[: -extremes - 1 : -1]))
    for name, value in result.summary.items():
        console.print(f"{name:<9} {value:.6f}", highlight=False)
    console.print(headline(result), highlight=False)


def headline(result: Evaluation) -> str:
    """The result in three lines."""
    boxes = sum(row.num_gt for row in result.classes)
    detections = sum(row.num_detections for row in result.classes)
    threshold = "IoU .50:.05:.95" if result.protocol == "coco" else f"IoU {result.iou:g}"
    lines = [
        f"{result.protocol}, {threshold}: {detections:,} detections, {boxes:,} boxes, {result.num_images:,} images",
        f"mean AP   {result.mean_ap:.6f}",
        f"median AP {result.median_ap:.6f}",
        f"classes   {len(result.counted)} counted of {len(result.classes)}",
    ]
    if len(result.counted) < len(result.classes):
        lines[-1] += " (the others have no ground truth here)"
    return "\n".join(lines)


def _table(title: str, rows: list[ClassResult]) -> Table:
    table = Table(title=title, title_justify="left")
    table.add_column("id", justify="right")
    table.add_column("class")
    for name in ("AP", "recall", "boxes", "detections"):
        table.add_column(name, justify="right")
    for row in rows:
        table.add_row(
            str(row.id),
            row.name,
            _figure(row.ap),
            _figure(row.recall),
            f"{row.num_gt:,}",
            f"{row.num_detections:,}",
        )
    return table


def _figure(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.4f}"


def as_json(result: Evaluation) -> dict[str, Any]:
    """The result as plain values; what is undefined (no ground truth) is None."""
    return {
        "protocol": result.protocol,
        "iou": None if result.protocol == "coco" else result.iou,
        "mean_ap": _number(result.mean_ap),
        "median_ap": _number(result.median_ap),
        "num_images": result.num_images,
        "classes_counted": len(result.counted),
        **(
            {"summary": {name: _number(value) for name, value in result.summary.items()}}
            if result.summary
            else {}
        ),
        "classes": [
            {name: _number(value) for name, value in row._asdict().items()} for row in result.classes
        ],
    }


def _number(value: Any) -> Any:
    return None if isinstance(value, float) and math.isnan(value) else value


def write_json(path: str | Path, content: dict[str, Any]) -> None:
    """Write plain values as JSON; the file appears when it is complete."""
    with writing(path) as file:
        json.dump(content, file, indent=1, allow_nan=False)
        file.write("\n")


def write_csv(path: str | Path, result: Evaluation) -> None:
    """Write the per-class table; undefined values are empty cells."""
    with writing(path) as file:
        table = csv.writer(file)
        table.writerow(ClassResult._fields)
        for row in result.classes:
            table.writerow(["" if _number(value) is None else value for value in row])
