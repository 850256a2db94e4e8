"""What batches keep in memory, and what of them travels to other processes."""

import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from detector.region_classifier import Preprocessing
from detector.training.batches import DecodedImages, FeatureBatches, PixelBatches
from detector.training.data import read_regions
from detector.training.features import mapped, name_of_file
from detector.training.finetuning import Finetuning
from detector.training.problems import Problems
from detector.training.readers import read_training_set
from detector.training.sampling import BatchPlan
from detector.training.teacher import Teacher
from detector.training.training_set import AnnotatedImage

INPUT = Preprocessing("RGB", scale=1.0, mean=(100.0, 100.0, 100.0), size=32, context=2)


def test_decoded_images_are_kept_up_to_so_many_bytes(scenes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = read_training_set(scenes / "instances.json", scenes / "images", Problems()).images[:3]
    one, two, three = (replace(image) for image in images)
    each = one.pixels().nbytes
    assert [image.pixels().nbytes for image in images] == [each] * 3
    read: list[AnnotatedImage] = []
    pixels = AnnotatedImage.pixels

    def noted(image: AnnotatedImage) -> np.ndarray:
        read.append(image)
        return pixels(image)

    monkeypatch.setattr(AnnotatedImage, "pixels", noted)
    decoded = DecodedImages(2 * each)
    for image in (one, two, one, three, one, two):
        np.testing.assert_array_equal(decoded(image), pixels(image))
        assert decoded.bytes <= 2 * each
    assert read == [one, two, three, two]
    small = DecodedImages(each - 1)  # one that is too large is not kept
    for _ in range(2):
        np.testing.assert_array_equal(small(one), pixels(one))
    assert read[4:] == [one, one] and not small.bytes


@pytest.mark.parametrize("kind", ["pixels", "features"])
def test_a_teachers_file_travels_by_name(config: Finetuning, tmp_path: Path, kind: str) -> None:
    table = read_regions(config.data, Problems(), seed=0)
    opinions = np.random.default_rng(0).random((len(table), 3)).astype(np.float16)
    np.save(tmp_path / "teacher.npy", opinions)
    plan = BatchPlan(table, positives=2, backgrounds=2)
    shares = np.array([0.5, 1], np.float32)

    def batches(probabilities: np.ndarray) -> PixelBatches | FeatureBatches:
        teacher = Teacher(probabilities, 0.5, shares)
        if kind == "pixels":
            return PixelBatches(table, plan, preprocessing=INPUT, teacher=teacher)
        return FeatureBatches(table, plan, [np.zeros_like(opinions)], teacher=teacher)

    sent = pickle.dumps(batches(np.load(tmp_path / "teacher.npy", mmap_mode="r")))
    assert opinions.tobytes() in pickle.dumps(batches(opinions)) and opinions.tobytes() not in sent
    again = pickle.loads(sent)
    assert isinstance(again.teacher.probabilities, np.memmap)
    expected, found = batches(opinions).batch(1, slice(None)).targets, again.batch(1, slice(None)).targets
    for name in ("teacher", "teacher_weight", "label_share"):
        torch.testing.assert_close(getattr(found, name), getattr(expected, name))


def test_only_a_whole_file_travels_by_its_name(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.arange(12.0).reshape(4, 3))
    whole = np.load(tmp_path / "a.npy", mmap_mode="r")
    assert name_of_file(whole) == str(tmp_path / "a.npy")
    for other in (whole[1:], whole.reshape(3, 4), whole.copy(), whole.astype(np.float32), np.array(whole)):
        np.testing.assert_array_equal(mapped(name_of_file(other)), other)
