"""Random crops and colours of training images: the paper's recipe (section 6) and its source.

Szegedy et al.: patches of 8 % to 100 % of the image's area with an aspect ratio between 3/4 and 4/3, the
photometric distortions of Howard (arXiv 1312.5402: brightness, contrast, colour in random order), and an
interpolation drawn at random.
"""

import math

import cv2
import numpy as np

_INTERPOLATIONS = (cv2.INTER_NEAREST, cv2.INTER_LINEAR, cv2.INTER_CUBIC, cv2.INTER_AREA)
_GREY = np.array([0.299, 0.587, 0.114], np.float32)


def random_crop(image: np.ndarray, size: int, generator: np.random.Generator) -> np.ndarray:
    """A patch of random area and aspect ratio, stretched to (size, size, 3) with a random interpolation.

    Args:
        image: RGB uint8 (H, W, 3).
    """
    x, y, width, height = crop_box(image.shape[1], image.shape[0], generator)
    interpolation = _INTERPOLATIONS[generator.integers(len(_INTERPOLATIONS))]
    return cv2.resize(image[y : y + height, x : x + width], (size, size), interpolation=interpolation)


def crop_box(width: int, height: int, generator: np.random.Generator) -> tuple[int, int, int, int]:
    """x, y, width, height of a patch inside an image; after ten misfits the largest central square."""
    for _ in range(10):
        area = generator.uniform(0.08, 1.0) * width * height
        aspect = math.exp(generator.uniform(math.log(3 / 4), math.log(4 / 3)))
        w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < w <= width and 0 < h <= height:
            x, y = generator.integers(width - w + 1), generator.integers(height - h + 1)
            return int(x), int(y), w, h
    side = min(width, height)
    return (width - side) // 2, (height - side) // 2, side, side


def distort_colours(image: np.ndarray, strength: float, generator: np.random.Generator) -> np.ndarray:
    """Brightness, contrast and saturation, each times 1 +- strength, in random order.

    Args:
        image: RGB uint8 (..., H, W, 3).
        strength: 0 changes nothing.
    """
    pixels: np.ndarray = image.astype(np.float32)
    for kind in generator.permutation(3):
        factor = float(generator.uniform(1 - strength, 1 + strength))
        if kind == 0:
            pixels = pixels * factor
        elif kind == 1:
            mean = (pixels @ _GREY).mean()
            pixels = mean + (pixels - mean) * factor
        else:
            grey = (pixels @ _GREY)[..., None]
            pixels = grey + (pixels - grey) * factor
    return np.clip(np.rint(pixels), 0, 255).astype(np.uint8)


def centre_crop(image: np.ndarray, size: int) -> np.ndarray:
    """The image squashed to 8/7 of `size` and cut to its centre (size, size, 3), as BVLC's model is measured."""
    whole = cv2.resize(image, (round(size * 8 / 7), round(size * 8 / 7)), interpolation=cv2.INTER_AREA)
    start = (len(whole) - size) // 2
    return np.ascontiguousarray(whole[start : start + size, start : start + size])
