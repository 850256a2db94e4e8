"""Readers: every layout to the same form, which classes are complete, and every kind of bad input named."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_up_annotations import coco, picture, xml
from PIL import Image

from detector.taxonomy import DET200
from detector.training.data import DataConfig, read_data, read_with_boxes
from detector.training.problems import Problems
from detector.training.readers import read_training_set
from detector.training.training_set import IGNORE
from eval.coco import write_annotations
from eval.voc import read_annotations
from proposals.files import by_rank, write_shard

DOG = next(label for label, kind in enumerate(DET200) if kind.name == "dog")


CAT = next(label for label, kind in enumerate(DET200) if kind.name == "domestic cat")


def test_coco_with_labelled_classes_and_boxes_to_ignore(tmp_path: Path) -> None:
    problems = Problems("refuse")
    found = read_training_set(coco(tmp_path), tmp_path, problems)
    assert [kind.name for kind in found.classes] == ["one", "three"]
    first, second = found.images
    assert first.boxes.tolist() == [[1, 2, 11, 22], [0, 0, 5, 5]]
    assert first.labels.tolist() == [1, IGNORE] and first.labelled.tolist() == [False, True]
    assert second.labelled.all()  # says nothing, so everything is boxed
    assert second.boxes.tolist() == [[30, 20, 40, 30]]  # cut at the border
    assert found.counts().tolist() == [1, 1]


def test_two_classes_of_one_name_are_refused(tmp_path: Path) -> None:
    path = coco(tmp_path, categories=[{"id": 1, "name": "Fish"}, {"id": 3, "name": "fish"}])
    with pytest.raises(ValueError, match="the categories 1 and 3 share the name 'fish'"):
        read_training_set(path, tmp_path, Problems())


def test_difficult_boxes_are_ignored_after_conversion_to_coco_as_well(tmp_path: Path) -> None:
    xml(tmp_path / "xml" / "a.xml", ("dog", (1, 1, 10, 20), False), ("dog", (5, 5, 9, 9), True))
    picture(tmp_path / "images" / "a.jpg")
    write_annotations(tmp_path / "a.json", read_annotations(tmp_path / "xml"))
    told = json.loads((tmp_path / "a.json").read_text())
    told["images"][0]["file_name"] = "a.jpg"
    (tmp_path / "a.json").write_text(json.dumps(told))
    for source in ("xml", "a.json"):
        found = read_training_set(tmp_path / source, tmp_path / "images", Problems("refuse"))
        assert sorted(found.images[0].labels.tolist()) == [IGNORE, 11]
        assert found.counts().sum() == 1


def test_a_box_that_is_there_twice_counts_once(tmp_path: Path) -> None:
    one = {"image_id": 5, "category_id": 3, "iscrowd": 0, "bbox": [1, 2, 10, 20]}
    other = one | {"category_id": 1}
    crowd = one | {"iscrowd": 1}
    source = str(coco(tmp_path, annotations=[one, other, one, one | {"bbox": [1, 2, 10, 21]}, crowd, crowd]))
    told: list[str] = []
    problems = Problems("skip", told.append)
    (first, _) = read_data(DataConfig([source], [str(tmp_path)]), problems).images
    assert first.labels.tolist() == [1, 0, 1, IGNORE, IGNORE]
    assert problems.counts == {"box that is there twice": 1}
    assert told == ["a.png: three at 1 2 11 22 is there twice"]
    with pytest.raises(ValueError, match=r"a\.png: three at 1 2 11 22 is there twice"):
        read_data(DataConfig([source], [str(tmp_path)]), Problems("refuse"))


def test_an_image_that_two_files_tell_of_has_the_boxes_of_both(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    second.mkdir()
    more = {
        "images": [{"id": 1, "file_name": "a.png"}],
        "annotations": [{"image_id": 1, "category_id": 1, "bbox": [20, 5, 10, 10]}],
    }
    files = [coco(first), coco(second, **more)]
    config = DataConfig(annotations=list(map(str, files)), images=[str(first), f"{first}/../first"])
    found = read_data(config, Problems("refuse"))
    assert [image.name for image in found.images] == ["a.png", "b.png"]
    assert found.images[0].boxes.tolist() == [[1, 2, 11, 22], [0, 0, 5, 5], [20, 5, 30, 15]]
    assert found.images[0].labels.tolist() == [1, IGNORE, 0] and found.images[0].labelled.all()
    assert found.images[1].boxes.tolist() == [[30, 20, 40, 30]]


@pytest.mark.parametrize(
    ("annotation", "kind", "words"),
    [
        ({"image_id": 9, "category_id": 1, "bbox": [1, 1, 2, 2]}, "annotation without image", "image 9"),
        ({"image_id": 5, "category_id": 7, "bbox": [1, 1, 2, 2]}, "unknown class", "class 7"),
        ({"image_id": 5, "category_id": 1, "bbox": [1, 1, 0, 2]}, "zero-area box", "no area"),
        (
            {"image_id": 5, "category_id": 1, "bbox": [20, 15, 38, 28]},
            "box mostly outside the image",
            "x, y, width",
        ),
        ({"image_id": 5, "bbox": [1, 1, 2, 2]}, "incomplete annotation", "annotation 2 has no category_id"),
        ({"category_id": 1, "bbox": [1, 1, 2, 2]}, "incomplete annotation", "annotation 2 has no image_id"),
        (
            {"image_id": 5, "segmentation": [[1, 1, 2, 2, 1, 2]], "category_id": 1},
            "incomplete annotation",
            "annotation 2 has no bbox",
        ),
        ({}, "incomplete annotation", "annotation 2 has no image_id and no category_id and no bbox"),
        ({"image_id": 5, "category_id": 1, "bbox": [50, 1, 5, 5]}, "box outside the image", "40x30"),
    ],
)
def test_bad_boxes_are_refused_or_left_out_and_counted(
    tmp_path: Path, annotation: dict[str, Any], kind: str, words: str
) -> None:
    good = {"id": 1, "image_id": 5, "category_id": 3, "iscrowd": 0, "bbox": [1, 2, 10, 20]}
    path = coco(tmp_path, annotations=[good, {"id": 2, "iscrowd": 0} | annotation])
    with pytest.raises(ValueError, match=words):
        read_training_set(path, tmp_path, Problems("refuse"))
    told: list[str] = []
    problems = Problems("skip", told.append)
    found = read_training_set(path, tmp_path, problems)
    assert sum(len(image.boxes) for image in found.images) == 1
    assert problems.counts == {kind: 1} and words in told[0] and problems.summary() == f"1 x {kind}"


@pytest.mark.parametrize(
    ("images", "words"),
    [
        ([{"id": 5}, {"id": 6, "file_name": "b.png"}], "image 5 has no `file_name`"),
        ([{"file_name": "a.png"}], "an image has no whole number as `id`"),
        (["a.png"], "an image has no whole number as `id`"),
        ([{"id": 5, "file_name": "a.png"}, {"id": 5, "file_name": "b.png"}], "two images have the id 5"),
        ([{"id": 5, "file_name": "a.png", "labelled_classes": None}], "a.png has labelled_classes None"),
    ],
)
def test_bad_lists_of_images_are_named(tmp_path: Path, images: list[Any], words: str) -> None:
    with pytest.raises(ValueError, match=f"instances.json: {words}"):
        read_training_set(coco(tmp_path, images=images, annotations=[]), tmp_path, Problems("refuse"))


@pytest.mark.parametrize(
    ("proposals", "words"),
    [
        ({"modus": "fast"}, r"--data\.proposals has no 'modus'; it has mode, strategies, "),
        ({"seed": 3}, r"--data\.proposals has no 'seed'"),
        (
            {"mode": "fast", "min_box_side": "abc"},
            r"--data\.proposals\.min_box_side is 'abc', which is no value",
        ),
        ({"strategies": [{"colour": "HSV"}]}, r"--data\.proposals\.strategies is \[.*\], which is no value"),
    ],
)
def test_proposals_that_selective_search_does_not_make(
    tmp_path: Path, proposals: dict[str, Any], words: str
) -> None:
    config = DataConfig([str(coco(tmp_path))], [str(tmp_path)], proposals=proposals)
    with pytest.raises(ValueError, match=words):
        read_with_boxes(config, Problems(), seed=0)


def test_images_of_another_size_than_annotated_are_left_out(tmp_path: Path) -> None:
    """They were shrunk after somebody drew the boxes."""
    images = [
        {"id": 5, "file_name": "a.png", "width": 80, "height": 60},
        {"id": 6, "file_name": "b.png", "width": 41, "height": 30},  # a pixel is no matter
    ]
    problems = Problems()
    found = read_training_set(coco(tmp_path, images=images), tmp_path, problems)
    assert [image.name for image in found.images] == ["b.png"]
    assert problems.counts == {"image of another size": 1}
    with pytest.raises(ValueError, match=r"a\.png is annotated as 80x60, but has 40x30 pixels"):
        read_training_set(tmp_path / "instances.json", tmp_path, Problems("refuse"))


def test_folders_without_annotations_are_named(tmp_path: Path) -> None:
    picture(tmp_path / "photos" / "a.png")
    with pytest.raises(
        ValueError, match=r"photos: no usable training images in it \(expected COCO JSON, or XML"
    ):
        read_training_set(tmp_path / "photos", tmp_path, Problems())


def test_images_that_are_absent_or_unreadable(tmp_path: Path) -> None:
    path = coco(tmp_path)
    (tmp_path / "a.png").write_bytes(b"no image")
    problems = Problems()
    assert [image.name for image in read_training_set(path, tmp_path, problems).images] == ["b.png"]
    assert problems.counts == {"unreadable image": 1}
    (tmp_path / "b.png").unlink()
    with pytest.raises(ValueError, match="no usable training images"):
        read_training_set(path, tmp_path, Problems())


def test_empty_class_and_no_boxes(tmp_path: Path) -> None:
    one = [{"id": 1, "image_id": 5, "category_id": 3, "iscrowd": 0, "bbox": [1, 2, 10, 20]}]
    problems = Problems()
    config = DataConfig([str(coco(tmp_path, annotations=one))], [str(tmp_path)])
    assert len(read_data(config, problems)) == 2
    assert problems.counts == {"class without boxes": 1}
    coco(tmp_path, annotations=[one[0] | {"iscrowd": 1}])
    with pytest.raises(
        ValueError, match=r"instances\.json: no boxes to learn from: all 1 are to be ignored$"
    ):
        read_data(config, Problems())
    coco(tmp_path, annotations=[])
    with pytest.raises(ValueError, match=r"no boxes to learn from: none of the 2 images has one$"):
        read_data(config, Problems())
    coco(tmp_path, annotations=[{"image_id": 5, "category_id": 3}])
    with pytest.raises(ValueError, match=r"none of the 2 images has one \(1 x incomplete annotation\)"):
        read_data(config, Problems())
    with pytest.raises(ValueError, match=r"--data\.images is missing \(short: --images\)"):
        read_data(replace(config, images=[]), Problems())


def test_exif_turned_image_has_the_size_it_shows(tmp_path: Path) -> None:
    path = coco(tmp_path)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (40, 30)).save(tmp_path / "a.jpg", exif=exif)
    (tmp_path / "a.jpg").replace(tmp_path / "a.png")
    first = read_training_set(path, tmp_path, Problems("refuse")).images[0]
    assert (first.width, first.height) == (30, 40)


def test_names_with_dots(tmp_path: Path) -> None:
    for name in ("a_jpg.rf.1f", "a_jpg.rf.2e"):
        xml(tmp_path / "xml" / f"{name}.xml", ("cat", (1, 1, 10, 20), False))
        picture(tmp_path / "images" / f"{name}.jpg")
    for listed in ("a_jpg.rf.2e", "a_jpg.rf.2e.jpg"):
        (tmp_path / "list.txt").write_text(f"{listed}\n")
        found = read_training_set(
            tmp_path / "xml", tmp_path / "images", Problems("refuse"), image_list=tmp_path / "list.txt"
        )
        assert [image.name for image in found.images] == ["a_jpg.rf.2e"]
    (tmp_path / "list.txt").write_text("b\n")
    with pytest.raises(ValueError, match=r"none of its images may be in .*list\.txt"):
        read_training_set(tmp_path / "xml", tmp_path, Problems("refuse"), image_list=tmp_path / "list.txt")


def test_the_real_boxes(shared: Path) -> None:
    problems = Problems("refuse")
    folder = shared / "train_boxes"
    found = read_training_set(folder / "instances.json", folder / "images", problems)
    assert len(found) == 1640 and found.classes == DET200
    assert sum(len(image.boxes) for image in found.images) == 4789
    assert sum(int((image.labels == IGNORE).sum()) for image in found.images) == 574
    assert sorted({int(image.labelled.sum()) for image in found.images}) == [1, 18, 42]


def test_boxes_are_made_anew_for_another_picture_under_the_same_name(tmp_path: Path) -> None:
    source = coco(tmp_path)
    config = DataConfig([str(source)], [str(tmp_path)], proposals={"mode": "single"})
    keep = tmp_path / "proposals.npz"
    _, before = read_with_boxes(config, Problems(), seed=0, keep=keep)
    picture(tmp_path / "b.png", (20, 60))
    _, after = read_with_boxes(config, Problems(), seed=0, keep=keep)
    assert before[1].max() == 40 and after[1].max() == 60
    assert (before[0] == after[0]).all()


def test_boxes_are_made_anew_for_another_picture_of_the_same_size_in_bytes(tmp_path: Path) -> None:
    config = DataConfig([str(coco(tmp_path))], [str(tmp_path)], proposals={"mode": "single"})
    pixels = np.zeros((30, 40, 3), np.uint8)
    found = []
    for column in (4, 20):
        pixels[:] = 0
        pixels[6:24, column : column + 15] = 255
        Image.fromarray(pixels).save(tmp_path / "b.png", format="BMP")
        found.append(read_with_boxes(config, Problems(), seed=0, keep=tmp_path / "proposals.npz")[1][1])
    assert (tmp_path / "b.png").stat().st_size == 3654
    assert not np.array_equal(found[0], found[1])


def test_a_picture_cut_short_is_left_out_where_its_boxes_come_from_a_file(tmp_path: Path) -> None:
    source = coco(tmp_path)
    shard = tmp_path / "boxes.npz"
    boxes = by_rank(np.array([[0, 0, 20, 20]], np.float32))
    write_shard(shard, {"a.png": boxes, "b.png": boxes}, {})
    noise = np.random.default_rng(0).integers(0, 255, (30, 40, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "b.png")
    (tmp_path / "b.png").write_bytes((tmp_path / "b.png").read_bytes()[:1500])
    problems = Problems()
    config = DataConfig([str(source)], [str(tmp_path)], proposal_files=[str(shard)])
    found, _ = read_with_boxes(config, problems, seed=0)
    assert [image.name for image in found.images] == ["a.png"] and problems.counts["unreadable image"] == 1
