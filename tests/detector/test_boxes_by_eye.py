"""The boxes that were drawn by eye for the shipped models: what they promise to those who learn or choose with them."""

import json
from typing import Any

import pytest

from detector.taxonomy import DET200
from detector.weights import MODELS
from eval.coco import read_annotations

PERSON = next(det.id for det in DET200 if det.name == "person")
IDS = {det.id for det in DET200}
FOLDER = MODELS / "boxes"


FILES = ["train.json", "train_samples.json", "held_out.json"]


def read(name: str) -> dict[str, Any]:
    return dict(json.loads((FOLDER / name).read_text()))


@pytest.fixture(scope="module", params=FILES)
def drawn(request: pytest.FixtureRequest) -> dict[str, Any]:
    """One of the three files."""
    return read(request.param)


def test_the_categories_are_the_official_ones(drawn: dict[str, Any]) -> None:
    assert [(row["id"], row["wnid"]) for row in drawn["categories"]] == [(det.id, det.wnid) for det in DET200]


def test_every_box_lies_in_its_image_and_is_of_a_class_that_is_known_there(drawn: dict[str, Any]) -> None:
    images = {image["id"]: image for image in drawn["images"]}
    for box in drawn["annotations"]:
        image, (x, y, width, height) = images[box["image_id"]], box["bbox"]
        assert width > 0 and height > 0
        assert 0 <= x <= x + width <= image["width"] and 0 <= y <= y + height <= image["height"]
        assert (
            box["category_id"] in image["labelled_classes"] if not box["iscrowd"] else box["category_id"] == 0
        )


def test_people_are_known_everywhere(drawn: dict[str, Any]) -> None:
    assert all(PERSON in image["labelled_classes"] for image in drawn["images"])


@pytest.mark.parametrize("name", ["train.json", "held_out.json"])
def test_each_class_has_an_image(name: str) -> None:
    assert {box["category_id"] for box in read(name)["annotations"]} - {0} == IDS


@pytest.mark.parametrize("name", FILES)
def test_the_evaluator_reads_them(name: str) -> None:
    objects = [box for box in read(name)["annotations"] if not box["iscrowd"]]
    annotations = read_annotations(FOLDER / name)
    assert (~annotations.crowd).sum() == len(objects)


def test_no_image_is_learnt_from_and_held_out() -> None:
    names = [{image["file_name"] for image in read(name)["images"]} for name in FILES]
    assert all(names) and len(set.union(*names)) == sum(map(len, names))
