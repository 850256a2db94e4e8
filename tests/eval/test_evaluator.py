"""Evaluation in loops, over processes, and classification accuracy."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from random_scenes import feed, random_scene

from eval.classification import TopKAccuracy, ranks
from eval.evaluator import DetectionEvaluator
from eval.protocols import evaluate

torch = pytest.importorskip("torch")


@pytest.mark.parametrize("tensors", [False, True])
@pytest.mark.parametrize("protocol", ["ilsvrc", "voc2007", "coco"])
def test_image_by_image_equals_all_at_once(protocol: str, tensors: bool) -> None:
    scene = random_scene(9, images=12, boxes=50, detections=200, last_pixel=False)
    evaluator = DetectionEvaluator(categories=scene.annotations.categories, protocol=protocol)
    for _ in range(2):  # the second round after a reset
        feed(evaluator, scene, range(12), torch.as_tensor if tensors else np.asarray)
        result = evaluator.compute()
        expected = evaluate(scene.detections, scene.annotations, protocol=protocol)
        assert [row.ap for row in result.classes] == pytest.approx(
            [row.ap for row in expected.classes], abs=1e-12
        )
        evaluator.reset()


def test_images_without_boxes_or_detections_count() -> None:
    evaluator = DetectionEvaluator()
    nothing: dict = {"boxes": [], "scores": [], "labels": [], "true_boxes": [], "true_labels": []}
    evaluator.update("a", **nothing)
    evaluator.update("b", **{**nothing, "true_boxes": [[0, 0, 5, 5]], "true_labels": [3]})
    evaluator.update(
        "c", **{**nothing, "boxes": torch.zeros(0, 4), "scores": torch.zeros(0, dtype=torch.bfloat16)}
    )
    result = evaluator.compute()
    assert result.num_images == 3 and result.mean_ap == 0.0


def test_columns_are_as_good_as_lists() -> None:
    evaluator = DetectionEvaluator(protocol="coco")
    evaluator.update(
        1, boxes=[0, 0, 5, 5], scores=[[0.5]], labels=[[1.0]], true_boxes=[[0, 0, 5, 5], [20, 20, 30, 30]],
        true_labels=[[1], [1]], crowd=np.array([[False], [True]]),
    )  # fmt: skip
    assert evaluator.compute().mean_ap == pytest.approx(1.0)


def test_bad_updates_are_refused() -> None:
    evaluator = DetectionEvaluator()
    good: dict = {
        "boxes": [[0, 0, 5, 5]],
        "scores": [0.5],
        "labels": [0],
        "true_boxes": [],
        "true_labels": [],
    }
    with pytest.raises(ValueError, match="no images to evaluate"):
        evaluator.compute()
    for change, message in (
        ({"labels": [200]}, r"image 1: labels must lie in 0..199"),
        ({"scores": [0.5, 0.4]}, "image 1: boxes, scores and labels differ in number"),
        ({"true_labels": [1]}, "image 1: true boxes, their labels and flags differ"),
        ({"scores": [float("nan")]}, "image 1: scores must be finite numbers"),
        ({"boxes": [[0, 0, float("inf"), 5]]}, "image 1: boxes must be finite numbers"),
        ({"true_labels": [1], "true_boxes": [[0, float("nan"), 5, 5]]}, "image 1: true_boxes must be finite"),
        ({"true_labels": [1], "true_boxes": [[0, 5, 5, 4]]}, "image 1: a true box has x2 < x1 or y2 < y1"),
        ({"boxes": np.zeros((1, 8))}, r"image 1: boxes have the shape \(1, 8\), expected \(N, 4\)"),
        ({"true_boxes": np.zeros((4, 2))}, r"image 1: true_boxes have the shape \(4, 2\)"),
        ({"labels": [1.9]}, "image 1: labels must be whole numbers"),
        ({"true_labels": [float("nan")]}, "image 1: true_labels must be whole numbers"),
    ):
        with pytest.raises(ValueError, match=message):
            evaluator.update(1, **{**good, **change})
    evaluator.update(1, **good)
    with pytest.raises(ValueError, match="image 1 was given twice"):
        evaluator.update(1, **good)


@pytest.mark.parametrize("identity", [7, "a", np.int64(7), np.str_("a"), torch.tensor(7), torch.tensor([7])])
def test_a_repeated_image_is_noticed_however_its_id_is_held(identity: object) -> None:
    evaluator = DetectionEvaluator()
    nothing: dict = {"boxes": [], "scores": [], "labels": [], "true_boxes": [], "true_labels": []}
    evaluator.update(identity, **nothing)
    again = identity.clone() if isinstance(identity, torch.Tensor) else identity
    with pytest.raises(ValueError, match=r"image [7a] was given twice"):
        evaluator.update(again, **nothing)
    plain = "a" if identity == "a" else 7
    with pytest.raises(ValueError, match=r"image [7a] was given twice"):
        evaluator.update(plain, **nothing)


def test_bad_ids_and_rules_are_refused_at_once() -> None:
    evaluator = DetectionEvaluator()
    nothing: dict = {"boxes": [], "scores": [], "labels": [], "true_boxes": [], "true_labels": []}
    for identity in (1.5, None, (1, 2), torch.tensor([1, 2]), torch.tensor(1.5)):
        with pytest.raises(ValueError, match=r"the image id is .*, expected a whole number or text"):
            evaluator.update(identity, **nothing)
    for rules, message in (
        ({"protocol": "cocoo"}, "unknown protocol 'cocoo'"),
        ({"iou": 7}, "the IoU threshold is 7"),
        ({"protocol": "coco", "iou": 0.7}, "takes no threshold of 0.7"),
    ):
        with pytest.raises(ValueError, match=message):
            DetectionEvaluator(**rules)


PROCESS = """
import sys
import torch.distributed
from random_scenes import feed, random_scene
from eval.classification import TopKAccuracy
from eval.evaluator import DetectionEvaluator
rank = int(sys.argv[1])
torch.distributed.init_process_group("gloo", init_method=sys.argv[2], rank=rank, world_size=2)
scene = random_scene(9, images=12, boxes=50, detections=200, last_pixel=False)
evaluator = DetectionEvaluator(categories=scene.annotations.categories)
feed(evaluator, scene, range(0, 7) if rank == 0 else range(5, 12))  # two images go to both
accuracy = TopKAccuracy()
accuracy.update([[0.9, 0.1]] * (rank + 1), [rank] * (rank + 1))
print(repr(evaluator.compute().mean_ap), *accuracy.compute())
torch.distributed.destroy_process_group()
"""


def test_two_processes_together_give_the_whole_result(tmp_path: Path) -> None:
    here = Path(__file__).parent
    path = f"import sys; sys.path[:0] = [{str(here)!r}, {str(here.parents[1])!r}]\n"
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", path + PROCESS, str(rank), f"file://{tmp_path}/meeting"],
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    outputs = [process.communicate(timeout=120)[0] for process in processes]
    scene = random_scene(9, images=12, boxes=50, detections=200, last_pixel=False)
    expected = evaluate(scene.detections, scene.annotations).mean_ap
    assert outputs[0] == outputs[1]
    mean_ap, top1, top5, images = outputs[0].split()
    assert float(mean_ap) == pytest.approx(expected, abs=1e-12)
    assert (float(top1), float(top5), int(images)) == (pytest.approx(1 / 3), 1.0, 3)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32), batch=st.integers(0, 10), classes=st.integers(1, 12))
def test_ranks_are_places_in_the_sorted_scores(seed: int, batch: int, classes: int) -> None:
    rng = np.random.default_rng(seed)
    scores = rng.integers(0, 4, (batch, classes)).astype(np.float32)  # many ties
    labels = rng.integers(0, classes, batch)
    order = np.argsort(-scores, axis=1, kind="stable")
    expected = [list(row).index(label) for row, label in zip(order, labels, strict=True)]
    assert ranks(scores, labels).tolist() == expected
    accuracy = TopKAccuracy()
    if batch:
        accuracy.update(torch.from_numpy(scores), torch.from_numpy(labels))
        assert accuracy.compute() == (np.mean(np.array(expected) < 1), np.mean(np.array(expected) < 5), batch)


@pytest.mark.parametrize("kind", [torch.float64, torch.float32, torch.bfloat16])
def test_scores_are_compared_as_exactly_as_they_are_given(kind: Any) -> None:
    scores = torch.tensor([[1.0, 1.0 + 1e-12]], dtype=kind)
    accuracy = TopKAccuracy()
    accuracy.update(scores, torch.tensor([1]))
    assert accuracy.compute().top1 == (kind == torch.float64)  # the others round it to a tie
    if kind == torch.float64:
        accuracy.update(scores.numpy(), [1])
        assert accuracy.compute().top1 == 1.0


def test_accuracy_adds_up_and_refuses_nonsense() -> None:
    accuracy = TopKAccuracy()
    accuracy.update([[0.1, 0.9]], [1])
    accuracy.update([[0.1, 0.9]], [0])
    assert accuracy.compute() == (0.5, 1.0, 2)
    accuracy.reset()
    with pytest.raises(ValueError, match="no images"):
        accuracy.compute()
    for scores, labels, message in (
        ([[1.0, 2.0]], [2], "expected 0 to 1"),
        ([[1.0, 2.0]], [0, 1], r"expected \(B, C\) and \(B,\)"),
        ([[1.0, float("nan")]], [0], "a score is NaN"),
    ):
        with pytest.raises(ValueError, match=message):
            accuracy.update(scores, labels)
