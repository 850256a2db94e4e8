"""The boxes of several hierarchies -> one order (Uijlings et al., sec. 3.3). Importing this imports numba."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from eval.compiled import compiled

# Steps of the golden section modulo 1 leave no large gap and no cluster, however many are taken (Weyl).
GOLDEN_SECTION = (5**0.5 - 1) / 2
# Boxes whose intersection over union exceeds this, in tenths, say nearly the same.
NEARLY_THE_SAME = 9


def rank(hierarchies: Sequence[NDArray[np.int32]], seed: int) -> NDArray[np.int32]:
    """Mix the boxes of several hierarchies into one order.

    The i-th box of a hierarchy, counted from the whole image (1) down, gets the value i times a random number
    in [0, 1); the boxes are sorted by it, ascending. Random, because the position alone would put all large
    boxes first. A box found more than once keeps its best place.

    The numbers of a hierarchy begin at random and go on in steps of the golden section: as evenly spread as
    random numbers are on average, at every size of boxes, so that less is left to luck.

    Args:
        hierarchies: boxes (2n - 1, 4) of each, in the order of creation: the whole image is last.
        seed: of the random numbers.

    Returns:
        (N, 4) without duplicates, best first.
    """
    generator = np.random.default_rng(seed)
    boxes = np.concatenate([nodes[::-1] for nodes in hierarchies])
    values = np.concatenate([_values(len(nodes), generator.random()) for nodes in hierarchies])
    boxes = boxes[np.argsort(values, kind="stable")]
    # One number for each box sorts many times faster than rows of four.
    numbers = np.ravel_multi_index(
        tuple(boxes.T.astype(np.int64)), tuple(boxes.max(axis=0).astype(np.int64) + 1)
    )
    _, first = np.unique(numbers, return_index=True)
    return boxes[np.sort(first)]


def _values(number: int, start: float) -> NDArray[np.float64]:
    return np.arange(1, number + 1) * ((start + GOLDEN_SECTION * np.arange(number)) % 1)


def novel_first(boxes: NDArray[np.int32]) -> NDArray[np.int32]:
    """Move boxes that are nearly the same as a better-ranked one behind all others.

    Hierarchies agree on many regions up to a few pixels. Whoever takes only the first boxes gets more objects
    this way; none is lost. A box is compared with those that stay in front.

    Args:
        boxes: (N, 4) xyxy, best first.

    Returns:
        The same boxes; among those in front and among those behind the order is kept.
    """
    sides = (boxes[:, 2:] - boxes[:, :2]).astype(np.int64)
    # What is nearly the same has nearly the same area: its logarithm differs by less than a step of this size.
    area_step = (np.log(sides.prod(axis=1)) / np.log(10 / NEARLY_THE_SAME)).astype(np.int64)
    last_of_step = np.full(area_step.max(initial=0) + 3, -1)  # one empty step on either side
    novel = np.ones(len(boxes), np.bool_)
    _find_novel(boxes.astype(np.int64), area_step + 1, last_of_step, np.empty_like(area_step), novel)
    return np.concatenate([boxes[novel], boxes[~novel]])


@compiled
def _find_novel(boxes, area_step, last_of_step, previous, novel):  # type: ignore[no-untyped-def]
    """Clear `novel` (N,), all true, for boxes nearly the same as an earlier novel one.

    `last_of_step`, all -1, and `previous` (N,) are workspace: linked lists of the novel boxes of each step.
    """
    for i in range(len(boxes)):
        x1, y1, x2, y2 = boxes[i, 0], boxes[i, 1], boxes[i, 2], boxes[i, 3]
        area = (x2 - x1) * (y2 - y1)
        for step in range(area_step[i] - 1, area_step[i] + 2):
            j = last_of_step[step]
            while j >= 0 and novel[i]:
                width = min(x2, boxes[j, 2]) - max(x1, boxes[j, 0])
                height = min(y2, boxes[j, 3]) - max(y1, boxes[j, 1])
                if width > 0 and height > 0:
                    shared = width * height
                    union = area + (boxes[j, 2] - boxes[j, 0]) * (boxes[j, 3] - boxes[j, 1]) - shared
                    novel[i] = 10 * shared <= NEARLY_THE_SAME * union
                j = previous[j]
        if novel[i]:
            previous[i] = last_of_step[area_step[i]]
            last_of_step[area_step[i]] = i
