"""What a region should have scored: softmax over what it may show, expected IoU, and a teacher's opinion."""

from collections.abc import Callable
from dataclasses import dataclass, fields, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from detector.googlenet import Logits

AUXILIARY_WEIGHT = 0.3  # of the loss of each auxiliary classifier (Szegedy et al., section 5)


@dataclass(frozen=True)
class RegionTargets:
    """The truth about R regions, as far as it is known.

    Attributes:
        possible: (R, C + 1) bool, what the region may show; one class, or background and unlabelled classes.
        ious: (R,) highest IoU with an object.
        fit_known: (R,) bool, whether `ious` is the whole truth: no unlabelled object can be there.
        teacher: (R, C + 1) probabilities to stay near, or None.
        teacher_weight: (R,) of the teacher's opinion, or None.
        label_share: (R,) how much an object's label counts against the teacher's opinion of its class, or None.
    """

    possible: Tensor
    ious: Tensor
    fit_known: Tensor
    teacher: Tensor | None = None
    teacher_weight: Tensor | None = None
    label_share: Tensor | None = None

    def __len__(self) -> int:
        return len(self.possible)

    def __getitem__(self, rows: slice) -> "RegionTargets":
        """Those of some of the regions."""
        return self._each(lambda part: part[rows])

    def to(self, device: torch.device) -> "RegionTargets":
        """The same on a device."""
        return self._each(lambda part: part.to(device, non_blocking=True))

    def pin_memory(self) -> "RegionTargets":
        """The same in memory that a GPU copies from by itself; a data loader asks for it."""
        return self._each(Tensor.pin_memory)

    def _each(self, change: Callable[[Tensor], Tensor]) -> "RegionTargets":
        parts = {field.name: getattr(self, field.name) for field in fields(self)}
        return replace(self, **{name: change(part) for name, part in parts.items() if part is not None})


def possible_loss(logits: Tensor, possible: Tensor) -> Tensor:
    """Minus the log of the probability of all that a region may show.

    With one possible class it is the cross entropy. A region that may be background or one of some unlabelled
    classes learns only that it is none of the others.

    Args:
        logits: (R, C + 1).
        possible: (R, C + 1) bool, at least one true in each row.

    Returns:
        (R,)
    """
    chosen = logits.masked_fill(~possible, -torch.inf)
    return logits.logsumexp(dim=1) - chosen.logsumexp(dim=1)


def teacher_loss(logits: Tensor, teacher: Tensor, possible: Tensor) -> Tensor:
    """Kullback-Leibler divergence (R,) from a teacher's probabilities, both restricted to what is possible.

    What the truth leaves open, the teacher decides: the scores of classes that no box teaches stay near those
    of the network that training began with.
    """
    allowed = teacher * possible + 1e-12 * possible
    allowed = allowed / allowed.sum(dim=1, keepdim=True)
    log_student = logits.masked_fill(~possible, -torch.inf).log_softmax(dim=1).masked_fill(~possible, 0.0)
    log_teacher = allowed.clamp_min(1e-30).log()
    return (allowed * (log_teacher - log_student)).sum(dim=1)


def quality_loss(quality: Tensor, ious: Tensor, fit_known: Tensor) -> Tensor:
    """Binary cross entropy (R,) between the predicted and the true IoU, 0 where the truth is not known."""
    loss = F.binary_cross_entropy_with_logits(quality, ious, reduction="none")
    return torch.where(fit_known, loss, torch.zeros_like(loss))


def region_losses(
    outputs: Tensor | Logits, targets: RegionTargets, *, quality_weight: float
) -> dict[str, Tensor]:
    """The sums over regions of every loss, by name.

    Args:
        outputs: (R, C + 1), or (R, C + 2) of a network that also predicts the IoU; with auxiliary ones, the
            losses of their classes count `AUXILIARY_WEIGHT`.
        quality_weight: Of the IoU's loss.
    """
    if isinstance(outputs, Logits):
        losses = region_losses(outputs.main, targets, quality_weight=quality_weight)
        classes = targets.possible.shape[1]
        looks = [look[:, :classes].float() for look in (outputs.aux_4a, outputs.aux_4d) if look is not None]
        if looks:
            sums = torch.stack([possible_loss(look, targets.possible).sum() for look in looks])
            losses["auxiliary"] = AUXILIARY_WEIGHT * sums.sum()
        return losses
    classes = targets.possible.shape[1]
    logits = outputs[:, :classes].float()
    possible, certain = targets.possible, possible_loss(logits, targets.possible)
    if targets.label_share is not None:
        # That it is an object is certain; of what class, the label and the teacher say together.
        objects = ~possible[:, -1:]
        possible = possible | (objects & (torch.arange(classes, device=logits.device) < classes - 1))
        certain = certain.lerp(possible_loss(logits, possible), 1 - targets.label_share)
    losses = {"class": certain.sum()}
    if outputs.shape[1] > classes:
        known = quality_loss(outputs[:, classes].float(), targets.ious, targets.fit_known)
        losses["quality"] = quality_weight * known.sum()
    if targets.teacher is not None and targets.teacher_weight is not None:
        opinion = teacher_loss(logits, targets.teacher, possible)
        if targets.label_share is not None:
            opinion = opinion * torch.where(possible[:, -1], 1, 1 - targets.label_share)
        losses["teacher"] = (targets.teacher_weight * opinion).sum()
    return losses
