"""R-CNN's warp against a plain statement of it, and what must hold for any box."""

import math

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from detector.regions import resize, squares, warp_regions

FILL = (123.0, 117.0, 104.0)


def weights(length: int, target: int) -> np.ndarray:
    """(target, length): what share each source pixel has in each target pixel, along one axis."""
    matrix = np.zeros((target, length))
    for t in range(target):
        if target < length:  # mean of the covered pixels
            start, stop = t * length / target, (t + 1) * length / target
            for s in range(length):
                matrix[t, s] = max(0.0, min(stop, s + 1) - max(start, s)) / (stop - start)
        else:  # linear interpolation between pixel centres, the border repeated
            centre = min(max((t + 0.5) * length / target - 0.5, 0), length - 1)
            s = min(int(centre), max(length - 2, 0))
            matrix[t, s] += 1 - (centre - s)
            matrix[t, min(s + 1, length - 1)] += centre - s
    return matrix


def plain_resize(pixels: np.ndarray, width: int, height: int) -> np.ndarray:
    rows, columns = weights(pixels.shape[0], height), weights(pixels.shape[1], width)
    return np.einsum("yh,hwc,xw->yxc", rows, pixels.astype(float), columns)


def plain_warp(image: np.ndarray, box: np.ndarray, size: int, context: int) -> np.ndarray:
    """Enlarge, round, and look up every target pixel in the image padded with the fill colour."""
    height, width = image.shape[:2]
    inner = size - 2 * context
    edges = []
    for start, stop in ((box[0], box[2]), (box[1], box[3])):
        # Scaled as in R-CNN; written in another way, a bound that ends in .5 may be rounded to the other side.
        margin = (size / inner - 1) / 2 * (stop - start)
        first = math.floor(start - margin + 0.5)
        edges.append((first, max(math.floor(stop + margin + 0.5), first + 1)))
    (x1, x2), (y1, y2) = edges
    inside = image[max(y1, 0) : min(y2, height), max(x1, 0) : min(x2, width)]
    left, right = (math.floor((x - x1) * size / (x2 - x1) + 0.5) for x in (max(x1, 0), min(x2, width)))
    top, bottom = (math.floor((y - y1) * size / (y2 - y1) + 0.5) for y in (max(y1, 0), min(y2, height)))
    region = np.empty((size, size, 3))
    region[...] = np.rint(FILL)
    region[top:bottom, left:right] = plain_resize(inside, right - left, bottom - top)
    return region


@settings(max_examples=60, deadline=None)
@given(
    height=st.integers(1, 90),
    width=st.integers(1, 90),
    target_height=st.integers(1, 90),
    target_width=st.integers(1, 90),
    seed=st.integers(0, 99),
)
def test_resize_equals_the_plain_one(
    height: int, width: int, target_height: int, target_width: int, seed: int
) -> None:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    result = resize(pixels, target_width, target_height)
    assert result.shape == (target_height, target_width, 3)
    expected = plain_resize(pixels, target_width, target_height)
    # two roundings to whole numbers, and the fixed-point weights of the library
    assert np.abs(result - expected).max() <= 3


@settings(max_examples=60, deadline=None)
@example(corner=(0.0, 0.0), extent=(4.0, 5.0), context=6, seed=0)  # a margin of 1.5
@given(
    corner=st.tuples(st.floats(0, 90), st.floats(0, 60)),
    extent=st.tuples(st.floats(4, 100), st.floats(4, 70)),
    context=st.integers(0, 12),
    seed=st.integers(0, 99),
)
def test_warp_equals_the_plain_one(
    corner: tuple[float, float], extent: tuple[float, float], context: int, seed: int
) -> None:
    image = np.random.default_rng(seed).integers(0, 256, (64, 96, 3), dtype=np.uint8)
    box = np.array([*corner, min(corner[0] + extent[0], 96), min(corner[1] + extent[1], 64)])
    if box[2] - box[0] < 2 or box[3] - box[1] < 2:
        return
    region = warp_regions(image, box[None], size=32, context=context, fill=FILL)[0]
    assert np.abs(region - plain_warp(image, box, 32, context)).max() <= 3


def test_context_is_sixteen_pixels_on_each_side() -> None:
    image = np.zeros((400, 400, 3), np.uint8)
    image[104:296, 104:296] = 255  # the object is exactly as large as the warped region without its context
    region = warp_regions(image, np.array([[104, 104, 296, 296]]), fill=FILL)[0]
    assert region.shape == (224, 224, 3)
    assert (region[16:208, 16:208] == 255).all()
    region[16:208, 16:208] = 0
    assert (region == 0).all()


def test_outside_the_image_is_the_mean_colour() -> None:
    image = np.full((100, 100, 3), 255, np.uint8)
    region = warp_regions(image, np.array([[0, 0, 100, 100]]), fill=(123.4, 116.7, 104.0))[0]
    assert (region[16:208, 16:208] == 255).all()
    assert (region[:15] == [123, 117, 104]).all() and (region[:, 209:] == [123, 117, 104]).all()


def test_shrinking_does_not_alias() -> None:
    image = np.zeros((1000, 1000, 3), np.uint8)
    image[::2] = 255  # stripes far finer than the region can show
    region = warp_regions(image, np.array([[0, 0, 1000, 1000]]), context=0, fill=FILL)[0]
    assert np.abs(region.astype(int) - 128).max() < 40
    wide = resize(image[:, :10], 224, 224)  # shrinks along one axis, grows along the other
    assert np.abs(wide.astype(int) - 128).max() < 40


def test_batch_is_the_boxes_one_by_one() -> None:
    generator = np.random.default_rng(0)
    image = generator.integers(0, 256, (50, 70, 3), dtype=np.uint8)
    corners = generator.uniform(0, 40, (9, 2))
    boxes = np.concatenate([corners, corners + generator.uniform(1, 10, (9, 2))], axis=1)
    batch = warp_regions(image, boxes, fill=FILL)
    assert (batch == np.concatenate([warp_regions(image, box[None], fill=FILL) for box in boxes])).all()
    assert warp_regions(image, np.empty((0, 4)), fill=FILL).shape == (0, 224, 224, 3)


@pytest.mark.parametrize("shape", [(1, 1), (1, 300), (300, 1), (2, 2)])
@pytest.mark.parametrize("context", [0, 16, 111])
def test_the_smallest_images_and_boxes(shape: tuple[int, int], context: int) -> None:
    image = np.full((*shape, 3), 200, np.uint8)
    boxes = np.array([[0, 0, shape[1], shape[0]], [0, 0, 0.2, 0.2], [shape[1] - 0.1, 0, shape[1], shape[0]]])
    regions = warp_regions(image, boxes, context=context, fill=FILL)
    assert (regions == 200).any(axis=(1, 2, 3)).all()  # each shows at least one pixel of the image


def test_shifting_image_and_box_changes_nothing() -> None:
    image = np.random.default_rng(0).integers(0, 256, (120, 120, 3), dtype=np.uint8)
    box = np.array([[30.5, 31.25, 60.5, 72.0]])
    shifted = np.roll(image, (7, 11), axis=(0, 1))
    assert (
        warp_regions(image, box, fill=FILL)
        == warp_regions(shifted, box + np.array([11, 7, 11, 7]), fill=FILL)
    ).all()


def test_too_much_context_is_refused() -> None:
    with pytest.raises(ValueError, match="context is 112"):
        warp_regions(np.zeros((5, 5, 3), np.uint8), np.array([[0, 0, 5, 5]]), context=112, fill=FILL)


def test_square_crops_keep_the_shape_of_things() -> None:
    boxes = np.array([[10, 20, 50, 30], [0, 0, 3, 9], [5, 5, 8, 8]], np.float32)
    assert squares(boxes).tolist() == [[10, 5, 50, 45], [-3, 0, 6, 9], [5, 5, 8, 8]]
    image = np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)
    square = warp_regions(image, boxes, size=32, context=4, crop="square", fill=FILL)
    warped = warp_regions(image, squares(boxes), size=32, context=4, fill=FILL)
    assert (square == warped).all()
    assert (square != warp_regions(image, boxes, size=32, context=4, fill=FILL)).any()
