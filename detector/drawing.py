"""Boxes with captions on a picture."""

import colorsys
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont


def colour_of(label: int) -> tuple[int, int, int]:
    """A bright RGB colour, the same for a label in every picture, far apart for neighbouring labels."""
    hue = label * 0.618034 % 1  # steps of the golden ratio never come close to each other
    red, green, blue = colorsys.hsv_to_rgb(hue, 0.85, 0.95)
    return round(255 * red), round(255 * green), round(255 * blue)


def draw_boxes(
    image: np.ndarray, boxes: np.ndarray, captions: Sequence[str], labels: Sequence[int] | np.ndarray
) -> np.ndarray:
    """Draw on a copy of the image, the first box topmost, and the captions above all boxes.

    Args:
        image: RGB uint8 (H, W, 3).
        boxes: (D, 4) xyxy, half-open.
        captions: (D,) text for each box.
        labels: (D,) what decides each box's colour.
    """
    picture = Image.fromarray(image)
    brush = ImageDraw.Draw(picture)
    shorter = min(picture.size)
    line = max(1, round(shorter / 150))
    font = ImageFont.load_default(size=min(max(11, shorter / 28), 40))
    drawn = [
        ([round(float(value)) for value in box], caption, colour_of(int(label)))
        for box, caption, label in reversed(list(zip(boxes, captions, labels, strict=True)))
    ]
    for (x1, y1, x2, y2), _, colour in drawn:
        brush.rectangle((x1, y1, max(x2 - 1, x1), max(y2 - 1, y1)), outline=colour, width=line)
    for (x1, y1, _, _), caption, colour in drawn:
        left, top, right, bottom = brush.textbbox((0, 0), caption, font=font)
        width, height = right - left + 4, bottom - top + 4
        x = min(max(x1, 0), max(picture.width - width, 0))
        y = y1 - height if y1 >= height else max(y1, 0)  # above the box where there is room, else inside it
        brush.rectangle((x, y, x + width, y + height), fill=colour)
        ink = "black" if _luminance(colour) > 140 else "white"
        brush.text((x + 2 - left, y + 2 - top), caption, fill=ink, font=font)
    return np.array(picture)


def _luminance(colour: tuple[int, int, int]) -> float:
    red, green, blue = colour
    return 0.299 * red + 0.587 * green + 0.114 * blue
