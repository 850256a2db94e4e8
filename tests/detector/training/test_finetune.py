"""Fine-tuning as a whole: pixels or cached features, killed and resumed, one process or two."""

import json
import pickle
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console
from run_logs import column
from safetensors.torch import load_file

from detector.architecture import Architecture
from detector.googlenet import GoogLeNet
from detector.taxonomy import DET200
from detector.training.batches import FeatureBatches
from detector.training.data import read_regions
from detector.training.finetune import _with_head, finetune
from detector.training.finetuning import Finetuning
from detector.training.head import detection_head, starting_head
from detector.training.problems import Problems
from detector.training.processes import Processes
from detector.training.sampling import BatchPlan
from detector.training.teacher import doubted
from detector.weights import load_network, load_weights

QUIET = Console(quiet=True)


def test_cached_features_teach_a_detector(config: Finetuning) -> None:
    path = finetune(replace(config, fit=replace(config.fit, steps=24)), QUIET)
    assert path is not None and path.name == "model.safetensors"
    losses = column(config.output, "class")
    assert np.mean(losses[-5:]) < 0.8 * losses[0] and len(column(config.output, "quality")) == 24
    detector = load_weights(path)
    assert [kind.name for kind in detector.classes] == ["square", "disc"]
    scores = detector.eval()(torch.zeros(2, 3, 32, 32))
    assert scores.shape == (2, 2) and (scores >= 0).all() and (scores <= 1).all()
    first = load_file(config.weights or "")
    trained = load_file(path)
    assert torch.equal(trained["inception_4e.conv1x1.weight"], first["inception_4e.conv1x1.weight"])
    assert not torch.equal(trained["inception_5b.conv1x1.weight"], first["inception_5b.conv1x1.weight"])
    assert sorted(p.name for p in Path(config.output).iterdir() if p.is_file()) == [
        "checkpoint.safetensors", "curves.png", "features.json", "features.npy", "log.csv", "model.safetensors",
        "proposals.npz", "regions.jpg",
    ]  # fmt: skip


def test_worker_processes_give_the_same_bits(config: Finetuning, one_thread: None) -> None:
    """Of cached features, after OpenVINO has run in this process, and of pixels."""
    for cache in (True, False):
        plain = replace(config, cache=cache, output=f"{config.output}-{cache}", dropout=0.0)
        finetune(plain, QUIET)
        alone = column(plain.output, "loss")
        finetune(replace(plain, fit=replace(plain.fit, workers=1)), QUIET)
        assert column(plain.output, "loss") == alone


def test_an_order_of_its_own_on_shared_features(config: Finetuning, one_thread: None) -> None:
    shared = replace(config, keep=f"{config.output}-kept", dropout=0.0)
    losses, made = [], set()
    for order in (None, 0, 7):
        run = replace(shared, order_seed=order, output=f"{config.output}-{order}")
        finetune(run, QUIET)
        losses.append(column(run.output, "loss"))
        made.add((Path(shared.keep or "") / "features.npy").stat().st_mtime_ns)
    assert len(made) == 1
    assert losses[0] == losses[1] != losses[2]


def test_feature_files_travel_by_name(config: Finetuning, tmp_path: Path) -> None:
    np.save(tmp_path / "features.npy", np.arange(12, dtype=np.float16).reshape(6, 2))
    table = read_regions(config.data, Problems(), seed=0).select(np.arange(6))
    plan = BatchPlan(table, positives=2, backgrounds=0)
    batches = FeatureBatches(table, plan, [np.load(tmp_path / "features.npy", mmap_mode="r")])
    again = pickle.loads(pickle.dumps(batches))
    assert isinstance(again.features[0], np.memmap)
    for step in (0, 5):
        torch.testing.assert_close(
            batches.batch(step, slice(None)).inputs, again.batch(step, slice(None)).inputs
        )


def test_pixels_and_cached_features_give_the_same_losses(config: Finetuning) -> None:
    plain = replace(config, dropout=0.0, mirror=False, fit=replace(config.fit, steps=2))
    finetune(plain, QUIET)
    cached = column(config.output, "loss")
    finetune(replace(plain, cache=False, output=f"{config.output}-pixels"), QUIET)
    np.testing.assert_allclose(
        column(f"{config.output}-pixels", "loss"), cached, rtol=5e-3
    )  # float16 features


def test_mirrored_features_and_validation(config: Finetuning) -> None:
    validation = replace(config.data, first=2, num_proposals=4)
    finetune(replace(config, cache_mirrored=True, validation=validation), QUIET)
    assert (Path(config.output) / "features_mirrored.npy").exists()
    (mean_ap,) = column(config.output, "mean_ap")
    assert 0 <= mean_ap <= 1


def test_what_is_wrong_with_the_validation_is_said_before_the_long_work(
    config: Finetuning, scenes: Path, tmp_path: Path
) -> None:
    annotated = json.loads((scenes / "instances.json").read_text())
    annotated["categories"][0]["name"] = "triangle"
    (tmp_path / "other.json").write_text(json.dumps(annotated))
    for change, words in (
        ({"annotations": [str(tmp_path / "other.json")]}, "the validation images have other classes than"),
        ({"annotations": [str(tmp_path / "lost.json")]}, r"lost\.json"),
        ({"proposal_files": [str(tmp_path / "lost.npz")]}, r"lost\.npz"),
        ({"proposals": {"colour": 1}}, "has no 'colour'"),
    ):
        with pytest.raises((OSError, ValueError), match=words):
            finetune(replace(config, validation=replace(config.data, **change)), QUIET)
        assert not (Path(config.output) / "proposals.npz").exists()


def test_a_batch_that_processes_cannot_share_is_refused_before_the_long_work(
    config: Finetuning, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("detector.training.finetune.processes", lambda _: nullcontext(Processes(0, 5)))
    with pytest.raises(ValueError, match="a batch of 12 cannot be divided among 5 processes evenly"):
        finetune(config, QUIET)
    assert not Path(config.output).exists()


def test_teacher_keeps_scores_of_images_without_boxes(
    config: Finetuning, scenes: Path, tmp_path: Path
) -> None:
    annotated = json.loads((scenes / "instances.json").read_text())
    dog = next(kind for kind in DET200 if kind.name == "dog")
    annotated["categories"] = [{"id": kind.id, "name": kind.name, "wnid": kind.wnid} for kind in DET200]
    for row in annotated["annotations"]:
        row["category_id"] = dog.id
    for image in annotated["images"]:
        image["labelled_classes"] = [dog.id]
    (tmp_path / "dogs.json").write_text(json.dumps(annotated))
    data = replace(
        config.data, annotations=[str(tmp_path / "dogs.json")], unlabelled=[str(scenes / "images")]
    )
    finetune(replace(config, data=data, teacher_weight=1.0), QUIET)
    teacher = column(config.output, "teacher")
    assert len(teacher) == 4 and teacher[0] < 0.05  # the first head scores nearly like its teacher
    path = finetune(replace(config, data=data, teacher_weight=1.0, head="members", balance=0.5), QUIET)
    assert path is not None and column(config.output, "teacher")[0] < 0.05
    first, trained = load_weights(Path(config.weights or "")), load_weights(path)
    assert trained.classes == DET200 and load_network(path)[0].classifier.out_features == 1002
    again = replace(config, data=data, weights=str(path), head="members", output=f"{config.output}-again")
    everything = replace(
        again, cache=False, freeze=None, teacher_weight=1.0
    )  # from where the first step ended
    with pytest.raises(ValueError, match="--teacher bvlc"):
        finetune(everything, QUIET)
    opinions = np.load(Path(config.output) / "teacher.npy")
    finetune(
        replace(everything, teacher=config.weights), QUIET
    )  # from the pixels, the same but for float16 features
    np.testing.assert_allclose(np.load(Path(everything.output) / "teacher.npy"), opinions, atol=5e-3)
    assert column(everything.output, "teacher")[0] < 0.05
    shared = replace(everything, teacher=config.weights, keep=config.output, output=f"{config.output}-shared")
    finetune(replace(shared, size=48, context=9, crop="square"), QUIET)  # the teacher looks as it always did
    assert not (Path(shared.output) / "teacher.npy").exists()
    assert first.classes == DET200
    before = trained.network.classifier
    assert isinstance(before, torch.nn.Linear)
    head, unknown = starting_head(trained, DET200, kind="classes", quality=True, seed=0)
    rows = torch.nn.Linear(before.in_features, 1000)
    rows.load_state_dict({"weight": before.weight[:1000], "bias": before.bias[:1000]})
    expected = detection_head(rows, DET200, quality=True, seed=0)
    assert not unknown and torch.equal(head.weight[:200], expected.weight[:200])
    assert torch.equal(head.weight[200], before.weight[1000])  # background, as learnt


def test_the_head_of_a_detector_is_kept_where_only_the_fit_comes_or_goes(config: Finetuning) -> None:
    path = finetune(config, QUIET)
    assert path is not None
    trained = load_weights(path)
    before = trained.network.get_parameter("classifier.weight")
    with torch.no_grad():
        head, unknown = starting_head(trained, trained.classes, kind="classes", quality=False, seed=0)
    assert head.weight.shape[0] == 3 and torch.equal(head.weight, before[:3]) and not unknown
    _, unknown = starting_head(trained, trained.classes[:1], kind="classes", quality=False, seed=0)
    assert unknown == ("square", "background")


def test_the_teacher_is_doubted_on_background_of_images_with_boxes(config: Finetuning) -> None:
    table = read_regions(config.data, Problems(), seed=0)
    opinions = np.tile(np.array([0.5, 0.3, 0.2], np.float16), (len(table), 1))
    background = table.labels == 2
    changed = doubted(opinions, table, 0.1)
    np.testing.assert_allclose(changed[background], [[0.05, 0.03, 0.92]] * background.sum(), atol=1e-3)
    assert (changed[~background] == opinions[~background]).all() and opinions[0, 0] == 0.5
    assert doubted(opinions, table, 1.0) is opinions


def test_nobody_doubts_the_teacher_on_images_without_boxes(config: Finetuning, scenes: Path) -> None:
    data = replace(config.data, unlabelled=[str(scenes / "images")])
    table = read_regions(data, Problems(), seed=0)
    opinions = np.tile(np.array([0.5, 0.3, 0.2], np.float16), (len(table), 1))
    without = ~table.labelled[table.image].any(axis=1)
    assert without.any() and (doubted(opinions, table, 0.0)[without] == opinions[without]).all()


def test_a_random_head_starts_from_nothing(config: Finetuning) -> None:
    path = finetune(config, QUIET)
    assert path is not None
    trained = load_weights(path)
    for head, same in (("classes", True), ("random", False)):
        network = _with_head(replace(config, head=head), trained, trained.classes, QUIET)  # type: ignore[arg-type]
        before = trained.network.get_parameter("classifier.weight")
        assert torch.equal(network.get_parameter("classifier.weight"), before) == same


def test_auxiliary_classifiers_train_and_go(config: Finetuning) -> None:
    path = finetune(
        replace(config, cache=False, freeze=None, auxiliary=True, fit=replace(config.fit, steps=2)), QUIET
    )
    assert path is not None and len(column(config.output, "auxiliary")) == 2
    assert not any(name.startswith("aux_") for name in load_file(path))
    assert len(load_weights(path).classes) == 2


def test_auxiliary_classifiers_start_alike(config: Finetuning) -> None:
    first = load_weights(Path(config.weights or ""))
    classes = read_regions(config.data, Problems(), seed=0).training_set.classes
    wanted = replace(config, cache=False, freeze=None, auxiliary=True)
    one, two = (_with_head(wanted, first, classes, QUIET).state_dict() for _ in range(2))
    assert any(name.startswith("aux_") for name in one)
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_lrn_goes_and_a_wider_network_learns(config: Finetuning) -> None:
    path = finetune(
        replace(config, cache=False, freeze=None, lrn=False, width=0.375, fit=replace(config.fit, steps=2)),
        QUIET,
    )
    assert path is not None
    network, before = load_weights(path).network, load_network(Path(config.weights or ""))[0]
    assert isinstance(network, GoogLeNet) and network.architecture == Architecture(norm="none", width=0.375)
    wide, narrow = network.state_dict()["conv1.weight"], before.state_dict()["conv1.weight"]
    assert not torch.equal(wide[: len(narrow)], narrow)
    _, card = load_network(path)
    assert card.origin.endswith(f" from {'/'.join(Path(config.weights or '').parts[-2:])}")


def test_dry_run_and_bad_settings(config: Finetuning) -> None:
    assert finetune(replace(config, dry_run=True), QUIET) is None
    assert not (Path(config.output) / "features.npy").exists()
    for change, words in (
        ({"freeze": None}, "--cache keeps the features of frozen stages"),
        ({"freeze": "pool9"}, "'pool9' is no stage of the network"),
        ({"teacher_weight": 1.0}, "the training data has others; use --teacher-weight 0"),
        ({"teacher": "bvlc"}, "--teacher is about a teacher"),
        ({"label_share": 0.5}, "add --teacher-weight 1"),
        ({"cache_mirrored": True, "mirror": False}, "--cache-mirrored keeps features of mirrored regions"),
        ({"colour_strength": 0.1}, "--colour-strength changes pixels"),
        ({"quality": False, "quality_weight": 2.0}, "--quality-weight is of the loss"),
        ({"dropout": 1.0}, "--dropout is 1.0"),
        ({"teacher_trust": 2.0}, "--teacher-trust is 2.0"),
        ({"label_share": -1.0}, "--label-share is -1.0"),
        ({"teacher_objects": -1.0}, "--teacher-objects is -1.0"),
        ({"order_seed": -1}, "--order-seed is -1"),
        ({"positives": 0}, "--positives is 0, but must be at least 1"),
        ({"backgrounds": -1}, "--backgrounds is -1"),
        ({"max_positives": -1}, "--max-positives is -1"),
        ({"max_backgrounds": -1}, "--max-backgrounds is -1"),
        ({"quality_weight": -2.0}, "--quality-weight is -2.0"),
        ({"batch_size": 0}, "--batch-size is 0"),
        ({"context": 16}, "--context is 16, but must be at least 0 and below half of the region's 32 pixels"),
        ({"balance": 2.0}, "--balance is 2.0"),
        ({"head": "members"}, "--head members is for the 200 ILSVRC detection classes"),
        ({"lrn": False}, "--freeze keeps them as they are"),
        ({"width": 0.5, "freeze": None, "cache": False}, "see --no-lrn"),
        ({"lrn": False, "freeze": None, "cache": False, "auxiliary": True}, "--no-lrn and --width change it"),
        ({"head": "members", "auxiliary": True, "cache": False}, "--auxiliary looks at the 200 classes"),
    ):
        with pytest.raises(ValueError, match=words):
            finetune(replace(config, **change), QUIET)
