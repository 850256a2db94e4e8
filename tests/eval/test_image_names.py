"""Which image is meant, by names with and without folders, suffixes and dots."""

import numpy as np
import pytest

from eval.coco_lists import translate_categories
from eval.dataset import Category, ImageSet
from eval.image_names import image_stem


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
