"""Which image is meant, by names with and without folders, suffixes and dots."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from eval.coco import write_annotations
from eval.coco_lists import translate_categories
from eval.dataset import Category, ImageSet, make_annotations
from eval.image_names import image_stem, read_name_list
from eval.inputs import read_annotations
from eval.voc import VOC_CLASSES
from eval.voc import write_annotations as write_xml

XML = """<annotation>
<object><name>n02084071</name><bndbox><xmin>1</xmin><xmax>9</xmax><ymin>2</ymin><ymax>8</ymax></bndbox></object>
</annotation>"""


def test_only_suffixes_of_images_go() -> None:
    names = ("a.JPEG", "x/a.jpg", "a", "a_jpg.rf.1f.jpg", "a_jpg.rf.1f", "img.v2", ".png")
    assert [image_stem(name) for name in names] == [
        "a",
        "a",
        "a",
        "a_jpg.rf.1f",
        "a_jpg.rf.1f",
        "img.v2",
        ".png",
    ]


def test_images_are_met_by_stems_with_dots() -> None:
    images = ImageSet(np.arange(1, 4), ("a_jpg.rf.1f", "cat.2", "dog.jpg"))
    names = ["a_jpg.rf.1f.jpg", "b/a_jpg.rf.1f.png", "cat.jpg", "cat.2.jpg", "dog", "dog.png", "a_jpg.rf"]
    assert images.positions_of(names).tolist() == [0, 0, -1, 1, 2, 2, -1]


def test_names_that_repeat_are_ambiguous() -> None:
    images = ImageSet(np.arange(1, 4), ("a.jpg", "a.jpg", "b.jpg"))
    assert images.positions_of(["a.jpg", "a", "b.jpg"]).tolist() == [-1, -1, 2]
    with pytest.raises(ValueError, match=r"b.jpg and b.jpg would both be b.jpg of the annotations"):
        images.distinct_positions_of(["b.jpg", "b.jpg"])


def test_who_has_the_name_comes_before_who_has_the_stem() -> None:
    images = ImageSet(np.arange(1, 5), ("a/1.jpg", "a/2.jpg", "b/2.jpg", "3"))
    own = ["b/1.jpg", "a/1.jpg", "b/2.jpg", "c/2.jpg", "c/3.jpg"]
    assert images.distinct_positions_of(own).tolist() == [-1, 0, 2, -1, 3]
    assert images.named_as(own) == {"a/1.jpg": "a/1.jpg", "b/2.jpg": "b/2.jpg", "3": "c/3.jpg"}
    assert images.named_as([]) == {}
    with pytest.raises(ValueError, match=r"c/3.jpg and d/3.jpg would both be 3 of the annotations"):
        images.named_as(["c/3.jpg", "d/3.jpg"])


def test_classes_of_one_name_are_told_apart_by_their_ids() -> None:
    known = (Category(1, "crane"), Category(2, "crane"), Category(3, "dog"))
    own = [Category(2, "crane"), Category(9, "dog"), Category(1, "crane"), Category(4, "cat")]
    assert translate_categories(own, known).tolist() == [1, 2, 0, -1]
    with pytest.raises(ValueError, match="have 2 classes 'crane', none of them with the id 3"):
        translate_categories([Category(3, "crane")], known)


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("a.jpg\n\n photo 1.jpg \nsub/b.png\n", ["a.jpg", "photo 1.jpg", "sub/b.png"]),
        ("a 1\nb 2\n", None),
        ("a 1\nb\n", None),  # `name index` lines, one of them wrong
        ("a.jpg one\n", None),
        ("a.jpg 1\n", None),
        ("\n", None),
        ("a.jpg\nb.jpg\na.jpg\n", ["a.jpg", "b.jpg"]),
    ],
)
def test_lists_of_names_are_told_from_those_with_an_index(
    tmp_path: Path, text: str, names: list[str] | None
) -> None:
    (tmp_path / "list.txt").write_text(text)
    assert read_name_list(tmp_path / "list.txt") == names


def test_a_list_of_names_chooses_images_of_every_format(tmp_path: Path) -> None:
    images = ImageSet(np.array([3, 5, 9]), ("a.jpg", "b.jpg", "c.jpg"))
    whole = make_annotations(
        images, [Category(1, "cat"), Category(2, "dog")], image=[0, 1, 2, 2, 0], label=[11, 11, 7, 11, 7],
        boxes=np.arange(20).reshape(5, 4) + np.array([0, 0, 30, 30]), last_pixel=False, difficult=[0, 0, 1, 0, 0],
    )  # fmt: skip
    whole = replace(whole, categories=tuple(Category(k + 1, name) for k, name in enumerate(VOC_CLASSES)))
    write_annotations(tmp_path / "all.json", whole)
    write_xml(tmp_path / "xml", whole)
    (tmp_path / "list.txt").write_text("c.jpg\na.jpg\n")
    for source, ids in (("all.json", [3, 9]), ("xml", [1, 2])):
        found = read_annotations(tmp_path / source, image_list=tmp_path / "list.txt")
        assert found.images.ids.tolist() == ids
        assert [image_stem(name) for name in found.images.names] == ["a", "c"]
        assert found.label.tolist() == [7, 7, 11, 11] and found.image.tolist() == [0, 1, 0, 1]
        assert found.difficult.tolist() == [False, True, False, False]
        assert found.boxes[:, 0].tolist() == [16, 8, 0, 12]
        assert len(found.areas) == len(found.crowd) == len(found.coco_areas) == 4
    (tmp_path / "list.txt").write_text("c.jpg\nd.jpg\n")
    with pytest.raises(ValueError, match=r"list\.txt: d\.jpg is none of the images of .*all\.json"):
        read_annotations(tmp_path / "all.json", image_list=tmp_path / "list.txt")


def test_lists_of_xml_name_images_with_and_without_suffix(tmp_path: Path) -> None:
    listed = tmp_path / "list.txt"
    (tmp_path / "a.xml").write_text(XML)
    (tmp_path / "b.jpg.xml").write_text(XML)
    (tmp_path / "broken.xml").write_text("<annotation>")
    for text in ("x/a.JPEG 7\nb 8\n", "a 7\nb.jpg 8\n"):
        listed.write_text(text)
        images = read_annotations(tmp_path, image_list=listed).images
        assert images.ids.tolist() == [7, 8] and images.names == ("a", "b")
    listed.write_text("b.jpg\nx/a.JPEG\n")  # what is not listed need not be whole
    assert read_annotations(tmp_path, image_list=listed).images.names == ("a", "b.jpg")
    listed.write_text("a\nc.jpg\n")
    with pytest.raises(ValueError, match=r"list.txt: c.jpg is none of the images of"):
        read_annotations(tmp_path, image_list=listed)
    listed.write_text("x/a.jpg 1\ny/a.jpg 2\n")
    with pytest.raises(ValueError, match=r"x/a.jpg and y/a.jpg of the image list would both have a.xml"):
        read_annotations(tmp_path, image_list=listed)
