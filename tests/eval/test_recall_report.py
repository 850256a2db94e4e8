"""From annotations and proposals by name to the recall table, JSON and plot."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from eval import recall_report
from eval.dataset import Annotations, Category, ImageSet, make_annotations

BOXES = {"a": np.array([[0, 0, 10, 10], [5, 5, 25, 25]], np.float32), "b": np.zeros((0, 4), np.float32)}


def scene(last_pixel: bool) -> Annotations:
    """Three images; c has no proposals made; a crowd and a difficult object that must not count."""
    end = 1 if last_pixel else 0
    return make_annotations(
        ImageSet(np.array([4, 5, 6]), ("a", "b", "c")),
        [Category(7, "cat"), Category(9, "dog")],
        image=[0, 0, 1, 2, 1, 0],
        label=[0, 1, 1, 0, 0, 0],
        boxes=np.array(
            [[0, 0, 10, 10], [5, 5, 25, 15], [0, 0, 4, 4], [0, 0, 9, 9], [0, 0, 8, 8], [1, 1, 5, 5]]
        )
        - [0, 0, end, end],
        crowd=[False, False, False, False, True, False],
        difficult=[False, False, False, False, False, True],
        last_pixel=last_pixel,
    )


def test_objects_are_matched_by_image_name() -> None:
    for last_pixel in (False, True):
        result = recall_report.measure(scene(last_pixel), BOXES.get, numbers=[1])
        assert result.proposals_per_image.tolist() == [2, 0]
        assert result.labels.tolist() == [7, 9, 9]
        np.testing.assert_allclose(result.overlaps, np.array([[1, 1], [25 / 275, 0.5], [0, 0]]))


def test_table_json_and_plot(tmp_path: Path) -> None:
    annotations = scene(False)
    result = recall_report.measure(annotations, BOXES.get)
    console = Console(width=120, record=True, quiet=False, file=(tmp_path / "out.txt").open("w"))
    console.print(recall_report.table(result))
    text = console.export_text()
    assert "0.667" in text and "all, 1" in text
    recall_report.write_json(tmp_path / "recall.json", result, annotations)
    content = json.loads((tmp_path / "recall.json").read_text(encoding="utf-8"))
    assert content["recall_50"] == [1 / 3, 2 / 3] and content["numbers"] == [1, 2]
    assert content["abo"] == {"cat": [1.0, 1.0], "dog": [25 / 275 / 2, 0.25]}
    recall_report.write_plot(tmp_path / "recall.png", {"ours": result, "theirs": result})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.txt", "recall.json", "recall.png"]
    with pytest.raises(ValueError, match="curves: is no name of a picture"):
        recall_report.write_plot(tmp_path / "curves", {"ours": result})


def test_classes_of_one_name_keep_a_place_each(tmp_path: Path) -> None:
    annotations = scene(False)
    annotations = replace(annotations, categories=(Category(7, "crane"), Category(9, "crane")))
    result = recall_report.measure(annotations, BOXES.get)
    recall_report.write_json(tmp_path / "recall.json", result, annotations)
    content = json.loads((tmp_path / "recall.json").read_text(encoding="utf-8"))
    assert content["abo"] == {"crane (7)": [1.0, 1.0], "crane (9)": [25 / 275 / 2, 0.25]}


def test_a_curve_at_one_is_seen() -> None:
    axes = recall_report.plot({"ours": recall_report.measure(scene(False), BOXES.get)}).axes
    assert [round(one.get_ylim()[1], 3) for one in axes] == [1.02] * 3


def test_nothing_to_measure_is_null_not_a_crash(tmp_path: Path) -> None:
    annotations = scene(False)
    result = recall_report.measure(annotations, lambda name: None)
    recall_report.write_json(tmp_path / "recall.json", result, annotations)
    content = json.loads((tmp_path / "recall.json").read_text(encoding="utf-8"))
    assert content["recall_50"] == [None] and content["abo"] == {}
    Console(file=(tmp_path / "out.txt").open("w")).print(recall_report.table(result))
    recall_report.write_plot(tmp_path / "recall.png", {"ours": result})
