"""From a classifier to a detector: the regions of annotated images teach it classes, background and fit."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from rich.console import Console
from torch import Tensor, nn

from detector.architecture import Architecture
from detector.class_scores import MemberLogits, MemberScores, QualityScores
from detector.configuration import choose_device
from detector.googlenet import GoogLeNet, Logits
from detector.region_classifier import Normalize, RegionClassifier
from detector.runtime import choose_runtime
from detector.safetensors_file import WeightsCard, write_weights_file
from detector.taxonomy import DET200, DetectionClass, TrainedScores
from detector.training.batches import Batches, FeatureBatches, PixelBatches
from detector.training.checkpoint import BYSTANDERS
from detector.training.data import read_regions, read_with_boxes, write_not_learnt_from
from detector.training.display import bar, left_out
from detector.training.features import (
    StageFeatures,
    cached_features,
    fingerprint,
    label_fingerprint,
    region_features,
    source_of,
)
from detector.training.finetuning import Finetuning, check
from detector.training.fit import fit
from detector.training.head import starting_head
from detector.training.losses import RegionTargets, region_losses
from detector.training.problems import Problems
from detector.training.processes import Processes, processes
from detector.training.region_picture import write_region_picture
from detector.training.sampling import BatchPlan, RegionTable, annotated_objects, table_summary, thinned
from detector.training.start import (
    body_of,
    output_folder,
    resumes,
    stage_name,
    start_weights,
    without_auxiliaries,
)
from detector.training.teacher import (
    Teacher,
    check_judge,
    doubted,
    kept_opinions,
    label_shares,
    opinions_of_features,
    opinions_of_pixels,
)
from detector.training.training_set import TrainingSet
from detector.training.validation import mean_ap_of
from detector.training.widening import widened, wider
from detector.training.without_lrn import lrn_free, without_lrn
from detector.weights import MODEL_FILE


class Trainee(nn.Module):
    """What is trained: the network behind its normalisation, or its stages behind a frozen one."""

    def __init__(
        self, network: GoogLeNet, normalize: Normalize, tap: str | None, outputs: nn.Module | None = None
    ) -> None:
        super().__init__()
        self.network, self.normalize, self.tap = network, normalize, tap
        self.outputs = outputs or nn.Identity()

    def forward(self, inputs: Tensor) -> Tensor | Logits:
        """Pixels (R, 3, S, S) uint8, or features (R, ...) of the stage `tap` -> logits (R, outputs)."""
        if self.tap is not None:
            return self.outputs(self.network.resume(inputs, after=self.tap))
        return self.outputs(self.network(self.normalize(inputs)))


def finetune(config: Finetuning, console: Console) -> Path | None:
    """Fine-tune and return the file of the detector; None after a dry run.

    Raises:
        OSError, ValueError: What keeps a detector from being made, in one sentence.
    """
    check(config)
    device = choose_device(config.device)
    with processes(device) as here:
        if device.type == "cuda" and here.count > 1:
            device = torch.device("cuda", here.local_rank)
        # What cannot be divided is said before the long work.
        here.share(config.positives + config.backgrounds)
        quiet = console if here.first else Console(quiet=True)
        resume = resumes(config.output, config.resume, quiet)
        output = output_folder(config.output, weights=config.weights, teacher=config.teacher)
        # What takes long is done by the first process and kept in files, which the others then read.
        if here.first:
            prepared = _prepare(config, output, quiet, device, first=True)
        here.barrier()
        if not here.first:
            prepared = _prepare(config, output, quiet, device, first=False)
        if config.dry_run:
            return None
        return _train(config, prepared, output, quiet, device, here, resume)


_WithBoxes = tuple[TrainingSet, list[np.ndarray]]  # images and the boxes (N, 4) of each


@dataclass(frozen=True)
class _Prepared:
    classifier: RegionClassifier  # what training starts from
    name: str
    network: GoogLeNet  # with the new head
    batches: Batches
    table: RegionTable
    judge: RegionClassifier | None  # whose opinions are in the batches
    validation: _WithBoxes | None


def _prepare(
    config: Finetuning, output: Path, console: Console, device: torch.device, *, first: bool
) -> _Prepared:
    problems = Problems(config.data.problems, left_out(console))
    kept = output_folder(config.keep, option="keep") if config.keep else output
    classifier, name = start_weights(config.weights, config.size, config.context, config.crop)
    if config.freeze is not None:
        assert isinstance(classifier.network, GoogLeNet)
        stage_name(classifier.network, config.freeze)  # a wrong one is said before the long work
    _architecture(config, classifier)  # likewise
    judge = None
    if config.teacher_weight:
        judge = start_weights(config.teacher, None)[0] if config.teacher else classifier
        check_judge(judge)
    console.print(f"start: {name}", markup=False, soft_wrap=True)
    validation = _validation_images(config, output, console)  # likewise
    with bar(console, "proposals") as progress:
        table = read_regions(
            config.data,
            problems,
            seed=config.seed,
            keep=kept / "proposals.npz",
            progress=progress,
            validation=validation and validation[0],
        )
    table = thinned(
        table, positives=config.max_positives, backgrounds=config.max_backgrounds, seed=config.seed
    )
    console.print(", ".join(f"{count:,} {what}" for what, count in table_summary(table)))
    if judge is not None:
        check_judge(judge, table.training_set.classes)
    if problems.counts:
        console.print(f"left out in all: {problems.summary()}")
    plan = BatchPlan(
        table,
        positives=config.positives,
        backgrounds=config.backgrounds,
        background_iou=config.background_iou,
        balance=config.balance,
        seed=_order_seed(config),
    )
    if first:
        write_region_picture(
            output / "regions.jpg", table, preprocessing=classifier.preprocessing, seed=config.seed
        )
        write_not_learnt_from(output, table.training_set)
    network = _with_head(config, classifier, table.training_set.classes, console)
    learning = not config.dry_run
    features = (
        _features(config, classifier, table, kept, console, device) if config.cache and learning else []
    )
    teacher = None
    if judge is not None and learning:
        own = features if judge is classifier else []
        teacher = _teacher(config, judge, table, own, kept, console, device)
    batches: Batches
    if features:
        batches = FeatureBatches(table, plan, features, teacher=teacher)
    else:
        batches = PixelBatches(
            table,
            plan,
            preprocessing=classifier.preprocessing,
            mirror=config.mirror,
            colour_strength=config.colour_strength,
            teacher=teacher,
        )
    if not config.lrn:
        network = without_lrn(network, _normalised(classifier, batches))
    if config.width is not None:
        network = widened(network, config.width, seed=config.seed)
    return _Prepared(classifier, name, network, batches, table, judge, validation)


def _validation_images(config: Finetuning, output: Path, console: Console) -> _WithBoxes | None:
    if not config.validation.annotations:
        return None
    problems = Problems(config.validation.problems, left_out(console))
    with bar(console, "validation") as progress:
        return read_with_boxes(
            config.validation,
            problems,
            seed=config.seed,
            keep=output / "validation_proposals.npz",
            progress=progress,
        )


def _normalised(classifier: RegionClassifier, batches: Batches) -> Tensor:
    """The first batch on the CPU, wherever the classifier has been run."""
    where = next(classifier.normalize.buffers()).device
    return classifier.normalize(batches.batch(0, slice(None)).inputs.to(where)).cpu()


def _architecture(config: Finetuning, classifier: RegionClassifier) -> Architecture:
    """Of the network that will have learnt."""
    assert isinstance(classifier.network, GoogLeNet)
    start = classifier.network.architecture
    plain = start if config.lrn else lrn_free(start)
    return plain if config.width is None else wider(plain, config.width)


def _with_head(
    config: Finetuning, classifier: RegionClassifier, classes: tuple[DetectionClass, ...], console: Console
) -> GoogLeNet:
    """A copy of the network with outputs for the classes, background and, if wanted, the fit."""
    start = classifier.network
    assert isinstance(start, GoogLeNet)
    if config.head == "members" and classes != DET200:
        raise ValueError("--head members is for the 200 ILSVRC detection classes, and the data has others")
    head, unknown = starting_head(
        classifier, classes, kind=config.head, quality=config.quality, seed=config.seed
    )
    if unknown and config.head == "classes":
        shown = ", ".join(unknown[:3]) + (", ..." if len(unknown) > 3 else "")
        console.print(
            f"{len(unknown):,} of {len(classes) + 1:,} outputs start from nothing: {shown}",
            markup=False,
            soft_wrap=True,
        )
    torch.manual_seed(config.seed)  # of auxiliary classifiers, which start from nothing
    network = GoogLeNet(
        head.out_features, architecture=start.architecture, auxiliary=config.auxiliary, dropout=config.dropout
    )
    network.load_state_dict(body_of(start), strict=False)  # but for the outputs
    network.classifier = head
    network.freeze(config.freeze)
    return network


def _features(
    config: Finetuning,
    classifier: RegionClassifier,
    table: RegionTable,
    kept: Path,
    console: Console,
    device: torch.device,
) -> list[np.ndarray]:
    """Features of the frozen stages, of the regions and maybe of their mirror images."""
    assert isinstance(classifier.network, GoogLeNet) and config.freeze is not None
    tap = stage_name(classifier.network, config.freeze)
    preprocessing = classifier.preprocessing
    key = source_of(classifier) | {"tap": tap}
    run = choose_runtime(StageFeatures(classifier, tap), config.runtime, device, size=preprocessing.size)
    found = []
    for mirror in (False, True)[: 1 + config.cache_mirrored]:
        blocks = partial(
            region_features,
            table,
            run,
            preprocessing=preprocessing,
            mirror=mirror,
            batch_size=config.batch_size,
        )
        path = kept / ("features_mirrored.npy" if mirror else "features.npy")
        with bar(console, "features") as progress:
            features = cached_features(path, table, blocks, key=key | {"mirror": mirror}, progress=progress)
        found.append(features)
    return found


def _teacher(
    config: Finetuning,
    judge: RegionClassifier,
    table: RegionTable,
    features: list[np.ndarray],
    kept: Path,
    console: Console,
    device: torch.device,
) -> Teacher:
    """The teacher's opinions, from cached features where these are its own."""
    if features:
        assert isinstance(judge.network, GoogLeNet) and config.freeze is not None
        blocks = opinions_of_features(judge, features[0], stage_name(judge.network, config.freeze), device)
    else:
        run = choose_runtime(judge, config.runtime, device, size=judge.preprocessing.size)
        blocks = opinions_of_pixels(judge, run, table, config.batch_size)
    with bar(console, "teacher") as progress:
        opinions = kept_opinions(judge, table, blocks, kept / "teacher.npy", progress=progress)
    shares = label_shares(table.training_set.counts(), config.teacher_objects, config.label_share)
    return Teacher(doubted(opinions, table, config.teacher_trust), config.teacher_weight, shares)


def _train(
    config: Finetuning,
    prepared: _Prepared,
    output: Path,
    console: Console,
    device: torch.device,
    here: Processes,
    resume: bool,
) -> Path:
    classifier, classes = prepared.classifier, prepared.table.training_set.classes
    settings = {
        name: value
        for name, value in asdict(config).items()
        if name not in (*BYSTANDERS, "runtime", "batch_size", "keep", "validation")
    } | {
        "fit": config.fit.what_decides_the_result(),
        "regions": fingerprint(prepared.table, {"classes": [kind.name for kind in classes]}),
        "labels": label_fingerprint(prepared.table),
        "first": source_of(classifier),
    }
    if prepared.judge is not None and prepared.judge is not classifier:
        settings["opinions"] = source_of(prepared.judge)
    trainee = Trainee(
        prepared.network,
        classifier.normalize,
        config.freeze if config.cache else None,
        MemberLogits() if config.head == "members" else None,
    )

    def losses(outputs: Tensor | Logits, targets: RegionTargets) -> dict[str, Tensor]:
        return region_losses(outputs, targets, quality_weight=config.quality_weight * config.quality)

    result = fit(
        trainee,
        prepared.batches,
        losses,
        config.fit,
        folder=output,
        settings=settings,
        seed=_order_seed(config),
        resume=resume,
        console=console,
        device=device,
        here=here,
        evaluate=_evaluation(config, prepared, device, here),
    )
    path = output / MODEL_FILE
    if here.first:
        trained = result.network
        assert isinstance(trained, GoogLeNet)
        card = WeightsCard(
            name=output.name,
            origin=f"fine-tuned on {annotated_objects(prepared.table)}, from {prepared.name}",
            licence="that of the first weights and of the training images",
            outputs=_outputs(config),
            preprocessing=classifier.preprocessing,
            classes=classes,
            architecture=trained.architecture,
        )
        write_weights_file(path, without_auxiliaries(trained.state_dict()), card)
    here.barrier()
    return path


def _order_seed(config: Finetuning) -> int:
    return config.seed if config.order_seed is None else config.order_seed


def _outputs(config: Finetuning) -> Literal["members", "quality", "detection"]:
    if config.head == "members":
        return "members"
    return "quality" if config.quality else "detection"


def _evaluation(
    config: Finetuning, prepared: _Prepared, device: torch.device, here: Processes
) -> Callable[[nn.Module], dict[str, float]] | None:
    if prepared.validation is None:
        return None
    images, boxes = prepared.validation
    measure = mean_ap_of(
        images,
        boxes,
        class_scores={"members": MemberScores, "quality": QualityScores, "detection": TrainedScores}[
            _outputs(config)
        ](),
        preprocessing=prepared.classifier.preprocessing,
        classes=images.classes,
        device=device,
        here=here,
    )

    def evaluate(model: nn.Module) -> dict[str, float]:
        network = model.network
        assert isinstance(network, GoogLeNet)
        return {"mean_ap": measure(network)}

    return evaluate
