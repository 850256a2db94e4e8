"""Mean AP of a network while it trains, over the images of all processes."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import nn

from detector.rcnn import RCNN
from detector.region_classifier import Preprocessing, RegionClassifier
from detector.region_scorer import RegionScorer
from detector.taxonomy import DetectionClass
from detector.training.processes import Processes
from detector.training.training_set import IGNORE, TrainingSet
from eval.dataset import Category
from eval.evaluator import DetectionEvaluator


def mean_ap_of(
    training_set: TrainingSet,
    boxes: Sequence[np.ndarray],
    *,
    class_scores: nn.Module,
    preprocessing: Preprocessing,
    classes: tuple[DetectionClass, ...],
    device: torch.device,
    here: Processes,
) -> Callable[[nn.Module], float]:
    """A function from a network to its mean AP at IoU 0.5 on images with stored proposals.

    Boxes to ignore count as crowds of every class. Of an image, only the classes count whose instances are all known.

    Args:
        boxes: (N, 4) of each image.
    """
    categories = [Category(kind.id, kind.name, kind.wnid) for kind in classes]

    def evaluate(network: nn.Module) -> float:
        classifier = RegionClassifier(
            network=network, preprocessing=preprocessing, class_scores=class_scores, classes=classes
        )
        detector = RCNN(
            proposals=lambda image: np.empty((0, 4), np.float32),
            scorer=RegionScorer(classifier, device=device),
            nms_iou=0.3,  # as in the configurations that a mean AP is measured with
            soft_nms=None,
            score_threshold=0.0,
        )
        evaluator = DetectionEvaluator(categories=categories)
        for position in range(here.rank, len(training_set), here.count):
            image = training_set.images[position]
            found = detector(image.pixels(), boxes=boxes[position])
            known = image.labelled[found.labels]
            ignored = np.flatnonzero(image.labels == IGNORE)
            objects = np.flatnonzero((image.labels != IGNORE) & image.labelled[image.labels])
            everywhere = np.repeat(ignored, len(classes))
            rows = np.concatenate((objects, everywhere))
            evaluator.update(
                position,
                boxes=found.boxes[known],
                scores=found.scores[known],
                labels=found.labels[known],
                true_boxes=image.boxes[rows],
                true_labels=np.concatenate(
                    (image.labels[objects], np.tile(np.arange(len(classes)), len(ignored)))
                ),
                crowd=np.arange(len(rows)) >= len(objects),
            )
        return evaluator.compute().mean_ap

    return evaluate
