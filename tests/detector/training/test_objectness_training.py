"""The head that orders boxes: what it can learn, and the model that comes of it."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console

from detector.architecture import Architecture
from detector.box_features import GEOMETRY, box_features
from detector.googlenet import GoogLeNet
from detector.objectness import LONG_SIDES, ImageMap, ObjectnessHead, SharedPass
from detector.runtime import Precision
from detector.safetensors_file import WeightsCard, write_weights_file
from detector.training import objectness_fit
from detector.training.data import DataConfig, read_data
from detector.training.objectness import ObjectnessTraining, train_objectness
from detector.training.objectness_fit import MappedImage, ObjectnessFit, best_iou, fit_objectness
from detector.training.problems import Problems
from detector.training.readers import read_training_set
from detector.weights import CAFFE_INPUT, load_objectness, load_weights


@pytest.fixture
def config(scenes: Path, tmp_path: Path) -> ObjectnessTraining:
    torch.manual_seed(0)
    architecture = Architecture(width=0.25)
    card = WeightsCard("start", "random", "CC0", "cls1000", CAFFE_INPUT, architecture=architecture)
    start = tmp_path / "start.safetensors"
    write_weights_file(start, GoogLeNet(architecture=architecture).state_dict(), card)
    data = DataConfig(
        [str(scenes / "instances.json")],
        [str(scenes / "images")],
        proposals={"mode": "single"},
        hold_out=0.4,
    )
    fit = ObjectnessFit(rank=2, epochs=2, each=5)
    return ObjectnessTraining(data, str(start), str(tmp_path / "out"), fit=fit)


def made_up(count: int, trunk: GoogLeNet) -> list[MappedImage]:
    """Maps with a bright square, and boxes on it and beside it; half of these maps lie on their side."""
    generator = np.random.default_rng(0)
    channels = trunk.feature_info[-4].channels  # of pool4
    images = []
    for position in range(count):
        shape = (4, 6) if position % 2 else (6, 4)
        features = generator.random((channels, *shape), np.float32)
        row, column = generator.integers(0, (shape[0] - 1, shape[1] - 1))
        features[:8, row : row + 2, column : column + 2] += 4
        right = np.array([[column, row, column + 2, row + 2]])
        wrong = np.array([[x, y, x + 2, y + 2] for x in range(shape[1] - 1) for y in range(shape[0] - 1)])
        wrong = wrong[(np.abs(wrong - right) > 1).any(axis=1)]
        boxes = np.concatenate([right, wrong])[generator.permutation(len(wrong) + 1)].astype(np.float32)
        good = (boxes == right).all(axis=1)
        kinds = (np.flatnonzero(good), np.flatnonzero(good & ~good), np.flatnonzero(~good))
        images.append(
            MappedImage(
                features.astype(np.float16), shape[1], shape[0], boxes, good.astype(np.float32), kinds
            )
        )
    return images


@pytest.mark.parametrize("rank", [0, 2])
def test_a_head_learns_what_can_be_seen(rank: int) -> None:
    torch.manual_seed(0)
    trunk = GoogLeNet(0, architecture=Architecture(width=0.25)).eval()
    before = {name: tensor.clone() for name, tensor in trunk.state_dict().items()}
    images = made_up(40, trunk)
    fit = ObjectnessFit(rank=rank, epochs=12, images=4, learning_rate=0.01)
    losses: list[float] = []

    def learnt() -> ObjectnessHead:
        return fit_objectness(
            images, trunk, fit, device=torch.device("cpu"), seed=3,
            log=lambda step, values: losses.append(values["loss"]),
        )  # fmt: skip

    head = learnt()
    assert losses[-1] < 0.5 * losses[0]
    assert len(head.changes) == (12 if rank else 0)
    for name, tensor in trunk.state_dict().items():  # the network itself stays as it is
        assert torch.equal(tensor, before[name])
    again = learnt().state_dict()
    assert all(torch.equal(tensor, again[name]) for name, tensor in head.state_dict().items())


@pytest.mark.parametrize("precision", ["float32", "tf32", "bfloat16"])
def test_gradients_are_as_precise_as_the_pass(precision: Precision, monkeypatch: pytest.MonkeyPatch) -> None:
    """What GPUs make of it is known only there: here it is whether `arithmetic` was asked."""
    asked: list[str] = []
    found: list[str] = []

    @contextmanager
    def noted(device: torch.device, wanted: str) -> Iterator[None]:
        asked.append(wanted)
        yield
        asked.pop()

    def backward(loss: torch.Tensor) -> None:
        found.extend(asked)
        torch.autograd.backward(loss)

    monkeypatch.setattr(objectness_fit, "arithmetic", noted)
    monkeypatch.setattr(torch.Tensor, "backward", backward)
    trunk = GoogLeNet(0, architecture=Architecture(width=0.25)).eval()
    fit = ObjectnessFit(rank=2, epochs=1, images=4, precision=precision)
    fit_objectness(made_up(8, trunk), trunk, fit, device=torch.device("cpu"), seed=0)
    assert found == ["tf32" if precision == "tf32" else "float32"] * 2


def test_what_is_learnt_from_is_what_a_detector_sees(config: ObjectnessTraining) -> None:
    classifier = load_weights(Path(config.weights or ""))
    trunk = classifier.network
    assert isinstance(trunk, GoogLeNet)
    pixels = np.random.default_rng(0).integers(0, 256, (50, 80, 3), np.uint8)
    boxes = np.array([[0, 0, 80, 50], [3, 4, 60, 40], [70, 10, 80, 20]], np.float32)
    _, expected = SharedPass(classifier, long_sides=[128, 160], runtime="torch")(pixels, boxes)
    early: ImageMap = SharedPass(classifier, stage="pool4", runtime="torch").map_of(pixels, 160)
    nothing = np.empty(0, int)
    mapped = MappedImage(
        early.features, early.width, early.height, boxes * early.cells, np.empty(0), (nothing,) * 3
    )
    with torch.inference_mode():
        last = trunk.get_submodule("inception_5b")(
            trunk.get_submodule("inception_5a")(torch.from_numpy(mapped.features)[None])
        )[0]
        found = mapped.described(last, np.array([2, 0]))
    np.testing.assert_allclose(found.numpy(), expected[[2, 0]], rtol=1e-4, atol=1e-5)
    assert found.shape[1] == 3 * trunk.num_features + GEOMETRY
    reference = box_features(last.numpy(), mapped.boxes, width=mapped.width, height=mapped.height)
    np.testing.assert_allclose(reference, expected, rtol=1e-4, atol=1e-5)


def test_the_model_is_the_same_with_a_head(config: ObjectnessTraining) -> None:
    console = Console(record=True, quiet=False, width=200, file=None)
    with console.capture() as printed:
        path = train_objectness(config, console)
    assert "held-out objects, recall by objectness" in printed.get()
    found = load_objectness(path)
    assert found is not None and found[1] == LONG_SIDES
    assert all(change.get_parameter("up").abs().max() > 0 for change in found[0].changes.values())
    assert (path.parent / "curves.png").is_file()
    regions = torch.rand(2, 3, 224, 224) * 255
    before, after = (load_weights(Path(file)).eval()(regions) for file in (config.weights or "", path))
    assert torch.equal(before, after)


def test_only_annotated_images_are_held_out(config: ObjectnessTraining, scenes: Path, tmp_path: Path) -> None:
    plain = read_data(replace(config.data, held_out=True), Problems())
    (tmp_path / "more").symlink_to(scenes / "images")
    (tmp_path / "more.csv").write_text("file,det_id\n0.png,1\n1.png,2\n")
    more = replace(
        config.data,
        unlabelled=[str(scenes / "images")],
        image_labels=[str(tmp_path / "more.csv")],
        small_copies=32,
    )
    told = []
    for data in (config.data, more):
        console = Console(width=200)
        with console.capture() as printed:
            train_objectness(replace(config, data=data, fit=replace(config.fit, epochs=1)), console)
        told.append(re.findall(r"(\d+) held-out objects", printed.get()))
    assert told[0] == told[1] == [str(plain.counts().sum())] * 2


def test_boxes_on_what_is_to_be_ignored_say_nothing(scenes: Path) -> None:
    image = read_training_set(scenes / "instances.json", scenes / "images", Problems()).images[0]
    ignored = replace(image, labels=np.full_like(image.labels, -1))
    best, nothing = best_iou(image.boxes, image)
    assert best.tolist() == [1.0] * len(best) and not nothing.any()
    best, nothing = best_iou(image.boxes, ignored)
    assert not best.any() and nothing.all()
    x1, y1, x2, y2 = image.boxes[0]
    corner = np.array([[x1, y1, (x1 + x2) / 2, (y1 + y2) / 2]])  # a member of the crowd
    best, nothing = best_iou(corner, ignored)
    assert not best.any() and nothing.all()
    best, nothing = best_iou(image.boxes, replace(image, drawn=False))  # a box around the whole image, say
    assert nothing.all()


def test_sampled_boxes_keep_their_rank_among_all(scenes: Path) -> None:
    image = read_training_set(scenes / "instances.json", scenes / "images", Problems()).images[0]
    boxes = np.concatenate([np.tile([[0.0, 0.0, 1.0, 1.0]], (50, 1)), image.boxes]).astype(np.float32)
    seen = ImageMap(np.zeros((2, 3, 3), np.float32), 3, 3, np.full(4, 1 / 32, np.float32))
    mapped = MappedImage.of(image, boxes, seen)
    rows = mapped.sampled(3, np.random.default_rng(0))
    assert len(rows) == 3 + min(3, len(image.boxes))
    assert np.array_equal(mapped.targets[rows] > 0, rows >= 50)
    ranks = mapped.described(torch.from_numpy(seen.features), rows)[:, -1]
    np.testing.assert_allclose(ranks, np.log1p(rows) / 8, rtol=1e-6)


def test_bad_settings(config: ObjectnessTraining) -> None:
    quiet = Console(quiet=True)
    with pytest.raises(ValueError, match=r"added to a \.safetensors model"):
        train_objectness(replace(config, weights="bvlc"), quiet)
    with pytest.raises(ValueError, match=r"--fit\.epochs is 0, but must be at least 1"):
        ObjectnessFit(epochs=0)
    with pytest.raises(ValueError, match=r"--fit\.learning_rate is -1, but must be at least 0"):
        ObjectnessFit(learning_rate=-1)
    with pytest.raises(ValueError, match="none of the images has a box"):
        fit_objectness([], GoogLeNet(0), config.fit, device=torch.device("cpu"), seed=0)
