"""How logits of trained detectors become scores, besides the softmax of `detector.taxonomy`."""

import torch
from torch import Tensor, nn

from detector.taxonomy import membership


class IndependentScores(nn.Module):
    """Each class on its own: the calibrated outputs of SVMs, which know no background column."""

    def forward(self, logits: Tensor) -> Tensor:
        """Logits (R, C) -> scores (R, C)."""
        return logits.sigmoid()


class QualityScores(nn.Module):
    """Softmax over the classes and background, times the expected IoU of the region with an object.

    Where nothing moves the boxes, a score can at least say how well the box fits: the last output, common to
    all classes, predicts the region's IoU with whatever object it is on.
    """

    def forward(self, logits: Tensor) -> Tensor:
        """Logits (R, C + 2): classes, background, quality -> scores (R, C)."""
        return logits[:, :-1].softmax(dim=1)[:, :-1] * logits[:, -1:].sigmoid()


class MemberLogits(nn.Module):
    """Logits of the 1000 classification classes and background to those of the 200 detection classes.

    A detection class may be one of 118 breeds of dog or a single bird, and no one row of weights says "any of
    these". So a detector can keep the 1000 outputs it was pretrained with and gain one for background: the logit of
    a detection class is the logarithm of the sum of its members' exponentials, and that of background likewise
    sums up its own output and those of the 505 classes that fall under none of the 200.
    """

    groups: Tensor  # (1001, 201)

    def __init__(self) -> None:
        super().__init__()
        classes = membership()
        groups = torch.zeros(classes.shape[0] + 1, classes.shape[1] + 1)
        groups[:-1, :-1] = classes
        groups[:, -1] = 1 - groups.sum(dim=1)
        self.register_buffer("groups", groups, persistent=False)

    def forward(self, logits: Tensor) -> Tensor:
        """Logits (R, 1002): classes, background, quality -> (R, 202): detection classes, background, quality."""
        # In 16 bits the sums would be coarse, and the least probability would be 0, whose logarithm has no end.
        with torch.autocast(logits.device.type, enabled=False):
            probabilities = logits[:, :-1].float().softmax(dim=1) @ self.groups
            return torch.cat([probabilities.clamp_min(1e-12).log(), logits[:, -1:]], dim=1)


class MemberScores(nn.Module):
    """Scores of a detector with `MemberLogits`: of a class the sum over its members, times the expected IoU."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("membership", membership(), persistent=False)

    membership: Tensor  # (1000, 200)

    def forward(self, logits: Tensor) -> Tensor:
        """Logits (R, 1002): classification classes, background, quality -> scores (R, 200)."""
        return (logits[:, :-1].softmax(dim=1)[:, :-1] @ self.membership) * logits[:, -1:].sigmoid()
