"""`tools/propose.py` as a user runs it: shards, exports, recall, resuming and bad input."""

import json
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from PIL import Image

from proposals import ProposalFile, SelectiveSearch

TOOLS = Path(__file__).resolve().parents[2] / "tools"


class Run(NamedTuple):
    """What a user sees of a command."""

    returncode: int
    stdout: str
    stderr: str


Propose = Callable[..., Run]


@pytest.fixture
def propose(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Propose:
    """Run the tool in this process."""
    monkeypatch.syspath_prepend(TOOLS)
    import propose as tool

    def run(*arguments: object) -> Run:
        monkeypatch.setattr(sys, "argv", ["propose.py", *map(str, arguments)])
        try:
            code = tool.main()
        except SystemExit as end:
            code = int(end.code or 0)
        return Run(code, *capfd.readouterr())

    return run


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Three images with a red square each, in a folder with a sub-folder."""
    folder = tmp_path / "photos"
    (folder / "more").mkdir(parents=True)
    generator = np.random.default_rng(0)
    for number, name in enumerate(["a.png", "b.png", "more/c.png"]):
        pixels = generator.normal(120, 10, (60, 80, 3))
        pixels[10:40, 10 * number + 10 : 10 * number + 45] = (220, 30, 30)
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / name)
    return folder


@pytest.fixture
def annotations(tmp_path: Path) -> Path:
    """The squares as COCO instances."""
    path = tmp_path / "instances.json"
    names = ["a.png", "b.png", "more/c.png"]
    images = [{"id": 10 + i, "file_name": n, "width": 80, "height": 60} for i, n in enumerate(names)]
    content = {
        "images": images[::-1],  # COCO's own files are in no order either
        "categories": [{"id": 1, "name": "square"}],
        "annotations": [
            {
                "id": i + 1,
                "image_id": 10 + i,
                "category_id": 1,
                "bbox": [10 * i + 10, 10, 35, 30],
                "area": 1050,
            }
            for i in range(3)
        ],
    }
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def test_a_folder_becomes_shards_exports_and_recall(
    propose: Propose, tmp_path: Path, photos: Path, annotations: Path
) -> None:
    output = tmp_path / "boxes"
    run = propose(
        *("--image", photos, "--output", output, "--images-per-shard", 2, "--proposals.mode", "single"),
        *("--export", "detectron2", "mmdetection", "--annotations", annotations),
    )
    assert run.returncode == 0, run.stderr
    assert f"shards in {output}: 2\n" in run.stdout
    assert "recall of 3 objects in 3 of 3 annotated images" in run.stdout
    assert json.loads((output / "recall.json").read_text(encoding="utf-8"))["recall_50"][-1] == 1.0
    assert (output / "recall.png").stat().st_size > 1000
    proposals = ProposalFile(output)
    assert list(proposals) == ["a.png", "b.png", "more/c.png"] and len(proposals.shards) == 2
    image = np.asarray(Image.open(photos / "more" / "c.png"))
    np.testing.assert_array_equal(proposals.boxes("more/c.png"), SelectiveSearch(mode="single")(image))
    with (output / "detectron2.pkl").open("rb") as file:
        assert pickle.load(file)["ids"] == [12, 11, 10]
    with (output / "mmdetection.pkl").open("rb") as file:
        assert [len(array) for array in pickle.load(file)] == [
            len(proposals.boxes(name)) for name in ("more/c.png", "b.png", "a.png")
        ]


def test_the_picture_of_the_recall_is_no_image(propose: Propose, photos: Path, annotations: Path) -> None:
    arguments = ["--image", photos, "--output", photos / "boxes", "--proposals.mode", "single"]
    for _ in range(2):
        run = propose(*arguments, "--annotations", annotations)
        assert run.returncode == 0, run.stderr
        assert "boxes in 3 images" in run.stdout and (photos / "boxes" / "recall.png").is_file()


def test_bad_images_are_reported_and_the_rest_goes_on(propose: Propose, tmp_path: Path, photos: Path) -> None:
    (photos / "broken.png").write_bytes((photos / "a.png").read_bytes()[:100])
    output = tmp_path / "boxes"
    first = propose("--image", photos, "--output", output, "--proposals.mode", "single")
    assert first.returncode == 1 and "1 of 4 images failed: broken.png" in first.stderr
    assert len(ProposalFile(output)) == 3
    (photos / "broken.png").write_bytes((photos / "a.png").read_bytes())
    again = propose("--image", photos, "--output", output, "--proposals.mode", "single")
    assert again.returncode == 0 and len(ProposalFile(output)) == 4


def test_torchrun_shares_the_work(tmp_path: Path, photos: Path) -> None:
    (photos / "ab.png").write_bytes(b"broken")  # the second of four images: the second process gets it
    output = tmp_path / "boxes"
    run = subprocess.run(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"),
            *(TOOLS / "propose.py", "--image", photos, "--output", output, "--images-per-shard", "1"),
            *("--proposals.mode", "single", "--export", "mmdetection"),
        ],
        env=os.environ | {"PYTHONPATH": str(TOOLS.parent)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 1, run.stderr
    assert "1 of 2 images failed: ab.png" in run.stderr
    # The broken image ended neither process, and one of them alone spoke for both.
    assert run.stdout.count("boxes in 3 images") == 1
    proposals = ProposalFile(output)
    assert list(proposals) == ["a.png", "b.png", "more/c.png"] and len(proposals.shards) == 4
    assert (output / "mmdetection.pkl").exists()


def test_two_images_of_one_name_are_not_mixed_up(propose: Propose, tmp_path: Path, photos: Path) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "a.png").write_bytes((photos / "a.png").read_bytes())
    run = propose("--image", photos, tmp_path / "other", "--output", tmp_path / "boxes")
    assert run.returncode == 0
    names = {f"{photos}/a.png", f"{tmp_path}/other/a.png"}
    assert names < set(ProposalFile(tmp_path / "boxes")) and "b.png" in ProposalFile(tmp_path / "boxes")


def test_a_list_of_images_is_text(propose: Propose, tmp_path: Path, photos: Path) -> None:
    (tmp_path / "list.txt").write_text(f"{photos}/a.png\n# b.png\n", encoding="utf-8-sig")
    arguments = (
        "--list",
        tmp_path / "list.txt",
        "--output",
        tmp_path / "boxes",
        "--proposals.mode",
        "single",
    )
    assert propose(*arguments).returncode == 0
    assert list(ProposalFile(tmp_path / "boxes")) == [f"{photos}/a.png"]
    (tmp_path / "list.txt").write_bytes("ä.png\n".encode("latin-1"))
    run = propose(*arguments)
    assert run.returncode == 2 and "list.txt: is not UTF-8 text" in run.stderr


def test_other_images_of_the_same_names_are_refused(propose: Propose, tmp_path: Path, photos: Path) -> None:
    arguments = ("--output", tmp_path / "boxes", "--proposals.mode", "single")
    assert propose("--image", photos, *arguments).returncode == 0
    (photos / "more" / "c.png").rename(tmp_path / "c.png")
    photos.rename(tmp_path / "others")
    (tmp_path / "others" / "more" / "c.png").write_bytes((tmp_path / "c.png").read_bytes())
    run = propose("--image", tmp_path / "others", *arguments)
    assert run.returncode == 2 and "others/a.png; take --overwrite or another --output" in run.stderr


@pytest.mark.parametrize("broken", [False, True])
def test_images_of_one_stem_are_not_taken_for_each_other(
    propose: Propose, tmp_path: Path, photos: Path, annotations: Path, broken: bool
) -> None:
    (photos / "b.png").rename(photos / "more" / "a.png")
    if not broken:
        (photos / "more" / "a.png").rename(tmp_path / "elsewhere.png")
    else:
        (photos / "more" / "a.png").write_bytes(b"broken")
    content = json.loads(annotations.read_text(encoding="utf-8"))
    content["images"][1]["file_name"] = "more/a.png"  # it was b.png
    annotations.write_text(json.dumps(content), encoding="utf-8")
    output = tmp_path / "boxes"
    run = propose(
        *("--image", photos, "--output", output, "--proposals.mode", "single"),
        *("--export", "detectron2", "--annotations", annotations),
    )
    assert run.returncode == broken, run.stderr
    assert "recall of 2 objects in 2 of 3 annotated images" in run.stdout
    with (output / "detectron2.pkl").open("rb") as file:
        exported = pickle.load(file)
    numbers = dict(zip(exported["ids"], map(len, exported["boxes"]), strict=True))
    assert list(numbers) == ([12, 11, 10] if broken else [12, 10])
    assert numbers.get(11, 0) == 0 and numbers[10] > 0
    assert ("1 annotated images were not given" in run.stdout) != broken
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "c.png").write_bytes((photos / "more" / "c.png").read_bytes())
    content["images"][0]["file_name"] = "c.png"
    annotations.write_text(json.dumps(content), encoding="utf-8")
    pair = (photos / "more" / "c.png", tmp_path / "more" / "c.png")
    run = propose("--image", *pair, "--output", tmp_path / "new", "--annotations", annotations)
    assert run.returncode == 2 and "more/c.png would both be c.png of the annotations" in run.stderr
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("export_format", ["detectron2", "mmdetection3"])
def test_exports_that_mix_up_images_are_refused_before_the_work(
    propose: Propose, tmp_path: Path, photos: Path, export_format: str
) -> None:
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "c.png").write_bytes((photos / "more" / "c.png").read_bytes())
    arguments = ("--output", tmp_path / "boxes", "--export", export_format, "--proposals.mode", "single")
    run = propose("--image", photos, tmp_path / "more", *arguments)
    assert run.returncode == 2 and "c.png: both are '" in run.stderr
    assert not (tmp_path / "boxes").exists()
    (tmp_path / "more" / "c.png").rename(tmp_path / "more" / "d.png")  # as the message says
    assert propose("--image", photos, tmp_path / "more", *arguments).returncode == 0


def test_where_every_image_fails_nothing_is_said_to_be_done(propose: Propose, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"broken")
    run = propose("--image", tmp_path / "a.png", "--output", tmp_path / "boxes", "--export", "detectron2")
    assert run.returncode == 2 and run.stdout == "" and "1 of 1 images failed" in run.stderr


def test_annotations_of_other_images_are_refused_before_the_work(
    propose: Propose, tmp_path: Path, photos: Path
) -> None:
    truth = {
        "images": [{"id": 1, "file_name": "other.jpg"}],
        "categories": [{"id": 1, "name": "x"}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [0, 0, 9, 9]}],
    }
    (tmp_path / "t.json").write_text(json.dumps(truth))
    run = propose("--image", photos, "--annotations", tmp_path / "t.json", "--output", tmp_path / "boxes")
    assert run.returncode == 2 and "t.json: annotates none of the " in run.stderr
    assert not (tmp_path / "boxes").exists()


def test_exports_of_listed_images_of_coco(propose: Propose, tmp_path: Path, photos: Path) -> None:
    names = ["a.png", "b.png"]
    truth = {
        "images": [{"id": i, "file_name": name} for i, name in enumerate(names)],
        "categories": [{"id": 1, "name": "x"}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [0, 0, 9, 9]}],
    }
    (tmp_path / "t.json").write_text(json.dumps(truth))
    (tmp_path / "list.txt").write_text(names[1] + "\n")
    run = propose(
        "--image", photos / names[1], "--annotations", tmp_path / "t.json", "--image-list", tmp_path / "list.txt",
        "--output", tmp_path / "boxes", "--export", "detectron2",
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    with (tmp_path / "boxes" / "detectron2.pkl").open("rb") as file:
        assert pickle.load(file)["ids"] == [1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give --image or --list"),
        (["--list", "absent.txt"], "absent.txt: no such file"),
        (["--image", "x.jpg", "--proposals.mode", "slow"], "slow"),
        (["--image", "x.jpg", "--image-list", "x.txt"], "it needs --annotations"),
        (["--image", "x.jpg", "--proposals.strategies", '[{"k": .inf}]'], "k is inf: expected a positive"),
        (["--image", "x.jpg", "--proposals.superpixel_scale", ".inf"], "superpixel_scale is inf"),
        (["--image", "x.jpg", "--output", __file__], "is a file, name a folder"),
    ],
)
def test_bad_input_is_one_sentence(
    propose: Propose, tmp_path: Path, arguments: list[str], message: str
) -> None:
    run = propose("--output", tmp_path / "boxes", *arguments)
    assert run.returncode == 2 and message in run.stderr
    assert len(run.stderr.strip().splitlines()) == 1 and "Traceback" not in run.stderr
    assert not (tmp_path / "boxes").exists()
