"""Selective search (Uijlings et al., "Selective Search for Object Recognition", IJCV 2013).

    boxes = SelectiveSearch(mode="fast")(image)

Segment the image, merge the most similar neighbours until one region is left, and take the box of every
region that ever existed; repeat with other colour spaces, similarities and segmentations; rank; remove
duplicates.
"""

import math
import os
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from proposals.strategies import Mode, Strategy, strategies_of

# Where the width alone would make the image too tall, the height decides: at most this many widths.
MAX_HEIGHT_IN_WIDTHS = 2


class SelectiveSearch:
    """Boxes that may hold an object of any class.

    The same image and seed give the same boxes in the same order, whatever the number of threads.

    Args:
        mode: `single` (1 hierarchy), `fast` (8) or `quality` (80) of the paper.
        strategies: the hierarchies to build, instead of those of `mode`; a dict of the arguments of `Strategy`,
            as a configuration file has it, does as well.
        superpixel_scale: multiplies k and the smallest region of the initial segmentations; 2.0 is
            GoogLeNet's choice (Szegedy et al. 2015, sec. 8): about half the boxes.
        resize_width: the image is resized to this width first, as in R-CNN, or to twice as much in height
            where that is less; it bounds time and memory. None keeps the image as it is.
        min_box_side: boxes narrower or lower than this are left out, in pixels of the resized image. R-CNN
            uses 20: a quarter fewer boxes, but small objects are missed.
        max_boxes: how many of the best-ranked boxes to keep; None keeps all.
        seed: of the random numbers in the ranking.
        num_threads: None uses every core that this process may use.
    """

    def __init__(
        self,
        *,
        mode: Mode = "fast",
        strategies: Sequence[Strategy | dict[str, Any]] | None = None,
        superpixel_scale: float = 1.0,
        resize_width: int | None = 500,
        min_box_side: float = 10,
        max_boxes: int | None = None,
        seed: int = 0,
        num_threads: int | None = None,
    ) -> None:
        if strategies is not None and len(strategies) == 0:
            raise ValueError("strategies is empty: expected at least one")
        if not 0 < superpixel_scale < math.inf:
            raise ValueError(f"superpixel_scale is {superpixel_scale:g}: expected a positive, finite number")
        for name, value in (
            ("resize_width", resize_width),
            ("max_boxes", max_boxes),
            ("num_threads", num_threads),
        ):
            if value is not None and not (isinstance(value, int | np.integer) and value >= 1):
                raise ValueError(
                    f"{name} is {value}: expected a whole number of at least 1, or None (null in options)"
                )
        if not min_box_side >= 0:
            raise ValueError(f"min_box_side is {min_box_side:g}: expected 0 or more")
        if not (isinstance(seed, int | np.integer) and seed >= 0):
            raise ValueError(f"seed is {seed}: expected a whole number of 0 or more")
        self.strategies = strategies_of(mode)
        if strategies is not None:
            self.strategies = tuple(
                strategy if isinstance(strategy, Strategy) else Strategy(**strategy)
                for strategy in strategies
            )
        self.superpixel_scale = superpixel_scale
        self.resize_width = resize_width
        self.min_box_side = min_box_side
        self.max_boxes = max_boxes
        self.seed = seed
        self.num_threads = num_threads or usable_cores()

    def __call__(self, image: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Propose boxes.

        Args:
            image: RGB, (H, W, 3), uint8, of any size.

        Returns:
            (N, 4) xyxy, 0-based, half-open, in pixels of `image`, best-ranked first, no two the same, N >= 1.
        """
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or image.size == 0:
            raise ValueError(f"image is {image.dtype} {image.shape}: expected RGB uint8 (height, width, 3)")
        # numba only once there is something to search
        from proposals.hierarchies import build_hierarchies
        from proposals.ranking import novel_first, rank

        height, width = image.shape[:2]
        resized = self._resize(image)
        resized_height, resized_width = resized.shape[:2]
        hierarchies = build_hierarchies(resized, self.strategies, self.superpixel_scale, self.num_threads)
        boxes = novel_first(rank(hierarchies, self.seed))
        # An image lower than the smallest box keeps the boxes that span it.
        sides = boxes[:, 2:] - boxes[:, :2]
        shortest = np.minimum(self.min_box_side, (resized_width, resized_height))
        boxes = boxes[(sides >= shortest).all(axis=1)]
        boxes = boxes[: self.max_boxes]  # never empty: the whole image is the last merge of every hierarchy
        scale = np.array([width / resized_width, height / resized_height] * 2)
        return (boxes * scale).astype(np.float32)

    @property
    def settings(self) -> dict[str, Any]:
        """What decides the boxes of an image, as plain values for a file."""
        return {
            "strategies": [asdict(strategy) for strategy in self.strategies],
            "superpixel_scale": self.superpixel_scale,
            "resize_width": self.resize_width,
            "min_box_side": self.min_box_side,
            "max_boxes": self.max_boxes,
            "seed": self.seed,
        }

    def _resize(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        height, width = image.shape[:2]
        if self.resize_width is None:
            return image
        scale = min(self.resize_width / width, MAX_HEIGHT_IN_WIDTHS * self.resize_width / height)
        size = max(1, round(width * scale)), max(1, round(height * scale))
        if size == (width, height):
            return image
        interpolation = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
        return np.asarray(cv2.resize(image, size, interpolation=interpolation), dtype=np.uint8)


def usable_cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):  # not on macOS and Windows
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
