"""Features kept on disk: the same as computed, gone on with after a stop, and never those of other settings."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from detector.images import read_image
from detector.region_classifier import Preprocessing
from detector.regions import warp_regions
from detector.training.features import cached_features, region_features
from detector.training.problems import Problems
from detector.training.readers import read_training_set
from detector.training.sampling import RegionTable, region_table

INPUT = Preprocessing("RGB", scale=1.0, mean=(100.0, 100.0, 100.0), size=32, context=2)


def mean_colour(regions: np.ndarray) -> np.ndarray:
    return regions.mean(axis=(1, 2), dtype=np.float32)  # (R, 3)


@pytest.fixture
def table(scenes: Path) -> RegionTable:
    data = read_training_set(scenes / "instances.json", scenes / "images", Problems("refuse"))
    boxes = np.array([[0, 0, 60, 60], [10, 20, 100, 90], [64, 0, 128, 96]], np.float32)
    return region_table(data, lambda _: boxes)


def blocks(table: RegionTable, start: int, mirror: bool = False) -> Iterator[np.ndarray]:
    return region_features(table, mean_colour, preprocessing=INPUT, start=start, mirror=mirror, batch_size=2)


def test_features_are_those_of_each_region(table: RegionTable) -> None:
    found = np.concatenate(list(blocks(table, 0)))
    for row in range(len(table)):
        image = read_image(table.training_set.images[int(table.image[row])].path)
        region = warp_regions(image, table.boxes[row : row + 1], size=32, context=2, fill=INPUT.mean_colour())
        np.testing.assert_allclose(found[row], region[0].mean(axis=(0, 1)), rtol=1e-5)
    np.testing.assert_allclose(np.concatenate(list(blocks(table, 0, mirror=True))), found, rtol=1e-5)
    np.testing.assert_array_equal(np.concatenate(list(blocks(table, 7))), found[7:])


def test_cache_goes_on_after_a_stop_and_forgets_other_settings(tmp_path: Path, table: RegionTable) -> None:
    path = tmp_path / "features.npy"
    starts: list[int] = []

    def stopping(start: int, stop_after: int | None) -> Iterator[np.ndarray]:
        starts.append(start)
        for number, block in enumerate(blocks(table, start)):
            if number == stop_after:
                raise KeyboardInterrupt
            yield block

    with pytest.raises(KeyboardInterrupt):
        cached_features(path, table, partial(stopping, stop_after=3), key={"tap": "a"})
    assert not path.exists()
    found = cached_features(path, table, partial(stopping, stop_after=None), key={"tap": "a"})
    np.testing.assert_allclose(found, np.concatenate(list(blocks(table, 0))), rtol=2e-3)
    again = cached_features(path, table, partial(stopping, stop_after=0), key={"tap": "a"})
    assert (again == found).all() and len(starts) == 2  # nothing computed
    cached_features(path, table, partial(stopping, stop_after=None), key={"tap": "b"})
    assert len(starts) == 3 and starts[2] == 0
    assert sorted(p.name for p in tmp_path.iterdir()) == ["features.json", "features.npy"]


def test_stages_agree_with_the_whole_network() -> None:
    from detector.googlenet import GoogLeNet
    from detector.stages import STAGES, freeze, run_on, run_to

    torch.manual_seed(0)
    network = GoogLeNet(7).eval()
    x = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        expected = network(x)
        for tap in STAGES:
            torch.testing.assert_close(run_on(network, run_to(network, x, tap), tap), expected)
    with pytest.raises(ValueError, match="no stage of the network"):
        run_to(network, x, "pool9")
    freeze(network, "inception_4e")
    trained = {name.split(".")[0] for name, p in network.named_parameters() if p.requires_grad}
    assert trained == {"inception_5a", "inception_5b", "classifier"}
    freeze(network, None)
    assert all(p.requires_grad for p in network.parameters())
