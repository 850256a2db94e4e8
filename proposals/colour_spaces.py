"""The five colour spaces of selective search, every plane scaled to 0..255 (Uijlings et al., sec. 3.2)."""

from typing import Literal, get_args

import cv2
import numpy as np
from numpy.typing import NDArray

ColourSpace = Literal["HSV", "Lab", "rgI", "H", "I"]
COLOUR_SPACES: tuple[ColourSpace, ...] = get_args(ColourSpace)


def convert(image: NDArray[np.uint8], colour_space: ColourSpace) -> NDArray[np.float32]:
    """The planes of an image in one colour space.

    Args:
        image: RGB, (H, W, 3).
        colour_space: hue-saturation-value, CIE Lab, normalised r and g with intensity, hue alone, intensity
            alone. Hue is taken as a number, not as an angle, as the paper's histograms do.

    Returns:
        (P, H, W), 3 planes or 1, values 0..255.
    """
    scaled = image.astype(np.float32) * np.float32(1 / 255)
    match colour_space:
        case "HSV" | "H":
            hsv = cv2.cvtColor(scaled, cv2.COLOR_RGB2HSV)  # H 0..360, S and V 0..1
            planes = [hsv[..., 0] * np.float32(255 / 360)]
            if colour_space == "HSV":
                planes += [hsv[..., 1] * np.float32(255), hsv[..., 2] * np.float32(255)]
        case "Lab":
            lab = cv2.cvtColor(scaled, cv2.COLOR_RGB2LAB)  # L 0..100, a and b -127..127
            planes = [
                lab[..., 0] * np.float32(2.55),
                lab[..., 1] + np.float32(128),
                lab[..., 2] + np.float32(128),
            ]
        case "rgI":
            total = scaled.sum(axis=2)
            safe = np.where(total > 0, total, np.float32(1))
            # Black has no chromaticity: it gets that of grey.
            planes = [
                np.where(total > 0, scaled[..., channel] / safe, np.float32(1 / 3)) * np.float32(255)
                for channel in (0, 1)
            ]
            planes.append(total * np.float32(255 / 3))
        case "I":
            planes = [cv2.cvtColor(scaled, cv2.COLOR_RGB2GRAY) * np.float32(255)]
    return np.ascontiguousarray(np.clip(np.stack(planes), 0, 255), dtype=np.float32)
