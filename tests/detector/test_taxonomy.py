"""The 1000 classes and the 200: complete, and summed as they should be."""

import pytest
import torch

from detector.configuration import labels_of
from detector.taxonomy import (
    DET200,
    DetectionClass,
    TrainedScores,
    ZeroShotScores,
    classification_classes,
    membership,
)


def test_every_detection_class_has_classification_classes() -> None:
    assert len(classification_classes()) == 1000 and len(DET200) == 200
    assert [kind.index for kind in classification_classes()] == list(range(1000))
    assert [kind.wnid for kind in classification_classes()] == sorted(
        kind.wnid for kind in classification_classes()
    )
    assert [kind.id for kind in DET200] == list(range(1, 201))
    assert membership().sum() == 495
    assert membership().sum(dim=0).min() >= 1
    assert membership().sum(dim=1).max() == 1


def test_zero_shot_scores_are_sums_over_the_member_classes() -> None:
    logits = torch.randn(5, 1000, generator=torch.Generator().manual_seed(0)) * 3
    scores = ZeroShotScores(temperature=2.0)(logits)
    probabilities = torch.softmax(logits.double() / 2, dim=1)
    expected = torch.zeros(5, 200, dtype=torch.double)
    for kind in classification_classes():
        if kind.det_id is not None:
            expected[:, kind.det_id - 1] += probabilities[:, kind.index]
    torch.testing.assert_close(scores.double(), expected, rtol=1e-5, atol=1e-7)


def test_domestic_cat_is_what_the_cats_are() -> None:
    tabby = next(kind for kind in classification_classes() if kind.name.startswith("tabby"))
    logits = torch.full((1, 1000), -100.0)
    logits[0, tabby.index] = 0
    assert DET200[int(ZeroShotScores()(logits).argmax())].name == "domestic cat"


def test_trained_scores_leave_background_out() -> None:
    scores = TrainedScores()(torch.tensor([[0.0, 0.0, 0.0, 100.0], [100.0, 0.0, 0.0, 0.0]]))
    torch.testing.assert_close(scores, torch.tensor([[0.0, 0.0, 0.0], [1.0, 0.0, 0.0]]))


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("nan")])
def test_temperature_is_positive(temperature: float) -> None:
    with pytest.raises(ValueError, match="temperature is"):
        ZeroShotScores(temperature)


def test_classes_are_called_by_name_wordnet_id_or_a_word_of_their_own() -> None:
    names = [kind.name for kind in DET200]
    asked = ["Dog", "n02084071", "cat", "traffic light"]
    expected = [
        names.index("dog"),
        names.index("dog"),
        names.index("domestic cat"),
        names.index("traffic light"),
    ]
    assert labels_of(asked, DET200) == expected


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("dgo", "class 'dgo': the detector has no such class; did you mean dog"),
        ("ball", "class 'ball': more than one class has this word; did you mean .* or "),
        ("", "class '': the detector has no such class"),
    ],
)
def test_unknown_classes_are_named(name: str, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        labels_of([name], DET200)


def test_the_few_classes_of_a_detector_are_all_named() -> None:
    with pytest.raises(ValueError, match=r"the detector has no such class; it knows dog$"):
        labels_of(["zebra crossing"], (DetectionClass(1, "dog"),))
