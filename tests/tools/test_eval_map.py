"""The command line from files to table, JSON, CSV and page, as a user runs it."""

import csv
import importlib.util
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from detector.taxonomy import DET200
from eval import coco, ilsvrc, inputs
from eval.inputs import example_files
from eval.protocols import PROTOCOLS
from eval.summary import short_names

ROOT = Path(__file__).resolve().parents[2]
TOOL = ROOT / "tools" / "eval_map.py"
EXAMPLE_ANNOTATIONS, EXAMPLE_DETECTIONS = example_files()
EXAMPLE = ["--annotations", str(EXAMPLE_ANNOTATIONS), "--detections", str(EXAMPLE_DETECTIONS)]


class Done(NamedTuple):
    """What a run of the tool gave back."""

    returncode: int
    stdout: str
    stderr: str


Run = Callable[..., Done]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """The tool's main within this process; a test of its own starts it as a program."""
    spec = importlib.util.spec_from_file_location("eval_map", TOOL)
    assert spec is not None and spec.loader is not None
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    assert tool.PROTOCOLS == PROTOCOLS

    def call(*arguments: str | Path) -> Done:
        monkeypatch.setattr(sys, "argv", ["eval_map.py", *map(str, arguments)])
        code = tool.main()
        return Done(code, *capsys.readouterr())

    return call


def test_without_arguments_it_shows_a_command_that_runs(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    shown = subprocess.run(
        [sys.executable, str(TOOL)], capture_output=True, text=True, cwd=tmp_path, env=environment
    )
    assert shown.returncode == 0 and len(shown.stdout.splitlines()) < 10
    command = re.search(r"python (.*)", shown.stdout.replace("\\\n", " "))
    assert command
    result = subprocess.run(
        [sys.executable, *command[1].split()], capture_output=True, text=True, cwd=tmp_path, env=environment
    )
    assert result.returncode == 0, result.stderr
    assert "mean AP   0.796111" in result.stdout and "median AP 0.833333" in result.stdout
    assert "classes   5 counted of 5" in result.stdout
    assert re.search(r"dog +│ +58 │ 0\.8056 │ 0\.8333 │ +6 │ +8", result.stdout)


def test_a_reader_that_goes_away_does_not_cost_the_files(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    outputs = {kind: tmp_path / f"out.{kind}" for kind in ("json", "csv", "html")}
    options = [part for kind, path in outputs.items() for part in (f"--{kind}", str(path))]
    done = subprocess.run(
        [sys.executable, str(TOOL), *EXAMPLE, "--bootstrap", "10", *options],
        stdout=writing, stderr=subprocess.PIPE, text=True, timeout=300,
    )  # fmt: skip
    os.close(writing)
    assert done.returncode == 0 and not done.stderr, done.stderr
    assert all(path.stat().st_size for path in outputs.values())


def test_results_of_one_name_are_told_apart(run: Run, tmp_path: Path) -> None:
    files = [tmp_path / folder / "detections.txt" for folder in ("found", "zero-shot")]
    for file in files:
        file.parent.mkdir()
        file.write_text(EXAMPLE_DETECTIONS.read_text())
    page = tmp_path / "page.html"
    pair = ("--detections", files[0], "--compare", files[1])
    done = run(*EXAMPLE[:2], *pair, "--bootstrap", "10", "--html", page)
    assert "classes won: found/detections.txt 0, zero-shot/detections.txt 0" in done.stdout
    assert "mean AP of zero-shot/detections.txt minus found/detections.txt" in page.read_text()
    assert short_names(files[0], files[0]) == (files[0].as_posix(), files[0].as_posix())


def test_everything_at_once(run: Run, tmp_path: Path) -> None:
    other = tmp_path / "other.txt"
    lines = EXAMPLE_DETECTIONS.read_text().splitlines()
    other.write_text("\n".join(lines[::2]))
    outputs = {kind: tmp_path / f"out.{kind}" for kind in ("json", "csv", "html")}
    options = [part for kind, path in outputs.items() for part in (f"--{kind}", path)]
    done = run(*EXAMPLE, "--compare", other, "--errors", "--bootstrap", "100", *options)
    assert done.returncode == 0, done.stderr
    assert "classes won: example_detections.txt" in done.stdout and "what the errors cost" in done.stdout
    result = json.loads(outputs["json"].read_text())
    assert result["mean_ap"] == pytest.approx(0.7961111)
    assert (result["protocol"], result["median_ap"]) == ("ilsvrc", pytest.approx(0.8333333))
    assert list(result["classes"][0])[:4] == ["id", "wnid", "name", "ap"]
    assert {"num_gt", "num_detections"} <= set(result["classes"][0])
    assert result["mean_ap_interval"]["replicates"] == 100
    assert sum(result["comparison"]["classes_won"].values()) == 5
    rows = list(csv.DictReader(outputs["csv"].open()))
    assert [float(row["ap"]) for row in rows] == pytest.approx([row["ap"] for row in result["classes"]])
    page = outputs["html"].read_text()
    assert page.count("<svg") == page.count("</svg>") == 4 and page.count("<tr>") == 6 + 6
    assert f"written: {outputs['json']}, {outputs['csv']}, {outputs['html']}" in done.stderr
    assert "0.7961" in page and not re.search(r"(src|href)=.http", page)  # needs no network
    again = tmp_path / "again.html"
    run(*EXAMPLE, "--compare", other, "--errors", "--bootstrap", "100", "--html", again)
    assert again.read_text() == page


def test_whoever_is_handed_the_results_learns_of_images_not_looked_at(run: Run, tmp_path: Path) -> None:
    annotations = inputs.read_annotations(EXAMPLE_ANNOTATIONS)
    found = inputs.read_detections(EXAMPLE_DETECTIONS, annotations)
    truth = coco.as_instances(annotations)
    seen = truth["images"][:2]
    some = {row["id"] for row in seen}
    rows = [row for row in coco.as_results(found, annotations) if row["image_id"] in some]
    for name, images in (("some.json", seen), ("all.json", truth["images"])):
        (tmp_path / name).write_text(
            json.dumps({"images": images, "categories": truth["categories"], "annotations": rows})
        )
    words = re.compile(r"did not look at (\d+) of the (\d+)\s+images")
    unseen, total = len(annotations.images) - 2, len(annotations.images)
    assert unseen > 0
    page, table = tmp_path / "page.html", tmp_path / "table.json"
    for first, second, expected in (("some", "all", (unseen, 0)), ("all", "some", (0, unseen))):
        pair = ("--detections", tmp_path / f"{first}.json", "--compare", tmp_path / f"{second}.json")
        done = run(*EXAMPLE[:2], *pair, "--bootstrap", "10", "--html", page, "--json", table)
        assert done.returncode == 0 and f"some.json: looked at 2 of the {total} annotated" in done.stderr
        content = json.loads(table.read_text())
        assert (content["num_images_unseen"], content["comparison"]["num_images_unseen"]) == expected
        text = page.read_text()
        assert words.findall(text) == [(str(unseen), str(total))]
        below = text.index("did not look at") > text.index(f"Against {second}.json")
        assert below == (second == "some")


@pytest.mark.parametrize("protocol", ["iou50", "voc2007", "voc2012", "coco"])
def test_the_other_protocols(run: Run, protocol: str, tmp_path: Path) -> None:
    done = run(*EXAMPLE, "--protocol", protocol, "--html", tmp_path / "page.html")
    assert done.returncode == 0, done.stderr
    assert "mean AP" in done.stdout and f"{protocol}, IoU" in done.stdout
    assert ("AP_small" in done.stdout) == (protocol == "coco")
    twice = run(*EXAMPLE, "--protocol", protocol, "--compare", EXAMPLE_DETECTIONS)
    assert "difference +0.000000" in twice.stdout and "equal 5" in twice.stdout
    if protocol == "coco":
        own = run(*EXAMPLE, "--protocol", "coco", "--errors", "--bootstrap", "50")
        other = run(
            *EXAMPLE, "--protocol", "coco", "--errors", "--bootstrap", "50", "--engine", "pycocotools"
        )
        assert "over 50 draws" in own.stdout and "what the errors cost at IoU 0.50" in own.stdout
        assert other.stdout == own.stdout


def test_bad_input_is_one_sentence_and_exit_code_2(run: Run, tmp_path: Path) -> None:
    bad = tmp_path / "bad.txt"
    bad.write_text("1 58 0.5 1 2 3\n")
    link = tmp_path / "link.json"
    link.symlink_to(bad)
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    truth = ["--annotations", EXAMPLE_ANNOTATIONS]
    for arguments, message in (
        ([*truth, "--detections", bad], "bad.txt:1: 6 values, expected 7"),
        ([*truth, "--detections", tmp_path / "none.txt"], "none.txt: no such file or directory"),
        ([*truth], "--detections is missing"),
        (["--protocol", "coco", "--json", tmp_path / "x"], "--detections and --annotations are missing"),
        ([*truth, "--detections", pipe], "pipe: is a pipe or device, give a file"),
        ([*EXAMPLE, "--compare", pipe], "pipe: is a pipe or device, give a file"),
        (["--annotations", pipe, *EXAMPLE[2:]], "pipe: is a pipe or device, give a file"),
        ([*EXAMPLE, "--iou", "50"], "the IoU threshold is 50"),
        ([*EXAMPLE, "--iou", "0.7", "--protocol", "coco"], "averages over IoU 0.50 to 0.95 and takes no"),
        ([*EXAMPLE, "--output", tmp_path / "o"], "--output and --resume belong to the run of a detector"),
        ([*EXAMPLE, "--resume"], "--output and --resume belong to the run of a detector"),
        ([*EXAMPLE, "--bootstrap", "-3"], "--bootstrap is -3, but must be 0 to 100000"),
        ([*EXAMPLE, "--bootstrap", "100000000000"], "--bootstrap is 100000000000, but must be 0 to 100000"),
        ([*EXAMPLE, "--engine", "pycocotools"], "pycocotools is for coco"),
        ([*EXAMPLE, "--json", tmp_path / "no" / "folder.json"], "there is no folder"),
        ([*truth, "--detections", tmp_path], f"is a folder, name a file such as {tmp_path}/detections.json"),
        ([*EXAMPLE, "--compare", tmp_path], f"{tmp_path}: is a folder, name a file"),
        ([*EXAMPLE, "--html", tmp_path], f"{tmp_path}: --html is a folder, not a file to write to"),
        ([*truth, "--detections", bad, "--csv", bad], "--csv would take the place of the file of --det"),
        ([*EXAMPLE, "--compare", bad, "--json", link], "--json would take the place of the file of --com"),
        ([*EXAMPLE, "--image-list", bad, "--html", bad], "place of the file of --image-list"),
        ([*EXAMPLE, "--json", tmp_path / "x", "--csv", tmp_path / "x"], "place of the file of --json"),
    ):
        done = run(*arguments)
        assert done.returncode == 2, arguments
        assert done.stderr.startswith("error: ") and message in done.stderr, done.stderr
        assert len(done.stderr.splitlines()) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad.txt", "link.json", "pipe"]
    assert bad.read_text() == "1 58 0.5 1 2 3\n"


def test_importing_the_classes_is_quick_and_needs_no_torch() -> None:
    code = (
        "import sys, eval.ilsvrc, eval.inputs, eval.protocols, eval.evaluator, eval.recall;"
        "print({'torch', 'pycocotools'} & sys.modules.keys())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.strip() == "set()", done.stderr
    code = "import sys, eval.ilsvrc; print('numba' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.strip() == "False", done.stderr


def test_coco_knows_no_blacklist_not_even_one_of_other_images(run: Run, tmp_path: Path) -> None:
    (tmp_path / "black.txt").write_text("999 n02084071\n")
    done = run(*EXAMPLE, "--blacklist", tmp_path / "black.txt", "--protocol", "coco")
    assert done.returncode == 2 and "the coco protocol knows no blacklist" in done.stderr


def test_a_configuration_runs_the_detector_first(
    run: Run, random_model: Path, photos: Path, tmp_path: Path
) -> None:
    (tmp_path / "c.yaml").write_text(f"weights: {random_model}\nnum_proposals: 4\nscore_threshold: 0.9\n")
    truth = {
        "images": [{"id": 5, "file_name": "chelsea.png", "width": 451, "height": 300}],
        "categories": [{"id": kind.id, "name": kind.name, "wnid": kind.wnid} for kind in DET200],
        "annotations": [{"id": 1, "image_id": 5, "category_id": 29, "bbox": [0, 0, 451, 300], "iscrowd": 0}],
    }
    (tmp_path / "truth.json").write_text(json.dumps(truth))
    detector = (
        "--config",
        tmp_path / "c.yaml",
        "--image",
        photos / "chelsea.png",
        "--output",
        tmp_path / "o",
    )
    annotations = ("--annotations", tmp_path / "truth.json")
    done = run(*detector, *annotations, "--json", tmp_path / "a.json")
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "o" / "detections.json").read_text())["annotations"]
    assert len(found) == 100 and min(box["score"] for box in found) < 0.9  # every score counts in an AP
    again = run(
        "--detections", tmp_path / "o" / "detections.json", *annotations, "--json", tmp_path / "b.json"
    )
    assert again.stdout == done.stdout
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()

    printed = subprocess.run(
        [sys.executable, ROOT / "tools" / "detect.py", "--config", tmp_path / "c.yaml", "--print_config"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    (tmp_path / "printed.yaml").write_text(printed.stdout)  # with images and results, which are passed over
    same = run("--config", tmp_path / "printed.yaml", *detector[2:], *annotations)
    assert same.stdout == done.stdout
    (tmp_path / "wrong.yaml").write_text("nms: 0.3\n")
    wrong = run("--config", tmp_path / "wrong.yaml", *detector[2:], *annotations)
    assert wrong.returncode == 2 and "wrong.yaml: " in wrong.stderr and "--help" not in wrong.stderr
    (tmp_path / "none.yaml").write_text("weights: []\n")
    none = run("--config", tmp_path / "none.yaml", *detector[2:], *annotations)
    assert none.returncode == 2 and "weights names no model" in none.stderr

    truth["categories"] = [row for row in truth["categories"] if row["id"] == 29]
    (tmp_path / "cats.json").write_text(json.dumps(truth))
    (tmp_path / "photo.png").touch()
    fewer = run(*detector, "--annotations", tmp_path / "cats.json")
    assert fewer.returncode == 0 and "199 of 200 classes are not among those" in fewer.stderr, fewer.stderr
    found = json.loads((tmp_path / "o" / "detections.json").read_text())["annotations"]
    assert {box["category_id"] for box in found} == {29}
    for option, words in (
        (("--iou", "2"), "the IoU threshold is 2"),
        (("--engine", "pycocotools"), "engine 'pycocotools' does not compute ilsvrc"),
        (("--compare", "gone.json"), "gone.json: no such file"),
        (("--html", tmp_path / "gone" / "x.html"), "there is no folder "),
        (("--bootstrap", "-3"), "--bootstrap is -3"),
        (("--json", tmp_path / "never" / "detections.json"), "there is no folder"),
        (
            ("--image", tmp_path, "--json", tmp_path / "photo.png"),
            "--json would take the place of the file of --image",
        ),
        (("--json", tmp_path / "c.yaml"), "--json would take the place of the file of --config"),
    ):
        refused = run(*detector[:-1], tmp_path / "never", *annotations, *option)
        assert refused.returncode == 2 and words in refused.stderr and not (tmp_path / "never").exists()

    half = run("--config", tmp_path / "c.yaml", *annotations)
    assert half.returncode == 2 and "give --config, --image and --annotations" in half.stderr
    gone = run(*detector[2:], *annotations, "--config", tmp_path / "gone.yaml")
    assert gone.returncode == 2 and "gone.yaml: no such file" in gone.stderr

    beside = run(*detector[:2], "--image", photos, *detector[4:], *annotations, "--json", tmp_path / "c.json")
    assert re.match(r"\d+ of \d+ images are not annotated: left out\n", beside.stderr)
    assert json.loads((tmp_path / "c.json").read_text()) == json.loads((tmp_path / "a.json").read_text())
    ilsvrc.write_annotations(tmp_path / "xml", inputs.read_annotations(tmp_path / "truth.json"))
    (tmp_path / "list.txt").write_text("photos/chelsea 5\n")
    listed = ("--annotations", tmp_path / "xml", "--image-list", tmp_path / "list.txt")
    beside = run(*detector[:2], "--image", photos, *detector[4:], *listed)
    assert beside.returncode == 0
    assert re.match(r"\d+ of \d+ images are not in \S+list.txt: left out\n", beside.stderr)
    none = run(*detector[:2], "--image", photos / "coffee.png", *detector[4:], *annotations)
    assert none.returncode == 2 and "error: none of the 1 images is annotated (such as " in none.stderr
    before = run(*detector, *annotations, "--compare", tmp_path / "o" / "detections.json")
    assert (
        before.returncode == 2 and "--output would take the place of the file of --compare" in before.stderr
    )
