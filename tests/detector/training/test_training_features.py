"""Features kept on disk: the same as computed, gone on with after a stop, and never those of other settings."""

import shutil
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from detector.googlenet import GoogLeNet
from detector.images import read_image
from detector.region_classifier import Preprocessing, RegionClassifier
from detector.regions import warp_regions
from detector.taxonomy import DET200, TrainedScores
from detector.training.features import StageFeatures, cached_features, fingerprint, region_features
from detector.training.problems import Problems
from detector.training.readers import read_training_set
from detector.training.sampling import RegionTable, region_table
from detector.training.start import stage_name

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
    # What a run with one key left unfinished, and another then wrote over, is nothing to go on with.
    for tap in ("c", "d", "c"):
        with pytest.raises(KeyboardInterrupt):
            cached_features(path, table, partial(stopping, stop_after=1), key={"tap": tap})
    assert starts[3:] == [0, 0, 0]
    found = cached_features(path, table, partial(stopping, stop_after=None), key={"tap": "c"})
    np.testing.assert_allclose(found, np.concatenate(list(blocks(table, 0))), rtol=2e-3)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["features.json", "features.npy"]


def test_features_of_another_picture_of_the_same_size_in_bytes_are_others(
    tmp_path: Path, scenes: Path
) -> None:
    (tmp_path / "images").mkdir()
    for file in (scenes / "images").iterdir():
        Image.open(file).save(tmp_path / "images" / file.name, format="BMP")
    boxes = np.array([[0, 0, 60, 60]], np.float32)

    def found() -> str:
        data = read_training_set(scenes / "instances.json", tmp_path / "images", Problems("refuse"))
        return fingerprint(region_table(data, lambda _: boxes), {})

    before = found()
    assert found() == before
    shutil.copy(tmp_path / "images" / "1.png", tmp_path / "images" / "0.png")
    assert found() != before


def test_stage_features_are_the_networks_taps() -> None:
    torch.manual_seed(0)
    network = GoogLeNet(7).eval()
    model = RegionClassifier(
        network=network, preprocessing=INPUT, class_scores=TrainedScores(), classes=DET200[:6]
    )
    pixels = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
    with torch.inference_mode():
        expected = network.taps(model.normalize(pixels), ["pool4", "pool5"])
        torch.testing.assert_close(StageFeatures(model, "pool4")(pixels), expected["pool4"])
        torch.testing.assert_close(StageFeatures(model, "pool5", 1)(pixels), expected["pool5"])
        cells = StageFeatures(model, "pool4", 2)(pixels)
    assert cells.shape == (2, 832 * 4)
    torch.testing.assert_close(cells[:, 0], expected["pool4"][:, 0, :1, :1].mean(dim=(1, 2)))
    assert stage_name(network, "Mixed_4f") == "inception_4e"
    with pytest.raises(ValueError, match="no stage of the network"):
        stage_name(network, "pool9")


def test_of_runs_at_once_one_fills_the_cache(tmp_path: Path, table: RegionTable) -> None:
    passes: list[int] = []

    def counted(start: int) -> Iterator[np.ndarray]:
        passes.append(start)
        for block in blocks(table, start):
            time.sleep(0.01)
            yield block

    with ThreadPoolExecutor(3) as pool:
        wanted = [pool.submit(cached_features, tmp_path / "f.npy", table, counted, key={}) for _ in range(3)]
        found = [one.result() for one in wanted]
    assert passes == [0] and all((one == found[0]).all() for one in found)
