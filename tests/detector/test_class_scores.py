"""Detection classes as sums of the classification classes below them."""

import pytest
import torch

from detector.class_scores import MemberLogits, MemberScores
from detector.taxonomy import DET200, ZeroShotScores, classification_classes


def test_member_scores_are_sums_times_the_fit() -> None:
    logits = torch.randn(4, 1002, generator=torch.Generator().manual_seed(0)) * 3
    scores = MemberScores()(logits)
    assert scores.shape == (4, len(DET200))
    probabilities = logits[:, :1001].softmax(dim=1)
    for label in (0, 57, 199):
        members = [c.index for c in classification_classes() if c.det_id == label + 1]
        expected = probabilities[:, members].sum(dim=1) * logits[:, 1001].sigmoid()
        torch.testing.assert_close(scores[:, label], expected)


def test_the_softmax_of_member_logits_gives_member_scores() -> None:
    logits = torch.randn(3, 1002, generator=torch.Generator().manual_seed(1)) * 3
    grouped = MemberLogits()(logits)
    assert grouped.shape == (3, 202)
    torch.testing.assert_close(
        grouped[:, :-1].softmax(dim=1)[:, :-1] * grouped[:, -1:].sigmoid(), MemberScores()(logits)
    )


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_member_logits_of_16_bit_passes_are_those_of_float32(dtype: torch.dtype) -> None:
    logits = torch.randn(3, 1002, generator=torch.Generator().manual_seed(3)).to(dtype) * 8
    expected = MemberLogits()(logits.float())
    with torch.autocast("cpu", dtype):
        torch.testing.assert_close(MemberLogits()(logits), expected)


def test_without_background_the_scores_are_the_zero_shot_ones() -> None:
    logits = torch.randn(3, 1002, generator=torch.Generator().manual_seed(2))
    logits[:, 1000], logits[:, 1001] = -100.0, 100.0  # never background, always a perfect fit
    torch.testing.assert_close(MemberScores()(logits), ZeroShotScores()(logits[:, :1000]))
