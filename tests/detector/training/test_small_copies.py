"""Images seen a second time as if they had been stored small."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from detector.region_classifier import Preprocessing
from detector.training.batches import PixelBatches
from detector.training.data import DataConfig, read_data, read_regions
from detector.training.features import region_features
from detector.training.problems import Problems
from detector.training.sampling import BatchPlan

INPUT = Preprocessing("RGB", scale=1.0, mean=(100.0, 100.0, 100.0), size=32, context=2)


@pytest.fixture
def data(scenes: Path) -> DataConfig:
    return DataConfig(
        [str(scenes / "instances.json")],
        [str(scenes / "images")],
        small_copies=24,
        num_proposals=20,
        proposals={"mode": "single"},
    )


def test_copies_are_the_same_scenes_with_less_detail(data: DataConfig) -> None:
    images = read_data(data, Problems()).images
    sharp, small = images[: len(images) // 2], images[len(images) // 2 :]
    for one, other in zip(sharp, small, strict=True):
        assert one.name == other.name and one.boxes is other.boxes
        before, after = one.pixels().astype(float), other.pixels().astype(float)
        assert before.shape == after.shape == (96, 128, 3)
        assert np.abs(before.mean(axis=(0, 1)) - after.mean(axis=(0, 1))).max() < 1
        # The reference: Pillow's reading of the same two steps.
        there = Image.fromarray(one.pixels()).resize((24, 24), Image.Resampling.BOX)
        back = np.asarray(there.resize((128, 96), Image.Resampling.BILINEAR), float)
        assert np.abs(back - after).mean() < 1 < np.abs(back - before).mean()


def test_copies_have_boxes_of_their_own_which_are_kept(data: DataConfig, tmp_path: Path) -> None:
    keep = tmp_path / "proposals.npz"
    made = read_regions(data, Problems(), seed=0, keep=keep)
    written = keep.stat().st_mtime_ns
    again = read_regions(data, Problems(), seed=0, keep=keep)
    np.testing.assert_array_equal(made.boxes, again.boxes)
    assert keep.stat().st_mtime_ns == written  # nothing was made again
    half = len(made.training_set) // 2
    sharp, small = made.boxes[made.image < half], made.boxes[made.image >= half]
    assert sharp.shape != small.shape or (sharp != small).any()
    alone = read_regions(replace(data, small_copies=None), Problems(), seed=0)
    np.testing.assert_array_equal(alone.boxes, sharp)


def test_a_network_sees_the_copy(data: DataConfig) -> None:
    table = read_regions(data, Problems(), seed=0)
    half = len(table.training_set) // 2
    given = np.flatnonzero(table.given)
    sharp, small = given[table.image[given] < half], given[table.image[given] >= half]

    def seen(rows: np.ndarray) -> np.ndarray:
        blocks = region_features(
            table.select(rows), lambda pixels: pixels.astype(np.float32), preprocessing=INPUT
        )
        return np.concatenate(list(blocks))

    assert (seen(small).std(axis=(1, 2)) < seen(sharp).std(axis=(1, 2))).all()
    plan = BatchPlan(table, positives=4, backgrounds=4, seed=0)
    batch = PixelBatches(table, plan, preprocessing=INPUT, mirror=False).batch(0, slice(None))
    for row, pixels in zip(plan.rows(0), batch.inputs.permute(0, 2, 3, 1).numpy(), strict=True):
        np.testing.assert_array_equal(pixels, seen(np.array([row]))[0])


def test_too_small_is_refused(data: DataConfig) -> None:
    with pytest.raises(ValueError, match=r"--data\.small_copies is 3, but must be at least 16"):
        read_data(replace(data, small_copies=3), Problems())
