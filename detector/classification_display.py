"""What a person sees of a classification: classes of each image, errors, and what was taken for what."""

import os
import sys

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from detector.classify_files import ClassificationReport, Judgement
from detector.taxonomy import DetectionClass

CONFUSIONS_SHOWN = 20


class ResultConsole(Console):
    """Writes to stdout until nobody reads it any more (`| head`); the work goes on without."""

    def on_broken_pipe(self) -> None:
        """Rich would end the program here."""
        self.quiet = True
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def print_judgement(
    console: Console, judgement: Judgement, classes: tuple[DetectionClass, ...], top: int
) -> None:
    """The image's name, and a line for each of its `top` classes."""
    console.print(judgement.name, markup=False, soft_wrap=True)
    for label, probability in list(zip(judgement.labels, judgement.probabilities, strict=True))[:top]:
        console.print(f"  {probability:7.2%}  {classes[label].name}", markup=False, soft_wrap=True)


def error_sentence(report: ClassificationReport, num_crops: int) -> str:
    """Both errors the challenge knows."""
    images = len(report.judgements)
    crops = "1 crop" if num_crops == 1 else f"{num_crops} crops"
    return f"{images} images, {crops}: top-1 error {report.error(1):.2%}, top-5 error {report.error(5):.2%}"


def confusion_table(report: ClassificationReport, classes: tuple[DetectionClass, ...]) -> Table:
    """The most frequent confusions; with a thousand classes a square matrix would be empty nearly everywhere."""
    confusions = report.confusions()
    images = sum(row[2] for row in confusions)
    table = Table(
        "true class",
        "taken for",
        "images",
        "among the best five",
        title=f"{images} wrong, in {len(confusions)} kinds of confusion"
        + (f"; the first {CONFUSIONS_SHOWN}" if len(confusions) > CONFUSIONS_SHOWN else ""),
        title_justify="left",
        box=box.SIMPLE_HEAD,
    )
    for column in table.columns[2:]:
        column.justify = "right"
    for truth, label, count in confusions[:CONFUSIONS_SHOWN]:
        saved = sum(
            j.truth == truth and j.labels[0] == label and truth in j.labels[:5] for j in report.judgements
        )
        names = (escape(classes[kind].name.split(",")[0]) for kind in (truth, label))  # without the synonyms
        table.add_row(*names, str(count), str(saved))
    return table
