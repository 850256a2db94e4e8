"""tools/export.py: files that other runtimes run with PyTorch's results, or no file at all."""

import json
import runpy
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from detector.architecture import Architecture
from detector.googlenet import GoogLeNet
from detector.plugins.export import (
    ExportableScores,
    ExportableTaps,
    compare,
    compiled_difference,
    describe_outputs,
    example_regions,
    export,
)
from detector.region_classifier import Preprocessing
from detector.safetensors_file import WeightsCard, read_weights_file, write_weights_file
from detector.tap_classifier import TapClassifier
from detector.taxonomy import DetectionClass
from detector.weights import load_weights

main = runpy.run_path(str(Path(__file__).resolve().parents[2] / "tools" / "export.py"))["main"]
SIDE = 64
CLASSES = (DetectionClass(3, "red"), DetectionClass(5, "green"))


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A narrow network of two classes with random weights, for BGR pixels minus a mean."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("models") / "narrow.safetensors"
    network = GoogLeNet(3, architecture=Architecture(width=0.25))
    nn.init.normal_(network.classifier.weight, std=0.3)
    card = WeightsCard(
        "narrow",
        "random weights for tests",
        "CC0",
        "detection",
        Preprocessing("BGR", scale=1.0, mean=(104.0, 117.0, 123.0), size=SIDE),
        CLASSES,
        architecture=network.architecture,
    )
    write_weights_file(path, network.state_dict(), card)
    return path


def run_tool(monkeypatch: pytest.MonkeyPatch, *arguments: str | Path) -> int:
    monkeypatch.setattr("sys.argv", ["export.py", *map(str, arguments)])
    return main()


def test_torch_export(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "network.pt2"
    assert run_tool(monkeypatch, "--weights", weights, "--output", path) == 0
    assert "written; differs from PyTorch by" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == [path]
    card = {"classes": "", "input": ""}
    program = torch.export.load(path, extra_files=card).module()
    assert [kind["name"] for kind in json.loads(card["classes"])] == ["red", "green"]
    assert json.loads(card["input"])["size"] == SIDE
    classifier = load_weights(weights).eval()
    regions = example_regions(SIDE, 5, seed=9)
    with torch.inference_mode():
        torch.testing.assert_close(program(regions)[0], classifier(regions), rtol=1e-5, atol=1e-6)


def test_a_small_file_of_this_project(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "small.safetensors"
    assert run_tool(monkeypatch, "--weights", weights, "--output", path, "--licence", "CC-BY") == 0
    assert "written; weights in 8 bits, a layer's off by" in capsys.readouterr().out
    assert path.stat().st_size < weights.stat().st_size / 3
    card = read_weights_file(path)[1]
    assert (card.name, card.licence, card.origin) == ("small", "CC-BY", "random weights for tests")
    regions = example_regions(SIDE, 5, seed=9)
    with torch.inference_mode():
        scores = [load_weights(file).eval()(regions) for file in (weights, path)]
    torch.testing.assert_close(scores[0], scores[1], rtol=0, atol=0.1)


def test_a_model_is_not_written_over_itself(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "m.safetensors"
    path.write_bytes(weights.read_bytes())
    (tmp_path / "link.safetensors").symlink_to(path)
    for output in (path, tmp_path / "link.safetensors"):
        assert run_tool(monkeypatch, "--weights", path, "--output", tmp_path / "n.safetensors", output) == 2
        assert f"{output}: --output would take the place of the file of --weights" in capsys.readouterr().err
    assert path.read_bytes() == weights.read_bytes() and not (tmp_path / "n.safetensors").exists()


def test_onnx(weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    onnx = pytest.importorskip("onnx", reason="needs onnx, which the extra `test` installs")
    onnxruntime = pytest.importorskip(
        "onnxruntime", reason="needs onnxruntime, which the extra `test` installs"
    )
    pytest.importorskip("onnxscript", reason="needs onnxscript, which the extra `test` installs")
    path = tmp_path / "network.onnx"
    assert run_tool(monkeypatch, "--weights", weights, "--output", path) == 0
    assert list(tmp_path.iterdir()) == [path]
    card = {entry.key: entry.value for entry in onnx.load(path).metadata_props}
    assert [kind["id"] for kind in json.loads(card["classes"])] == [3, 5]
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    regions = example_regions(SIDE, 4, seed=9)
    (scores,) = session.run(["scores"], {"regions": regions.numpy()})
    with torch.inference_mode():
        expected = load_weights(weights).eval()(regions)
    torch.testing.assert_close(torch.from_numpy(scores), expected, rtol=1e-4, atol=1e-5)


def test_a_file_tells_the_size_it_takes(weights: Path) -> None:
    usual = load_weights(weights)
    expected = round(usual.preprocessing.context * 112 / usual.preprocessing.size)
    told = json.loads(describe_outputs(usual, 112)["input"])
    assert told["size"] == 112 and told["context"] == expected


def test_taps(weights: Path, tmp_path: Path) -> None:
    classifier = load_weights(weights)
    names = ("inception_3b", "Mixed_4f")
    export(ExportableTaps(classifier, names), tmp_path / "taps.pt2", side=96)
    program = torch.export.load(tmp_path / "taps.pt2").module()
    regions = example_regions(96, 2, seed=9)
    with torch.inference_mode():
        expected = classifier.eval().network.taps(classifier.normalize(regions), names)  # type: ignore[operator]
        for found, name in zip(program(regions), names, strict=True):
            torch.testing.assert_close(found, expected[name], rtol=1e-4, atol=1e-3)


def test_taps_of_a_network_that_ends_early(weights: Path, tmp_path: Path) -> None:
    classifier = load_weights(weights)
    trunk = classifier.network
    assert isinstance(trunk, GoogLeNet)
    channels = trunk.feature_info[
        [stage.module for stage in trunk.feature_info].index("inception_4b")
    ].channels
    classifier.network = TapClassifier(trunk, tap="inception_4b", grid=1, in_features=channels, outputs=2)
    export(ExportableTaps(classifier, ["inception_3b", "inception_4b"]), tmp_path / "taps.pt2", side=96)
    with pytest.raises(ValueError, match="--taps inception_4e: these weights end with inception_4b"):
        ExportableTaps(classifier, ["inception_3b", "Mixed_4f"])


def test_torch_compile(weights: Path) -> None:
    """Without the C++ compiler, whose work takes minutes: the graph that it would get."""
    assert compiled_difference(ExportableScores(load_weights(weights)), side=SIDE, backend="aot_eager") < 1e-5


def test_a_network_that_says_something_else_is_refused() -> None:
    def half(regions: Tensor) -> Tensor:
        return (regions.float() / 255,)  # type: ignore[return-value]

    def other(regions: Tensor) -> Tensor:
        return (regions.float() / 255 + 2e-4 * (len(regions) == 3),)  # type: ignore[return-value]

    class Half(nn.Module):
        def forward(self, regions: Tensor) -> Tensor:
            return half(regions)

    class NotANumber(nn.Module):
        def forward(self, regions: Tensor) -> tuple[Tensor]:
            return (regions.float() * float("nan"),)

    assert compare(Half(), half, side=8, name="x") == 0  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"x: its outputs differ from the network's by 0\.0002"):
        compare(Half(), other, side=8, name="x")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="differ from the network's by nan"):
        compare(Half(), NotANumber(), side=8, name="x")


def test_nothing_is_left_of_a_file_that_differs(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("detector.plugins.export.TOLERANCE", -1.0)
    with pytest.raises(ValueError, match="allowed are"):
        export(ExportableScores(load_weights(weights)), tmp_path / "network.pt2", side=SIDE)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "nothing to do: give --output FILE (.onnx, .pt2, .safetensors)"),
        (["--output", "network.tflite"], "ends in .onnx, .pt2, .safetensors"),
        (["--output", "network.tflite", "--weights", "gone"], "--output network.tflite"),
        (["--output", "network.pt2", "--taps", "inception_9z"], "'inception_9z' is no stage of this network"),
        (
            ["--output", "network.onnx", "--taps", "inception_9z"],
            "'inception_9z' is no stage of this network",
        ),
        (
            ["--output", "network.onnx", "--taps", "inception_3b", "inception_4e", "Mixed_3c"],
            "--taps inception_3b inception_4e Mixed_3c: Mixed_3c is the same layer as one before it",
        ),
        (["--output", "network.pt2", "--taps", "conv1", "conv1"], "conv1 is the same layer as one before it"),
        (["--output", "nowhere/network.pt2"], "no folder nowhere"),
        (["--compile", "--size", "8"], "--size 8"),
        (["--output", "a.safetensors", "--taps", "inception_3b"], "a.safetensors: is the model as it is"),
        (["--output", "a.pt2", "a.safetensors", "--size", "64"], "a.safetensors: is the model as it is"),
        (["--output", "a.pt2", "--origin", "a dream"], "--origin and --licence are written to .safetensors"),
        (["--compile", "--licence", "CC0"], "--origin and --licence are written to .safetensors"),
    ],
)
def test_bad_input_is_one_sentence(
    weights: Path,
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run_tool(monkeypatch, "--weights", weights, *arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1 and message in error
