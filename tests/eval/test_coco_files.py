"""COCO JSON that is wrong, and what is said of it."""

import json
import warnings
from dataclasses import replace
from pathlib import Path

import pytest
from random_scenes import random_scene

from eval import coco, inputs
from eval.dataset import Category
from eval.protocols import evaluate

TRUTH = {
    "images": [{"id": 1, "file_name": "a.jpg"}, {"id": 2, "file_name": "b.jpg"}],
    "categories": [{"id": 1, "name": "x"}],
    "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [0, 0, 9, 9]}],
}
RESULT: dict[str, object] = {"image_id": 1, "category_id": 1, "bbox": [0, 0, 9, 9], "score": 0.5}
BAD_RESULTS: dict[str, tuple[dict[str, object], str]] = {
    "score": ({"score": None}, "entry 2 has no score"),
    "word": ({"score": "high"}, "entry 2 has score 'high', expected a number"),
    "nan": ({"score": float("nan")}, "entry 2 has a score or bbox that is not a finite number"),
    "box": ({"bbox": [1, 2, 3]}, r"entry 2 has bbox \[1, 2, 3\], expected four numbers"),
    "width": ({"bbox": [1, 2, -3, 4]}, "entry 2 has a bbox of negative width or height"),
    "image": ({"image_id": 9}, r"1 detections lie in 1 other images than those .* \(9\)"),
    "category": ({"category_id": 9}, "detection 2 has category_id 9"),
    "fraction": ({"image_id": 1.5}, "entry 2 has image_id 1.5, expected a whole number"),
}


@pytest.mark.parametrize("case", BAD_RESULTS)
def test_bad_results_are_named(tmp_path: Path, case: str) -> None:
    change, message = BAD_RESULTS[case]
    (tmp_path / "truth.json").write_text(json.dumps(TRUTH))
    (tmp_path / "results.json").write_text(json.dumps([RESULT, RESULT | change]))
    annotations = inputs.read_annotations(tmp_path / "truth.json")
    with pytest.raises(ValueError, match=rf"results.json: {message}"):
        inputs.read_detections(tmp_path / "results.json", annotations)


def test_bad_json_is_named(tmp_path: Path) -> None:
    path = tmp_path / "truth.json"
    slow = json.dumps(TRUTH).replace("image_id", "\\u0069mage_id")  # not read by the compiled parser
    twice = {**TRUTH, "images": TRUTH["images"] * 2}
    for content, message in (
        ('{"images": [', "not valid JSON"),
        ("{}", "neither COCO instances nor"),
        ('{"annotations": []}', "no `images` and `categories`"),
        ('{"images": [{"file_name": "caf\xe9"}]}', "not valid JSON"),  # Latin-1
        (json.dumps(twice), "two images have the id 1"),
        (json.dumps({**TRUTH, "categories": TRUTH["categories"] * 2}), "two categories have the id 1"),
        (json.dumps({**TRUTH, "annotations": TRUTH["annotations"] * 2}), "two annotations have the id 1"),
        (json.dumps({**TRUTH, "categories": []}), "annotation 1 has category_id 1"),
        (json.dumps({**TRUTH, "images": [{"file_name": "a"}]}), "an image has no whole number as `id`"),
        (json.dumps({**TRUTH, "images": [{"id": 10**20}]}), "an image has no whole number as `id`"),
        (json.dumps({**TRUTH, "images": [{"id": float("inf")}]}), "an image has no whole number as `id`"),
        (json.dumps({**TRUTH, "images": [{"id": 1.7}]}), "an image has no whole number as `id`"),
        (json.dumps({**TRUTH, "images": ["a.jpg"]}), "an image has no whole number as `id`"),
        (json.dumps({**TRUTH, "categories": [{"id": "1"}]}), "a category has no whole number as `id`"),
        (json.dumps({**TRUTH, "categories": [{"id": 10**20}]}), "a category has no whole number as `id`"),
        (json.dumps(TRUTH).replace('"image_id": 1', f'"image_id": {10**20}'), "entry 1 has image_id 10"),
        (json.dumps(TRUTH).replace("[0, 0, 9, 9]", "[0, 0, 1e999, 9]"), ".* not a finite number"),
        (slow.replace("[0, 0, 9, 9]", f"[0, 0, {10**400}, 9]"), "entry 1 .* not a finite number"),
        (slow.replace("[0, 0, 9, 9]", f"[0, 0, {'1' * 5000}, 9]"), "not valid JSON: Exceeds the limit"),
        (slow.replace('"x"', "[" * 100_000), "not valid JSON"),
    ):
        path.write_bytes(content.encode("latin-1"))
        with pytest.raises(ValueError, match=rf"truth.json: {message}"):
            inputs.read_annotations(path)


def test_null_is_a_field_that_is_not_there(tmp_path: Path) -> None:
    truth = {
        "images": [{"id": 1.0, "file_name": None}],
        "categories": [{"id": 1, "name": "x", "wnid": None}, {"id": 2, "name": None}],
        "annotations": [RESULT],
    }
    (tmp_path / "truth.json").write_text(json.dumps(truth))
    annotations = inputs.read_annotations(tmp_path / "truth.json")
    assert annotations.images.names == ("1",) and annotations.images.ids.tolist() == [1]
    assert annotations.categories == (Category(1, "x"), Category(2, "2"))


def test_difficult_boxes_and_crowds_are_written_and_read(tmp_path: Path) -> None:
    truth = random_scene(3).annotations
    truth = replace(truth, difficult=truth.difficult & ~truth.crowd)
    assert truth.difficult.any() and truth.crowd.any()
    coco.write_annotations(tmp_path / "truth.json", truth)
    back = inputs.read_annotations(tmp_path / "truth.json")
    assert back.difficult.tolist() == truth.difficult.tolist() and back.crowd.tolist() == truth.crowd.tolist()


def test_two_images_are_not_taken_for_one(tmp_path: Path) -> None:
    """By their stems both would be 001.jpg of the annotations."""
    truth = TRUTH | {"images": [{"id": 1, "file_name": "001.jpg"}]}
    (tmp_path / "truth.json").write_text(json.dumps(truth))
    annotations = inputs.read_annotations(tmp_path / "truth.json")
    content = {
        "images": [{"id": 1, "file_name": "cat/001.jpg"}, {"id": 2, "file_name": "dog/001.jpg"}],
        "annotations": [RESULT, RESULT | {"image_id": 2}],
    }
    (tmp_path / "found.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"found.json: cat/001.jpg and dog/001.jpg would both be 001.jpg of"):
        inputs.read_detections(tmp_path / "found.json", annotations)
    content = {"images": [{"id": 7, "file_name": "001.jpg"}], "annotations": [RESULT | {"image_id": 7}]}
    (tmp_path / "found.json").write_text(json.dumps(content))
    assert inputs.read_detections(tmp_path / "found.json", annotations).image.tolist() == [0]


def test_images_that_nobody_looked_at_are_told_of(tmp_path: Path) -> None:
    (tmp_path / "truth.json").write_text(json.dumps(TRUTH))
    annotations = inputs.read_annotations(tmp_path / "truth.json")
    content = {"images": [{"id": 1, "file_name": "a.jpg"}], "annotations": [RESULT]}
    (tmp_path / "found.json").write_text(json.dumps(content))
    with pytest.warns(UserWarning, match="found.json: looked at 1 of the 2 annotated images; the objects of"):
        found = inputs.read_detections(tmp_path / "found.json", annotations)
    assert evaluate(found, annotations).images_unseen == 1
    assert evaluate(found, annotations, protocol="coco").images_unseen == 1
    content["images"] = TRUTH["images"]  # the other one without a detection
    (tmp_path / "found.json").write_text(json.dumps(content))
    with warnings.catch_warnings(action="error"):
        found = inputs.read_detections(tmp_path / "found.json", annotations)
    assert evaluate(found, annotations).images_unseen == 0
    (tmp_path / "found.json").write_text(json.dumps([RESULT]))  # does not tell
    assert (
        evaluate(inputs.read_detections(tmp_path / "found.json", annotations), annotations).images_unseen == 0
    )
