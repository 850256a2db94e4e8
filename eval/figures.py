"""The pictures of a report: curves, ranking, error causes, comparison. Drawn without a display."""

import io
import warnings

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from eval.average_precision import precision_recall_curve
from eval.bootstrap import Comparison
from eval.coco_metrics import match_coco
from eval.dataset import Floats
from eval.errors import CAUSES, ErrorBreakdown
from eval.evaluation import Evaluation

INK, ACCENT, GOOD, BAD, PALE = "#1f2933", "#2563a8", "#2e8b57", "#c0392b", "#d5dde6"
_RECALL = np.linspace(0, 1, 101)


def as_svg(figure: Figure) -> str:
    """The figure as an <svg> element to put into a page."""
    text = io.StringIO()
    # No date and fixed element ids: the same result gives the same page. Text stays text, since whoever looks at the
    # page may have the letters that matplotlib's font lacks.
    with mpl.rc_context({"svg.hashsalt": "eval", "svg.fonttype": "none"}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from")
        figure.savefig(text, format="svg", transparent=True, metadata={"Date": None})
    svg = text.getvalue()
    return svg[svg.index("<svg") :]


def _axes(width: float, height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots()
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.tick_params(colors=INK, labelsize=8)
    return figure, axes


def _plain(label: str) -> str:
    """A label that the legend shows as it is: without formulas, also if it begins with `_`, which would hide it."""
    label = label.replace("$", r"\$")
    return f" {label}" if label.startswith("_") else label


def ranking(result: Evaluation) -> Figure:
    """AP of every counted class, best first, with mean and median."""
    aps = np.sort([row.ap for row in result.counted])[::-1]
    figure, axes = _axes(8, 2.6)
    axes.stairs(aps, fill=True, color=ACCENT, alpha=0.85)
    for value, name, style in ((result.mean_ap, "mean", "-"), (result.median_ap, "median", ":")):
        axes.axhline(value, color=INK, linewidth=1, linestyle=style, label=f"{name} {value:.3f}")
    axes.set_xlim(0, max(len(aps), 1))
    axes.set_ylim(0, 1)
    axes.set_xlabel("classes, best first", fontsize=9)
    axes.set_ylabel("AP", fontsize=9)
    axes.legend(frameon=False, fontsize=8, loc="upper right")
    return figure


def mean_curve(result: Evaluation) -> tuple[Floats, list[tuple[str, Floats]]]:
    """Interpolated precision at recall 0, 0.01, ..., 1: the mean over classes, and every counted class's.

    Under coco the curves are those at IoU 0.50.
    """
    matches = result.matches or match_coco(result.detections, result.annotations)[0]
    curves = []
    for label, row in enumerate(result.classes):
        if not row.num_gt:
            continue
        outcome = matches.outcome[matches.class_start[label] : matches.class_start[label + 1]]
        recall, precision = precision_recall_curve(outcome, row.num_gt)
        best = np.append(np.maximum.accumulate(precision[::-1])[::-1], 0.0)
        curves.append((row.name, best[np.searchsorted(recall, _RECALL)]))
    return np.mean([curve for _, curve in curves], axis=0), curves


def precision_recall(result: Evaluation, *, named: int = 2) -> Figure:
    """Precision over recall: all classes pale, the mean bold, the best and worst by name."""
    mean, curves = mean_curve(result)
    figure, axes = _axes(5.2, 3.8)
    for _, curve in curves:
        axes.plot(_RECALL, curve, color=PALE, linewidth=0.6, zorder=1)
    ranked = sorted(zip([row.ap for row in result.counted], curves, strict=True), key=lambda item: item[0])
    picked = [] if len(ranked) <= 2 * named else [(GOOD, *item) for item in ranked[-named:][::-1]]
    picked += [] if len(ranked) <= 2 * named else [(BAD, *item) for item in ranked[:named]]
    for number, (colour, ap, (name, curve)) in enumerate(picked):
        style = ("-", "--", ":")[number % named % 3]
        axes.plot(
            _RECALL,
            curve,
            color=colour,
            linewidth=1.4,
            linestyle=style,
            zorder=2,
            label=_plain(f"{name} {ap:.2f}"),
        )
    axes.plot(_RECALL, mean, color=INK, linewidth=2.2, label="mean over classes", zorder=3)
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1.02)
    axes.set_xlabel("recall", fontsize=9)
    axes.set_ylabel("precision", fontsize=9)
    axes.legend(fontsize=8, loc="lower left", framealpha=0.9, edgecolor="none")
    return figure


def error_costs(breakdown: ErrorBreakdown) -> Figure:
    """What correcting each cause alone would add to the mean AP."""
    figure, axes = _axes(5.2, 2.4)
    gains = [breakdown.gain(cause) for cause in CAUSES]
    axes.barh(CAUSES, gains, color=ACCENT, alpha=0.85)
    span = max(*gains, 1e-9)
    for place, (cause, gain) in enumerate(zip(CAUSES, gains, strict=True)):
        axes.text(
            max(gain, 0) + span * 0.02,
            place,
            f"+{gain:.3f}   {breakdown.counts[cause]:,} times",
            va="center",
            fontsize=8,
        )
    axes.set_xlim(min(0.0, *gains), span * 1.5)
    axes.invert_yaxis()
    axes.set_xlabel("mean AP that correcting this cause alone would add", fontsize=9)
    return figure


def class_differences(comparison: Comparison) -> Figure:
    """AP differences of all counted classes, sorted: green where the second result wins."""
    values = np.sort(comparison.per_class[np.isfinite(comparison.per_class)])
    figure, axes = _axes(8, 2.4)
    axes.stairs(np.maximum(values, 0), fill=True, color=GOOD)
    axes.stairs(np.minimum(values, 0), fill=True, color=BAD)
    axes.axhline(0, color=INK, linewidth=0.8)
    axes.set_xlim(0, max(len(values), 1))
    axes.set_xlabel("classes", fontsize=9)
    axes.set_ylabel("AP difference", fontsize=9)
    return figure
