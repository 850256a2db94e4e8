"""Losses, the first head, the learning rate, random crops: against what they are defined to be."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from made_up_scenes import made_up_set
from torch import nn

from detector.taxonomy import DET200, DetectionClass, ZeroShotScores
from detector.training.batches import targets_of
from detector.training.distortion import centre_crop, crop_box, distort_colours, random_crop
from detector.training.head import detection_head, members
from detector.training.losses import RegionTargets, possible_loss, quality_loss, region_losses, teacher_loss
from detector.training.sampling import region_table
from detector.training.schedule import Schedule
from detector.training.teacher import Teacher, label_shares


@given(st.integers(0, 2**32 - 1), st.integers(1, 6), st.integers(2, 5))
@settings(max_examples=40, deadline=None)
def test_possible_loss_is_minus_the_log_of_a_sum(seed: int, rows: int, classes: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(rows, classes, generator=generator, dtype=torch.float64) * 4
    possible = torch.rand(rows, classes, generator=generator) < 0.5
    possible[torch.arange(rows), torch.randint(classes, (rows,), generator=generator)] = True
    expected = -(logits.softmax(dim=1) * possible).sum(dim=1).log()
    torch.testing.assert_close(possible_loss(logits, possible), expected, atol=1e-9, rtol=1e-6)


def test_an_unlabelled_class_is_not_pushed_down() -> None:
    logits = torch.zeros(1, 4, requires_grad=True)
    possible_loss(logits, torch.tensor([[False, True, False, True]])).sum().backward()
    assert (
        logits.grad is not None and (logits.grad[0, [0, 2]] > 0).all() and (logits.grad[0, [1, 3]] < 0).all()
    )
    one = torch.randn(3, 4)
    expected = nn.functional.cross_entropy(one, torch.tensor([2, 0, 3]), reduction="none")
    torch.testing.assert_close(possible_loss(one, torch.eye(4).bool()[[2, 0, 3]]), expected)


def test_a_label_and_a_teacher_share_an_object() -> None:
    """Together the losses pull like the cross entropy with the mean of both; on background as without the share."""
    logits = torch.randn(2, 4, requires_grad=True, generator=torch.Generator().manual_seed(0))
    teacher = torch.tensor([[0.2, 0.1, 0.1, 0.6], [0.0, 0.0, 0.0, 1.0]])
    possible = torch.tensor([[True, False, False, False], [False, True, True, True]])
    targets = RegionTargets(
        possible,
        torch.tensor([0.9, 0.1]),
        torch.ones(2).bool(),
        teacher,
        torch.ones(2),
        torch.full((2,), 0.3),
    )
    sum(region_losses(logits, targets, quality_weight=0).values(), torch.zeros(())).backward()
    found = logits.grad
    mixed = torch.tensor([[0.3 + 0.7 * 0.5, 0.7 * 0.25, 0.7 * 0.25, 0.0], [0.0, 0.0, 0.0, 1.0]])
    again = logits.detach().requires_grad_()
    nn.functional.cross_entropy(again, mixed, reduction="sum").backward()
    torch.testing.assert_close(found, again.grad, atol=1e-5, rtol=1e-4)


def test_a_label_counts_more_where_many_objects_bear_it() -> None:
    shares = label_shares(np.array([0, 10, 20, 180]), 20, 0.4)
    assert shares is not None
    np.testing.assert_allclose(shares, [0.4, 0.4, 0.5, 0.9])
    alike = label_shares(np.array([0, 1000]), 0, 0.4)
    assert alike is not None
    np.testing.assert_allclose(alike, [0.4, 0.4])
    assert label_shares(np.array([0, 1000]), 0, 1.0) is None


def test_the_share_of_a_region_is_that_of_its_label() -> None:
    image = [[0.0, 0.0, 40.0, 40.0], [50.0, 50.0, 90.0, 90.0]]
    table = region_table(
        made_up_set([image], [[1, 0]], [[True, True]]), lambda _: np.array([[0, 50, 30, 90]], np.float32)
    )
    teacher = Teacher(np.full((3, 3), 1 / 3, np.float16), 1.0, np.array([0.5, 0.8], np.float32))
    targets = targets_of(table, np.array([2, 1, 0]), teacher)
    assert targets.label_share is not None
    assert targets.label_share.tolist() == pytest.approx([1.0, 0.5, 0.8])
    assert targets_of(table, np.arange(3), teacher._replace(label_shares=None)).label_share is None


def test_teacher_loss_is_zero_where_student_and_teacher_agree() -> None:
    logits = torch.randn(5, 4)
    everything = torch.ones(5, 4, dtype=torch.bool)
    torch.testing.assert_close(
        teacher_loss(logits, logits.softmax(1), everything), torch.zeros(5), atol=1e-6, rtol=0
    )
    some = everything.clone()
    some[:, 0] = False
    shifted = logits + torch.tensor([7.0, 0, 0, 0])  # what is impossible is none of the teacher's business
    torch.testing.assert_close(
        teacher_loss(shifted, logits.softmax(1), some), torch.zeros(5), atol=1e-6, rtol=0
    )
    assert (teacher_loss(logits, torch.eye(4)[[0, 1, 2, 3, 0]], everything) > 0).all()
    certain = torch.eye(4).bool()[[0, 1, 2, 3, 0]]
    assert (
        teacher_loss(logits, logits.softmax(1), certain).abs().max() == 0
    )  # the truth is known: nothing to say


def test_quality_loss_counts_only_what_is_known() -> None:
    quality = torch.tensor([0.0, 3.0, -2.0], requires_grad=True)
    loss = quality_loss(quality, torch.tensor([0.5, 1.0, 0.0]), torch.tensor([True, False, True]))
    loss.sum().backward()
    assert loss[1] == 0 and quality.grad is not None and quality.grad.tolist()[:2] == [0.0, 0.0]
    assert quality.grad[2] > 0


def test_losses_add_up_over_parts() -> None:
    torch.manual_seed(0)
    targets = RegionTargets(
        torch.eye(3).bool()[[0, 1, 2, 2]], torch.rand(4), torch.tensor([True, True, False, True]),
        torch.rand(4, 3).softmax(1), torch.ones(4),
    )  # fmt: skip
    outputs = torch.randn(4, 4)
    whole = region_losses(outputs, targets, quality_weight=2.0)
    parts = [
        region_losses(outputs[rows], targets[rows], quality_weight=2.0) for rows in (slice(0, 1), slice(1, 4))
    ]
    assert set(whole) == {"class", "quality", "teacher"}
    for name, value in whole.items():
        torch.testing.assert_close(value, parts[0][name] + parts[1][name])
    assert set(region_losses(outputs[:, :3], targets, quality_weight=1.0)) == {"class", "teacher"}


def test_the_first_head_scores_like_the_zero_shot_detector() -> None:
    torch.manual_seed(0)
    classifier = nn.Linear(16, 1000)
    groups = members(DET200)
    assert sum(map(len, groups)) == 495 and all(groups)
    with torch.no_grad():  # members that agree, as breeds of dogs nearly do
        others = sorted(set(range(1000)) - {index for group in groups for index in group})
        for group in [*groups, others]:
            classifier.weight[group] = classifier.weight[group[0]].clone()
            classifier.bias[group] = classifier.bias[group[0]].clone()
    head = detection_head(classifier, DET200, quality=True, seed=0)
    features = torch.randn(6, 16)
    scores = head(features)
    assert scores.shape == (6, 202) and (scores[:, -1] == 0).all()
    torch.testing.assert_close(
        scores[:, :-1].softmax(1)[:, :-1], ZeroShotScores()(classifier(features)), atol=1e-6, rtol=1e-4
    )
    own = detection_head(classifier, (DetectionClass(1, "kangaroo"),), quality=False, seed=0)
    assert own.out_features == 2 and own.weight[0].abs().max() < 0.1  # no row speaks of it


def test_learning_rates() -> None:
    paper = Schedule()
    rates = [paper.factor_at(step, steps=100, steps_per_epoch=2) for step in range(40)]
    assert (
        rates[:16] == [1.0] * 16 and rates[16] == pytest.approx(0.96) and rates[32] == pytest.approx(0.96**2)
    )
    cosine = Schedule("cosine", warmup_steps=4)
    rates = [cosine.factor_at(step, steps=20, steps_per_epoch=2) for step in range(20)]
    assert rates[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0]) and rates[-1] < 0.02
    assert sorted(rates[4:], reverse=True) == rates[4:]


@given(st.integers(1, 400), st.integers(1, 400), st.integers(0, 1000))
@settings(max_examples=80, deadline=None)
def test_random_crops_lie_inside(width: int, height: int, seed: int) -> None:
    x, y, w, h = crop_box(width, height, np.random.default_rng(seed))
    assert x >= 0 and y >= 0 and w >= 1 and h >= 1 and x + w <= width and y + h <= height


def test_random_crops_have_the_papers_sizes() -> None:
    boxes = [crop_box(1000, 1000, np.random.default_rng(seed)) for seed in range(300)]
    areas = np.array([w * h / 1e6 for _, _, w, h in boxes])
    aspects = np.array([w / h for _, _, w, h in boxes])
    assert 0.079 < areas.min() < 0.15 and 0.8 < areas.max() <= 1
    assert 0.74 < aspects.min() < 0.8 and 1.25 < aspects.max() < 1.35


def test_pictures_keep_their_shape_and_strength_zero_changes_nothing() -> None:
    image = np.random.default_rng(0).integers(0, 256, (50, 70, 3), dtype=np.uint8)
    assert random_crop(image, 32, np.random.default_rng(1)).shape == (32, 32, 3)
    assert centre_crop(image, 32).shape == (32, 32, 3)
    np.testing.assert_array_equal(distort_colours(image, 0.0, np.random.default_rng(0)), image)
    assert np.abs(distort_colours(image, 0.5, np.random.default_rng(0)).astype(int) - image).mean() > 5
