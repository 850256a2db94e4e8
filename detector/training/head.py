"""The first weights of a detection head, made of those of the classification head."""

from typing import Literal

import torch
from torch import Tensor, nn

from detector.class_scores import MemberScores
from detector.region_classifier import RegionClassifier
from detector.taxonomy import DetectionClass, ZeroShotScores, classification_classes

CERTAIN = 20.0  # the logit of a fit that counts as 1


def members(classes: tuple[DetectionClass, ...]) -> list[list[int]]:
    """For each detection class the classification outputs that fall under it; none for a class unknown there."""
    found: list[list[int]] = []
    for kind in classes:
        found.append([c.index for c in classification_classes() if kind.wnid and kind.id == c.det_id])
    return found


@torch.no_grad()
def starting_head(
    start: RegionClassifier,
    classes: tuple[DetectionClass, ...],
    *,
    kind: Literal["classes", "members", "random"],
    quality: bool,
    seed: int,
) -> tuple[nn.Linear, tuple[str, ...]]:
    """The outputs that fine-tuning starts from, as like those of the first weights as the classes allow.

    Args:
        start: Where the first weights come from; a detector of the same classes keeps its outputs.
        kind: Of head, see `Finetuning.head`.
        quality: Whether there is an output for the fit.
        seed: Of rows that start from nothing.

    Returns:
        The layer, and the names of the classes (or "background") whose rows start from nothing.

    Raises:
        ValueError: `members` from weights that have none of these.
    """
    before = start.network.classifier
    assert isinstance(before, nn.Linear)
    members_before = isinstance(start.class_scores, MemberScores)
    outputs = len(classes) + 1 + quality
    names = (*(each.name for each in classes), "background")
    if kind == "members":
        return (before if members_before else member_head(before, quality=quality)), ()
    nothing = nn.Linear(before.in_features, 1)  # of another kind: gives no rows
    if kind == "random":
        return detection_head(nothing, classes, quality=quality, seed=seed), names
    if members_before or isinstance(start.class_scores, ZeroShotScores):
        count = len(classification_classes())
        source = nn.Linear(before.in_features, count)
        source.weight.copy_(before.weight[:count])
        source.bias.copy_(before.bias[:count])
        head = detection_head(source, classes, quality=quality, seed=seed)
        if members_before:  # background has learnt a row of its own
            head.weight[len(classes)], head.bias[len(classes)] = before.weight[count], before.bias[count]
        unknown = (name for name, group in zip(names, members(classes), strict=False) if not group)
        return head, tuple(unknown)
    if start.classes != classes:
        return detection_head(nothing, classes, quality=quality, seed=seed), names
    if before.out_features == outputs:
        return before, ()
    head = detection_head(nothing, classes, quality=quality, seed=seed)
    known = min(before.out_features, len(names))  # SVMs have no background
    head.weight[:known], head.bias[:known] = before.weight[:known], before.bias[:known]
    return head, names[known:]


@torch.no_grad()
def detection_head(
    classifier: nn.Linear, classes: tuple[DetectionClass, ...], *, quality: bool, seed: int
) -> nn.Linear:
    """A linear layer of the classes, background, and if wanted the region's fit.

    A class gets the mean of the rows of its members, and log(their number) on the bias, which is the logarithm of the
    sum of their exponentials where they agree; background likewise all rows of no class. So the untrained head
    scores nearly like the zero-shot detector. A class without members starts small and random. The fit starts at
    one half for every region.

    Args:
        classifier: (1000, D), of the ILSVRC classification classes; another number of outputs gives no rows.
    """
    generator = torch.Generator().manual_seed(seed)
    head = nn.Linear(classifier.in_features, len(classes) + 1 + quality)
    head.weight.copy_(torch.randn(head.weight.shape, generator=generator) * 0.01)
    head.bias.zero_()
    if classifier.out_features == len(classification_classes()):
        groups = members(classes)
        taken = {index for group in groups for index in group}
        others = [index for index in range(classifier.out_features) if index not in taken]
        for row, group in enumerate([*groups, others]):
            if group:
                weight, bias = mean_row(classifier, group)
                head.weight[row], head.bias[row] = weight, bias
    if quality:
        head.weight[-1].zero_()
    return head


@torch.no_grad()
def member_head(classifier: nn.Linear, *, quality: bool) -> nn.Linear:
    """A linear layer of the 1000 classification classes, background and the region's fit, for `MemberLogits`.

    The classes keep their rows. Background starts as the mean of all rows; the fit at one half for every region, or,
    where it is not to be learnt, at 1.

    Raises:
        ValueError: The layer has other outputs than the 1000 classes.
    """
    count = len(classification_classes())
    if classifier.out_features != count:
        raise ValueError(
            f"a head of members starts from {count} outputs, but the weights have {classifier.out_features}"
        )
    head = nn.Linear(classifier.in_features, count + 2)
    head.weight[:count], head.bias[:count] = classifier.weight, classifier.bias
    head.weight[count], head.bias[count] = classifier.weight.mean(dim=0), classifier.bias.mean()
    head.weight[-1].zero_()
    head.bias[-1] = 0.0 if quality else CERTAIN
    return head


def mean_row(classifier: nn.Linear, group: list[int]) -> tuple[Tensor, Tensor]:
    """Weight (D,) and bias () of one output that stands for several."""
    bias = classifier.bias[group].mean() + torch.log(torch.tensor(float(len(group))))
    return classifier.weight[group].mean(dim=0), bias
