"""The one in-memory form behind every reader: flat arrays that point at an image and a class by position.

Boxes keep the numbers of their file: a result that is compared to the tenth digit must not depend on a
conversion's rounding. What the second corner means is said once for the whole set by `last_pixel`.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from eval.image_names import image_stem

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Int32s = npt.NDArray[np.int32]
Bools = npt.NDArray[np.bool_]

# A table indexed by id is the fastest way from ids to positions; above this a binary search takes over.
_LARGEST_TABLE = 1 << 24


class Category(NamedTuple):
    """A class as its data set knows it: `id` (DET id, COCO category id or position), name and WNID."""

    id: int
    name: str
    wnid: str = ""


@dataclass(frozen=True)
class ImageSet:
    """The images that are evaluated, in the order that decides ties between equal scores.

    `ids` (I,) are strictly increasing: the official image index of ILSVRC, COCO's image id, or 1..I.
    `names` (I,) are what people call them: the XML's stem or COCO's file_name.
    `made_up` is true when the ids merely count the names, so that no file can refer to them.
    """

    ids: Ints
    names: tuple[str, ...]
    made_up: bool = False

    def __len__(self) -> int:
        return len(self.ids)

    def positions_of(self, names: Iterable[str]) -> Int32s:
        """Where images of these names (N,) stand here: same unique name, else same unique stem; -1 for none."""
        by_name: dict[str, int] = {}
        by_stem: dict[str, int] = {}
        for position, name in enumerate(self.names):
            for known, key in ((by_name, name), (by_stem, image_stem(name))):
                known[key] = -1 if key in known else position
        return np.array([by_name.get(name, by_stem.get(image_stem(name), -1)) for name in names], np.int32)

    def distinct_positions_of(self, names: Sequence[str]) -> Int32s:
        """As `positions_of`, of images that are not the same: where one has the name, others have only the stem.

        Raises:
            ValueError: Two of them would be one image here, also if they share their name.
        """
        found = self.positions_of(names)
        named = np.array(
            [p >= 0 and self.names[p] == name for p, name in zip(found, names, strict=True)], np.bool_
        )
        found[~named & np.isin(found, found[named])] = -1
        first: dict[int, int] = {}
        for number, position in enumerate(found.tolist()):
            if position >= 0 and (other := first.setdefault(position, number)) != number:
                raise ValueError(
                    f"{names[other]} and {names[number]} would both be {self.names[position]} of the annotations;"
                    " evaluate one of them, or name images in the annotations by folder and file"
                )
        return found

    def named_as(self, names: Sequence[str]) -> dict[str, str]:
        """Of the images that are among those of `names`: name here -> name there; errors as above."""
        found = self.distinct_positions_of(names).tolist()
        return {self.names[p]: name for p, name in zip(found, names, strict=True) if p >= 0}


@dataclass(frozen=True)
class Annotations:
    """Ground truth of `I` images, `G` boxes sorted by class and image; equal pairs keep the file's order.

    image, label  (G,) int32   positions in `images` and `categories`
    boxes         (G, 4)       x1, y1, x2, y2; x2 and y2 belong to the box if `last_pixel`, else one past it
    areas         (G,)         in pixels, as the file's own convention counts them
    crowd         (G,)         a group: matches any number of detections, counts as neither hit nor miss
    difficult     (G,)         PASCAL VOC's flag, heeded by voc2007 and voc2012 only
    blacklist     (P, 2)       (image, label) positions whose boxes and detections are both left out
    coco_areas    (G,)         COCO's `area` (of the mask), which decides small, medium and large
    """

    images: ImageSet
    categories: tuple[Category, ...]
    image: Int32s
    label: Int32s
    boxes: Floats
    areas: Floats
    crowd: Bools
    difficult: Bools
    coco_areas: Floats
    last_pixel: bool
    blacklist: Ints = field(default_factory=lambda: np.empty((0, 2), np.int64))

    def with_blacklist(self, pairs: Iterable[tuple[int, int]]) -> "Annotations":
        """The same ground truth with these (image position, label) pairs left out of the evaluation."""
        rows = sorted(set(pairs))
        return replace(self, blacklist=np.array(rows, np.int64).reshape(-1, 2))


@dataclass(frozen=True)
class Detections:
    """`D` scored boxes in the order of their file, which breaks ties between equal scores in an image."""

    image: Int32s  # (D,) position in the images of the annotations
    label: Int32s  # (D,) position in their categories
    scores: Floats  # (D,)
    boxes: Floats  # (D, 4) as in Annotations
    areas: Floats  # (D,)
    last_pixel: bool
    images_seen: int | None = None  # annotated images that the detector looked at, where the file tells

    def __len__(self) -> int:
        return len(self.scores)


def box_areas(boxes: Floats, *, last_pixel: bool) -> Floats:
    """Area (N,) of boxes (N, 4) in pixels, computed as the ILSVRC and VOC kits do (+1 when inclusive)."""
    extent = float(last_pixel)
    areas = boxes[:, 2] - boxes[:, 0]
    areas += extent
    heights = boxes[:, 3] - boxes[:, 1]
    heights += extent
    areas *= heights
    return areas


def make_annotations(
    images: ImageSet,
    categories: Sequence[Category],
    *,
    image: npt.ArrayLike,
    label: npt.ArrayLike,
    boxes: npt.ArrayLike,
    last_pixel: bool,
    areas: npt.ArrayLike | None = None,
    crowd: npt.ArrayLike | None = None,
    difficult: npt.ArrayLike | None = None,
    coco_areas: npt.ArrayLike | None = None,
) -> Annotations:
    """Sort boxes given in any order by class and image and fill in what was not given."""
    image_array, label_array = np.asarray(image, np.int32), np.asarray(label, np.int32)
    order = np.lexsort((image_array, label_array))
    box_array = np.asarray(boxes, np.float64).reshape(-1, 4)[order]

    def sorted_or(values: npt.ArrayLike | None, default: np.ndarray) -> np.ndarray:
        return default if values is None else np.asarray(values, default.dtype)[order]

    own_areas = sorted_or(areas, box_areas(box_array, last_pixel=last_pixel))
    flags = np.zeros(len(order), np.bool_)
    return Annotations(
        images=images,
        categories=tuple(categories),
        image=image_array[order],
        label=label_array[order],
        boxes=box_array,
        areas=own_areas,
        crowd=sorted_or(crowd, flags),
        difficult=sorted_or(difficult, flags),
        coco_areas=sorted_or(coco_areas, own_areas),
        last_pixel=last_pixel,
    )


def make_detections(
    *,
    image: npt.ArrayLike,
    label: npt.ArrayLike,
    scores: npt.ArrayLike,
    boxes: npt.ArrayLike,
    last_pixel: bool,
    areas: npt.ArrayLike | None = None,
) -> Detections:
    """Detections from array-likes of one length; ValueError for other lengths and values not finite."""
    score_array = np.asarray(scores, np.float64).reshape(-1)
    box_array = np.ascontiguousarray(np.asarray(boxes, np.float64).reshape(-1, 4))
    image_array = np.asarray(image, np.int32).reshape(-1)
    label_array = np.asarray(label, np.int32).reshape(-1)
    lengths = {len(image_array), len(label_array), len(score_array), len(box_array)}
    if len(lengths) != 1:
        raise ValueError(
            f"detections need one image, label, score and box each, got lengths {sorted(lengths)}"
        )
    if not (np.isfinite(score_array).all() and np.isfinite(box_array).all()):
        raise ValueError("scores and boxes of detections must be finite numbers")
    own_areas = (
        box_areas(box_array, last_pixel=last_pixel) if areas is None else np.asarray(areas, np.float64)
    )
    return Detections(image_array, label_array, score_array, box_array, own_areas, last_pixel)


def in_convention_of(detections: Detections, annotations: Annotations) -> Detections:
    """The detections with their second corners meaning what those of the annotations mean."""
    if detections.last_pixel == annotations.last_pixel:
        return detections
    boxes = detections.boxes.copy()
    boxes[:, 2:] += -1.0 if annotations.last_pixel else 1.0
    return replace(detections, boxes=boxes, last_pixel=annotations.last_pixel)


def positions(ids: npt.NDArray[np.integer], known: Ints) -> Int32s:
    """Where each of `ids` (N,) stands in the strictly increasing `known` (K,), -1 where it does not."""
    if len(known) == 0:
        return np.full(len(ids), -1, np.int32)
    if known[0] >= 0 and known[-1] <= _LARGEST_TABLE:
        top = int(known[-1]) + 1  # one more slot, always -1, takes everything out of range
        table = np.full(top + 1, -1, np.int32)
        table[known] = np.arange(len(known), dtype=np.int32)
        inside = (ids >= 0) & (ids < top)
        if inside.all():
            return table[ids]
        return table[np.where(inside, ids, top)]
    found = np.searchsorted(known, ids)
    found[found == len(known)] = 0
    return np.where(known[found] == ids, found, -1).astype(np.int32)
