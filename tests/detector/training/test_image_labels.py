"""Images whose object is known but not its place, and images kept out of training."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from detector.training.batches import targets_of
from detector.training.data import DataConfig, read_data, read_regions
from detector.training.image_labels import read_image_labels
from detector.training.problems import Problems


@pytest.fixture
def labels(tmp_path: Path) -> Path:
    """Two images of discs and a row for one that is not there."""
    (tmp_path / "more").mkdir()
    for name in ("a.png", "b.png"):
        Image.fromarray(np.full((40, 60, 3), 90, np.uint8)).save(tmp_path / "more" / name)
    path = tmp_path / "more.csv"
    path.write_text("file,det_id,wnid\na.png,2,\nb.png,2,\nlost.png,2,\na.png,77,\n")
    return path


@pytest.fixture
def data(scenes: Path) -> DataConfig:
    return DataConfig([str(scenes / "instances.json")], [str(scenes / "images")])


def test_the_whole_image_stands_for_its_object(data: DataConfig, labels: Path) -> None:
    problems = Problems()
    config = replace(data, image_labels=[str(labels)], num_proposals=20, proposals={"mode": "single"})
    table = read_regions(config, problems, seed=0)
    assert problems.counts == {"unreadable image": 1, "unknown class": 1}
    rows = np.flatnonzero(~table.drawn[table.image])
    assert table.given[rows].sum() == 2 and set(table.labels[rows[table.given[rows]]].tolist()) == {1}
    assert table.boxes[rows[table.given[rows]]].tolist() == [[0, 0, 60, 40]] * 2
    targets = targets_of(table, rows)
    assert not targets.fit_known.any()  # how well a region fits the object is not known
    background = table.labels[rows] == len(table.training_set.classes)
    assert targets.possible.numpy()[background].all()  # and what else is there, neither


def test_a_file_of_other_columns_is_refused(data: DataConfig, tmp_path: Path) -> None:
    (tmp_path / "wrong.csv").write_text("name,label\na.png,2\n")
    classes = read_data(data, Problems()).classes
    with pytest.raises(
        ValueError, match=r"wrong\.csv: its first line must name the columns `file` and `det_id`"
    ):
        read_image_labels(tmp_path / "wrong.csv", classes, Problems())


def test_every_image_is_either_held_out_or_not(data: DataConfig) -> None:
    everything = {image.name for image in read_data(data, Problems()).images}
    parts = [
        {image.name for image in read_data(replace(data, hold_out=0.4, held_out=held), Problems()).images}
        for held in (False, True)
    ]
    assert parts[0] | parts[1] == everything and not parts[0] & parts[1] and all(parts)
    for share in (1.0, -0.1):
        with pytest.raises(ValueError, match=r"--data\.hold_out"):
            read_data(replace(data, hold_out=share), Problems())


def test_a_line_without_a_file_is_left_out(data: DataConfig, tmp_path: Path) -> None:
    (tmp_path / "short.csv").write_text("det_id,file\n2\n")
    problems = Problems()
    assert len(read_image_labels(tmp_path / "short.csv", read_data(data, Problems()).classes, problems)) == 0
    assert problems.counts == {"line without file": 1}
