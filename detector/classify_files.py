"""Classify many images: read, judge, go on where one fails, and count the errors where the truth is known."""

import csv
import re
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from detector.classification import Classifier
from detector.command_line import one_sentence
from detector.images import ImageFile, read_image
from detector.taxonomy import DetectionClass
from eval.atomic import writing

WNID = re.compile(r"(?<![A-Za-z0-9])n\d{8}(?!\d)")


@dataclass(frozen=True)
class Judgement:
    """What a classifier says of one image.

    Attributes:
        name: Of the image.
        labels: The most probable classes, best first.
        probabilities: Theirs.
        truth: The true class, where it is known.
    """

    name: str
    labels: tuple[int, ...]
    probabilities: tuple[float, ...]
    truth: int | None = None


@dataclass
class ClassificationReport:
    """Judgements of all images that could be read, and what was wrong with the others."""

    judgements: list[Judgement] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    def error(self, count: int) -> float:
        """Share of the images whose true class is not among the best `count`: top-1 error, top-5 error."""
        known = [judgement for judgement in self.judgements if judgement.truth is not None]
        wrong = sum(judgement.truth not in judgement.labels[:count] for judgement in known)
        return wrong / len(known) if known else float("nan")

    def confusions(self) -> list[tuple[int, int, int]]:
        """How often each true class was taken for which other: (truth, taken for, images), most often first."""
        pairs = Counter((j.truth, j.labels[0]) for j in self.judgements if j.truth is not None)
        wrong = [(truth, label, images) for (truth, label), images in pairs.items() if truth != label]
        return sorted(wrong, key=lambda row: (-row[2], row[:2]))


def true_label(image: ImageFile, classes: tuple[DetectionClass, ...]) -> int:
    """The class of an image by the last WordNet id in its path: of its file or of the folder it lies in.

    Raises:
        ValueError: There is none, or none that the network knows.
    """
    found = WNID.findall(str(image.path.absolute()))
    if not found:
        raise ValueError(
            f"{image.path}: its class is unknown, since neither its name nor its folder's has a WordNet id"
            " such as n02123045"
        )
    labels = [label for label, kind in enumerate(classes) if kind.wnid == found[-1]]
    if not labels:
        raise ValueError(f"{image.path}: {found[-1]} is no class of these weights")
    return labels[0]


def classify_files(
    classifier: Classifier,
    images: Iterable[ImageFile],
    *,
    top: int = 5,
    evaluate: bool = False,
    on_judgement: Callable[[Judgement], None] = lambda judgement: None,
    on_failure: Callable[[str], None] = lambda sentence: None,
) -> ClassificationReport:
    """Classify images, one after the other.

    Args:
        classifier: What judges.
        images: See `detector.images.find_images`.
        top: How many classes of each image to keep, at least five with `evaluate`.
        evaluate: Find out each image's true class by `true_label`.
        on_judgement: Called after every image.
        on_failure: Called with what is wrong with an image that fails.
    """
    report = ClassificationReport()
    for image in images:
        try:
            truth = true_label(image, classifier.classes) if evaluate else None
            probabilities = classifier(read_image(image.path))
        except (ValueError, OSError) as error:
            report.failures.append(one_sentence(error))
            on_failure(report.failures[-1])
            continue
        report.judgements.append(_judgement(classifier, image, probabilities, top, truth))
        on_judgement(report.judgements[-1])
    return report


def _judgement(
    classifier: Classifier, image: ImageFile, probabilities: np.ndarray, top: int, truth: int | None
) -> Judgement:
    labels = classifier.top(probabilities, top if truth is None else max(top, 5))
    return Judgement(image.name, tuple(labels), tuple(float(probabilities[label]) for label in labels), truth)


def write_judgements(
    path: Path, judgements: Iterable[Judgement], classes: tuple[DetectionClass, ...]
) -> None:
    """One CSV line for each image and class: image, rank from 1, class, WordNet id, probability, true class."""
    with writing(path) as file:
        table = csv.writer(file)
        table.writerow(["image", "rank", "class", "wnid", "probability", "truth"])
        for judgement in judgements:
            truth = "" if judgement.truth is None else classes[judgement.truth].name
            for rank, (label, probability) in enumerate(
                zip(judgement.labels, judgement.probabilities, strict=True), start=1
            ):
                kind = classes[label]
                table.writerow([judgement.name, rank, kind.name, kind.wnid, f"{probability:.6f}", truth])
