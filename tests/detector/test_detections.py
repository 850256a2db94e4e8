"""Result files: what is written is what other programs read."""

import csv
import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pycocotools.coco import COCO

from detector.detections import Detections, save
from detector.taxonomy import DET200, DetectionClass


def detections(image_id: int = 7, count: int = 2) -> Detections:
    return Detections(
        boxes=np.array([[1.5, 2, 11.25, 22], [0, 0, 50, 40]], np.float32)[:count],
        scores=np.array([0.9, 0.25], np.float32)[:count],
        labels=np.array([57, 0])[:count],
        classes=DET200,
        width=50,
        height=40,
        image_name=f"folder/image {image_id}.jpg",
        image_id=image_id,
    )


def test_coco_is_a_data_set_and_a_result(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "x.json"
    save([detections(7), detections(9, count=0), detections(8)], path)
    data = COCO(str(path))
    assert sorted(data.imgs) == [7, 8, 9]
    assert data.imgs[7] == {"id": 7, "file_name": "folder/image 7.jpg", "width": 50, "height": 40}
    assert len(data.cats) == 200 and data.cats[1] == {"id": 1, "name": "accordion", "wnid": "n02672831"}
    first = data.loadAnns(data.getAnnIds(imgIds=7))[0]
    assert first["id"] == 1 and first["category_id"] == 58 and first["bbox"] == [1.5, 2, 9.75, 20]
    assert first["score"] == pytest.approx(0.9, abs=1e-6)
    results = data.loadRes(json.loads(path.read_text())["annotations"])
    assert len(results.anns) == 4


def test_ilsvrc_text_is_inclusive(tmp_path: Path) -> None:
    detections().save(tmp_path / "x.txt")
    lines = [line.split() for line in (tmp_path / "x.txt").read_text().splitlines()]
    assert [line[:2] for line in lines] == [["7", "58"], ["7", "1"]]
    numbers = np.array([line[2:] for line in lines], float)
    np.testing.assert_allclose(numbers, [[0.9, 1.5, 2, 10.25, 21], [0.25, 0, 0, 49, 39]], atol=1e-6)


def test_ilsvrc_text_is_for_the_official_classes_only(tmp_path: Path) -> None:
    own = replace(detections(), classes=(DetectionClass(1, "kangaroo"),) * 58)
    with pytest.raises(ValueError, match="'kangaroo' with the id 1 is none of them; choose coco or csv"):
        save([own], tmp_path / "x.txt")
    assert not (tmp_path / "x.txt").exists()
    save([own], tmp_path / "x.csv")


def test_names_that_are_no_text_are_written_all_the_same(tmp_path: Path) -> None:
    save([replace(detections(), image_name=os.fsdecode(b"caf\xe9.jpg"))], tmp_path / "x.csv")
    assert r"caf\udce9.jpg" in (tmp_path / "x.csv").read_text(encoding="utf-8")


def test_csv_has_one_line_a_detection(tmp_path: Path) -> None:
    detections().save(tmp_path / "x.csv")
    with (tmp_path / "x.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["class"] for row in rows] == ["dog", "accordion"]
    assert rows[1] == {
        "image": "folder/image 7.jpg",
        "class_id": "1",
        "class": "accordion",
        "score": "0.25",
        "x1": "0.0",
        "y1": "0.0",
        "x2": "50.0",
        "y2": "40.0",
    }


@pytest.mark.parametrize("name", ["x.json", "x.txt", "x.csv"])
def test_nothing_found_is_a_valid_file(tmp_path: Path, name: str) -> None:
    detections(count=0).save(tmp_path / name)
    assert (tmp_path / name).exists()
    assert [path.name for path in tmp_path.iterdir()] == [name]  # and no temporary one is left


def test_unknown_suffix_and_missing_folder_are_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"x\.xml: the name must end in one of \.json, \.txt, \.csv"):
        detections().save(tmp_path / "x.xml")
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        detections().save(tmp_path / "missing" / "x.json")


def test_drawing_leaves_the_image_alone_and_marks_the_box() -> None:
    image = np.full((400, 500, 3), 128, np.uint8)
    found = detections(count=1)
    found.boxes = np.array([[100, 200, 300, 350]], np.float32)
    picture = found.draw(image)
    assert picture.shape == image.shape and (image == 128).all()
    assert (picture[200, 150:290] != 128).any(axis=1).all()  # the upper edge
    assert (picture[349, 100:300] != 128).any(axis=1).all()  # the last row of pixels inside
    assert (picture[350:, :] == 128).all() and (picture[:, 300:] == 128).all()  # nothing outside
    assert (picture[220:330, 120:280] == 128).all()  # nothing over the object


def test_a_better_box_does_not_cross_out_the_caption_of_another() -> None:
    image = np.full((400, 500, 3), 128, np.uint8)
    found = detections()
    lower = found.select(np.array([1]))
    lower.boxes = np.array([[100, 200, 300, 350]], np.float32)
    alone = lower.draw(image)
    found.boxes = np.array(
        [[110, 100, 450, 390], [100, 200, 300, 350]], np.float32
    )  # the first cuts the caption
    both = found.draw(image)
    above = alone[180:200] != 128  # the caption of the second, over its box
    assert above.any() and (both[180:200][above] == alone[180:200][above]).all()
    both[:] = 0  # a picture of one's own, to draw on


@pytest.mark.parametrize("shape", [(1, 1), (1, 500), (500, 1)])
def test_drawing_on_the_smallest_images(shape: tuple[int, int]) -> None:
    found = detections(count=1)
    found.boxes = np.array([[0, 0, shape[1], shape[0]]], np.float32)
    assert found.draw(np.zeros((*shape, 3), np.uint8)).shape == (*shape, 3)
