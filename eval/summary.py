"""What an evaluation prints, and the tables it writes: terminal, JSON, CSV."""

import csv
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from eval.atomic import writing
from eval.bootstrap import Comparison, Interval
from eval.errors import CAUSES, ErrorBreakdown
from eval.evaluation import ClassResult, Evaluation
from eval.operating_points import AllClasses

_EXTREMES = 10  # classes named as worst and best


def print_evaluation(
    result: Evaluation,
    *,
    interval: Interval | None = None,
    breakdown: ErrorBreakdown | None = None,
    together: AllClasses | None = None,
    console: Console | None = None,
) -> None:
    """Print the per-class table, the worst and best classes, the causes of error, all classes, and the means."""
    console = console or Console()
    console.print(_class_table("classes", result.classes))
    ranked = sorted(result.counted, key=lambda row: row.ap)
    if len(ranked) > 2 * _EXTREMES:
        console.print(_class_table("worst classes", ranked[:_EXTREMES]))
        console.print(_class_table("best classes", ranked[: -_EXTREMES - 1 : -1]))
    at = " at IoU 0.50" if result.protocol == "coco" else ""
    if breakdown:
        table = _table(f"what the errors cost{at}", "cause", "number", "mean AP without", "gain")
        for cause in CAUSES:
            without, gain = breakdown.mean_ap_without[cause], breakdown.gain(cause)
            table.add_row(cause, f"{breakdown.counts[cause]:,}", f"{without:.4f}", f"{gain:+.4f}")
        console.print(table)
    if together and any(point.detections for point in together.points):
        title = f"all classes together{at}: average precision {_figure(together.average_precision)}"
        table = _table(title, "score at least", "detections", "precision", "recall")
        for point in together.points:
            shares = _figure(point.precision), _figure(point.recall)
            table.add_row(f"{point.score:g}", f"{point.detections:,}", *shares)
        console.print(table)
    console.print(headline(result, interval), highlight=False, soft_wrap=True)


def headline(result: Evaluation, interval: Interval | None = None) -> str:
    """The result in a few lines."""
    boxes = sum(row.num_gt for row in result.classes)
    detections = sum(row.num_detections for row in result.classes)
    threshold = "IoU .50:.05:.95" if result.protocol == "coco" else f"IoU {result.iou:g}"
    lines = [f"{name:<9} {value:.6f}" for name, value in result.summary.items()]
    lines += [
        f"{result.protocol}, {threshold}: {detections:,} detections, {boxes:,} boxes, "
        f"{result.num_images:,} images",
        f"mean AP   {result.mean_ap:.6f}",
        f"median AP {result.median_ap:.6f}",
        f"classes   {len(result.counted)} counted of {len(result.classes)}",
    ]
    if len(result.counted) < len(result.classes):
        lines[-1] += " (the others have no ground truth here)"
    if interval:
        lines[-3] += f"  ({_interval(interval)})"
    return "\n".join(lines)


def short_names(first: Path, second: Path) -> tuple[str, str]:
    """The ends of two paths that tell them apart."""
    parts = first.absolute().parts, second.absolute().parts
    count = 1
    while parts[0][-count:] == parts[1][-count:] and count < len(parts[0]):
        count += 1
    return Path(*parts[0][-count:]).as_posix(), Path(*parts[1][-count:]).as_posix()


def print_comparison(
    comparison: Comparison,
    first: Evaluation,
    second: Evaluation,
    *,
    names: tuple[str, str],
    console: Console | None = None,
) -> None:
    """Print which of two results is better, by how much, and in which classes."""
    console = console or Console()
    label = [k for k, row in enumerate(first.classes) if row.num_gt]
    label.sort(key=lambda k: comparison.per_class[k])
    picked = label if len(label) <= _EXTREMES else label[: _EXTREMES // 2] + label[-_EXTREMES // 2 :]
    table = _table("largest differences", "class", names[0], names[1], "difference")
    for k in picked:
        a, b = first.classes[k], second.classes[k]
        table.add_row(escape(a.name), f"{a.ap:.4f}", f"{b.ap:.4f}", f"{comparison.per_class[k]:+.4f}")
    console.print(table)
    difference = comparison.difference
    odds = ""
    if difference.replicates:
        odds = f" ({_interval(difference)})\n{comparison.better:.1%} of the draws favour {names[1]}"
    console.print(
        f"mean AP   {names[0]} {first.mean_ap:.6f}, {names[1]} {second.mean_ap:.6f}\n"
        f"difference {difference.value:+.6f}{odds}\n"
        f"classes won: {names[0]} {comparison.wins[0]}, {names[1]} {comparison.wins[1]}, "
        f"equal {comparison.wins[2]}",
        highlight=False,
        markup=False,
        soft_wrap=True,
    )


def _interval(interval: Interval) -> str:
    span = f"{interval.level:.0%} interval {interval.low:.4f} to {interval.high:.4f}"
    return f"{span} over {interval.replicates:,} draws of the images"


def _table(title: str, name: str, *figures: str) -> Table:
    table = Table(title=title, title_justify="left")
    table.add_column(name)
    for figure in figures:
        table.add_column(escape(figure), justify="right")
    return table


def _class_table(title: str, rows: Sequence[ClassResult]) -> Table:
    table = _table(title, "class", "id", "AP", "recall", "boxes", "detections")
    for row in rows:
        figures = map(_figure, (row.ap, row.recall))
        table.add_row(escape(row.name), str(row.id), *figures, f"{row.num_gt:,}", f"{row.num_detections:,}")
    return table


def _figure(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.4f}"


def as_json(
    result: Evaluation,
    *,
    interval: Interval | None = None,
    breakdown: ErrorBreakdown | None = None,
    comparison: Comparison | None = None,
    together: AllClasses | None = None,
) -> dict[str, Any]:
    """The result as plain values; what is undefined (no ground truth) is None."""
    content: dict[str, Any] = {
        "mean_ap": result.mean_ap,
        "median_ap": result.median_ap,
        "protocol": result.protocol,
        "iou": None if result.protocol == "coco" else result.iou,
        "num_images": result.num_images,
        "num_images_unseen": result.images_unseen,
        "classes_counted": len(result.counted),
    }
    if result.summary:
        content["summary"] = result.summary
    if interval:
        content["mean_ap_interval"] = vars(interval)
    if breakdown:
        content["errors"] = {
            cause: {"count": breakdown.counts[cause], "mean_ap_without": breakdown.mean_ap_without[cause]}
            for cause in CAUSES
        }
    if together:
        content["all_classes"] = {
            "average_precision": together.average_precision,
            "from_score": [point._asdict() for point in together.points],
        }
    if comparison:
        first, second, equal = comparison.wins
        content["comparison"] = {
            "difference": vars(comparison.difference),
            "share_of_draws_better": comparison.better,
            "classes_won": {"detections": first, "compared": second, "equal": equal},
            "per_class": comparison.per_class.tolist(),
            "num_images_unseen": comparison.unseen,
        }
    content["classes"] = [row._asdict() for row in result.classes]
    return _defined(content)


def _defined(value: Any) -> Any:
    """JSON has no NaN: None in its place."""
    if isinstance(value, dict):
        return {key: _defined(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_defined(item) for item in value]
    return None if isinstance(value, float | np.floating) and math.isnan(value) else value


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
            table.writerow(["" if value is None else value for value in _defined(list(row))])
