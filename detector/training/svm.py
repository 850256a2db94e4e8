"""R-CNN's last stage: one linear SVM a class on features of regions, with hard negatives and calibrated scores.

Girshick et al., *Rich feature hierarchies* (CVPR 2014), section 2.3 and appendix B: the annotated boxes are the
positives of their class, regions with IoU below 0.3 with every object of the class its negatives, regions
between are neither. Few negatives matter, so they are mined: train, look which of the others the SVM gets wrong, add
these, train again.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.svm import LinearSVC

from detector.training.ranges import above, at_least, share
from detector.training.sampling import RegionTable, overlaps

MEAN_NORM = 20.0  # of features, as R-CNN scales them, which gives `regularisation` its meaning
_BLOCK = 8192  # regions scored at a time


@dataclass(frozen=True)
class SVMConfig:
    """How the SVMs are trained.

    Attributes:
        regularisation: C of the SVM, for features of mean norm 20: smaller is smoother.
        positive_weight: Of a mistake on an object, against one on background.
        positive_iou: Proposals with at least this IoU with an object are positives besides the annotated
            boxes; 1 takes none, as R-CNN does.
        negative_iou: Regions below this IoU with every object of a class are its negatives.
        first_negatives: Negatives of the first pass, drawn at random.
        passes: Most passes of training and mining.
        folds: Parts of the images for calibration: each is scored by SVMs of the others.
    """

    regularisation: float = 1e-3
    positive_weight: float = 2.0
    positive_iou: float = 1.0
    negative_iou: float = 0.3
    first_negatives: int = 2000
    passes: int = 5
    folds: int = 3

    def __post_init__(self) -> None:
        """Refuse what makes no sense."""
        at_least(self, 1, "first_negatives", "passes", "folds", part="svm")
        above(self, 0, "regularisation", "positive_weight", part="svm")
        share(self, "positive_iou", "negative_iou", part="svm")


@dataclass(frozen=True, eq=False)
class LinearClassifier:
    """Scores `features @ weight + bias`; `weight` (D,)."""

    weight: np.ndarray
    bias: float

    def scores(self, features: np.ndarray) -> np.ndarray:
        """(R,) float64 of features (R, D), which may be a file mapped into memory."""
        parts = [
            features[start : start + _BLOCK].astype(np.float32) @ self.weight.astype(np.float32)
            for start in range(0, len(features), _BLOCK)
        ]
        return np.concatenate([np.empty(0), *parts]) + self.bias


def class_ious(table: RegionTable, label: int) -> np.ndarray:
    """(R,) the highest IoU of each region with an object of the class in its image, 0 where there is none."""
    ious = np.zeros(len(table))
    for position, image in enumerate(table.training_set.images):
        objects = image.boxes[image.labels == label]
        if len(objects):
            rows = slice(table.starts[position], table.starts[position + 1])
            ious[rows] = overlaps(table.boxes[rows], objects)[0].max(axis=1, initial=0)
    return ious


def feature_scale(features: np.ndarray, seed: int) -> float:
    """The factor that brings features (R, D) to `MEAN_NORM`, from a sample of them."""
    chosen = np.sort(np.random.default_rng(seed).permutation(len(features))[:2000])
    norm = float(np.linalg.norm(features[chosen].astype(np.float64), axis=1).mean())
    return MEAN_NORM / max(norm, 1e-12)


def train_class(
    features: np.ndarray,
    table: RegionTable,
    label: int,
    config: SVMConfig,
    *,
    scale: float,
    seed: int,
    report: Callable[[str], None] = lambda line: None,
) -> LinearClassifier:
    """The SVM of one class, calibrated: the sigmoid of its score is the chance that a region is an object.

    Args:
        features: (R, D) of the regions of `table`.
        scale: Factor on the features, see `feature_scale`; it is folded into the result.
        report: Told the outcome of each pass.

    Raises:
        ValueError: The class has no object, or no negatives.
    """
    ious = class_ious(table, label)
    of_class = table.labels == label
    positive = of_class & (table.given | (ious >= config.positive_iou))
    negative = (ious < config.negative_iou) & table.labelled[table.image, label]
    name = table.training_set.classes[label].name
    for kind, mask in (("object", positive), ("negative region", negative)):
        if not mask.any():
            raise ValueError(f"class {name!r} has no {kind} to train an SVM with")

    whole = _mine(features, positive, negative, config, scale, seed, report)
    judged = (of_class & (ious >= 0.5)) | ((ious < 0.5) & table.labelled[table.image, label])
    held_out = _held_out_scores(features, table, positive, negative, judged, config, scale, seed)
    if held_out is None:  # one image: nothing to hold out
        held_out = whole.scores(features[judged])
    slope, offset = platt(held_out, of_class[judged])
    return LinearClassifier(whole.weight * slope, whole.bias * slope + offset)


def platt(scores: np.ndarray, truth: np.ndarray) -> tuple[float, float]:
    """Slope (positive) and offset so that `sigmoid(slope * score + offset)` is the chance of `truth` (R,)."""
    if truth.all() or not truth.any():
        return 1.0, 0.0
    fitted = LogisticRegression(C=1e3).fit(scores[:, None], truth)
    return max(float(fitted.coef_[0, 0]), 1e-3), float(fitted.intercept_[0])


def _mine(
    features: np.ndarray,
    positive: np.ndarray,
    negative: np.ndarray,
    config: SVMConfig,
    scale: float,
    seed: int,
    report: Callable[[str], None] = lambda line: None,
) -> LinearClassifier:
    """Train on all positives and few negatives; add those on the wrong side of the margin; again."""
    rows = np.flatnonzero(positive)
    candidates = np.flatnonzero(negative)
    used = np.sort(np.random.default_rng(seed).permutation(candidates)[: config.first_negatives])
    for turn in range(1, config.passes + 1):
        classifier = _fit(features, rows, used, config, scale, seed)
        scores = np.concatenate(
            [
                classifier.scores(features[candidates[start : start + _BLOCK]])
                for start in range(0, len(candidates), _BLOCK)
            ]
        )
        hard = candidates[scores > -1]  # inside the margin
        fresh = np.setdiff1d(hard, used)
        report(f"pass {turn}: {len(rows)} positives, {len(used)} negatives, {len(fresh)} hard ones found")
        if not len(fresh):
            break
        used = np.union1d(used, fresh)
    return classifier


def _fit(
    features: np.ndarray,
    positives: np.ndarray,
    negatives: np.ndarray,
    config: SVMConfig,
    scale: float,
    seed: int,
) -> LinearClassifier:
    rows = np.concatenate((positives, negatives))
    svm = LinearSVC(
        C=config.regularisation,
        loss="hinge",
        dual=True,
        class_weight={1: config.positive_weight},
        intercept_scaling=10.0,  # liblinear penalises the bias like a weight; this way hardly
        max_iter=20_000,
        random_state=seed,
    )
    svm.fit(features[rows].astype(np.float64) * scale, np.arange(len(rows)) < len(positives))
    return LinearClassifier(svm.coef_[0] * scale, float(svm.intercept_[0]))


def _held_out_scores(
    features: np.ndarray,
    table: RegionTable,
    positive: np.ndarray,
    negative: np.ndarray,
    judged: np.ndarray,
    config: SVMConfig,
    scale: float,
    seed: int,
) -> np.ndarray | None:
    """Scores of the `judged` regions by SVMs that have not seen their images; None if that cannot be."""
    # A small copy of an image is the same image.
    _, photo = np.unique([str(image.path) for image in table.training_set.images], return_inverse=True)
    with_objects = np.unique(photo[table.image[positive]])
    folds = min(config.folds, len(with_objects))
    if folds < 2:
        return None
    generator = np.random.default_rng(seed)
    part = generator.integers(0, folds, photo.max() + 1)
    part[generator.permutation(with_objects)] = np.arange(len(with_objects)) % folds
    scores = np.empty(len(table))
    for fold in range(folds):
        held = part[photo[table.image]] == fold
        if not (negative & ~held).any():
            return None
        rows = np.flatnonzero(held & judged)
        classifier = _mine(features, positive & ~held, negative & ~held, config, scale, seed)
        scores[rows] = classifier.scores(features[rows])
    return scores[judged]
