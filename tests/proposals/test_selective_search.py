"""Selective search as a whole: modes, ranking, resizing, determinism and images that break things."""

import subprocess
import sys
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from proposals import SelectiveSearch, Strategy
from proposals.ranking import GOLDEN_SECTION, novel_first, rank
from proposals.strategies import Mode, strategies_of


def scene(height: int = 120, width: int = 160) -> NDArray[np.uint8]:
    """Rectangles and a disc on a textured ground."""
    generator = np.random.default_rng(1)
    image = generator.normal(90, 6, (height, width, 3))
    image[height // 6 : height // 2, width // 8 : width // 3] = (200, 40, 40)
    image[height // 3 : height - 8, width // 2 : width - 20] = (40, 60, 190)
    ys, xs = np.mgrid[:height, :width]
    image[(ys - height * 0.7) ** 2 + (xs - width * 0.25) ** 2 < (height / 6) ** 2] = (240, 220, 60)
    return (image + generator.normal(0, 3, image.shape)).clip(0, 255).astype(np.uint8)


def check(boxes: NDArray[np.float32], image: NDArray[np.uint8]) -> None:
    height, width = image.shape[:2]
    assert boxes.dtype == np.float32 and boxes.ndim == 2 and boxes.shape[1] == 4 and len(boxes) >= 1
    assert (boxes[:, :2] >= 0).all() and (boxes[:, 2:] <= (width, height)).all()
    assert (boxes[:, :2] < boxes[:, 2:]).all()
    assert len(np.unique(boxes, axis=0)) == len(boxes)


@pytest.mark.parametrize("mode", ["single", "fast", "quality"])
def test_every_mode_finds_the_objects(mode: Mode) -> None:
    image = scene()
    boxes = SelectiveSearch(mode=mode)(image)
    check(boxes, image)
    for x1, y1, x2, y2 in [(20, 20, 53, 60), (80, 40, 140, 112), (20, 64, 60, 104), (0, 0, 160, 120)]:
        overlap = np.minimum(boxes[:, 2:], (x2, y2)) - np.maximum(boxes[:, :2], (x1, y1))
        shared = overlap.clip(0).prod(axis=1)
        areas = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1) + (x2 - x1) * (y2 - y1)
        assert (shared / (areas - shared)).max() > 0.85, (x1, y1, x2, y2)


def test_modes_are_the_paper_s() -> None:
    assert [len(strategies_of(mode)) for mode in ("single", "fast", "quality")] == [1, 8, 80]
    assert len(set(strategies_of("quality"))) == 80
    assert set(strategies_of("single")) < set(strategies_of("fast")) < set(strategies_of("quality"))


def test_threads_do_not_change_anything() -> None:
    image = scene(90, 140)
    for strategies in (strategies_of("fast"), strategies_of("quality")[::7]):
        results = [
            SelectiveSearch(strategies=strategies, num_threads=threads)(image) for threads in (1, 2, 5, 1)
        ]
        for result in results[1:]:
            np.testing.assert_array_equal(result, results[0])


def test_the_seed_orders_the_same_boxes() -> None:
    image = scene()
    first, same, other = (SelectiveSearch(mode="single", seed=seed)(image) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, same)
    assert not np.array_equal(first, other)
    assert {tuple(box) for box in first.tolist()} == {tuple(box) for box in other.tolist()}


def test_max_boxes_keeps_the_best_ranked() -> None:
    image = scene()
    np.testing.assert_array_equal(SelectiveSearch(max_boxes=7)(image), SelectiveSearch()(image)[:7])


def test_superpixel_scale_gives_fewer_boxes() -> None:
    image = scene(300, 400)
    assert 0 < len(SelectiveSearch(superpixel_scale=4)(image)) < len(SelectiveSearch()(image))
    strategy = Strategy(k=100)
    np.testing.assert_array_equal(
        SelectiveSearch(strategies=[strategy], superpixel_scale=2)(image),
        SelectiveSearch(strategies=[replace(strategy, k=200)])(image),
    )


def test_strategies_may_come_from_a_file() -> None:
    image = scene()
    written = {"colour_space": "Lab", "similarity": "S+F", "k": 80.0}
    np.testing.assert_array_equal(
        SelectiveSearch(strategies=[written])(image),
        SelectiveSearch(strategies=[Strategy(colour_space="Lab", similarity="S+F", k=80)])(image),
    )


def test_min_box_side_is_in_pixels_of_the_resized_image() -> None:
    image = scene(60, 100)
    everything = SelectiveSearch(min_box_side=0)(image)
    large = SelectiveSearch(min_box_side=50)(image)
    sides = (everything[:, 2:] - everything[:, :2]) * 5  # resized to 500 x 300
    np.testing.assert_array_equal(large, everything[(sides >= 50 - 1e-3).all(axis=1)])
    assert 0 < len(large) < len(everything)


@pytest.mark.parametrize(
    ("height", "width"),
    [(1, 1), (1, 2), (2, 1), (1, 37), (37, 1), (1, 5000), (5000, 1), (20, 1000), (1000, 20), (3, 3)],
)
@pytest.mark.parametrize("resize_width", [500, None])
def test_strange_sizes(height: int, width: int, resize_width: int | None) -> None:
    image = np.random.default_rng(0).integers(0, 256, (height, width, 3)).astype(np.uint8)
    for seen in (image, np.full_like(image, 77), np.repeat(image[..., :1], 3, axis=2)):
        boxes = SelectiveSearch(mode="fast", resize_width=resize_width)(seen)
        check(boxes, seen)
        assert [0, 0, width, height] in boxes.tolist()


def test_a_constant_image_is_one_box() -> None:
    for value in (0, 128, 255):
        image = np.full((50, 70, 3), value, np.uint8)
        assert SelectiveSearch(mode="quality")(image).tolist() == [[0, 0, 70, 50]]


def test_a_huge_image_costs_what_a_small_one_costs() -> None:
    image = np.zeros((6000, 8000, 3), np.uint8)
    image[1000:4000, 2000:5000] = (250, 80, 10)
    boxes = SelectiveSearch(mode="single")(image)
    check(boxes, image)
    assert np.abs(boxes - (2000, 1000, 5000, 4000)).max(axis=1).min() <= 32  # 2 pixels of 500


def test_layout_of_the_array_does_not_matter() -> None:
    image = scene()
    flipped = np.ascontiguousarray(image[:, ::-1])[:, ::-1]
    flipped.flags.writeable = False
    np.testing.assert_array_equal(SelectiveSearch()(flipped), SelectiveSearch()(image))


TREES = st.lists(st.lists(st.integers(0, 5), min_size=1, max_size=9), min_size=1, max_size=4)


@settings(max_examples=50, deadline=None)
@given(TREES, st.integers(0, 99))
def test_ranking_is_position_times_random(trees: list[list[int]], seed: int) -> None:
    hierarchies = [np.array([[0, 0, x + 1, 1] for x in tree], np.int32) for tree in trees]
    generator = np.random.default_rng(seed)
    best: dict[int, float] = {}
    for tree in trees:
        start = generator.random()
        for position, x in enumerate(reversed(tree), start=1):
            value = position * ((start + (position - 1) * GOLDEN_SECTION) % 1)
            best[x] = min(value, best.get(x, np.inf))
    expected = sorted(best, key=lambda x: best[x])
    assert (rank(hierarchies, seed)[:, 2] - 1).tolist() == expected


def plain_novel_first(boxes: NDArray[np.int32]) -> NDArray[np.int32]:
    """Every box against every box in front, in fractions."""
    front: list[list[int]] = []
    behind: list[list[int]] = []
    for x1, y1, x2, y2 in boxes.tolist():
        for a1, b1, a2, b2 in front:
            shared = max(0, min(x2, a2) - max(x1, a1)) * max(0, min(y2, b2) - max(y1, b1))
            union = (x2 - x1) * (y2 - y1) + (a2 - a1) * (b2 - b1) - shared
            if Fraction(shared, union) > Fraction(9, 10):
                behind.append([x1, y1, x2, y2])
                break
        else:
            front.append([x1, y1, x2, y2])
    return np.array(front + behind, np.int32).reshape(-1, 4)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.integers(0, 60), st.integers(1, 40))
def test_nearly_the_same_boxes_go_behind(seed: int, number: int, spread: int) -> None:
    generator = np.random.default_rng(seed)
    corners = generator.integers(0, spread, (number, 2))
    sides = generator.integers(1, 30, (number, 2))
    boxes = np.concatenate([corners, corners + sides], axis=1).astype(np.int32)
    np.testing.assert_array_equal(novel_first(boxes), plain_novel_first(boxes))


def test_nine_tenths_are_still_novel() -> None:
    boxes = np.array([[0, 0, 10, 10], [0, 0, 10, 9], [0, 0, 100, 10], [0, 0, 91, 10], [5, 5, 6, 6]], np.int32)
    np.testing.assert_array_equal(novel_first(boxes), boxes[[0, 1, 2, 4, 3]])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"mode": "slow"}, "'slow'.*single, fast or quality"),
        ({"strategies": []}, "strategies is empty"),
        ({"superpixel_scale": 0}, "superpixel_scale is 0"),
        ({"superpixel_scale": float("nan")}, "superpixel_scale is nan"),
        ({"superpixel_scale": float("inf")}, "superpixel_scale is inf: expected a positive, finite number"),
        ({"resize_width": 0}, r"resize_width is 0: .* or None \(null in options\)"),
        ({"resize_width": 2.5}, "resize_width is 2.5: expected a whole number"),
        ({"max_boxes": 2.5}, "max_boxes is 2.5: expected a whole number"),
        ({"num_threads": 1.5}, "num_threads is 1.5: expected a whole number"),
        ({"seed": 1.5}, "seed is 1.5: expected a whole number"),
        ({"max_boxes": 0}, "max_boxes is 0"),
        ({"num_threads": 0}, "num_threads is 0"),
        ({"seed": -1}, "seed is -1"),
        ({"min_box_side": float("nan")}, "min_box_side is nan"),
    ],
)
def test_bad_settings_are_named(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SelectiveSearch(**arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"similarity": "C+X"}, "similarity 'C\\+X'"),
        ({"similarity": ""}, "similarity ''"),
        ({"similarity": "S+S"}, "similarity 'S\\+S'"),
        ({"similarity": 5}, "similarity 5: expected some of C, T, S and F"),
        ({"similarity": None}, "similarity None: expected some of C, T, S and F"),
        ({"colour_space": "RGB"}, "'RGB'.*HSV"),
        ({"k": 0}, "k is 0"),
        ({"k": None}, "k is None: expected a positive, finite number"),
        ({"k": "100"}, "k is '100': expected a positive, finite number"),
        ({"k": float("inf")}, "k is inf: expected a positive, finite number"),
    ],
)
def test_bad_strategies_are_named(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Strategy(**arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize("k", [100.0, 1e300])
@pytest.mark.parametrize("superpixel_scale", [1e30, 1e300])
def test_regions_larger_than_the_image_are_the_image(k: float, superpixel_scale: float) -> None:
    image = np.zeros((20, 30, 3), np.uint8)
    image[5:10, 5:10] = 255
    search = SelectiveSearch(strategies=[Strategy(k=k)], superpixel_scale=superpixel_scale)
    np.testing.assert_array_equal(search(image), [[0, 0, 30, 20]])


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((4, 4), np.uint8),
        np.zeros((4, 4, 4), np.uint8),
        np.zeros((4, 4, 3), np.float32),
        np.zeros((0, 4, 3), np.uint8),
    ],
)
def test_bad_images_are_named(image: NDArray[np.uint8]) -> None:
    with pytest.raises(ValueError, match="expected RGB uint8"):
        SelectiveSearch()(image)


def test_importing_is_light() -> None:
    script = "import proposals, sys; assert not {'numba', 'torch', 'detector'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", script], check=True)


def test_compiling_is_said_on_the_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from proposals import hierarchies

    for compiled in (True, False):
        monkeypatch.setattr(hierarchies, "kernel_was_compiled", lambda compiled=compiled: compiled)
        hierarchies._load_kernels()
        output = capsys.readouterr()
        assert ("compiling, once on this machine" in output.err) == compiled and output.out == ""
    monkeypatch.setattr(hierarchies, "kernel_was_compiled", lambda: True)
    monkeypatch.setattr(hierarchies, "folder_of", lambda package: None)
    hierarchies._load_kernels()
    assert "compiling, in every run" in capsys.readouterr().err
