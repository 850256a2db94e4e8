"""Every number of a detector in one typed record, and the detector built from it."""

import difflib
import inspect
import re
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from detector.ensemble import Ensemble
from detector.objectness import BoxChooser, SharedPass
from detector.rcnn import RCNN
from detector.region_classifier import RegionClassifier
from detector.region_scorer import RegionScorer, Scorer
from detector.taxonomy import DetectionClass
from detector.weights import WeightsRecord, find_weights, load_fit, load_objectness, load_weights
from proposals import ProposalFile, SelectiveSearch
from proposals.selective_search import usable_cores


def _default(name: str) -> Any:
    """The default of an argument of `RCNN` or `RegionScorer`: defaults live in their signatures."""
    arguments = inspect.signature(RCNN).parameters | inspect.signature(RegionScorer).parameters
    return arguments[name].default


@dataclass(frozen=True)
class DetectorConfig:
    """What a detector is made of; the fields that are not explained here are arguments of `RCNN` or
    `RegionScorer`.

    Attributes:
        weights: A file, the name of known weights, or None for the first that is at hand; a list of them
            makes an `Ensemble`.
        member_weights: What each member counts in the mean, None for all alike. Of the fit of boxes those who tell of
            it count alike.
        cascade: How many regions of an image the members after the first look at; None: all.
        temperature: Of the softmax of networks with the 1000 classification outputs.
        device: `auto` takes a GPU if there is one.
        num_proposals: Most boxes scored in an image, best-ranked first; None scores all.
        objectness: Order the boxes by the (first) model's own opinion of them, where it has one, and multiply their
            scores with it; where members of an ensemble tell how well a region fits, with the mean of both. Boxes that
            cannot reach `score_threshold` so are not scored.
        min_objectness: Nor are boxes of which it thinks less than this, from 0 to 1, however low the threshold.
        exact: Score every box with every model in float32, whatever `num_proposals`, `min_objectness`, `cascade` and
            `precision` say and whether it can reach `score_threshold` or not: the reference.
        proposal_files: Files or folders of proposals computed before (`tools/propose.py`), to use instead.
        workers: Images of a folder that are read and searched for boxes while others are scored; None: as many as
            there are cores where a GPU scores, and none where the network keeps the cores busy.
        classes: Names of the classes to report; None reports all.
        seed: Of the ranking of the proposals.
        proposals: Further arguments of `proposals.SelectiveSearch`.
    """

    weights: str | list[str] | None = None
    member_weights: list[float] | None = None
    cascade: int | None = None
    temperature: float = 1.0
    device: Literal["auto", "cpu", "cuda"] = "auto"
    num_proposals: int | None = 400
    objectness: bool = True
    min_objectness: float = 0.08
    exact: bool = False
    proposal_files: list[str] | None = None
    workers: int | None = None
    classes: list[str] | None = None
    seed: int = 0
    context: int | None = _default("context")
    nms_iou: float = _default("nms_iou")
    soft_nms: float | None = _default("soft_nms")
    box_voting: float | None = _default("box_voting")
    score_threshold: float = _default("score_threshold")
    max_detections: int = _default("max_detections")
    batch_size: int | None = _default("batch_size")
    runtime: Literal["auto", "torch", "openvino"] = _default("runtime")
    precision: Literal["float32", "tf32", "bfloat16"] = _default("precision")
    proposals: dict[str, Any] = field(default_factory=dict)

    def what_decides_the_result(self) -> dict[str, Any]:
        """All but what only decides where and how fast the work is done."""
        bystanders = {"device", "batch_size", "runtime", "workers"}
        values = {name: value for name, value in asdict(self).items() if name not in bystanders}
        values["proposals"].pop("num_threads", None)
        return values


def build_detector(config: DetectorConfig) -> RCNN:
    """The detector of a configuration.

    Raises:
        OSError: Weights that are missing or cannot be read.
        ValueError: A value that makes no sense, an unknown class, a device that is not there.
    """
    if config.num_proposals is not None and config.num_proposals < 1:
        raise ValueError(f"num_proposals is {config.num_proposals}, but must be at least 1, or null for all")
    found = sources(config)
    if config.cascade is not None and config.cascade < 1:
        raise ValueError(f"cascade is {config.cascade}, but must be at least 1, or null for all")
    if config.cascade is not None and len(found) == 1:
        raise ValueError(
            f"cascade is {config.cascade}, but there is one model: it is for those after the first"
        )
    networks = [load_weights(source, temperature=config.temperature) for source in found]
    scorer = _scorer(config, found, networks)
    most = None if config.exact else config.num_proposals
    choose = _chooser(config, found[0], networks[0]) if config.objectness else None
    return RCNN(
        proposals=SelectiveSearch(
            **config.proposals, max_boxes=most if choose is None else None, seed=config.seed
        ),
        scorer=scorer,
        choose=choose,
        max_boxes=most,
        early_stop=not config.exact,
        min_objectness=config.min_objectness,
        labels=None if config.classes is None else labels_of(config.classes, scorer.classes),
        nms_iou=config.nms_iou,
        soft_nms=config.soft_nms,
        box_voting=config.box_voting,
        score_threshold=config.score_threshold,
        max_detections=config.max_detections,
    )


def _scorer(
    config: DetectorConfig, found: list[WeightsRecord | Path], networks: list[RegionClassifier]
) -> Scorer:
    """What is in each box: one network, or the ensemble of several.

    What a member says of the fit of boxes counts beside the objectness, and with the context it has learnt with. A
    network alone is not asked: its objectness has told already.
    """
    fit_counts = len(networks) > 1 and config.objectness and config.context is None
    members = [
        RegionScorer(
            network,
            fit=load_fit(source) if fit_counts else None,
            context=config.context,
            batch_size=config.batch_size,
            runtime=config.runtime,
            device=choose_device(config.device),
            precision="float32" if config.exact else config.precision,
        )
        for source, network in zip(found, networks, strict=True)
    ]
    if len(members) == 1 and config.member_weights is None:
        return members[0]
    return Ensemble(members, weights=config.member_weights, cascade=None if config.exact else config.cascade)


def _chooser(
    config: DetectorConfig, source: WeightsRecord | Path, network: RegionClassifier
) -> BoxChooser | None:
    """Which boxes are worth a pass, if the weights have an opinion."""
    found = load_objectness(source)
    if found is None:
        return None
    head, long_sides = found
    shared = SharedPass(
        network,
        changes=head.changes,
        long_sides=long_sides,
        runtime=config.runtime,
        device=choose_device(config.device),
    )
    return BoxChooser(shared, head)


def sources(config: DetectorConfig) -> list[WeightsRecord | Path]:
    """The weights of a configuration, which exist; at least one."""
    choices = config.weights if isinstance(config.weights, list) else [config.weights]
    if not choices:
        raise ValueError("weights names no model: give one or more, or leave it out for the first at hand")
    return [find_weights(choice) for choice in choices]


def stored_boxes(config: DetectorConfig, images: Iterable[str]) -> Callable[[str], np.ndarray] | None:
    """Look-up of boxes (N, 4) by an image's name in the configuration's proposal files, if it has any.

    Args:
        images: The names of all images of a job: those stored under a name of their own are nobody else's, and others
            that would share the boxes of one have none.

    Returns:
        The look-up, which raises `ValueError` for an image that has no boxes.
    """
    if config.proposal_files is None:
        return None
    stored = ProposalFile(config.proposal_files)
    claims = Counter(stored.stored_name(name) for name in images)

    def boxes(name: str) -> np.ndarray:
        entry = stored.stored_name(name)
        if entry is not None and entry != name and claims[entry] > 1:
            raise ValueError(
                f"{name}: has no proposals under this name, and those of {entry} fit {claims[entry]} images"
            )
        return stored.boxes(name)

    return boxes


def choose_device(name: Literal["auto", "cpu", "cuda"]) -> torch.device:
    """The device of that name, if this machine has it."""
    if name == "cuda" and not torch.cuda.is_available():
        raise ValueError("--device cuda: PyTorch finds no CUDA GPU on this machine; use --device cpu or auto")
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")


def number_of_workers(config: DetectorConfig) -> int:
    """How many images are searched while others are scored, see `DetectorConfig.workers`."""
    if config.workers is None:
        return usable_cores() if choose_device(config.device).type == "cuda" else 0
    if config.workers < 0:
        raise ValueError(f"workers is {config.workers}, but must be 0 or more")
    return config.workers


def labels_of(names: Iterable[str], classes: tuple[DetectionClass, ...]) -> list[int]:
    """The labels of classes called by name, by WordNet id, or by a word that only one name contains.

    Raises:
        ValueError: No such class, or more than one; the message names the nearest.
    """
    by_name = {kind.name.lower(): label for label, kind in enumerate(classes)}
    by_wnid = {kind.wnid: label for label, kind in enumerate(classes) if kind.wnid}
    labels = []
    for name in names:
        wanted = name.strip().lower()
        if wanted in by_name:
            labels.append(by_name[wanted])
        elif wanted in by_wnid:
            labels.append(by_wnid[wanted])
        else:
            containing = [known for known in by_name if wanted and wanted in re.split(r"\W+", known)]
            if len(containing) != 1:
                near = containing or difflib.get_close_matches(wanted, by_name, n=3, cutoff=0.5)
                hint = (
                    f"did you mean {' or '.join(near)}?"
                    if near
                    else f"it knows {', '.join([*by_name][:5])}{', ...' if len(by_name) > 5 else ''}"
                )
                problem = (
                    "more than one class has this word" if containing else "the detector has no such class"
                )
                raise ValueError(f"class {name!r}: {problem}; {hint}")
            labels.append(by_name[containing[0]])
    return labels
