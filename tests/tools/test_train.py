"""`tools/train.py` as people use it, on small scenes and small regions."""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image
from torch.testing import assert_close

from detector.configuration import DetectorConfig, build_detector
from detector.weights import find_weights, load_objectness

TOOLS = Path(__file__).resolve().parents[2] / "tools"
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Run:
    """Run a tool in this process."""
    monkeypatch.syspath_prepend(TOOLS)

    def call(name: str, *arguments: object) -> tuple[int, str, str]:
        tool = __import__(name)
        monkeypatch.setattr(sys, "argv", [f"{name}.py", *map(str, arguments)])
        try:
            code = tool.main()
        except SystemExit as end:
            code = int(end.code or 0)
        captured = capfd.readouterr()
        return code, captured.out, captured.err

    return call


def scene(seed: int) -> tuple[np.ndarray, list[tuple[int, list[float]]]]:
    """An RGB image (96, 128, 3) with a red (1) or green (2) rectangle, and its (category, bbox) rows."""
    generator = np.random.default_rng(seed)
    image = generator.integers(60, 120, (96, 128, 3), dtype=np.uint8)
    width, height = generator.integers(28, 48, 2).tolist()
    x, y = int(generator.integers(4, 124 - width)), int(generator.integers(4, 92 - height))
    image[y : y + height, x : x + width] = (230, 20, 20) if seed % 2 else (20, 220, 20)
    return image, [(1 if seed % 2 else 2, [x, y, width, height])]


@pytest.fixture(scope="module")
def photos_of_shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """12 scenes: `images/`, the first 8 of them annotated in `instances.json`, and truth.json of the others."""
    folder = tmp_path_factory.mktemp("shapes")
    (folder / "images").mkdir()
    for name, seeds in (("instances.json", range(8)), ("truth.json", range(8, 12))):
        images, annotations = [], []
        for seed in seeds:
            image, rows = scene(seed)
            Image.fromarray(image).save(folder / "images" / f"{seed:02}.png")
            images.append({"id": seed + 1, "file_name": f"{seed:02}.png"})
            annotations += [
                {"id": seed + 1, "image_id": seed + 1, "category_id": category, "iscrowd": 0, "bbox": box}
                for category, box in rows
            ]
        categories = [{"id": 1, "name": "red"}, {"id": 2, "name": "green"}]
        content = {"images": images, "annotations": annotations, "categories": categories}
        (folder / name).write_text(json.dumps(content))
    return folder


def test_a_classifier_learns_from_folders_by_several_processes(run: Run, tmp_path: Path) -> None:
    for name in ("n01440764", "n01443537"):
        (tmp_path / "cls" / name).mkdir(parents=True)
        for seed in range(2):
            Image.fromarray(scene(seed)[0]).save(tmp_path / "cls" / name / f"{seed}.png")
    (tmp_path / "cls" / "n01440764" / "damaged.png").write_bytes(b"no image")
    arguments = (
        *("classify", "--images", tmp_path / "cls", "--output", tmp_path / "out", "--device", "cpu"),
        *("--fit.steps", 1, "--fit.workers", 1, "--images-per-batch", 2, "--size", 32, "--no-auxiliary"),
    )
    code, out, err = run("train", *arguments, "--dry-run")
    assert code == 0 and "dry run" in out and "5 images of 2 classes" in err
    code, out, err = run("train", *arguments)
    assert code == 0 and "model.safetensors" in out, err
    (tmp_path / "cls" / "zebra").mkdir()
    code, _, err = run("train", *arguments, "--dry-run")
    assert code == 2 and "zebra: is none of the 1000 ILSVRC classes" in err and len(err.splitlines()) == 1


def test_svms_on_few_photos_detect_in_others(
    run: Run, photos_of_shapes: Path, random_model: Path, tmp_path: Path
) -> None:
    model = tmp_path / "my_detector"
    arguments = (
        *(
            "svm",
            "--annotations",
            photos_of_shapes / "instances.json",
            "--images",
            photos_of_shapes / "images",
        ),
        *("--weights", random_model, "--output", model, "--size", 32),
        *("--data.num_proposals", 40, "--tap", "inception_3b", "--grid", 2),
    )
    code, out, err = run("train", *arguments, "--dry-run")
    assert code == 0 and "dry run" in out and "8 images, 8 objects" in err
    assert (model / "regions.jpg").exists() and not (model / "model.safetensors").exists()
    code, out, err = run("train", *arguments)
    assert code == 0 and "model.safetensors" in out and "SVM of green" in err
    others = [photos_of_shapes / "images" / f"{seed:02}.png" for seed in range(8, 12)]
    code, _, err = run(
        "detect", "--weights", model, "--image", *others, "--output", tmp_path / "found",
        *("--num-proposals", 60, "--score-threshold", 0, "--no-images"),
    )  # fmt: skip
    assert code == 0, err
    code, out, _ = run(
        "eval_map", "--detections", tmp_path / "found" / "detections.json",
        "--annotations", photos_of_shapes / "truth.json",
    )  # fmt: skip
    assert code == 0
    content = json.loads((tmp_path / "found" / "detections.json").read_text())
    assert [row["name"] for row in content["categories"]] == ["red", "green"]
    truth = {
        row["image_id"]: row["category_id"]
        for row in json.loads((photos_of_shapes / "truth.json").read_text())["annotations"]
    }
    for image_id, seed in enumerate(range(8, 12), start=1):
        best = max((a for a in content["annotations"] if a["image_id"] == image_id), key=lambda a: a["score"])
        assert best["category_id"] == truth[seed + 1]  # even random features tell red from green


def test_the_photos_that_were_not_learnt_from_measure(
    run: Run, photos_of_shapes: Path, random_model: Path, tmp_path: Path
) -> None:
    model, truth = tmp_path / "my_detector", photos_of_shapes / "instances.json"
    code, _, err = run(
        "train", "svm", "--annotations", truth, "--images", photos_of_shapes / "images", "--weights", random_model,
        *("--output", model, "--size", 32, "--data.num_proposals", 20, "--data.first", 6),
    )  # fmt: skip
    assert code == 0, err
    others = model / "not_learnt_from.txt"
    assert others.read_text() == "06.png\n07.png\n"
    code, out, err = run(
        "detect", "--weights", model, "--image", photos_of_shapes / "images", "--image-list", others,
        *("--num-proposals", 20, "--score-threshold", 0, "--no-images", "--output", tmp_path / "found"),
    )  # fmt: skip
    assert code == 0 and "in 2 images" in out and f"10 of 12 images are not in {others}: left out" in err, err
    found = ("--detections", tmp_path / "found" / "detections.json", "--annotations", truth)
    code, _, err = run("eval_map", *found, "--image-list", others)
    assert code == 0 and "warning" not in err, err
    code, _, err = run("eval_map", *found)
    assert code == 0 and "looked at 2 of the 8 annotated images" in err
    others.write_text("06.png\n77.png\n")
    code, _, err = run("eval_map", *found, "--image-list", others)
    assert code == 2 and "not_learnt_from.txt: 77.png is none of the images of" in err
    code, _, err = run(
        "detect", "--weights", model, "--image", photos_of_shapes / "images", "--image-list", others,
        *("--format", "ilsvrc", "--output", tmp_path / "found"),
    )  # fmt: skip
    assert code == 2 and "--format ilsvrc needs the index of each image" in err


@pytest.mark.parametrize(
    ("arguments", "kept"),
    [((), True), (("--no-objectness",), False), (("--tap", "inception_4a"), False)],
)
def test_svms_keep_the_opinion_that_their_weights_have_of_boxes(
    run: Run, photos_of_shapes: Path, tmp_path: Path, arguments: tuple[str, ...], kept: bool
) -> None:
    model = tmp_path / "model.safetensors"
    code, _, err = run(
        "train", "svm", "--annotations", photos_of_shapes / "instances.json",
        *("--images", photos_of_shapes / "images", "--output", tmp_path, "--weights", "googlenet-det200"),
        *("--size", 32, "--data.num_proposals", 10, *arguments),
    )  # fmt: skip
    assert code == 0, err
    found = load_objectness(model)
    assert (found is not None) == kept
    if found is not None:
        start = load_objectness(find_weights("googlenet-det200"))
        assert start is not None and found[1] == start[1]
        assert_close(dict(found[0].state_dict()), dict(start[0].state_dict()))
    image = np.asarray(Image.open(photos_of_shapes / "images" / "09.png"))
    detector = build_detector(DetectorConfig(weights=str(model), num_proposals=5, score_threshold=0))
    assert (detector.choose is not None) == kept
    assert len(detector(image))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "--data.annotations is missing"),
        (["--annotations", "absent.json", "--images", "x"], "absent.json"),
        (["--tap", "pool9"], "'pool9' is no stage"),
        (["--size", 8], "--size is 8"),
        (
            ["--context", -5],
            "--context is -5, but must be at least 0 and below half of the region's 224 pixels",
        ),
        (["--grid", 0], "--grid is 0"),
        (["--grid", 8, "--tap", "inception_5b"], "of a region of 224 pixels inception_5b has 7x7 cells"),
        (["--batch-size", -1], "--batch-size is -1"),
        (["--max-positives", -1], "--max-positives is -1"),
        (["--max-backgrounds", -1], "--max-backgrounds is -1"),
        (["--seed", -1], "--seed is -1"),
        (["--data.num_proposals", -5], "--data.num_proposals is -5"),
        (["--batch-sizes", 8], "batch-sizes"),
    ],
)
def test_bad_input_is_one_sentence(
    run: Run, random_model: Path, tmp_path: Path, arguments: list[str], message: str
) -> None:
    code, _, err = run("train", "svm", "--weights", random_model, "--output", tmp_path / "m", *arguments)
    *before, sentence = err.splitlines()
    assert code == 2 and sentence.startswith("error: ") and message in sentence, err
    assert all(line.startswith("features: ") for line in before), err


@pytest.mark.parametrize("data", ["3", "null", "[a.json]"])
def test_a_part_of_a_file_is_options(run: Run, tmp_path: Path, data: str) -> None:
    (tmp_path / "wrong.yaml").write_text(f"data: {data}\n")
    for more in ((), ("--annotations", "a.json")):
        code, _, err = run("train", "svm", "--config", tmp_path / "wrong.yaml", *more)
        assert code == 2 and "data is " in err and len(err.splitlines()) == 1, err


def test_configs_are_valid(run: Run) -> None:
    for path in sorted((TOOLS.parent / "configs").glob("svm*.yaml")):
        code, out, err = run("train", "svm", "--config", path, "--print_config")
        assert code == 0 and "regularisation" in out, err


def test_the_documented_lists_of_paths_are_read_one_after_the_other(run: Run) -> None:
    code, out, err = run(
        *("train", "finetune", "--data.annotations", "a.json", "b.json", "--data.images", "x", "y"),
        *(
            "--data.unlabelled",
            "more/",
            "--data.image_labels",
            "known.csv",
            "--data.proposal_files",
            "boxes/",
        ),
        *("--validation.annotations", "c.json", "--print_config"),
    )
    assert code == 0, err
    config = yaml.safe_load(out)
    assert config["data"]["annotations"] == ["a.json", "b.json"] and config["data"]["images"] == ["x", "y"]
    assert config["data"]["unlabelled"] == ["more/"] and config["data"]["image_labels"] == ["known.csv"]
    assert config["data"]["proposal_files"] == ["boxes/"] and config["validation"]["annotations"] == [
        "c.json"
    ]


def test_the_documented_fine_tuning_starts_from_the_shipped_model(
    run: Run, photos_of_shapes: Path, tmp_path: Path
) -> None:
    arguments = (
        *("finetune", "--config", TOOLS.parent / "configs" / "finetune_small.yaml", "--output", tmp_path),
        *("--annotations", photos_of_shapes / "instances.json", "--images", photos_of_shapes / "images"),
        *("--data.num_proposals", 20, "--data.first", 2, "--dry-run"),
    )
    code, out, err = run("train", *arguments)
    assert code == 0 and "dry run" in out, err
    assert "3 of 3 outputs start from nothing: red, green, background" not in err
    assert "2 of 3 outputs start from nothing: red, green" in err
    (tmp_path / "proposals.npz").unlink()
    code, _, err = run("train", *arguments, "--teacher-weight", 1)
    assert code == 2 and "--teacher-weight 0" in err and not (tmp_path / "proposals.npz").exists()


def test_a_grid_needs_a_map(run: Run, random_model: Path, tmp_path: Path) -> None:
    code, _, err = run("train", "svm", "--weights", random_model, "--output", tmp_path, "--grid", 2)
    assert code == 2 and "--grid is 2, but pool5 is one cell" in err


def test_what_a_run_starts_from_is_not_written_over(run: Run, random_model: Path, tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(random_model.read_bytes())
    sentence = "model.safetensors: --output would take the place of the file of --"
    for kind in ("svm", "finetune", "objectness", "fit"):
        code, _, err = run("train", kind, "--weights", tmp_path, "--output", f"{tmp_path}/../{tmp_path.name}")
        assert code == 2 and f"{sentence}weights" in err
    teacher = ("--teacher", tmp_path, "--teacher-weight", 1)
    code, _, err = run("train", "finetune", "--weights", random_model, "--output", tmp_path, *teacher)
    assert code == 2 and f"{sentence}teacher" in err
    chooser = tmp_path / "chooser" / "model.safetensors"
    chooser.parent.mkdir()
    chooser.write_bytes(find_weights("googlenet-det200").read_bytes())  # type: ignore[union-attr]
    code, _, err = run(
        "train", "fit", "--weights", random_model, "--chooser", chooser, "--output", chooser.parent
    )
    assert code == 2 and f"{sentence}chooser" in err
    code, _, err = run("train", "svm", "--weights", random_model, "--output", random_model)
    assert code == 2 and f"--output {random_model}: is a file, name a folder" in err
    labels = tmp_path / "labels.csv"
    code, _, err = run("train", "boxes", "--image-labels", labels, "--output", labels)
    assert code == 2 and "--output would take the place of the file of --image-labels" in err
