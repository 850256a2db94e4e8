"""Weights: which are found, what they become, and what is said of files that are something else."""

import json
import re
from dataclasses import asdict, replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from detector import weights
from detector.architecture import PAPER, VARIANTS, Architecture
from detector.foreign_weights import CAFFE_NAMES
from detector.googlenet import GoogLeNet
from detector.images import read_image
from detector.region_classifier import RegionClassifier
from detector.safetensors_file import WeightsCard, read_weights_file, write_weights_file
from detector.taxonomy import DET200, DetectionClass
from detector.weights import BVLC, CAFFE_INPUT, TORCHVISION, find_weights, load_network, load_weights


@pytest.fixture
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine without any weights."""
    monkeypatch.setenv("DETECTOR_SHARED", str(tmp_path / "shared"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr(weights, "SHIPPED_FILE", "not-there.safetensors")
    return tmp_path


def touch(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    return path


def test_the_search_order(nowhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(FileNotFoundError, match=r"no weights found: .*--weights torchvision downloads"):
        find_weights()
    touch(nowhere / "shared" / "weights" / "bvlc_googlenet.npz")
    assert find_weights() is find_weights(classifier=True) is BVLC
    touch(nowhere / "torch" / "hub" / "checkpoints" / "googlenet-1378be20.pth")
    assert find_weights() is TORCHVISION
    shipped = touch(nowhere / "models" / "model.safetensors")
    monkeypatch.setattr(weights, "MODELS", nowhere / "models")
    monkeypatch.setattr(weights, "SHIPPED_FILE", "model.safetensors")
    assert find_weights() == find_weights("model") == shipped
    assert find_weights(classifier=True) is TORCHVISION and find_weights("model", classifier=True) == shipped
    assert find_weights("bvlc") is BVLC
    own = touch(nowhere / "own.safetensors")
    assert find_weights(str(own)) == own
    with pytest.raises(
        FileNotFoundError, match=r"--weights oxford: neither a file nor .*bvlc or torchvision or model"
    ):
        find_weights("oxford")
    (nowhere / "unfinished").mkdir()
    with pytest.raises(FileNotFoundError, match=r"unfinished: no model\.safetensors in this folder"):
        find_weights(str(nowhere / "unfinished"))


def test_the_bvlc_file_must_be_the_released_one(nowhere: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"bvlc_googlenet\.npz: no such file"):
        load_weights(BVLC)
    touch(nowhere / "shared" / "weights" / "bvlc_googlenet.npz")
    with pytest.raises(OSError, match=r"is not the released bvlc_googlenet\.npz"):
        load_weights(BVLC)


def test_bvlc_classifies_imagenet(shared: Path) -> None:
    """Caffe's practice: warp to 256x256 by plain linear interpolation, centre crop."""
    classifier = load_weights(BVLC).eval()
    paths = sorted((shared / "imagenet_samples").glob("*.jpg"))
    truth = torch.tensor([int(path.name[:3]) for path in paths])
    top5 = []
    for start in range(0, len(paths), 10):
        images = [cv2.resize(read_image(path), (256, 256)) for path in paths[start : start + 10]]
        crops = torch.from_numpy(np.stack(images)[:, 16:240, 16:240]).permute(0, 3, 1, 2)
        with torch.inference_mode():
            top5.append(classifier.network(classifier.normalize(crops)).topk(5).indices)
    right = torch.cat(top5) == truth[:, None]
    top1_accuracy, top5_accuracy = right[:, 0].float().mean(), right.any(dim=1).float().mean()
    print(f"BVLC GoogLeNet on {len(paths)} images: top-1 {top1_accuracy:.2%}, top-5 {top5_accuracy:.2%}")
    assert top1_accuracy >= 0.795 and top5_accuracy >= 0.94


@pytest.fixture
def caffe_blobs() -> dict[str, np.ndarray]:
    """The blobs of a network with random weights, named as in the BVLC file."""
    torch.manual_seed(0)
    state = GoogLeNet().state_dict()
    return {blob: state[name].numpy() for blob, name in CAFFE_NAMES.items() if name in state}


def test_numpy_blobs_go_to_their_layers(caffe_blobs: dict[str, np.ndarray], tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", **caffe_blobs)  # type: ignore[arg-type]
    torch.manual_seed(0)
    expected = GoogLeNet().state_dict()
    loaded = load_weights(tmp_path / "x.npz").network.state_dict()
    assert loaded.keys() == expected.keys()
    assert all(torch.equal(loaded[name], expected[name]) for name in expected)


def test_a_missing_misshapen_or_strange_tensor_is_named(
    caffe_blobs: dict[str, np.ndarray], tmp_path: Path
) -> None:
    def sentence(**changes: np.ndarray | None) -> str:
        blobs = {k: v for k, v in (caffe_blobs | changes).items() if v is not None}
        np.savez(tmp_path / "x.npz", **blobs)  # type: ignore[arg-type]
        with pytest.raises(ValueError) as caught:
            load_weights(tmp_path / "x.npz")
        return str(caught.value).removeprefix(f"{tmp_path / 'x.npz'}: ")

    assert sentence(**{"inception_4a/5x5/weight": None}) == (
        "has no tensor inception_4a.conv5x5.weight (of shape (48, 16, 5, 5))"
    )
    assert sentence(**{"conv2/3x3/bias": np.zeros(5)}) == (
        "tensor conv2.bias has the shape (5,), but the network needs (192,)"
    )
    assert sentence(**{"loss4/fc/bias": np.zeros(5)}) == (
        "tensor loss4/fc/bias belongs to no layer of the network"
    )


def test_files_of_another_kind_are_named(tmp_path: Path) -> None:
    def sentence(name: str) -> str:
        with pytest.raises((OSError, ValueError)) as caught:
            load_weights(tmp_path / name)
        assert str(tmp_path / name) in str(caught.value)
        return str(caught.value)

    for name in ("text.npz", "text.safetensors", "text.pth", "text.caffemodel", "text.weights"):
        (tmp_path / name).write_text("these are no weights")
        assert "not a readable" in sentence(name)
        (tmp_path / name).write_bytes(b"")
        assert "not a readable" in sentence(name)
    np.savez(tmp_path / "pickled.npz", weight=np.array([{}], dtype=object))
    assert "not a readable" in sentence("pickled.npz")
    save_file({"x": torch.zeros(1)}, tmp_path / "foreign.safetensors")
    assert "does not say it is a model of this project" in sentence("foreign.safetensors")
    save_file({"x": torch.zeros(1)}, tmp_path / "y.safetensors", {"format": "googlenet-rcnn/1", "card": "{}"})
    assert "card in its header is damaged" in sentence("y.safetensors")


@pytest.mark.parametrize("architecture", VARIANTS.values(), ids=VARIANTS)
def test_an_own_file_rebuilds_its_network(architecture: Architecture, tmp_path: Path) -> None:
    torch.manual_seed(1)
    narrow = replace(architecture, width=architecture.width / 8)
    network = GoogLeNet(3, architecture=narrow, auxiliary=True)
    network(torch.randn(4, 3, 64, 64))  # moves batch norm's statistics
    classes = (DetectionClass(1, "kangaroo"), DetectionClass(2, "wallaby"))
    card = WeightsCard("x", "x", "x", "detection", CAFFE_INPUT, classes, architecture=narrow)
    path = tmp_path / "x.safetensors"
    write_weights_file(path, network.state_dict(), card)
    loaded, read_card = load_network(path)
    whole, _ = load_network(path, auxiliary=True)
    assert read_card == card and not loaded.auxiliary and whole.auxiliary
    assert all(torch.equal(whole.state_dict()[name], tensor) for name, tensor in network.state_dict().items())
    x = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        assert torch.equal(loaded.eval()(x), network.eval()(x))


def test_a_file_from_before_there_were_variants_is_the_papers_network(tmp_path: Path) -> None:
    card = WeightsCard("x", "x", "x", "cls1000", CAFFE_INPUT)
    old = {name: value for name, value in asdict(card).items() if name != "architecture"}
    metadata = {"format": "googlenet-rcnn/1", "card": json.dumps(old)}
    save_file(GoogLeNet().state_dict(), tmp_path / "old.safetensors", metadata)
    network, read_card = load_network(tmp_path / "old.safetensors")
    assert read_card == card and network.architecture == PAPER


def test_own_files_keep_weights_classes_and_convention(tmp_path: Path) -> None:
    torch.manual_seed(1)
    network = GoogLeNet(3).eval()
    classes = (DetectionClass(1, "kangaroo"), DetectionClass(2, "wallaby"))
    card = WeightsCard("marsupials", "trained for a test", "CC0", "detection", CAFFE_INPUT, classes)
    path = tmp_path / "x.safetensors"
    write_weights_file(path, network.state_dict(), card)
    assert read_weights_file(path)[1] == card
    loaded = load_weights(path).eval()
    assert loaded.classes == classes and loaded.preprocessing == CAFFE_INPUT
    pixels = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
    with torch.inference_mode():
        expected = network(loaded.normalize(pixels)).softmax(dim=1)[:, :2]
        torch.testing.assert_close(loaded(pixels), expected)

    half = {name: tensor.half() for name, tensor in network.state_dict().items()}
    write_weights_file(path, half, card)  # stored in 16 bit, loaded to float
    assert all(tensor.dtype == torch.float32 for tensor in load_weights(path).network.state_dict().values())


def test_a_classification_network_in_an_own_file_detects_zero_shot(tmp_path: Path) -> None:
    network = GoogLeNet()
    card = WeightsCard("classifier", "random", "CC0", "cls1000", CAFFE_INPUT)
    write_weights_file(tmp_path / "x.safetensors", network.state_dict(), card)
    classifier: RegionClassifier = load_weights(tmp_path / "x.safetensors")
    assert classifier.classes == DET200
    assert classifier(torch.zeros(1, 3, 64, 64)).shape == (1, 200)


def test_a_cut_file_is_refused(tmp_path: Path) -> None:
    card = WeightsCard("x", "x", "x", "cls1000", CAFFE_INPUT)
    path = tmp_path / "x.safetensors"
    write_weights_file(path, GoogLeNet().state_dict(), card)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(OSError, match="not a readable safetensors file"):
        load_weights(path)


def test_torchvision_weights_compute_what_torchvision_does(nowhere: Path) -> None:
    """Bit by bit, with random weights in the place where torchvision keeps its download."""
    torchvision = pytest.importorskip("torchvision")
    torch.manual_seed(0)
    original = torchvision.models.googlenet(weights=None, init_weights=False, transform_input=True)
    for module in original.modules():  # statistics as of a trained network
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.normal_(module.bias, std=0.1)
            torch.nn.init.uniform_(module.weight, 0.5, 2)
            assert module.running_mean is not None and module.running_var is not None
            torch.nn.init.normal_(module.running_mean, std=0.1)
            torch.nn.init.uniform_(module.running_var, 0.5, 2)
    original.eval()
    path = touch(nowhere / "torch" / "hub" / "checkpoints" / TORCHVISION.file_name)
    torch.save(original.state_dict(), path)

    classifier = load_weights(find_weights()).eval()
    pixels = torch.randint(0, 256, (2, 3, 224, 224), dtype=torch.uint8)
    normalise = torchvision.models.GoogLeNet_Weights.IMAGENET1K_V1.transforms()
    expected_input = torchvision.transforms.functional.normalize(pixels / 255, normalise.mean, normalise.std)
    with torch.inference_mode():
        torch.testing.assert_close(classifier.normalize(pixels), expected_input, rtol=1e-5, atol=1e-5)
        assert original(expected_input).std() > 1e-3
        assert torch.equal(classifier.network(expected_input), original(expected_input))
    assert classifier.classes == DET200
    with torch.inference_mode():  # the same from the file's path
        assert torch.equal(load_network(path)[0].eval()(expected_input), original(expected_input))

    path.write_bytes(b"cut off")
    with pytest.raises(OSError, match=r"googlenet-1378be20\.pth: .*damaged"):
        load_weights(TORCHVISION)


def test_torchvision_without_a_network_connection(nowhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*_: object, **__: object) -> None:
        raise OSError("offline")

    monkeypatch.setattr("socket.getaddrinfo", offline)
    for proxy in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.delenv(proxy, raising=False)
    with pytest.raises(OSError, match=r"could not be downloaded \(offline\): connect to the network, or put"):
        load_weights(TORCHVISION)


def test_the_records_are_complete() -> None:
    for record in weights.RECORDS.values():
        assert record.origin and record.licence and re.fullmatch(r"[0-9a-f]{8,64}", record.sha256)
    assert json.dumps(sorted(weights.RECORDS)) == '["bvlc", "torchvision"]'
