"""The crops of an image that a classifier's judgement is averaged over: 1, 10 or the paper's 144."""

from typing import Literal, get_args

import cv2
import numpy as np

NumCrops = Literal[1, 10, 144]
PAPER_SCALES = (256, 288, 320, 352)  # short sides, for crops of 224
# An image so many times as long as it is wide is cut before it is resized: all of it would take gigabytes.
_STRIP = 32


def crops(image: np.ndarray, count: NumCrops = 1, *, size: int = 224) -> np.ndarray:
    """Cut squares out of an image.

    1: the middle of the image resized to a short side of 256. 10: of its middle square of 256 the four corners and
    the centre, each also mirrored (Krizhevsky et al., NIPS 2012). 144: Szegedy et al. 2015, section 7: the image
    resized to the short sides 256, 288, 320 and 352; of each the left, centre and right square (upper, centre and
    lower of an upright image); of each square its four corners and its centre, and the square itself resized; each
    also mirrored.

    Args:
        image: RGB uint8 (H, W, 3).
        count: How many.
        size: Side of the crops in pixels; the short sides grow with it.

    Returns:
        uint8 (count, size, size, 3).

    Raises:
        ValueError: Another number of crops.
    """
    if count not in get_args(NumCrops):
        raise ValueError(f"crops is {count}, but must be 1, 10 or 144")
    if count == 1:
        return _corners_and_centre(_resized_squares(image, _scaled(256, size))[1], size)[-1:]
    if count == 10:
        upright = _corners_and_centre(_resized_squares(image, _scaled(256, size))[1], size)
    else:
        squares = [
            square for scale in PAPER_SCALES for square in _resized_squares(image, _scaled(scale, size))
        ]
        upright = np.concatenate(
            [[*_corners_and_centre(square, size), _resize(square, size, size)] for square in squares]
        )
    return np.concatenate([upright, upright[:, :, ::-1]])


def _scaled(short_side: int, size: int) -> int:
    return round(short_side * size / 224)


def _resized_squares(image: np.ndarray, short_side: int) -> list[np.ndarray]:
    """The first, the middle and the last square of the image resized to a short side."""
    if max(image.shape[:2]) > _STRIP * min(image.shape[:2]):
        return [_resize(square, short_side, short_side) for square in _squares(image)]
    return _squares(_with_short_side(image, short_side))


def _with_short_side(image: np.ndarray, short_side: int) -> np.ndarray:
    height, width = image.shape[:2]
    factor = short_side / min(height, width)
    return _resize(image, max(short_side, round(height * factor)), max(short_side, round(width * factor)))


def _resize(image: np.ndarray, height: int, width: int) -> np.ndarray:
    # pixels that become smaller are averaged: interpolating between some would leave out the others
    shrinks = height * width < image.shape[0] * image.shape[1]
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)


def _squares(image: np.ndarray) -> list[np.ndarray]:
    """The first, the middle and the last square along the longer side."""
    height, width = image.shape[:2]
    side = min(height, width)
    rest = max(height, width) - side
    offsets = (0, rest // 2, rest)
    if width > height:
        return [image[:, offset : offset + side] for offset in offsets]
    return [image[offset : offset + side] for offset in offsets]


def _corners_and_centre(square: np.ndarray, size: int) -> np.ndarray:
    """(5, size, size, 3): upper left, upper right, lower left, lower right, centre."""
    rest = square.shape[0] - size
    places = [(0, 0), (0, rest), (rest, 0), (rest, rest), (rest // 2, rest // 2)]
    return np.stack([square[top : top + size, left : left + size] for top, left in places])
