"""An evaluation as one HTML page: figures, intervals, causes of error, and a table that sorts."""

import importlib.resources
import math
from pathlib import Path

import jinja2

from eval import figures
from eval.atomic import writing
from eval.bootstrap import Comparison, Interval
from eval.errors import CAUSES, ErrorBreakdown
from eval.evaluation import Evaluation
from eval.operating_points import AllClasses


def write_report(
    path: str | Path,
    result: Evaluation,
    *,
    title: str,
    interval: Interval | None = None,
    breakdown: ErrorBreakdown | None = None,
    comparison: Comparison | None = None,
    together: AllClasses | None = None,
    other_title: str = "",
) -> None:
    """Write a page that needs nothing but itself; whatever is None is left out.

    `title` names the detections, `other_title` those that `comparison` sets against them.
    """
    template = (importlib.resources.files("eval") / "data" / "report.html.j2").read_text(encoding="utf-8")
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    environment.filters["figure"] = lambda value: "–" if math.isnan(value) else f"{value:.4f}"  # noqa: RUF001
    environment.filters["thousands"] = lambda value: f"{value:,}"
    has_boxes = bool(result.counted)
    content = environment.from_string(template).render(
        title=title,
        other_title=other_title,
        result=result,
        interval=interval,
        breakdown=breakdown,
        causes=CAUSES,
        together=together if has_boxes else None,
        comparison=comparison,
        ranking=figures.as_svg(figures.ranking(result)) if has_boxes else "",
        curves=figures.as_svg(figures.precision_recall(result)) if has_boxes else "",
        costs=figures.as_svg(figures.error_costs(breakdown)) if breakdown and has_boxes else "",
        differences=figures.as_svg(figures.class_differences(comparison)) if comparison else "",
    )
    with writing(path) as file:
        file.write(content)
