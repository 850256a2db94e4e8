"""How logits of trained detectors become scores, besides the softmax of `detector.taxonomy`."""

from torch import Tensor, nn


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
