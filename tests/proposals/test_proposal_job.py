"""Jobs: shards, resuming, failures, and several machines on one folder."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from proposals import ProposalFile, job
from proposals.files import read_shard, write_shard

SETTINGS = {"seed": 0}


def search(image: NDArray[np.uint8]) -> NDArray[np.float32]:
    """One box that tells which image it was."""
    return np.array([[0, 0, image[0, 0, 0], 1]], np.float32)


def read(path: Path) -> NDArray[np.uint8]:
    if path.name.startswith("bad"):
        raise OSError(f"{path}: damaged")
    return np.full((1, 1, 3), int(path.name), np.uint8)


def images(*names: str) -> dict[str, Path]:
    return {f"folder/{name}": Path(name) for name in names}


def test_every_image_lands_in_one_shard(tmp_path: Path) -> None:
    shards = job.plan(images("1", "2", "3", "4", "5"), tmp_path, images_per_shard=2)
    assert [len(shard.images) for shard in shards] == [2, 2, 1]
    assert shards[2].path.name == "proposals-00003-of-00003.npz"
    seen: list[int] = []
    for shard in shards:
        assert job.run_shard(shard, search, read, SETTINGS, workers=3, on_image=lambda: seen.append(1)) == 0
    assert len(seen) == 5
    proposals = ProposalFile(tmp_path)
    assert [proposals.boxes(f"folder/{n}")[0, 2] for n in range(1, 6)] == [1, 2, 3, 4, 5]
    assert list(job.collect(shards)) == list(proposals)


def test_failures_are_left_out_and_tried_again(tmp_path: Path) -> None:
    (shard,) = job.plan(images("1", "bad2", "3"), tmp_path)
    failures: list[str] = []
    read_again: list[str] = []

    def recording_read(path: Path) -> NDArray[np.uint8]:
        read_again.append(path.name)
        return np.full((1, 1, 3), 2, np.uint8)

    def on_failure(name: str, error: Exception) -> None:
        failures.append(f"{name} {error}")

    assert job.run_shard(shard, search, read, SETTINGS, on_failure=on_failure) == 1
    assert failures == ["folder/bad2 bad2: damaged"]
    assert read_shard(shard.path).names == ["folder/1", "folder/3"]
    written = shard.path.stat().st_mtime_ns
    assert job.run_shard(shard, search, read, SETTINGS) == 1
    assert shard.path.stat().st_mtime_ns == written  # nothing new, nothing written
    assert job.run_shard(shard, search, recording_read, SETTINGS) == 0
    assert read_again == ["bad2"]
    assert read_shard(shard.path).names == ["folder/1", "folder/bad2", "folder/3"]


@pytest.fixture
def videos(tmp_path: Path) -> Path:
    """Two folders with frames of the same names."""
    for number, video in enumerate(("video1", "video2")):
        (tmp_path / video).mkdir()
        for frame in range(3):
            (tmp_path / video / f"{frame}.png").write_text(str(10 * number + frame))
    return tmp_path


def frames(folder: Path) -> dict[str, Path]:
    return {path.name: path for path in sorted(folder.iterdir())}


def read_number(path: Path) -> NDArray[np.uint8]:
    if not path.read_text():
        raise OSError(f"{path}: damaged")
    return np.full((1, 1, 3), int(path.read_text()), np.uint8)


def test_images_that_have_changed_are_done_again(videos: Path, tmp_path: Path) -> None:
    (shard,) = job.plan(frames(videos / "video1"), tmp_path / "boxes")
    job.run_shard(shard, search, read_number, SETTINGS)
    (videos / "video1" / "1.png").write_text("200")
    (videos / "video1" / "2.png").write_text("")
    seen: list[str] = []

    def recording_read(path: Path) -> NDArray[np.uint8]:
        seen.append(path.name)
        return read_number(path)

    job.check_output([shard], SETTINGS, overwrite=False)
    assert job.run_shard(shard, search, recording_read, SETTINGS) == 1
    assert sorted(seen) == ["1.png", "2.png"]
    proposals = ProposalFile(tmp_path / "boxes")  # without the boxes that 2.png had
    assert {name: proposals.boxes(name)[0, 2] for name in proposals} == {"0.png": 0, "1.png": 200}
    (videos / "video1" / "0.png").unlink()  # what was done before its image went stays
    (videos / "video1" / "1.png").write_text("")
    assert job.run_shard(shard, search, read_number, SETTINGS) == 2
    assert list(ProposalFile(tmp_path / "boxes")) == ["0.png"]


def test_other_images_of_the_same_names_are_not_taken_for_done(videos: Path, tmp_path: Path) -> None:
    (first,) = job.plan(frames(videos / "video1"), tmp_path / "boxes")
    (second,) = job.plan(frames(videos / "video2"), tmp_path / "boxes")
    job.run_shard(first, search, read_number, SETTINGS)
    with pytest.raises(
        ValueError, match=r"its 0\.png is .*/video1/0\.png, not .*/video2/0\.png; take --overwrite"
    ):
        job.check_output([second], SETTINGS, overwrite=False)
    write_shard(first.path, job.collect([first]), SETTINGS)  # as it was written before files were noted
    assert len(ProposalFile(tmp_path / "boxes")) == 3
    with pytest.raises(ValueError, match="does not tell which files its images were"):
        job.check_output([first], SETTINGS, overwrite=False)
    job.run_shard(second, search, read_number, SETTINGS)
    assert [boxes.boxes[0, 2] for boxes in job.collect([second]).values()] == [10, 11, 12]


def test_an_interruption_leaves_no_shard(tmp_path: Path) -> None:
    (shard,) = job.plan(images("1", "2"), tmp_path)

    def interrupted(image: NDArray[np.uint8]) -> NDArray[np.float32]:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        job.run_shard(shard, interrupted, read, SETTINGS)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_of_another_job_is_not_mixed_in(tmp_path: Path) -> None:
    shards = job.plan(images("1", "2"), tmp_path)
    job.check_output(shards, SETTINGS, overwrite=False)
    job.run_shard(shards[0], search, read, SETTINGS)
    job.check_output(shards, SETTINGS, overwrite=False)
    with pytest.raises(ValueError, match="other settings"):
        job.check_output(shards, {"seed": 1}, overwrite=False)
    with pytest.raises(ValueError, match="holds folder/1, not an image of this job"):
        job.check_output(job.plan(images("2", "3"), tmp_path), SETTINGS, overwrite=False)
    others = job.plan(images("1", "2"), tmp_path, images_per_shard=1)
    with pytest.raises(ValueError, match="other images"):
        job.check_output(others, SETTINGS, overwrite=False)
    job.check_output(others, SETTINGS, overwrite=True)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ValueError, match="no images"):
        job.check_output([], SETTINGS, overwrite=False)
