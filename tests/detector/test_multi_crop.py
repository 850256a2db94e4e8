"""The crops of a classifier: where they lie, and that there are as many as they say."""

from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detector.multi_crop import PAPER_SCALES, NumCrops, crops


def coordinates(height: int, width: int) -> np.ndarray:
    """An image whose red tells the column and whose green tells the row, as shares of 255."""
    rows, columns = np.mgrid[0:height, 0:width]
    blue = np.zeros((height, width))
    return (
        np.stack([columns * 255 / (width - 1), rows * 255 / (height - 1), blue], axis=2)
        .round()
        .astype(np.uint8)
    )


def centres(views: np.ndarray) -> np.ndarray:
    """Mean (column, row) of what each crop shows, as shares of the image."""
    return views.mean(axis=(1, 2))[:, :2] / 255


def test_one_crop_is_the_middle() -> None:
    for shape in ((256, 256), (256, 400), (700, 300)):
        view = crops(coordinates(*shape))
        assert view.shape == (1, 224, 224, 3)
        np.testing.assert_allclose(centres(view), [[0.5, 0.5]], atol=0.01)
    image = coordinates(256, 300)
    np.testing.assert_array_equal(crops(image)[0], image[16:240, 38:262])


def test_ten_crops_are_corners_centre_and_mirrors_of_the_middle_square() -> None:
    image = coordinates(256, 356)
    square = image[:, 50:306]
    views = crops(image, 10)
    assert len(views) == 10
    for view, (top, left) in zip(views, [(0, 0), (0, 32), (32, 0), (32, 32), (16, 16)], strict=False):
        np.testing.assert_array_equal(view, square[top : top + 224, left : left + 224])
    np.testing.assert_array_equal(views[5:], views[:5, :, ::-1])


def reference_144(image: np.ndarray) -> list[np.ndarray]:
    """Section 7 of the paper, word by word."""
    views = []
    height, width = image.shape[:2]
    for short in PAPER_SCALES:
        size = (
            (short, round(width * short / height))
            if height <= width
            else (round(height * short / width), short)
        )
        shrinks = size[0] * size[1] < height * width
        resized = cv2.resize(image, size[::-1], interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
        for where in range(3):
            offset = [0, (max(size) - short) // 2, max(size) - short][where]
            square = (
                resized[:, offset : offset + short] if height <= width else resized[offset : offset + short]
            )
            last = short - 224
            views += [square[:224, :224], square[:224, last:], square[last:, :224], square[last:, last:]]
            views += [square[last // 2 : last // 2 + 224, last // 2 : last // 2 + 224]]
            way = cv2.INTER_AREA
            views += [cv2.resize(square, (224, 224), interpolation=way)]
    return views + [view[:, ::-1] for view in views]


@settings(max_examples=8, deadline=None)
@given(height=st.integers(2, 300), width=st.integers(2, 300), seed=st.integers(0, 9))
def test_144_crops_are_the_papers(height: int, width: int, seed: int) -> None:
    height = max(height, width // 4)  # a long strip would only take long
    width = max(width, height // 4)
    image = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    views, expected = crops(image, 144), reference_144(image)
    np.testing.assert_array_equal(views, np.stack(expected))


def test_no_two_of_144_crops_are_the_same() -> None:
    image = np.random.default_rng(0).integers(0, 256, (300, 400, 3), dtype=np.uint8)
    assert len({view.tobytes() for view in crops(image, 144)}) == 144


@pytest.mark.parametrize("count", [1, 10, 144])
@pytest.mark.parametrize("size", [32, 65])
def test_other_sizes_keep_the_proportions(count: NumCrops, size: int) -> None:
    image = coordinates(300, 400)
    views, usual = crops(image, count, size=size), crops(image, count)
    assert views.shape == (count, size, size, 3) and views.dtype == np.uint8
    np.testing.assert_allclose(centres(views), centres(usual), atol=0.02)


@pytest.mark.parametrize("shape", [(1, 30000), (30000, 1), (2, 3001)])
def test_of_a_strip_only_what_is_seen_is_resized(
    shape: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    resize: Any = cv2.resize
    sizes: list[int] = []

    def recording(image: np.ndarray, size: tuple[int, int], **more: int) -> Any:
        sizes.append(max(size))
        return resize(image, size, **more)

    monkeypatch.setattr(cv2, "resize", recording)
    image = np.zeros((*shape, 3), np.uint8)
    image[-200:, -200:] = 200  # the end of the strip
    views = crops(image, 144)
    assert views.shape == (144, 224, 224, 3) and max(sizes) == 352
    assert views.mean(axis=(1, 2, 3)).reshape(2, 4, 3, 6).mean(axis=(0, 1, 3)).tolist() == [0, 0, 200]
    assert crops(image).max() == 0


def test_a_strip_cut_before_it_is_resized_looks_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (20, 180, 3), dtype=np.uint8)
    image = np.asarray(cv2.resize(noise, (1080, 120), interpolation=cv2.INTER_CUBIC))
    whole = crops(image, 10)
    monkeypatch.setattr("detector.multi_crop._STRIP", 8)
    assert np.abs(crops(image, 10).astype(int) - whole).mean() < 2


def test_another_number_of_crops_is_refused() -> None:
    with pytest.raises(ValueError, match="crops is 5, but must be 1, 10 or 144"):
        crops(coordinates(10, 10), 5)  # type: ignore[arg-type]
