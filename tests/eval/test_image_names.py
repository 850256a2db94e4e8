"""Which image is meant, by names with and without folders, suffixes and dots."""

import numpy as np

from eval.dataset import ImageSet
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
