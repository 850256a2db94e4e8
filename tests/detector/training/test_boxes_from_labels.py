"""Boxes of images whose classes are known: the best detection of each, and what may be an object as well."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from detector.detections import Detections, save
from detector.taxonomy import DetectionClass
from detector.training.boxes_from_labels import BoxesFromLabels, make_boxes
from detector.training.problems import Problems
from detector.training.readers import read_training_set
from detector.training.training_set import IGNORE

CLASSES = (DetectionClass(3, "cat"), DetectionClass(7, "dog"), DetectionClass(9, "sofa"))
CAT, DOG, SOFA = range(3)
QUIET = Console(quiet=True)


def found(name: str, number: int, *rows: tuple[int, float, tuple[int, int, int, int]]) -> Detections:
    labels, scores, boxes = zip(*sorted(rows, key=lambda row: -row[1]), strict=True)
    return Detections(
        np.array(boxes, np.float32),
        np.array(scores, np.float32),
        np.array(labels),
        CLASSES,
        60,
        40,
        name,
        number,
    )


@pytest.fixture
def photos(tmp_path: Path) -> BoxesFromLabels:
    """What was found in four photos, and what they are known to show."""
    for name in ("a.png", "b.png", "c.png", "d.png"):
        Image.fromarray(np.full((40, 60, 3), 90, np.uint8)).save(tmp_path / name)
    save(
        [
            # A cat, perhaps a second and surely no third; a sofa that no label names; a dog that is none.
            found(
                "a.png",
                1,
                (CAT, 0.5, (0, 0, 20, 20)),
                (CAT, 0.2, (30, 0, 50, 20)),
                (CAT, 0.1, (0, 20, 20, 40)),
                (SOFA, 0.9, (0, 5, 60, 40)),
                (DOG, 0.25, (5, 5, 10, 10)),
            ),
            found("b.png", 2, (DOG, 0.8, (1, 2, 30, 40)), (CAT, 0.3, (31, 2, 60, 40))),  # both are known
            found("c.png", 3, (DOG, 0.9, (0, 0, 60, 40)), (CAT, 0.2, (0, 0, 30, 40))),  # not sure of the cat
            found("d.png", 4, (DOG, 0.9, (0, 0, 60, 40))),  # nothing is known
        ],
        tmp_path / "detections.json",
    )
    (tmp_path / "labels.csv").write_text(
        "file,det_id\na.png,3\nb.png,7\nb.png,3\nc.png,3\nlost.png,3\na.png,8\n"
    )
    return BoxesFromLabels(
        str(tmp_path / "detections.json"), str(tmp_path / "labels.csv"), str(tmp_path / "boxes.json")
    )


def test_what_comes_out_can_be_learnt_from(
    photos: BoxesFromLabels, capsys: pytest.CaptureFixture[str]
) -> None:
    path = make_boxes(photos, Console(width=500))
    told = capsys.readouterr().out
    assert "c.png: nothing looks like its label" in told and "lost.png is not in" in told
    assert "class '8', which is none of ours" in told and "3 boxes in 2 images, 2 to ignore" in told
    training_set = read_training_set(path, path.parent, Problems("refuse"))
    assert [kind.name for kind in training_set.classes] == ["cat", "dog", "sofa"]
    first, second = training_set.images
    assert (first.name, second.name) == ("a.png", "b.png")
    assert first.labels.tolist() == [CAT, IGNORE, IGNORE]
    assert first.boxes.tolist() == [[0, 0, 20, 20], [0, 5, 60, 40], [30, 0, 50, 20]]
    assert first.labelled.tolist() == [True, False, False]
    assert second.labels.tolist() == [DOG, CAT]
    assert second.boxes.tolist() == [[1, 2, 30, 40], [31, 2, 60, 40]]
    assert second.labelled.tolist() == [True, True, False]


def test_a_score_too_high_leaves_nothing(photos: BoxesFromLabels) -> None:
    with pytest.raises(ValueError, match=r"no box for any image of .*labels\.csv .*image without a box"):
        make_boxes(BoxesFromLabels(photos.detections, photos.image_labels, photos.output, 0.95), QUIET)
    assert not Path(photos.output).exists()


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"image_labels": None}, "--image-labels is missing"),
        ({"min_score": 2.0}, "--min-score is 2.0, but must lie between 0 and 1"),
        ({"doubt": -1.0}, "--doubt is -1.0"),
    ],
)
def test_a_wrong_option_is_named(
    photos: BoxesFromLabels, change: dict[str, float | None], sentence: str
) -> None:
    with pytest.raises(ValueError, match=sentence):
        make_boxes(BoxesFromLabels(**{**vars(photos), **change}), QUIET)


@pytest.mark.parametrize("lacking", ["score", "bbox", "category_id"])
def test_annotations_are_no_detections(photos: BoxesFromLabels, lacking: str) -> None:
    content = json.loads(Path(photos.detections).read_text())
    del content["annotations"][2][lacking]
    Path(photos.detections).write_text(json.dumps(content))
    with pytest.raises(ValueError, match=f"entry 3 has no {lacking}"):
        make_boxes(photos, QUIET)


def test_a_list_of_results_names_no_images(photos: BoxesFromLabels) -> None:
    content = json.loads(Path(photos.detections).read_text())
    Path(photos.detections).write_text(json.dumps(content["annotations"]))
    with pytest.raises(ValueError, match="no `images` and `categories`"):
        make_boxes(photos, QUIET)


@pytest.mark.parametrize(
    ("part", "lacking"), [("images", "id"), ("images", "file_name"), ("categories", "id")]
)
def test_a_row_without_what_it_needs_is_named(photos: BoxesFromLabels, part: str, lacking: str) -> None:
    content = json.loads(Path(photos.detections).read_text())
    del content[part][1][lacking]
    Path(photos.detections).write_text(json.dumps(content))
    with pytest.raises(ValueError, match=f"has no `{lacking}`"):
        make_boxes(photos, QUIET)
