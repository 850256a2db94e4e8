"""`tools/classify.py` as a user runs it."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

TOOLS = Path(__file__).resolve().parents[2] / "tools"


class Run(NamedTuple):
    """What a user sees of a command."""

    returncode: int
    stdout: str
    stderr: str


Classify = Callable[..., Run]


@pytest.fixture
def classify(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Classify:
    """Run the tool in this process."""
    monkeypatch.syspath_prepend(TOOLS)
    import classify as tool

    def run(*arguments: object) -> Run:
        monkeypatch.setattr(sys, "argv", ["classify.py", *map(str, arguments)])
        try:
            code = tool.main()
        except SystemExit as end:
            code = int(end.code or 0)
        return Run(code, *capfd.readouterr())

    return run


def test_names_what_it_sees(classify: Classify, random_model: Path, photos: Path, tmp_path: Path) -> None:
    output = tmp_path / "classes.csv"
    done = classify(
        *("--image", photos / "chelsea.png", photos / "coffee.png", "--weights", random_model, random_model),
        *("--top", 2, "--output", output),
    )
    assert done.returncode == 0 and done.stderr == f"weights: {random_model}, {random_model}\n"
    lines = done.stdout.splitlines()
    assert [line for line in lines if not line.startswith(" ")] == [
        str(photos / "chelsea.png"),
        str(photos / "coffee.png"),
    ]
    assert len(lines) == 6 and re.fullmatch(r" +\d+\.\d\d%  \w.*", lines[1])
    assert len(output.read_text().splitlines()) == 1 + 2 * 2


def test_a_reader_that_goes_away_does_not_cost_the_file(
    random_model: Path, photos: Path, tmp_path: Path
) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    output = tmp_path / "classes.csv"
    command = [
        sys.executable,
        str(TOOLS / "classify.py"),
        "--weights",
        str(random_model),
        "--output",
        str(output),
    ]
    images = [str(photos / name) for name in ("chelsea.png", "coffee.png")]
    done = subprocess.run(
        [*command, "--image", *images], stdout=writing, stderr=subprocess.PIPE, text=True, timeout=300
    )
    os.close(writing)
    assert done.returncode == 0, done.stderr
    assert len(output.read_text().splitlines()) == 1 + 2 * 5


def test_measures_the_error(classify: Classify, random_model: Path, photos: Path, tmp_path: Path) -> None:
    folder = tmp_path / "n02958343"  # car: one of the 200 classes of the random model
    folder.mkdir()
    shutil.copy(photos / "chelsea.png", folder / "1.png")
    shutil.copy(photos / "coffee.png", folder / "2.png")
    done = classify("--evaluate", folder, "--weights", random_model, "--crops", 10)
    assert done.returncode == 0
    assert re.search(r"^2 images, 10 crops: top-1 error \d+\.00%, top-5 error \d+\.00%$", done.stdout, re.M)
    assert "taken for" in done.stdout and re.search(r"^ +car +\w", done.stdout, re.M)

    (folder / "3.png").write_text("no image")
    done = classify("--evaluate", folder, "--weights", random_model)
    assert done.returncode == 1 and "3.png: not an image" in done.stderr
    assert "1 of 3 images failed" in done.stderr and "2 images, 1 crop:" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--weights", "bvlc"], "name images either with --image"),
        (["--image", "a.png", "--evaluate", "b"], "name images either with --image"),
        (["--image", "a.png", "--top", "0"], "--top is 0"),
        (["--image", "a.png", "--crops", "5"], "crops"),
        (["--image", "a.png", "--weights", "oxford"], "--weights oxford: neither a file nor"),
        (["--image", "a.png", "--output", "nowhere/x.csv"], "there is no folder nowhere"),
        (["--image", "a.png", "--output", "."], "--output .: is a folder"),
    ],
)
def test_bad_input_gets_one_sentence(classify: Classify, arguments: list[str], sentence: str) -> None:
    done = classify(*arguments)
    assert done.returncode == 2 and done.stdout == ""
    assert sentence in done.stderr and done.stderr.startswith("error: ") and done.stderr.count("\n") == 1


def test_nothing_readable_is_bad_input(classify: Classify, random_model: Path, tmp_path: Path) -> None:
    done = classify("--image", tmp_path / "none.png", "--weights", random_model)
    assert done.returncode == 2 and f"error: {tmp_path / 'none.png'}: no such file\n" in done.stderr


def test_nothing_that_is_read_is_written_over(
    classify: Classify, random_model: Path, photos: Path, tmp_path: Path
) -> None:
    for name, original in (("n02958343.png", photos / "chelsea.png"), ("m.safetensors", random_model)):
        shutil.copy(original, tmp_path / name)
    (tmp_path / "link").symlink_to(tmp_path)
    model, photo = ("--weights", tmp_path / "m.safetensors"), tmp_path / "link" / "n02958343.png"
    for arguments, option in (
        (("--image", tmp_path, "--output", photo), "image"),
        (("--evaluate", tmp_path / "*.png", "--output", photo), "evaluate"),
        (("--image", tmp_path, "--output", tmp_path / "m.safetensors"), "weights"),
    ):
        done = classify(*arguments, *model)
        assert done.returncode == 2
        assert f"{arguments[-1]}: --output would take the place of the file of --{option}" in done.stderr
    assert photo.read_bytes() == (photos / "chelsea.png").read_bytes()
    assert (tmp_path / "m.safetensors").read_bytes() == random_model.read_bytes()


def test_a_classifier_is_preferred_and_the_weights_are_told(
    classify: Classify, photos: Path, shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    done = classify("--image", photos / "chelsea.png")
    assert done.returncode == 0 and done.stderr.startswith("weights: bvlc (BVLC GoogLeNet")
    monkeypatch.setenv("DETECTOR_SHARED", str(tmp_path))
    done = classify("--image", photos / "chelsea.png")
    assert done.returncode == 0 and done.stderr.endswith("models/googlenet-det200.safetensors\n")


def test_help_has_examples(classify: Classify) -> None:
    done = classify("--help")
    assert done.returncode == 0 and "--crops 144 --weights bvlc" in done.stdout


def test_more_crops_do_not_make_it_worse(classify: Classify, shared: Path) -> None:
    """On 10 real images; README's numbers come from more."""
    errors = []
    for num_crops in (1, 10):
        done = classify(
            *(
                "--evaluate",
                shared / "imagenet_samples" / "*50_n*.jpg",
                "--weights",
                "bvlc",
                "--crops",
                num_crops,
            )
        )
        last = done.stdout.splitlines()[-1]
        print(last)
        found = re.search(r"top-1 error (.*)%, top-5 error (.*)%", last)
        assert found is not None
        errors.append([float(error) for error in found.groups()])
    (one_crop, one_crop_5), (ten_crops, ten_crops_5) = errors
    assert ten_crops <= one_crop < 50 and ten_crops_5 <= one_crop_5 < 30
