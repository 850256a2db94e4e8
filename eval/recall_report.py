"""Recall of proposals against annotations: as a table, a picture and JSON."""

import json
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from matplotlib.backend_bases import FigureCanvasBase
from matplotlib.figure import Figure
from numpy.typing import NDArray
from rich.table import Table

from eval.atomic import temporary_name, writing
from eval.dataset import Annotations
from eval.recall import NUMBERS, THRESHOLDS, ProposalRecall, RecallResult

# Numbers of proposals that get a curve over IoU of their own, besides all.
CURVES = (100, 300, 1000, 2000)
SHARES = (0, 1.02)  # so that a curve at 1 does not lie on the frame


def measure(
    annotations: Annotations,
    boxes_of: Callable[[str], NDArray[np.float32] | None],
    numbers: Sequence[int] = NUMBERS,
) -> RecallResult:
    """Recall over all annotated images that have proposals; groups and difficult objects are left out.

    Args:
        annotations: of `eval.inputs.read_annotations`.
        boxes_of: image name of the annotations -> ranked boxes (N, 4) xyxy, or None: no proposals made.
        numbers: of proposals per image at which to measure.
    """
    collected = ProposalRecall(numbers)
    order = np.argsort(annotations.image, kind="stable")
    ends = np.searchsorted(annotations.image[order], np.arange(len(annotations.images) + 1))
    category_ids = np.array([category.id for category in annotations.categories], np.int64)
    ground_truth = annotations.boxes.copy()
    ground_truth[:, 2:] += float(annotations.last_pixel)
    for position, name in enumerate(annotations.images.names):
        proposals = boxes_of(name)
        if proposals is not None:
            rows = order[ends[position] : ends[position + 1]]
            collected.add(
                proposals,
                ground_truth[rows],
                category_ids[annotations.label[rows]],
                ignore=annotations.crowd[rows] | annotations.difficult[rows],
            )
    return collected.result()


def table(result: RecallResult) -> Table:
    """Recall, average recall and MABO by number of proposals; the last row has all, and their mean number."""
    rows = Table("proposals", "recall at 0.5", "recall at 0.7", "average recall", "MABO")
    for column in rows.columns:
        column.justify = "right"
    measures = zip(
        result.recall(0.5), result.recall(0.7), result.average_recall(), result.mabo(), strict=True
    )
    for number, values in zip(result.numbers[:-1], measures, strict=False):
        rows.add_row(str(number), *(f"{value:.3f}" for value in values))
    rows.add_section()
    final = result.recall(0.5)[-1], result.recall(0.7)[-1], result.average_recall()[-1], result.mabo()[-1]
    rows.add_row(f"all, {result.mean_proposals:.0f}", *(f"{value:.3f}" for value in final))
    return rows


def write_json(path: str | Path, result: RecallResult, annotations: Annotations) -> None:
    """Every curve and the ABO of every class, by its name, and its id where others have that name; nan becomes null."""

    def plain(values: NDArray[np.float64]) -> list[float | None]:
        return [None if np.isnan(value) else float(value) for value in values]

    area = result.area_over_numbers()
    count = Counter(category.name for category in annotations.categories)
    names = {
        category.id: category.name if count[category.name] == 1 else f"{category.name} ({category.id})"
        for category in annotations.categories
    }
    content = {
        "images": len(result.proposals_per_image),
        "objects": len(result.labels),
        "proposals": int(result.proposals_per_image.sum()),
        "numbers": result.numbers.tolist(),
        "recall_50": plain(result.recall(0.5)),
        "recall_70": plain(result.recall(0.7)),
        "area_over_numbers_50": None if np.isnan(area) else area,
        "average_recall": plain(result.average_recall()),
        "mabo": plain(result.mabo()),
        "iou": list(THRESHOLDS),
        "recall_over_iou": [plain(row) for row in result.recall_over_iou()],
        "abo": {names[label]: plain(values) for label, values in result.abo().items()},
    }
    with writing(path) as file:
        json.dump(content, file, indent=1)


def plot(results: dict[str, RecallResult]) -> Figure:
    """Recall and MABO over the number of proposals, and recall over IoU, for one or several methods."""
    figure = Figure(figsize=(13, 4), layout="constrained")
    over_number, overlap, over_iou = figure.subplots(1, 3)
    several = len(results) > 1
    for name, result in results.items():
        over_number.plot(result.numbers, result.recall(0.5), label=name)
        overlap.plot(result.numbers, result.mabo(), label=name)
        curves = result.recall_over_iou()
        for k, number in enumerate(result.numbers[:-1]):
            if number in CURVES and not several:
                over_iou.plot(THRESHOLDS, curves[:, k], label=f"first {number}")
        over_iou.plot(THRESHOLDS, curves[:, -1], label=name if several else "all")
    for axes, title in ((over_number, "recall at IoU 0.5"), (overlap, "MABO")):
        axes.set(xscale="log", xlabel="proposals", title=title, ylim=SHARES)
    over_iou.set(xlabel="IoU", title="recall of all proposals" if several else "recall", ylim=SHARES)
    for axes in (over_number, overlap, over_iou):
        axes.grid(alpha=0.3)
    (over_number if several else over_iou).legend()
    return figure


def check_picture(path: str | Path) -> None:
    """Refuse a name that does not end as a picture that can be drawn.

    Raises:
        ValueError: In one sentence.
    """
    if Path(path).suffix.lower()[1:] not in FigureCanvasBase.filetypes:
        raise ValueError(f"{path}: is no name of a picture, which ends in .png, .svg or .pdf")


def write_plot(path: str | Path, results: dict[str, RecallResult]) -> None:
    """Draw `plot` into an image file, which appears when it is complete."""
    check_picture(path)
    with temporary_name(path) as temporary:
        plot(results).savefig(temporary, dpi=110, format=Path(path).suffix.lower()[1:])
