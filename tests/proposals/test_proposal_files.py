"""Shards: round trips, look-up by name, damage; exports as the other frameworks read them."""

import pickle
import pickletools
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from proposals import ProposalFile
from proposals.export import ExportFormat, export, images_to_export
from proposals.files import FileIdentity, by_rank, read_shard, write_shard, written_whole

NAMES = st.lists(
    st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1), unique=True, max_size=5
)


def some_boxes(seed: int, count: int) -> NDArray[np.float32]:
    return np.random.default_rng(seed).uniform(0, 500, (count, 4)).astype(np.float32)


@settings(max_examples=30, deadline=None)
@given(names=NAMES, counts=st.lists(st.integers(0, 6), min_size=5, max_size=5), seed=st.integers(0, 9))
def test_what_is_written_is_read(
    tmp_path_factory: pytest.TempPathFactory, names: list[str], counts: list[int], seed: int
) -> None:
    path = tmp_path_factory.mktemp("shard") / "new" / "a.npz"
    written = {name: by_rank(some_boxes(seed + i, counts[i])) for i, name in enumerate(names)}
    files: dict[str, FileIdentity] = {name: [f"/{name}", i, seed] for i, name in enumerate(names)}
    write_shard(path, written, {"seed": seed}, files)
    shard = read_shard(path)
    assert shard.settings == {"seed": seed} and shard.names == names and shard.files == files
    for index, name in enumerate(names):
        np.testing.assert_array_equal(shard.proposals(index).boxes, written[name].boxes)
        np.testing.assert_array_equal(shard.proposals(index).scores, written[name].scores)
    assert [file.name for file in path.parent.iterdir()] == ["a.npz"]


def test_scores_of_ranks_never_tie() -> None:
    assert (np.diff(by_rank(some_boxes(0, 20000)).scores) < 0).all()


def test_dots_in_names_are_no_suffixes(tmp_path: Path) -> None:
    write_shard(
        tmp_path / "1.npz", {name: by_rank(some_boxes(0, 3)) for name in ("a.rf.1.jpg", "a.rf.2.jpg")}
    )
    found = ProposalFile(tmp_path)
    assert found.stored_name("a.rf.2") == "a.rf.2.jpg" and found.stored_name("x/a.rf.1.png") == "a.rf.1.jpg"
    assert "a.rf" not in found and "a" not in found


def test_images_are_found_by_name_or_stem(tmp_path: Path) -> None:
    boxes = {name: by_rank(some_boxes(i, 3)) for i, name in enumerate(["x/a.jpg", "y/a.jpg", "y/b.png"])}
    write_shard(tmp_path / "1.npz", {name: boxes[name] for name in list(boxes)[:2]})
    write_shard(tmp_path / "2.npz", {name: boxes[name] for name in list(boxes)[2:]})
    both: list[str | Path] = [tmp_path / "1.npz", str(tmp_path / "2.npz")]
    for proposals in (ProposalFile(tmp_path), ProposalFile(both), ProposalFile(str(tmp_path / "*.npz"))):
        assert list(proposals) == list(boxes) and len(proposals) == 3
        for name in boxes:
            np.testing.assert_array_equal(proposals.boxes(name), boxes[name].boxes)
        for other in ("b", "b.jpg", Path("/elsewhere/b.JPEG")):
            np.testing.assert_array_equal(proposals.boxes(other), boxes["y/b.png"].boxes)
        assert "b" in proposals and "a" not in proposals and "c" not in proposals
        with pytest.raises(ValueError, match=r"a: several images of that name.*x/a\.jpg, y/a\.jpg"):
            proposals["a"]
        with pytest.raises(ValueError, match=r"c\.jpg: no proposals for this image in .*1\.npz"):
            proposals["c.jpg"]


def test_one_image_in_two_shards_is_an_error(tmp_path: Path) -> None:
    for number in (1, 2):
        write_shard(tmp_path / f"{number}.npz", {"a.jpg": by_rank(some_boxes(number, 2))})
    with pytest.raises(ValueError, match=r"2\.npz: image 'a\.jpg' is also in .*1\.npz"):
        ProposalFile(tmp_path)


def test_files_that_are_no_shards_are_named(tmp_path: Path) -> None:
    write_shard(tmp_path / "good.npz", {"a.jpg": by_rank(some_boxes(0, 50))})
    whole = (tmp_path / "good.npz").read_bytes()
    contents = {
        "empty": b"",
        "text": b"hello",
        "cut": whole[: len(whole) // 2],
        "flipped": whole[:900] + bytes([whole[900] ^ 255]) + whole[901:],
        "pickle": pickle.dumps([1, 2]),
    }
    for name, content in contents.items():
        (tmp_path / f"{name}.npz").write_bytes(content)
    for part, at in (("encrypted", 6), ("method", 10)):  # of the last entry of the zip file's directory
        place = whole.rindex(b"PK\x01\x02") + at + 2 * (part == "encrypted")
        contents[part] = whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :]
        (tmp_path / f"{part}.npz").write_bytes(contents[part])
    np.savez(tmp_path / "other.npz", weights=np.zeros(3))
    with np.load(tmp_path / "good.npz") as good:
        arrays = dict(good)
    np.savez(tmp_path / "offsets.npz", **(arrays | {"offsets": np.array([0, 49])}))
    np.savez(tmp_path / "objects.npz", **(arrays | {"boxes": np.array([{}], dtype=object)}))
    np.savez(tmp_path / "files.npz", **(arrays | {"files": np.array(["1"])}))
    for name in (*contents, "other", "offsets", "objects", "files"):
        with pytest.raises(ValueError, match=f"{name}.npz: not a file of proposals"):
            read_shard(tmp_path / f"{name}.npz")
    with pytest.raises(OSError, match=r"absent\.npz"):
        ProposalFile(tmp_path / "absent.npz")
    with pytest.raises(ValueError, match=r"nothing: no \.npz"):
        (tmp_path / "nothing").mkdir()
        ProposalFile(tmp_path / "nothing")


def test_nothing_half_written_stays(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    path.write_bytes(b"before")
    with pytest.raises(RuntimeError), written_whole(path) as file:
        file.write(b"half")
        raise RuntimeError
    assert path.read_bytes() == b"before" and list(tmp_path.iterdir()) == [path]


FILES = {"b/2.jpg": Path("set/b/2.jpg"), "a/1.jpg": Path("set/a/1.jpg"), "c/3.jpg": Path("set/c/3.jpg")}
FOUND = {"b/2.jpg": by_rank(some_boxes(0, 4)), "a/1.jpg": by_rank(some_boxes(1, 3))}  # 3.jpg failed


def exported(path: Path, export_format: ExportFormat, dataset: list[tuple[str, int | str]] | None) -> Any:
    export(path, images_to_export(FILES, FOUND, dataset), export_format)
    with path.open("rb") as file:
        return pickle.load(file, encoding="latin1")  # as detectron2 does


def test_exports_follow_the_dataset() -> None:
    dataset = [("c/3.jpg", 33), ("a/1.jpg", 11), ("b/2.jpg", 22)]
    images = images_to_export(FILES, FOUND, dataset)
    assert [(image.image_id, len(image.proposals.boxes)) for image in images] == [(33, 0), (11, 3), (22, 4)]
    assert [image.image_id for image in images_to_export(FILES, FOUND)] == ["2", "1", "3"]


def test_export_for_detectron2(tmp_path: Path) -> None:
    content = exported(tmp_path / "d2.pkl", "detectron2", [("c/3.jpg", 33), ("b/2.jpg", 22)])
    assert content["ids"] == [33, 22] and content["bbox_mode"] == 0
    # detectron2 sorts by logits, descending: the ranks must survive.
    order = content["objectness_logits"][1].argsort()[::-1]
    np.testing.assert_array_equal(content["boxes"][1][order], FOUND["b/2.jpg"].boxes)
    assert content["boxes"][0].shape == (0, 4) and content["objectness_logits"][0].shape == (0,)
    same_stem = images_to_export(FILES | {"d/1.jpg": Path("set/d/1.jpg")}, FOUND)
    with pytest.raises(ValueError, match="both are '1' to this framework"):
        export(tmp_path / "d2.pkl", same_stem, "detectron2")


def test_export_for_mmdetection(tmp_path: Path) -> None:
    content = exported(tmp_path / "mm.pkl", "mmdetection", [("c/3.jpg", 33), ("b/2.jpg", 22)])
    assert [array.shape for array in content] == [(0, 5), (4, 5)]
    np.testing.assert_array_equal(content[1][:, :4], FOUND["b/2.jpg"].boxes)
    assert (np.diff(content[1][:, 4]) < 0).all()
    by_path = exported(tmp_path / "mm3.pkl", "mmdetection3", None)
    assert list(by_path) == list(FILES)  # the last two parts of the paths
    np.testing.assert_array_equal(by_path["b/2.jpg"]["bboxes"], FOUND["b/2.jpg"].boxes)
    assert by_path["c/3.jpg"]["bboxes"].shape == (0, 4)
    same_place = images_to_export({"a/1.jpg": Path("x/a/1.jpg"), "z/a/1.jpg": Path("z/a/1.jpg")}, {})
    with pytest.raises(ValueError, match=r"both are 'a/1\.jpg' to this framework"):
        export(tmp_path / "mm3.pkl", same_place, "mmdetection3")


@pytest.mark.parametrize("export_format", get_args(ExportFormat))
def test_exports_are_read_by_any_numpy(tmp_path: Path, export_format: ExportFormat) -> None:
    export(tmp_path / "any.pkl", images_to_export(FILES, FOUND), export_format)
    opcodes = pickletools.genops((tmp_path / "any.pkl").read_bytes())
    named = {str(argument) for opcode, argument, _ in opcodes if opcode.name == "GLOBAL"}
    # Numpy 1 has no numpy._core, and 2 warns of numpy.core.
    assert {name for name in named if name.startswith("numpy")} == {"numpy ndarray", "numpy dtype"}
