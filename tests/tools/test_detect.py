"""`tools/detect.py` as people use it: real photos, every option, and one sentence for every mistake."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from PIL import Image

from detector.images import read_image
from eval.ilsvrc import DET_CLASSES
from proposals import SelectiveSearch
from proposals.files import by_rank, write_shard

TOOL = Path(__file__).resolve().parents[2] / "tools" / "detect.py"
Detect = Callable[..., tuple[int, str, str]]


@pytest.fixture
def detect(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path) -> Detect:
    """Run the tool in this process (a new one takes seconds to import torch) in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(TOOL.parent)
    import detect as tool

    def run(*arguments: str | Path) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["detect.py", *map(str, arguments)])
        try:
            code = tool.main()
        except SystemExit as end:
            code = int(end.code or 0)
        captured = capfd.readouterr()
        return code, captured.out, captured.err

    return run


def test_photos_to_pictures_and_json(
    detect: Detect, random_model: Path, photos: Path, tmp_path: Path
) -> None:
    code, out, _ = detect(
        *("--image", photos / "chelsea.png", photos / "coffee.png"),
        *("--weights", random_model, "--num-proposals", 6, "--score-threshold", 0, "--max-detections", 4),
    )
    assert code == 0
    outputs = tmp_path / "outputs"
    assert sorted(path.name for path in outputs.iterdir()) == [
        "chelsea_detections.jpg",
        "coffee_detections.jpg",
        "detections.json",
    ]
    with Image.open(outputs / "chelsea_detections.jpg") as picture:
        assert picture.size == (451, 300)
    content = json.loads((outputs / "detections.json").read_text())
    assert [image["width"] for image in content["images"]] == [451, 600]
    assert len(content["annotations"]) == 8 and len(content["categories"]) == 200
    for stage in ("read", "proposals", "crop", "network", "NMS", "draw", "boxes", "detections"):
        assert stage in out
    assert "8 detections in 2 images: outputs/detections.json" in out
    assert "pictures of them: outputs/*_detections.jpg" in out


def test_configuration_file_and_options(
    detect: Detect, random_model: Path, photos: Path, tmp_path: Path
) -> None:
    (tmp_path / "c.yaml").write_text("num_proposals: 3\nscore_threshold: 0\nproposals:\n  mode: single\n")
    code, _, _ = detect(
        *("--config", "c.yaml", "--image", photos / "chelsea.png", "--weights", random_model),
        *("--max-detections", 2, "--format", "csv", "--no-images", "--output", "found"),
    )
    assert code == 0
    assert [path.name for path in (tmp_path / "found").iterdir()] == ["detections.csv"]
    assert len((tmp_path / "found" / "detections.csv").read_text().splitlines()) == 3


def test_boxes_from_files_instead(detect: Detect, random_model: Path, photos: Path, tmp_path: Path) -> None:
    photo = photos / "chelsea.png"
    boxes = SelectiveSearch()(read_image(photo))
    write_shard(tmp_path / "boxes.npz", {photo.name: by_rank(boxes)})
    arguments = ("--image", photo, "--weights", random_model, "--num-proposals", 5, "--score-threshold", 0)
    assert detect(*arguments, "--output", "made")[0] == 0
    assert detect(*arguments, "--output", "read", "--proposal-files", tmp_path / "boxes.npz")[0] == 0
    made, read = (tmp_path / folder / "detections.json" for folder in ("made", "read"))
    assert made.read_bytes() == read.read_bytes()
    coffee = ("--image", photos / "coffee.png", *arguments[2:], "--proposal-files", tmp_path / "boxes.npz")
    code, _, err = detect(*coffee)
    assert code == 2 and "coffee.png" in err.splitlines()[-1]


def test_a_job_is_not_resumed_with_other_boxes(
    detect: Detect, random_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.new("RGB", (30, 20)).save(tmp_path / "x.png")
    shard = tmp_path / "boxes.npz"
    arguments = (
        "--image",
        "x.png",
        "--proposal-files",
        shard,
        "--weights",
        random_model,
        "--runtime",
        "torch",
    )
    for side in (10, 20):
        write_shard(shard, {"x.png": by_rank(np.array([[0, 0, side, side]], np.float32))})
        if side == 10:
            with monkeypatch.context() as stopped:
                stopped.setattr("detector.job.save", Mock(side_effect=KeyboardInterrupt))
                assert detect(*arguments)[0] == 130
            before = shard.read_bytes()
    code, _, err = detect(*arguments, "--resume")
    assert code == 2 and "other settings (proposal_files)" in err
    shard.write_bytes(before)
    code, out, _ = detect(*arguments, "--resume")
    assert code == 0 and "(1 from before)" in out


def test_ilsvrc_text_takes_indices_from_the_list(
    detect: Detect, random_model: Path, photos: Path, tmp_path: Path
) -> None:
    (tmp_path / "list.txt").write_text("coffee 11\nchelsea 22\n")
    arguments = (
        "--weights",
        random_model,
        "--num-proposals",
        3,
        "--score-threshold",
        0,
        "--format",
        "ilsvrc",
    )
    code, _, err = detect("--image", photos / "coffee.png", *arguments)
    assert code == 2 and "--format ilsvrc needs --image-list" in err
    images = (photos / "chelsea.png", photos / "coffee.png", photos / "astronaut.png")
    code, _, err = detect("--image", *images, *arguments, "--image-list", "list.txt")
    assert code == 0 and "1 of 3 images are not in list.txt: left out" in err
    lines = (tmp_path / "outputs" / "detections.txt").read_text().splitlines()
    assert {line.split()[0] for line in lines} == {"11", "22"}


def test_a_list_of_names_chooses_and_what_is_absent_is_told(
    detect: Detect, random_model: Path, photos: Path, tmp_path: Path
) -> None:
    (tmp_path / "list.txt").write_text("coffee.png\ngone.png\n")
    images = (photos / "chelsea.png", photos / "coffee.png")
    arguments = ("--weights", random_model, "--num-proposals", 3, "--no-images")
    code, _, err = detect("--image", *images, *arguments, "--image-list", "list.txt")
    assert code == 0 and "1 of 2 images are not in list.txt: left out" in err
    assert "1 of 2 images in list.txt are not among --image" in err


def test_only_the_classes_asked_for(detect: Detect, random_model: Path, photos: Path, tmp_path: Path) -> None:
    arguments = ("--image", photos / "chelsea.png", "--weights", random_model, "--num-proposals", 3)
    code, _, _ = detect(*arguments, "--score-threshold", 0, "--classes", "dog", "cat")
    assert code == 0
    found = json.loads((tmp_path / "outputs" / "detections.json").read_text())["annotations"]
    names = {kind.det_id: kind.name for kind in DET_CLASSES}
    assert {names[annotation["category_id"]] for annotation in found} == {"dog", "domestic cat"}
    code, _, err = detect(*arguments, "--classes", "unicorn")
    assert code == 2 and err.splitlines()[-1].startswith("error: class 'unicorn'")


def test_a_bad_image_in_a_batch_is_reported_and_the_rest_done(
    detect: Detect, random_model: Path, photos: Path, tmp_path: Path
) -> None:
    bad = "a[/b] [old].jpg"  # which a terminal's markup would swallow, or trip over
    (tmp_path / bad).parent.mkdir()
    (tmp_path / bad).write_text("no image")
    code, out, err = detect(
        *("--image", bad, photos / "chelsea.png", "gone.jpg"),
        *("--weights", random_model, "--num-proposals", 2, "--no-images"),
    )
    assert code == 1
    assert f"error: {bad}: not an image" in err and "error: gone.jpg: no such file" in err
    assert f"2 of 3 images failed: {bad}, gone.jpg" in err
    assert "2 detections in 1 image: " in out


def test_what_is_said_of_images_without_a_picture(detect: Detect, random_model: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        Image.new("RGB", (30, 20)).save(tmp_path / f"{name}.png")
        (tmp_path / "outputs" / f"{name}_detections.jpg").mkdir(parents=True)
    model = ("--weights", random_model, "--num-proposals", 2, "--runtime", "torch")
    code, out, err = detect("--image", "a.png", "b.png", *model)
    assert code == 1 and "2 of 2 images failed: a.png, b.png" in err and "in 2 images: " in out
    code, _, err = detect("--image", "c.png", "d.png", *model)
    assert code == 2 and "none of the 2 images could be processed; nothing written" in err


def test_any_readable_image_works(detect: Detect, random_model: Path, tmp_path: Path) -> None:
    images = {
        "one_pixel.png": Image.new("RGB", (1, 1), "red"),
        "column.png": Image.new("RGB", (1, 5000), "red"),
        "row.png": Image.new("RGB", (5000, 1), "red"),
        "grey.png": Image.linear_gradient("L"),
        "sixteen_bit.png": Image.linear_gradient("L").convert("I;16"),
        "transparent.png": Image.new("RGBA", (60, 40), (0, 0, 255, 0)),
        "cmyk.jpg": Image.new("CMYK", (60, 40)),
        "constant.gif": Image.new("P", (60, 40)),
    }
    (tmp_path / "images").mkdir()
    for name, image in images.items():
        image.save(tmp_path / "images" / name)
    arguments = ("--weights", random_model, "--num-proposals", 2, "--score-threshold", 0)
    code, _, err = detect("--image", "images", *arguments)
    assert code == 0, err
    sizes = {
        image["file_name"]: (image["width"], image["height"])
        for image in json.loads((tmp_path / "outputs" / "detections.json").read_text())["images"]
    }
    assert sizes == {name: image.size for name, image in images.items()}
    for path in (tmp_path / "outputs").glob("*.jpg"):
        Image.open(path).load()


def test_a_large_photo_needs_moderate_memory(random_model: Path, tmp_path: Path) -> None:
    """8000x6000 pixels, in a process of its own: its peak has to stay under 2.5 GB."""
    Image.linear_gradient("L").resize((8000, 6000)).convert("RGB").save(tmp_path / "large.jpg")
    program = (
        "import re, runpy, sys; from pathlib import Path; sys.argv = sys.argv[1:]\n"
        "try: runpy.run_path(sys.argv[0], run_name='__main__')\n"
        # not getrusage: that also knows the peak of the process that started this one
        "finally: print('peak', *re.findall(r'VmHWM:\\s*(\\d+)', Path('/proc/self/status').read_text()))"
    )
    command = [sys.executable, "-c", program, TOOL, "--image", tmp_path / "large.jpg", "--output", tmp_path]
    command += ["--weights", random_model, "--num-proposals", 20]
    result = subprocess.run(
        [str(part) for part in command], check=True, capture_output=True, text=True, timeout=300
    )
    peak_kilobytes = int(result.stdout.split()[-1])
    assert peak_kilobytes < 2.5e6
    with Image.open(tmp_path / "large_detections.jpg") as picture:
        assert picture.size == (8000, 6000)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "--image is missing"),
        (["--image", "gone.jpg"], "gone.jpg: no such file"),
        (
            ["--image", "x.png", "--output", "x.png", "--weights", "gone"],
            "--output x.png: is a file, name a folder",
        ),
        (
            [
                "--image",
                "x.png",
                "--format",
                "csv",
                "--output",
                "folder",
                "--image-list",
                "folder/detections.csv",
            ],
            "folder/detections.csv: --output would take the place of the file of --image-list",
        ),
        (["--image", "empty.jpg"], "empty.jpg: the file is empty"),
        (["--image", "folder"], "folder: no images in this folder"),
        (["--image", "*.xyz"], "*.xyz: matches no images"),
        (
            ["--image", "x.png", "--weights", "gone.npz"],
            "--weights gone.npz: neither a file nor one of the known",
        ),
        (["--image", "x.png", "--weights", "x.png"], "x.png: not a readable safetensors file"),
        (["--image", "x.png", "--image-list", "gone.txt"], "gone.txt: no such file"),
        (["--image", "x.png", "--batch-size", "0"], "batch_size is 0"),
        (["--image", "x.png", "--workers", "-1"], "workers is -1"),
        (
            ["--image", "x.png", "--device", "cpu", "--precision", "tf32"],
            "--precision tf32 is for GPUs; on the CPU",
        ),
        (["--image", "x.png", "--context", "112"], "context is 112"),
        (["--image", "x.png", "--num-proposals", "0"], "num_proposals is 0"),
        (
            ["--image", "x.png", "--num-proposals", "all"],
            '"num_proposals": expected a whole number or null, not all;',
        ),
        (["--image", "x.png", "--cascade", "0"], "cascade is 0"),
        (["--image", "x.png", "--cascade", "50"], "cascade is 50, but there is one model"),
        (["--image", "x.png", "--proposals.mode", "slow"], "proposals.mode"),
        (["--image", "x.png", "--score-threshold", "high"], "score_threshold"),
        (["--image", "x.png", "--config", "gone.yaml"], "gone.yaml"),
        (["--image", "x.png", "--config", "bad.yaml"], "error: bad.yaml: "),
        (
            ["--config", "single.yaml"],
            'single.yaml: Parser key "image": takes several values and has a single one: write it as a [list]',
        ),
        (["--config", "empty.yaml"], "empty.yaml: has no options in it, expected lines `option: value`"),
        (["--config", "comment.yaml"], "comment.yaml: has no options in it"),
        (
            ["--config", "broken.yaml"],
            "broken.yaml: Problems parsing config: while parsing a flow sequence, line 1",
        ),
        (["--config", "high.yaml"], 'high.yaml: Parser key "score_threshold"'),
        (["--config", "x.png"], "x.png: is no text"),
        (["--config", "none.yaml", "--image", "x.png"], "weights names no model"),
        (["--config", "three.yaml", "--image", "x.png"], "proposals is 3, but must be options, such as mode"),
        (["--image", "x.png", "--frobnicate"], "--frobnicate"),
    ],
)
def test_one_sentence_for_every_mistake(
    detect: Detect, random_model: Path, tmp_path: Path, arguments: list[str], sentence: str
) -> None:
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "detections.csv").write_text("x 1\n")
    (tmp_path / "bad.yaml").write_text("nonsense: 3\n")
    (tmp_path / "single.yaml").write_text("image: x.png\n")
    (tmp_path / "empty.yaml").touch()
    (tmp_path / "comment.yaml").write_text("# nothing\n")
    (tmp_path / "broken.yaml").write_text("image: [x.png\n")
    (tmp_path / "high.yaml").write_text("score_threshold: high\n")
    (tmp_path / "none.yaml").write_text("weights: []\n")
    (tmp_path / "three.yaml").write_text("proposals: 3\n")
    Image.new("RGB", (30, 20)).save(tmp_path / "x.png")
    if "--weights" not in arguments and "none.yaml" not in arguments:
        arguments = [*arguments, "--weights", str(random_model)]
    code, out, err = detect(*arguments)
    lines = [line for line in err.splitlines() if not line.startswith("weights: ")]
    assert code == 2 and out == ""
    assert len(lines) == 1 and lines[0].startswith("error: ") and sentence in lines[0]
    assert not (tmp_path / "outputs" / "detections.json").exists()


def test_cuda_where_there_is_none(detect: Detect, random_model: Path, photos: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    code, _, err = detect("--image", photos / "coffee.png", "--weights", random_model, "--device", "cuda")
    assert code == 2 and err == (
        "error: --device cuda: PyTorch finds no CUDA GPU on this machine; use --device cpu or auto\n"
    )


def test_without_weights_it_says_how_to_get_some(
    detect: Detect, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DETECTOR_SHARED", str(tmp_path))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("detector.weights.SHIPPED_FILE", "not-there")
    code, _, err = detect("--image", photos / "coffee.png")
    assert code == 2 and "--weights torchvision downloads" in err and len(err.splitlines()) == 1


def test_help_shows_examples(detect: Detect) -> None:
    code, out, _ = detect("--help")
    assert code == 0 and "python tools/detect.py --image photo.jpg" in out


def test_killed_and_resumed_ends_with_the_same_file(random_model: Path, photos: Path, tmp_path: Path) -> None:
    """SIGKILL in the middle, in a process of its own."""
    images = [photos / name for name in ("chelsea.png", "coffee.png", "astronaut.png", "rocket.jpg")]
    command = [sys.executable, str(TOOL), "--weights", str(random_model), "--num-proposals", "8"]
    command += ["--score-threshold", "0", "--image", *map(str, images), "--output"]
    subprocess.run([*command, str(tmp_path / "whole")], check=True, capture_output=True, timeout=300)

    stopped = tmp_path / "stopped"
    process = subprocess.Popen([*command, str(stopped)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    journal = stopped / "detections.unfinished.jsonl"
    while process.poll() is None and not (journal.exists() and journal.read_bytes().count(b"\n") >= 3):
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert journal.exists() and not (stopped / "detections.json").exists()

    result = subprocess.run(
        [*command, str(stopped), "--resume"], check=True, capture_output=True, text=True, timeout=300
    )
    assert "from before" in result.stdout
    for name in ("detections.json", *(f"{image.stem}_detections.jpg" for image in images)):
        assert (stopped / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert sorted(path.name for path in stopped.iterdir()) == sorted(
        path.name for path in (tmp_path / "whole").iterdir()
    )


def test_the_cat_is_found_zero_shot(detect: Detect, photos: Path, shared: Path, tmp_path: Path) -> None:
    """The BVLC classifier on a real photo."""
    code, _, err = detect(
        *("--image", photos / "chelsea.png", "--weights", shared / "weights" / "bvlc_googlenet.npz"),
        *("--num-proposals", 60, "--no-images"),
    )
    assert code == 0, err
    content = json.loads((tmp_path / "outputs" / "detections.json").read_text())
    best = max(content["annotations"], key=lambda annotation: annotation["score"])
    assert best["category_id"] == next(kind.det_id for kind in DET_CLASSES if kind.name == "domestic cat")
    assert best["score"] > 0.9
