"""The classifier of whole images: averages over crops and networks, errors and confusions."""

import csv
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from detector.architecture import Architecture
from detector.classification import Classifier, output_classes
from detector.classify_files import (
    ClassificationReport,
    Judgement,
    classify_files,
    true_label,
    write_judgements,
)
from detector.googlenet import GoogLeNet
from detector.images import ImageFile, find_images
from detector.multi_crop import crops
from detector.region_classifier import Normalize, Preprocessing
from detector.safetensors_file import WeightsCard, write_weights_file
from detector.taxonomy import DET200, DetectionClass, classification_classes

INPUT = Preprocessing("RGB", scale=1 / 255, mean=(0.4, 0.5, 0.6), std=(0.2, 0.2, 0.2), size=64)
ANIMALS = (DetectionClass(1, "tabby", "n02123045"), DetectionClass(2, "frog", "n01641577"))


def model(path: Path, seed: int, classes: tuple[DetectionClass, ...] = ANIMALS) -> GoogLeNet:
    """A file of random weights, and its network."""
    torch.manual_seed(seed)
    architecture = Architecture(norm="none", width=1 / 8)
    network = GoogLeNet(len(classes) + 1, architecture=architecture).eval()
    torch.nn.init.normal_(network.classifier.weight, std=0.5)
    card = WeightsCard("x", "x", "x", "detection", INPUT, classes, architecture=architecture)
    write_weights_file(path, network.state_dict(), card)
    return network


def image(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (90, 120, 3), dtype=np.uint8)


@pytest.mark.parametrize("num_crops", [1, 10, 144])
def test_probabilities_are_means_over_crops_and_networks(num_crops: int, tmp_path: Path) -> None:
    paths = [tmp_path / "a.safetensors", tmp_path / "b.safetensors"]
    networks = [model(path, seed) for seed, path in enumerate(paths)]
    views = torch.from_numpy(crops(image(0), num_crops, size=64)).permute(0, 3, 1, 2)  # type: ignore[arg-type]
    with torch.inference_mode():
        each = [network(Normalize(INPUT)(views)).softmax(dim=1) for network in networks]
    expected = torch.cat(each).mean(dim=0).numpy()
    for runtime in ("torch", "auto"):
        classifier = Classifier(paths, num_crops=num_crops, batch_size=7, runtime=runtime)  # type: ignore[arg-type]
        found = classifier(image(0))
        assert found.shape == (3,) and found.dtype == np.float32
        np.testing.assert_allclose(found, expected, atol=1e-5)
    assert [kind.name for kind in classifier.classes] == ["tabby", "frog", "background"]
    assert classifier.top(np.array([0.2, 0.5, 0.2])) == [1, 0, 2]


def test_networks_of_other_classes_are_not_averaged(tmp_path: Path) -> None:
    model(tmp_path / "a.safetensors", 0)
    model(tmp_path / "b.safetensors", 0, classes=ANIMALS[:1])
    with pytest.raises(
        ValueError, match=r"b\.safetensors: tells apart 2 classes, and not those of .*a\.safetensors"
    ):
        Classifier([tmp_path / "a.safetensors", tmp_path / "b.safetensors"])
    with pytest.raises(ValueError, match="at least one network"):
        Classifier([])
    with pytest.raises(ValueError, match="batch_size is 0"):
        Classifier([tmp_path / "a.safetensors"], batch_size=0)


def test_the_1000_classes_have_their_names() -> None:
    classes = output_classes(WeightsCard("x", "x", "x", "cls1000", INPUT))
    assert len(classes) == 1000 and classes[281].wnid == "n02123045"
    assert [kind.name for kind in classes] == [kind.name for kind in classification_classes()]


def test_a_detector_that_kept_the_1000_classes_still_classifies(tmp_path: Path) -> None:
    torch.manual_seed(0)
    narrow = Architecture(width=0.25)
    network = GoogLeNet(1002, architecture=narrow)
    card = WeightsCard("dets", "random", "CC0", "members", INPUT, classes=DET200, architecture=narrow)
    write_weights_file(tmp_path / "dets.safetensors", network.state_dict(), card)
    classifier = Classifier([tmp_path / "dets.safetensors"])
    found = classifier(np.full((70, 90, 3), 120, np.uint8))
    assert found.shape == (1000,) and found.sum() == pytest.approx(1, abs=1e-4)


def test_outputs_that_are_no_distribution_are_refused() -> None:
    card = WeightsCard("marsupials", "x", "x", "quality", INPUT, ANIMALS)
    with pytest.raises(
        ValueError, match="marsupials: its outputs are quality, and cannot be averaged as probab"
    ):
        output_classes(card)


def judged(truth: int | None, *labels: int) -> Judgement:
    return Judgement("x", labels, tuple(0.1 for _ in labels), truth)


def test_errors_and_confusions_are_counted() -> None:
    report = ClassificationReport(
        [
            judged(0, 0, 1, 2, 3, 4, 5),
            judged(1, 0, 1, 2, 3, 4, 5),
            judged(1, 0, 2, 3, 4, 5, 1),
            judged(2, 1, 0, 3, 4, 2, 5),
            judged(None, 7),
        ]
    )
    assert report.error(1) == 0.75 and report.error(5) == 0.25
    assert report.confusions() == [(1, 0, 2), (2, 1, 1)]
    assert np.isnan(ClassificationReport().error(1))


def test_the_true_class_is_in_the_path() -> None:
    def truth(path: str) -> int:
        return true_label(ImageFile(Path(path), path), ANIMALS)

    assert truth("281_n02123045_tabby.jpg") == 0
    assert truth("n02123045/photo.jpg") == 0
    assert truth("n02123045/n01641577_3.jpg") == 1  # the file's own name tells more than its folder's
    with pytest.raises(ValueError, match=r"photo\.jpg: its class is unknown"):
        truth("photo.jpg")
    with pytest.raises(ValueError, match="n00000001 is no class of these weights"):
        truth("n00000001.jpg")


def test_images_that_fail_do_not_stop_the_others(tmp_path: Path) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    for number, name in enumerate(["n02123045_1.png", "n01641577_2.png"]):
        Image.fromarray(image(number)).save(folder / name)
    (folder / "n02123045_3.png").write_text("no image")
    Image.fromarray(image(3)).save(folder / "who.png")
    model(tmp_path / "a.safetensors", 0)
    said: list[str] = []
    report = classify_files(
        Classifier([tmp_path / "a.safetensors"]),
        find_images([str(folder)]),
        evaluate=True,
        on_failure=said.append,
    )
    assert [judgement.name for judgement in report.judgements] == ["n01641577_2.png", "n02123045_1.png"]
    assert said == report.failures and len(said) == 2
    assert "n02123045_3.png: not an image" in said[0] and "who.png: its class is unknown" in said[1]
    assert report.error(5) == 0  # there are only three classes

    write_judgements(
        tmp_path / "found.csv", report.judgements, Classifier([tmp_path / "a.safetensors"]).classes
    )
    rows = list(csv.DictReader((tmp_path / "found.csv").open()))
    assert len(rows) == 6 and rows[0]["truth"] == "frog" and rows[3]["truth"] == "tabby"
    assert [row["rank"] for row in rows] == ["1", "2", "3"] * 2
    assert float(rows[0]["probability"]) == pytest.approx(report.judgements[0].probabilities[0], abs=1e-6)
