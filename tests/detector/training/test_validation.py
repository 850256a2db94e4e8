"""Mean AP on images that are not labelled with every class."""

from typing import Any

import numpy as np
import pytest
import torch
from made_up_scenes import made_up_set

from detector.detections import Detections
from detector.taxonomy import TrainedScores
from detector.training import validation
from detector.training.processes import Processes
from detector.training.training_set import IGNORE, AnnotatedImage
from detector.weights import CAFFE_INPUT

BOX, OTHER = [10.0, 10.0, 40.0, 40.0], [60.0, 60.0, 90.0, 90.0]


@pytest.mark.parametrize(
    ("labelled_second", "expected"),
    [
        ([False, True], 1.0),  # the square of the second image was never looked for
        ([True, True], 0.75),  # it is a false one: precision 1/2 for squares, discs stay at 1
    ],
)
def test_only_classes_that_are_known_count(
    monkeypatch: pytest.MonkeyPatch, labelled_second: list[bool], expected: float
) -> None:
    images = made_up_set([[BOX, OTHER], [OTHER]], [[0, IGNORE], [1]], [[True, False], labelled_second])

    def detections(boxes: list[list[float]], scores: list[float], labels: list[int]) -> Detections:
        return Detections(
            np.array(boxes, np.float32), np.array(scores), np.array(labels), images.classes, 100, 100
        )

    found = iter(
        [
            detections([BOX, OTHER, BOX], [0.5, 0.9, 0.9], [0, 0, 1]),
            detections([OTHER, BOX], [0.5, 0.9], [1, 0]),
        ]
    )

    class Canned:
        def __init__(self, **settings: Any) -> None:
            assert (settings["nms_iou"], settings["soft_nms"]) == (0.3, None)  # as configs/ for a mean AP

        def __call__(self, image: np.ndarray, *, boxes: np.ndarray) -> Detections:
            return next(found)

    monkeypatch.setattr(validation, "RCNN", Canned)
    monkeypatch.setattr(AnnotatedImage, "pixels", lambda self: np.zeros((100, 100, 3), np.uint8))
    measure = validation.mean_ap_of(
        images,
        [np.empty((0, 4), np.float32)] * 2,
        class_scores=TrainedScores(),
        preprocessing=CAFFE_INPUT,
        classes=images.classes,
        device=torch.device("cpu"),
        here=Processes(),
    )
    assert measure(torch.nn.Identity()) == pytest.approx(expected)
