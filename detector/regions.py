"""R-CNN's warp: the pixels of a box, with some context around it, at the network's input size.

Girshick et al., *Rich feature hierarchies* (CVPR 2014), section 2.1 and appendix A: the box is enlarged so
that after the warp there are `context` pixels of surroundings on every side, then stretched to a square
whatever its shape was. Where the enlarged box leaves the image, the warped region holds the mean colour.
The appendix's other way, the tightest square around the box, keeps the shape of things.
"""

import math
from typing import Literal

import cv2
import numpy as np


def warp_regions(
    image: np.ndarray,
    boxes: np.ndarray,
    *,
    size: int = 224,
    context: int = 16,
    crop: Literal["warp", "square"] = "warp",
    fill: tuple[float, float, float],
) -> np.ndarray:
    """Make every box of one image a square region.

    Args:
        image: RGB uint8 (H, W, 3).
        boxes: (R, 4) xyxy, half-open, pixels of `image`; at least partly inside it.
        size: Side of a warped region in pixels.
        context: Pixels of surroundings on each side of the warped region, `0 <= 2 * context < size`.
        crop: `warp` stretches the box itself, `square` cuts the square around its longer side.
        fill: RGB colour (0..255) of what lies outside the image: the mean of the network's training images.

    Returns:
        Regions (R, size, size, 3), RGB uint8.

    Raises:
        ValueError: `context` leaves no room for the box.
    """
    check_context(context, size)
    regions = np.empty((len(boxes), size, size, 3), np.uint8)
    regions[...] = np.rint(fill).astype(np.uint8)
    if crop == "square":
        boxes = squares(boxes)
    for region, box in zip(regions, boxes, strict=True):
        _warp(image, box, region, context)
    return regions


def check_context(context: int, size: int) -> None:
    """Refuse a context that leaves no room for the box in a region, both in pixels.

    Raises:
        ValueError: Not `0 <= 2 * context < size`.
    """
    if not 0 <= 2 * context < size:
        raise ValueError(f"context is {context}, but must lie between 0 and half the region size {size}")


def squares(boxes: np.ndarray) -> np.ndarray:
    """The squares (R, 4) with the centres of boxes (R, 4), and sides as long as their longer ones."""
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2
    halves = (boxes[:, 2:] - boxes[:, :2]).max(axis=1, keepdims=True) / 2
    return np.concatenate([centres - halves, centres + halves], axis=1)


def _warp(image: np.ndarray, box: np.ndarray, region: np.ndarray, context: int) -> None:
    """Write the pixels of `box` and its context into `region` (size, size, 3), leaving the outside alone."""
    height, width = image.shape[:2]
    size = len(region)
    x_source, x_target = _spans(float(box[0]), float(box[2]), width, size, context)
    y_source, y_target = _spans(float(box[1]), float(box[3]), height, size, context)
    target = region[y_target, x_target]
    target[...] = resize(image[y_source, x_source], target.shape[1], target.shape[0])


def _spans(start: float, stop: float, length: int, size: int, context: int) -> tuple[slice, slice]:
    """One axis of the warp: which pixels of the image go to which pixels of the region.

    Like R-CNN, the enlarged box is rounded to whole pixels (at least one inside the image) before it is cut
    at the image's border.
    """
    enlarge = (size / (size - 2 * context) - 1) / 2 * (stop - start)
    whole_start = math.floor(start - enlarge + 0.5)
    whole_stop = max(math.floor(stop + enlarge + 0.5), whole_start + 1)
    scale = size / (whole_stop - whole_start)  # pixels of the region per pixel of the image
    first = min(max(whole_start, 0), length - 1)
    last = max(min(whole_stop, length), first + 1)
    target_first = min(max(math.floor((first - whole_start) * scale + 0.5), 0), size - 1)
    target_last = max(min(math.floor((last - whole_start) * scale + 0.5), size), target_first + 1)
    return slice(first, last), slice(target_first, target_last)


def resize(pixels: np.ndarray, width: int, height: int) -> np.ndarray:
    """Resize (h, w, 3) to (height, width, 3): the mean of all covered pixels along an axis that shrinks
    (so nothing aliases), linear interpolation along one that grows.

    OpenCV averages only if both axes shrink, hence shrinking comes first, on its own.
    """
    h, w = pixels.shape[:2]
    smaller = min(w, width), min(h, height)
    if smaller != (w, h):
        pixels = cv2.resize(pixels, smaller, interpolation=cv2.INTER_AREA)
    if smaller != (width, height):
        pixels = cv2.resize(pixels, (width, height), interpolation=cv2.INTER_LINEAR)
    return pixels
