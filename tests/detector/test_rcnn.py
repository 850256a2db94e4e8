"""The pipeline as a whole: what it finds, what cannot change the result, and its speed clocks."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from detector.googlenet import GoogLeNet
from detector.rcnn import RCNN
from detector.region_classifier import Normalize, Preprocessing, RegionClassifier
from detector.region_fit import highest_fit, joint_fit
from detector.region_scorer import RegionScorer
from detector.runtime import RuntimeName
from detector.taxonomy import DET200, ZeroShotScores
from proposals import SelectiveSearch


def test_finds_the_red_square(colour_detector: RCNN, red_square: np.ndarray) -> None:
    found = colour_detector(red_square)
    assert found.class_names == ["red"]
    assert found.boxes.tolist() == [[30, 40, 60, 60]]
    assert 0.99 < found.scores[0] <= 1
    assert (found.width, found.height) == (120, 80)
    assert colour_detector.timer.counts["boxes"] == 17
    assert set(colour_detector.timer.seconds) == {"proposals", "crop", "network", "NMS"}


def test_overlapping_detections_of_a_class_are_suppressed(colour_detector: RCNN) -> None:
    red = np.zeros((80, 120, 3), np.uint8)
    red[..., 0] = 255
    colour_detector.nms_iou = 0.05  # the whole image overlaps each of its 16 tiles by 1/16
    assert len(colour_detector(red)) == 16  # all score alike, so the earlier, the tiles, win
    colour_detector.nms_iou = 0.1
    assert len(colour_detector(red)) == 17
    colour_detector.max_detections = 3
    assert len(colour_detector(red)) == 3


def test_nothing_found_is_an_empty_result(colour_detector: RCNN) -> None:
    found = colour_detector(np.zeros((40, 40, 3), np.uint8))
    assert len(found) == 0 and found.boxes.shape == (0, 4) and found.class_names == []


def test_no_proposals(colour_detector: RCNN, red_square: np.ndarray) -> None:
    colour_detector.proposals = lambda image: np.empty((0, 4), np.float32)
    assert len(colour_detector(red_square)) == 0


def test_only_the_labels_asked_for(colour_detector: RCNN, red_square: np.ndarray) -> None:
    red_square[:20, :30] = (0, 0, 255)
    assert sorted(colour_detector(red_square).class_names) == ["blue", "red"]
    colour_detector.labels = [2]
    found = colour_detector(red_square)
    assert found.class_names == ["blue"] and found.boxes.tolist() == [[0, 0, 30, 20]]


def test_what_is_suppressed_can_vote_on_the_box() -> None:
    boxes = np.array([[0, 0, 10, 10], [1, 0, 11, 10], [2, 0, 12, 10], [3, 30, 13, 40]], np.float32)
    scores = np.array([[0.8, 0, 0], [0.4, 0.9, 0], [0.2, 0, 0], [0.8, 0, 0]])
    arguments: dict[str, Any] = {
        "proposals": lambda image: boxes,
        "scorer": TableScorer(scores),
        "choose": lambda image, boxes: (boxes, np.ones(len(boxes), np.float32)),
        "labels": [0],
    }
    image = np.zeros((50, 50, 3), np.uint8)
    as_proposed = RCNN(**arguments, score_threshold=0.3)(image)
    assert as_proposed.boxes.tolist() == boxes[[0, 3]].tolist()
    voted = RCNN(**arguments, score_threshold=0.3, box_voting=0.5)(image)
    np.testing.assert_allclose(
        voted.boxes, np.array([[1 / 3, 0, 10 + 1 / 3, 10], [3, 30, 13, 40]]), rtol=1e-6
    )
    voted = RCNN(**arguments, score_threshold=0.1, box_voting=0.5)(image)
    np.testing.assert_allclose(voted.boxes[0], [0.8 / 1.4, 0, 10 + 0.8 / 1.4, 10], rtol=1e-6)
    assert voted.scores.tolist() == as_proposed.scores.tolist()


def test_progress_reaches_the_number_of_boxes(colour_detector: RCNN, red_square: np.ndarray) -> None:
    seen: list[tuple[int, int]] = []
    assert isinstance(colour_detector.scorer, RegionScorer)
    colour_detector.scorer.batch_size = 5
    colour_detector(red_square, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(0, 17), (5, 17), (10, 17), (15, 17), (17, 17)]


class TableScorer:
    """Scores that are known for each box, which is found by its left edge, as may be its fit."""

    classes = DET200[:3]

    def __init__(self, scores: np.ndarray, fit: np.ndarray | None = None) -> None:
        self.scores = scores
        self.fit = fit
        self.tells_fit = fit is not None

    def __call__(self, image: np.ndarray, boxes: np.ndarray, /, **known: Any) -> np.ndarray:
        rows = boxes[:, 0].astype(int)
        factors = joint_fit(known["factors"], [] if self.fit is None else [self.fit[rows]])
        return np.asarray(self.scores[rows] * factors[:, None], np.float32)


@given(
    seed=st.integers(0, 10_000),
    count=st.integers(0, 30),
    threshold=st.sampled_from([0.0, 0.1, 0.3, 0.5, 1.0]),
    least=st.sampled_from([0.0, 0.25]),
    voting=st.sampled_from([None, 0.4]),
    softness=st.sampled_from([None, 0.15]),
    told=st.booleans(),
)
@settings(max_examples=60, deadline=None)
def test_a_box_that_cannot_reach_the_threshold_needs_no_pass(
    seed: int,
    count: int,
    threshold: float,
    least: float,
    voting: float | None,
    softness: float | None,
    told: bool,
) -> None:
    generator = np.random.default_rng(seed)
    left, size = np.arange(count), generator.integers(1, 20, (count, 2))
    boxes = np.stack([left, 0 * left, left + size[:, 0], size[:, 1]], axis=1).astype(np.float32)
    factors = np.sort(generator.integers(0, 11, count) / 10)[::-1].astype(np.float32)
    scores = generator.integers(0, 11, (count, 3)) / 10  # many ties, many ones
    fit = generator.integers(-9, 10, count).astype(np.float32) if told else None
    worthwhile = factors >= least
    seen = []
    for early_stop, chosen in ((True, (boxes, factors)), (False, (boxes[worthwhile], factors[worthwhile]))):
        detector = RCNN(
            proposals=lambda image: boxes,
            scorer=TableScorer(scores, fit),
            choose=lambda image, boxes, chosen=chosen: chosen,
            early_stop=early_stop,
            min_objectness=least,
            box_voting=voting,
            soft_nms=softness,
            score_threshold=threshold,
        )
        seen.append(detector(np.zeros((20, 60, 3), np.uint8)))
        able = ((highest_fit(factors) if told else factors) * 1.01 >= threshold) & (factors >= least)
        assert detector.timer.counts["boxes"] == (able.sum() if early_stop else len(chosen[0]))
    for name in ("boxes", "scores", "labels"):
        np.testing.assert_array_equal(getattr(seen[0], name), getattr(seen[1], name))


def test_numbers_that_make_no_sense_are_refused(
    colour_detector: RCNN, colour_classifier: RegionClassifier
) -> None:
    with pytest.raises(ValueError, match="max_detections is 0"):
        RCNN(proposals=colour_detector.proposals, scorer=colour_detector.scorer, max_detections=0)
    with pytest.raises(ValueError, match=r"min_objectness is 1\.5, but must be from 0 to 1"):
        RCNN(proposals=colour_detector.proposals, scorer=colour_detector.scorer, min_objectness=1.5)
    with pytest.raises(ValueError, match=r"box_voting is 0\.0, but must be above 0 and at most 1, or null"):
        RCNN(proposals=colour_detector.proposals, scorer=colour_detector.scorer, box_voting=0.0)
    for value in (0.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match=f"soft_nms is {value}, but must be above 0, or null"):
            RCNN(proposals=colour_detector.proposals, scorer=colour_detector.scorer, soft_nms=value)
    for value in (-0.1, 40, float("nan")):
        with pytest.raises(ValueError, match=f"score_threshold is {value:g}, but must be from 0 to 1"):
            RCNN(proposals=colour_detector.proposals, scorer=colour_detector.scorer, score_threshold=value)
        with pytest.raises(ValueError, match=f"nms_iou is {value:g}, but must be from 0 to 1"):
            RCNN(proposals=colour_detector.proposals, scorer=colour_detector.scorer, nms_iou=value)
    with pytest.raises(TypeError, match="image is a str, expected pixels"):
        colour_detector("photo.jpg")  # type: ignore[arg-type]
    for image in (np.zeros((9, 9, 3), np.float32), np.zeros((9, 9), np.uint8), np.zeros((0, 9, 3), np.uint8)):
        with pytest.raises(ValueError, match=r"image is \w+ \(.*\): expected RGB uint8 \(height, width, 3\)"):
            colour_detector(image, boxes=np.array([[0, 0, 9, 9]], np.float32))
    with pytest.raises(ValueError, match="no classes to report"):
        RCNN(proposals=colour_detector.proposals, scorer=colour_detector.scorer, labels=[])
    with pytest.raises(ValueError, match="batch_size is 0"):
        RegionScorer(colour_classifier, batch_size=0)
    for context in (-1, 16):
        with pytest.raises(ValueError, match=f"context is {context}, but must lie between 0 and half .* 32"):
            RegionScorer(colour_classifier, context=context)


def test_a_batch_suits_the_device(colour_classifier: RegionClassifier) -> None:
    assert RegionScorer(colour_classifier, context=0).batch_size == 4
    if torch.cuda.is_available():
        assert RegionScorer(colour_classifier, context=0, device="cuda").batch_size == 128


def test_normalize_follows_the_record() -> None:
    pixels = torch.tensor([10, 20, 30], dtype=torch.uint8)[None, :, None, None]
    bgr = Normalize(Preprocessing("BGR", scale=1.0, mean=(4.0, 5.0, 6.0), std=(1.0, 2.0, 4.0)))
    assert bgr(pixels).flatten().tolist() == [26.0, 7.5, 1.0]
    rgb = Normalize(Preprocessing("RGB", scale=0.1, mean=(1.0, 1.0, 1.0)))
    torch.testing.assert_close(rgb(pixels).flatten(), torch.tensor([0.0, 1.0, 2.0]))
    assert Preprocessing("BGR", scale=0.5, mean=(1.0, 2.0, 3.0)).mean_colour() == (6.0, 4.0, 2.0)


def googlenet_detector(batch_size: int, num_threads: int, runtime: RuntimeName) -> RCNN:
    """The real network with random weights and the real proposals."""
    torch.manual_seed(0)
    network = GoogLeNet()
    nn.init.normal_(network.classifier.weight, std=0.5)
    return RCNN(
        proposals=SelectiveSearch(max_boxes=21, num_threads=num_threads),
        scorer=RegionScorer(
            RegionClassifier(
                network=network,
                preprocessing=Preprocessing("BGR", scale=1 / 64, mean=(1.6, 1.8, 1.9), size=96),
                class_scores=ZeroShotScores(),
                classes=DET200,
            ),
            context=6,
            batch_size=batch_size,
            runtime=runtime,
        ),
        score_threshold=0.0,
    )


@pytest.mark.parametrize("runtime", ["torch", "openvino"])
def test_batch_size_and_threads_change_nothing(runtime: RuntimeName) -> None:
    image = np.random.default_rng(0).integers(0, 256, (90, 120, 3), dtype=np.uint8)
    image[20:60, 30:80] //= 4
    expected = googlenet_detector(1, num_threads=1, runtime="torch")(image)
    threads = torch.get_num_threads()
    try:
        for batch_size, num_threads in [(4, 1), (16, 2), (64, 1)]:
            torch.set_num_threads(num_threads)
            found = googlenet_detector(batch_size, num_threads, runtime)(image)
            assert (found.boxes == expected.boxes).all() and (found.labels == expected.labels).all()
            assert np.abs(found.scores - expected.scores).max() < 1e-4
    finally:
        torch.set_num_threads(threads)
