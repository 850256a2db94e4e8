"""Annotated images as VOC, the ILSVRC kit, and people with photos of their own lay them out."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from made_up_annotations import coco, picture, xml

from detector.taxonomy import DET200
from detector.training.classification_data import read_folders, read_list
from detector.training.data import DataConfig, read_data, write_not_learnt_from
from detector.training.det_lists import labelled_by_folder, read_class_lists
from detector.training.problems import Problems
from detector.training.readers import read_training_set
from detector.training.training_set import IGNORE

DOG = next(label for label, kind in enumerate(DET200) if kind.name == "dog")


CAT = next(label for label, kind in enumerate(DET200) if kind.name == "domestic cat")


def test_the_names_of_images_that_are_not_learnt_from(tmp_path: Path) -> None:
    config = DataConfig([str(coco(tmp_path))], [str(tmp_path)], first=1)
    found = read_data(config, Problems("refuse"))
    assert [image.name for image in found.images] == ["a.png"] and found.kept_out == ("b.png",)
    write_not_learnt_from(tmp_path, found)
    assert (tmp_path / "not_learnt_from.txt").read_text() == "b.png\n"
    everything = read_data(replace(config, first=None), Problems("refuse"))
    write_not_learnt_from(tmp_path, everything)
    assert not everything.kept_out and not (tmp_path / "not_learnt_from.txt").exists()
    # In a folder of images without boxes it is learnt from all the same.
    assert not read_data(replace(config, unlabelled=[str(tmp_path)]), Problems("refuse")).kept_out
    for stem in ("one", "two"):
        xml(tmp_path / "a" / f"{stem}.xml", ("kangaroo", (1, 1, 9, 9), False))
        picture(tmp_path / "i" / f"{stem}.jpg")
    found = read_data(DataConfig([str(tmp_path / "a")], [str(tmp_path / "i")], first=1), Problems("refuse"))
    assert found.kept_out == ("two.jpg",)


def test_voc(tmp_path: Path) -> None:
    xml(tmp_path / "xml" / "a.xml", ("dog", (1, 1, 10, 20), False), ("cat", (5, 5, 9, 9), True))
    picture(tmp_path / "images" / "a.jpg")
    (image,) = read_training_set(tmp_path / "xml", tmp_path / "images", Problems("refuse")).images
    assert image.boxes.tolist() == [[0, 0, 10, 20], [4, 4, 9, 9]]  # 1-based inclusive -> 0-based half-open
    assert image.labels.tolist() == [11, IGNORE] and image.labelled.all()


def test_ilsvrc_det_layouts(tmp_path: Path) -> None:
    names = {
        "train/ILSVRC2014_train_0006/ILSVRC2014_train_00060036": DET200[CAT].wnid,
        f"train/ILSVRC2013_train/{DET200[DOG].wnid}/{DET200[DOG].wnid}_12": DET200[DOG].wnid,
        "val/ILSVRC2012_val_00000001": DET200[DOG].wnid,
    }
    for name, wnid in names.items():
        xml(tmp_path / "xml" / f"{name}.xml", (wnid, (0, 0, 9, 9), False))
        picture(tmp_path / "images" / f"{name}.JPEG")
    negative = "train/ILSVRC2013_train_extra0/ILSVRC2013_train_00000007"
    picture(tmp_path / "images" / f"{negative}.JPEG")
    lists = tmp_path / "ImageSets"
    lists.mkdir()
    folder = f"train/ILSVRC2013_train/{DET200[DOG].wnid}/{DET200[DOG].wnid}_12"
    (lists / f"train_{CAT + 1}.txt").write_text(f"{negative} -1\n{folder} 0\n")
    (lists / "val1.txt").write_text("ILSVRC2012_val_00000001 17\n")

    labelled = read_class_lists(lists)
    found = read_training_set(tmp_path / "xml", tmp_path / "images", Problems("refuse"), labelled=labelled)
    complete = {image.name: image.labelled for image in found.images}
    assert found.classes == DET200 and complete.keys() == {*names, negative}
    assert complete["val/ILSVRC2012_val_00000001"].all()
    assert complete["train/ILSVRC2014_train_0006/ILSVRC2014_train_00060036"].all()
    assert np.flatnonzero(complete[folder]).tolist() == [DOG]  # listed as partly labelled for cats
    # The official lists name images without `train/`.
    path = lists / f"train_{CAT + 1}.txt"
    path.write_text(path.read_text().replace("train/", ""))
    (lists / f"train_{DOG + 1}.txt").write_text(f"{folder.removeprefix('train/')} 0\n")
    official = read_class_lists(lists)
    found = read_training_set(tmp_path / "xml", tmp_path / "images", Problems("refuse"), labelled=official)
    told = {image.name: image.labelled for image in found.images}
    assert told.keys() == complete.keys() and np.flatnonzero(told[negative]).tolist() == [CAT]
    assert not told[folder].any()  # only some of its dogs are boxed
    (lists / f"train_{DOG + 1}.txt").unlink()
    assert np.flatnonzero(complete[negative]).tolist() == [CAT]
    assert found.images[0].boxes.tolist() == [[0, 0, 10, 10]]  # 0-based inclusive -> half-open

    val1 = read_training_set(
        tmp_path / "xml", tmp_path / "images", Problems("refuse"), image_list=lists / "val1.txt"
    )
    assert [image.name for image in val1.images] == ["val/ILSVRC2012_val_00000001"]
    assert labelled_by_folder("ILSVRC2012_val_00000001").all()
    assert np.flatnonzero(labelled_by_folder(f"{DET200[DOG].wnid}_12")).tolist() == [
        DOG
    ]  # without its folder
    assert not labelled_by_folder("n02085620/n02085620_77").any()  # a synset that is none of the 200
    (lists / f"train_{CAT + 1}.txt").write_text("a b c\n")
    with pytest.raises(ValueError, match=r"train_\d+.txt:1: expected `name flag`"):
        read_class_lists(lists)


def test_classification_folders_and_lists(tmp_path: Path) -> None:
    for name in ("n01440764/a.JPEG", "n01443537/b.jpg", "n01443537/c.png"):
        picture(tmp_path / "cls" / name)
    found = read_folders(tmp_path / "cls", Problems("refuse"))
    told = found.fingerprint()
    assert found.labels == (0, 1, 1) and len(found.classes) == 1000
    picture(tmp_path / "cls" / "n01440764" / "a.JPEG", (90, 70))
    assert read_folders(tmp_path / "cls", Problems("refuse")).fingerprint() != told
    (tmp_path / "cls" / "zebra").mkdir()
    with pytest.raises(ValueError, match="zebra: is none of the 1000 ILSVRC classes"):
        read_folders(tmp_path / "cls", Problems())
    (tmp_path / "cls" / "zebra").rename(tmp_path / "cls" / "n02391049")
    problems = Problems()
    assert read_folders(tmp_path / "cls", problems).labels == (0, 1, 1)
    assert problems.counts == {"empty class": 1}

    (tmp_path / "list.txt").write_text("n01440764/a.JPEG 999\nabsent.jpg 0\nn01443537/b.jpg 1000\n")
    (tmp_path / "short.csv").write_text("file,label\na.jpg\n")
    with pytest.raises(ValueError, match=r"short.csv: expected lines `name label`, or CSV columns"):
        read_list(tmp_path / "short.csv", tmp_path / "cls", Problems())
    problems = Problems()
    listed = read_list(tmp_path / "list.txt", tmp_path / "cls", problems)
    assert listed.labels == (999,)
    assert problems.counts == {"annotation without image": 1, "unknown class": 1}
    (tmp_path / "labels.csv").write_text("file,label,wnid\nn01440764/a.JPEG,123,x\n")
    assert read_list(tmp_path / "labels.csv", tmp_path / "cls", problems).labels == (123,)
    (tmp_path / "det.csv").write_text("file,det_id,wnid\nn01440764/a.JPEG,124,x\n")
    with pytest.raises(ValueError, match=r"det\.csv: expected .* \(det_id counts the 200 detection classes"):
        read_list(tmp_path / "det.csv", tmp_path / "cls", problems)


def test_an_image_list_may_have_names_with_blanks(tmp_path: Path) -> None:
    names = ("my photo.png", "my other photo.png", "b.png")
    for name in names:
        picture(tmp_path / name)
    source = coco(
        tmp_path,
        images=[{"id": 5 + place, "file_name": name} for place, name in enumerate(names)],
        annotations=[{"image_id": 5, "category_id": 3, "bbox": [1, 2, 10, 20]}],
    )
    (tmp_path / "list.txt").write_text("my photo.png\nb 1\n")
    found = read_training_set(source, tmp_path, Problems("refuse"), image_list=tmp_path / "list.txt")
    assert [image.name for image in found.images] == ["my photo.png", "b.png"]


def test_an_image_list_names_train_images_as_the_kit_does(tmp_path: Path) -> None:
    name = "ILSVRC2013_train/n02084071/n02084071_1"
    xml(tmp_path / "a" / "train" / f"{name}.xml", ("n02084071", (1, 1, 9, 9), False))
    picture(tmp_path / "i" / "train" / f"{name}.JPEG")
    for line in (name, f"train/{name}", "n02084071_1"):
        (tmp_path / "train.txt").write_text(f"{line} 1\n")
        found = read_training_set(
            tmp_path / "a", tmp_path / "i", Problems("refuse"), image_list=tmp_path / "train.txt"
        )
        assert len(found) == 1


def test_negative_images_of_a_folder_that_is_not_read_are_no_problem(tmp_path: Path) -> None:
    xml(tmp_path / "a" / "ILSVRC2012_val_1.xml", ("n02084071", (1, 1, 9, 9), False))
    picture(tmp_path / "i" / "ILSVRC2012_val_1.JPEG")
    lists = {"ILSVRC2013_train_extra0/one": {DOG: False}}
    found = read_training_set(tmp_path / "a", tmp_path / "i", Problems("refuse"), labelled=lists)
    assert [image.name for image in found.images] == ["ILSVRC2012_val_1"]


def test_an_xml_file_of_another_name_than_its_photo(tmp_path: Path) -> None:
    for stem, names in (("ann_1", "C:\\photos\\one.jpg"), ("ann_2", "gone.jpg"), ("ann_3", "")):
        xml(tmp_path / "a" / "sub" / f"{stem}.xml", ("kangaroo", (1, 1, 9, 9), False))
        file = tmp_path / "a" / "sub" / f"{stem}.xml"
        named = f"<filename>{names}</filename>" if names else ""
        file.write_text(file.read_text().replace("<annotation>", f"<annotation>{named}"))
    picture(tmp_path / "i" / "sub" / "one.png")
    told: list[str] = []
    problems = Problems("skip", told.append)
    (found,) = read_training_set(tmp_path / "a", tmp_path / "i", problems).images
    assert found.name == "sub/one" and found.path.name == "one.png"
    assert problems.counts == {"annotation without image": 2}
    assert all(f"ann_{k}.xml: no image sub/ann_{k}.* in {tmp_path / 'i'}" in told[k - 2] for k in (2, 3))


@pytest.mark.parametrize("suffix", ["PNG", "bmp", "webp", "tif"])
def test_own_photos_may_have_any_suffix(tmp_path: Path, suffix: str) -> None:
    for stem in ("one.a[1]", "two"):
        xml(tmp_path / "a" / f"{stem}.xml", ("kangaroo", (1, 1, 9, 9), False))
        picture(tmp_path / "i" / f"{stem}.{suffix}")
    found = read_training_set(tmp_path / "a", tmp_path / "i", Problems("refuse"))
    assert [image.path.name for image in found.images] == [f"one.a[1].{suffix}", f"two.{suffix}"]


def test_classes_of_voc_that_have_no_box_are_told_and_not_refused(tmp_path: Path) -> None:
    xml(tmp_path / "a" / "one.xml", ("dog", (1, 1, 9, 9), False))
    picture(tmp_path / "i" / "one.jpg")
    problems = Problems("refuse")
    assert len(read_data(DataConfig([str(tmp_path / "a")], [str(tmp_path / "i")]), problems)) == 1
    assert problems.counts["class without boxes"] == 19


def test_text_that_is_no_utf_8_is_named(tmp_path: Path) -> None:
    (tmp_path / "train_1.txt").write_bytes("caf\xe9 1\n".encode("cp1252"))
    with pytest.raises(ValueError, match=r"train_1\.txt: is not UTF-8 text"):
        read_class_lists(tmp_path)
    with pytest.raises(ValueError, match=r"train_1\.txt: is not UTF-8 text"):
        read_list(tmp_path / "train_1.txt", tmp_path, Problems())


def test_a_row_without_a_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text("label,file\n1\n")
    with pytest.raises(ValueError, match="a line names no file"):
        read_list(tmp_path / "labels.csv", tmp_path, Problems())


def test_a_photo_of_another_size_than_its_xml_says_is_left_out(tmp_path: Path) -> None:
    for stem, width, height in (("alike", 40, 30), ("turned", 30, 40), ("unknown", 0, 0)):
        xml(tmp_path / "a" / f"{stem}.xml", ("kangaroo", (1, 1, 9, 9), False))
        file = tmp_path / "a" / f"{stem}.xml"
        size = f"<size><width>{width}</width><height>{height}</height></size>"
        file.write_text(file.read_text().replace("<annotation>", f"<annotation>{size}"))
        picture(tmp_path / "i" / f"{stem}.jpg")
    problems = Problems()
    found = read_training_set(tmp_path / "a", tmp_path / "i", problems)
    assert [image.name for image in found.images] == ["alike", "unknown"]
    assert problems.counts == {"image of another size": 1}
