"""Learning which boxes fit an object: the head, and with it how the last stages of the network change."""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from detector.box_features import box_geometry, box_windows, pooled_features
from detector.googlenet import GoogLeNet
from detector.low_rank import learn_changes, new_changes
from detector.objectness import ImageMap, ObjectnessHead
from detector.runtime import Precision, arithmetic
from detector.training.heads import LOG_EVERY, warm_up_and_fall
from detector.training.ranges import at_least
from detector.training.sampling import overlaps
from detector.training.training_set import IGNORE, AnnotatedImage

FROZEN = "pool4"  # the last stage that does not learn
LEARNT = ("inception_5a", "inception_5b")
_FOR_STATISTICS = 300  # images whose features say what mean and deviation the head expects


@dataclass(frozen=True)
class ObjectnessFit:
    """How the head and the changes learn.

    Attributes:
        rank: Of the changes of the network's last two stages, which learn with the head; 0 leaves them as they are.
        epochs: Passes over the images.
        images: In a batch.
        each: Boxes of an image that are learnt from, others in every epoch: so many of each of good, partial and no
            overlap with an object.
        learning_rate: Of AdamW for the head; it goes down to zero along a line.
        change_rate: Likewise for the changes.
        weight_decay: Of AdamW.
        precision: Of the arithmetic of the last stages.
    """

    rank: int = 24
    epochs: int = 6
    images: int = 8
    each: int = 30
    learning_rate: float = 0.001
    change_rate: float = 0.0005
    weight_decay: float = 0.05
    precision: Precision = "float32"

    def __post_init__(self) -> None:
        """Refuse what makes no sense."""
        at_least(self, 1, "epochs", "images", "each", part="fit")
        at_least(self, 0, "rank", "learning_rate", "change_rate", "weight_decay", part="fit")


@dataclass(frozen=True)
class MappedImage:
    """What is learnt from an image.

    Attributes:
        features: Map (D, h, w) float16 of the stage `FROZEN`.
        width, height: Of the image in cells.
        boxes: (N, 4) in cells, best-ranked first.
        targets: (N,) float32 of 0..1, how well they fit an object.
        kinds: Which boxes are good, partial and bad; those that say nothing are none of these.
    """

    features: np.ndarray
    width: float
    height: float
    boxes: np.ndarray
    targets: np.ndarray
    kinds: tuple[np.ndarray, np.ndarray, np.ndarray]

    @classmethod
    def of(cls, image: AnnotatedImage, boxes: np.ndarray, seen: ImageMap) -> "MappedImage":
        """An image, its boxes (N, 4) in pixels, and its map."""
        best, ignored = best_iou(boxes, image)
        kinds = ((best >= 0.5) & ~ignored, (best < 0.5) & (best >= 0.2) & ~ignored, (best < 0.2) & ~ignored)
        return cls(
            features=seen.features.astype(np.float16),
            width=seen.width,
            height=seen.height,
            boxes=(boxes * seen.cells).astype(np.float32),
            targets=fit_target(best),
            kinds=(np.flatnonzero(kinds[0]), np.flatnonzero(kinds[1]), np.flatnonzero(kinds[2])),
        )

    def sampled(self, each: int, generator: np.random.Generator) -> np.ndarray:
        """Positions (M,) of at most `each` boxes of each kind."""
        return np.concatenate([generator.permutation(kind)[:each] for kind in self.kinds])

    def described(self, features: Tensor, rows: np.ndarray) -> Tensor:
        """Features (M, F) of boxes at these positions (M,), by the map (D, h, w) of the last stage."""
        windows = box_windows(self.boxes[rows], *features.shape[1:], width=self.width, height=self.height)
        # A box's rank among all is one of its features: sampling first would tell a box's kind by its position.
        geometry = box_geometry(self.boxes, width=self.width, height=self.height)[rows]
        pooled = pooled_features(features, torch.from_numpy(windows).to(features.device))
        return torch.cat([pooled, torch.from_numpy(geometry).to(features.device)], dim=1)


def fit_target(iou: np.ndarray) -> np.ndarray:
    """What is learnt of the IoU (N,) of boxes: (N,) float32 of 0..1.

    Half an object is as little use as none, and beyond 0.7 one box is as good as another.
    """
    return np.clip((iou - 0.2) / 0.5, 0, 1).astype(np.float32)


def best_iou(boxes: np.ndarray, image: AnnotatedImage) -> tuple[np.ndarray, np.ndarray]:
    """Highest IoU (N,) of boxes (N, 4) with an object, and which boxes (N,) say nothing.

    These are on what is to be ignored, such as in a crowd; and all boxes of an image in which nobody has drawn any.
    """
    objects = image.labels != IGNORE
    best, ignored = np.zeros(len(boxes)), np.zeros(len(boxes), np.bool_)
    if objects.any():
        best = overlaps(boxes, image.boxes[objects])[0].max(axis=1)
    if not objects.all():
        iou, covered = overlaps(boxes, image.boxes[~objects])
        ignored = ((iou.max(axis=1) > 0.4) | (covered.max(axis=1) >= 0.5)) & (best < 0.5)
    return best, ignored if image.drawn else np.ones_like(ignored)


@dataclass(frozen=True)
class _Sampler:
    """Boxes to learn from, as the learning stages see them now."""

    stages: nn.Module
    fit: ObjectnessFit
    device: torch.device
    generator: np.random.Generator

    def __call__(self, batch: list[MappedImage]) -> tuple[Tensor, Tensor]:
        """Features (M, F) and targets (M,) of some boxes of the images."""
        features, targets = [], []
        batch = sorted(batch, key=lambda image: image.features.shape)
        for _, group in groupby(batch, key=lambda image: image.features.shape):
            alike = list(group)
            maps = torch.from_numpy(np.stack([image.features for image in alike])).to(self.device).float()
            with arithmetic(self.device, self.fit.precision):
                maps = self.stages(maps.contiguous(memory_format=torch.channels_last))
            for image, seen in zip(alike, maps.float(), strict=True):
                rows = image.sampled(self.fit.each, self.generator)
                features.append(image.described(seen, rows))
                targets.append(torch.from_numpy(image.targets[rows]).to(self.device))
        return torch.cat(features), torch.cat(targets)


def fit_objectness(
    images: list[MappedImage],
    trunk: GoogLeNet,
    fit: ObjectnessFit,
    *,
    device: torch.device,
    seed: int,
    log: Callable[[int, dict[str, float]], None] = lambda step, values: None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> ObjectnessHead:
    """Learn the targets of the images' boxes.

    Args:
        images: What is learnt from.
        trunk: Whose stages after `FROZEN` make the map; it stays as it is.
        log: Told of the step and of its values every `LOG_EVERY` steps.
        progress: Told of the steps done and to do.

    Raises:
        ValueError: There is no box to learn from.
    """
    images = [image for image in images if any(map(len, image.kinds))]
    if not images:
        raise ValueError("none of the images has a box that says anything")
    torch.manual_seed(seed)
    generator = np.random.default_rng(seed)
    head = ObjectnessHead(trunk.num_features, changes=new_changes(trunk, LEARNT, fit.rank)).to(device)
    learner = copy.deepcopy(trunk).eval().to(device).to(memory_format=torch.channels_last)
    learn_changes(learner, head.changes)
    stages = nn.Sequential(*(learner.get_submodule(stage) for stage in LEARNT))
    sampled = _Sampler(stages, fit, device, generator)

    with torch.no_grad():
        some = generator.permutation(len(images))[:_FOR_STATISTICS]
        features = torch.cat([sampled([images[position]])[0] for position in some])
        head.mean.copy_(features.mean(dim=0))
        head.deviation.copy_(features.std(dim=0, correction=0) + 1e-3)
    steps = fit.epochs * -(-len(images) // fit.images)
    optimizer, schedule = _optimizer(head, fit, steps)
    head.train()
    step, losses = 0, []
    for _ in range(fit.epochs):
        order = generator.permutation(len(images))
        for first in range(0, len(images), fit.images):
            features, targets = sampled([images[position] for position in order[first : first + fit.images]])
            loss = F.binary_cross_entropy_with_logits(head(features), targets)
            optimizer.zero_grad()
            with arithmetic(device, "tf32" if fit.precision == "tf32" else "float32"):
                loss.backward()  # in the precisions of the forward pass: all that is left to say is TF32 or not
            nn.utils.clip_grad_norm_(head.parameters(), 5.0)
            optimizer.step()
            schedule.step()
            step += 1
            losses.append(loss.item())
            progress(step, steps)
            if step % LOG_EVERY == 0 or step == steps:
                log(step, {"loss": float(np.mean(losses)), "learning_rate": float(schedule.get_last_lr()[0])})
                losses.clear()
    return head.eval().cpu()


def _optimizer(
    head: ObjectnessHead, fit: ObjectnessFit, steps: int
) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LambdaLR]:
    """AdamW with a rate for the head and one for its changes, which rise at first and then go down to zero."""
    own = [*head.hidden.parameters(), *head.output.parameters()]
    groups: list[dict[str, Any]] = [{"params": own, "lr": fit.learning_rate}]
    if len(head.changes):
        groups.append({"params": list(head.changes.parameters()), "lr": fit.change_rate})
    optimizer = torch.optim.AdamW(groups, weight_decay=fit.weight_decay)
    return optimizer, warm_up_and_fall(optimizer, steps)
