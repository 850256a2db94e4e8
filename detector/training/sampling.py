"""R-CNN's sampling: which proposals are objects, which are background, and which of them make a batch.

Girshick et al., *Rich feature hierarchies* (CVPR 2014), section 2.3: proposals with IoU >= 0.5 with an object are
positives of its class, the rest background; a batch has 32 positives, uniform over the classes' regions, and
96 background regions.

A batch depends on nothing but the seed and the number of its step, so that a run goes on exactly where it
stopped, and any number of processes share the batches of one.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from detector.training.training_set import IGNORE, AnnotatedImage, TrainingSet

_POSITIVES, _BACKGROUNDS = 0, 1  # of the seeds


def overlaps(boxes: np.ndarray, others: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """IoU (N, G) of boxes (N, 4) and others (G, 4), and the share (N, G) of each box that is covered."""
    boxes, others = np.asarray(boxes, np.float64), np.asarray(others, np.float64)
    low = np.maximum(boxes[:, None, :2], others[None, :, :2])  # (N, G, 2)
    high = np.minimum(boxes[:, None, 2:], others[None, :, 2:])
    common = np.clip(high - low, 0, None).prod(axis=2)
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)[:, None]
    union = areas + (others[:, 2:] - others[:, :2]).prod(axis=1)[None] - common
    tiny = np.finfo(np.float64).tiny
    return common / np.maximum(union, tiny), common / np.maximum(areas, tiny)


def match(
    boxes: np.ndarray,
    image: AnnotatedImage,
    *,
    positive_iou: float = 0.5,
    background_iou: float = 0.5,
) -> tuple[np.ndarray, np.ndarray]:
    """What the boxes (N, 4) show in an image.

    Returns:
        labels (N,): the class of the object with the highest IoU, if that is at least `positive_iou`; C,
        background, if it is below `background_iou` and no box to ignore covers half of the region; else `IGNORE`.
        ious (N,) float32: the highest IoU with an object.
    """
    background = len(image.labelled)
    labels = np.full(len(boxes), background, np.int64)
    best = np.zeros(len(boxes), np.float32)
    objects = image.labels != IGNORE
    if objects.any():
        iou, _ = overlaps(boxes, image.boxes[objects])
        best = iou.max(axis=1).astype(np.float32)
        labels[best >= background_iou] = IGNORE
        positive = best >= positive_iou
        labels[positive] = image.labels[objects][iou.argmax(axis=1)[positive]]
    if not objects.all():
        _, covered = overlaps(boxes, image.boxes[~objects])
        labels[(covered.max(axis=1) >= 0.5) & (labels == background)] = IGNORE
    return labels, best


@dataclass(frozen=True, eq=False)
class RegionTable:
    """R regions that can be trained on; boxes that are neither object nor background are not in it.

    Attributes:
        training_set: The images and classes.
        image: (R,) int64, positions in the images, never falling.
        boxes: (R, 4) float32 xyxy, half-open, pixels of the image.
        labels: (R,) int64, 0..C-1, or C for background.
        ious: (R,) float32, the highest IoU with an object.
        given: (R,) bool, whether it is an annotated box rather than a proposal.
    """

    training_set: TrainingSet
    image: np.ndarray
    boxes: np.ndarray
    labels: np.ndarray
    ious: np.ndarray
    given: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)

    @cached_property
    def labelled(self) -> np.ndarray:
        """(images, C) bool, the classes completely labelled in each image."""
        return np.stack([image.labelled for image in self.training_set.images])

    @cached_property
    def drawn(self) -> np.ndarray:
        """(images,) bool, whether the boxes of an image were drawn around its objects."""
        return np.array([image.drawn for image in self.training_set.images])

    @cached_property
    def starts(self) -> np.ndarray:
        """(images + 1,) where the rows of each image begin, and where those of the last end."""
        return np.searchsorted(self.image, np.arange(len(self.training_set) + 1))

    def possible(self, rows: np.ndarray) -> np.ndarray:
        """(N, C + 1) bool: what the regions at `rows` (N,) may show.

        An object's region shows its class. A background region shows background, or an object of a class that
        is not completely labelled in its image: it is no negative for that.
        """
        background = len(self.training_set.classes)
        labels = self.labels[rows]
        possible = np.zeros((len(rows), background + 1), np.bool_)
        possible[np.arange(len(rows)), labels] = True
        empty = labels == background
        possible[empty, :background] = ~self.labelled[self.image[rows[empty]]]
        return possible

    def select(self, rows: np.ndarray) -> "RegionTable":
        """The regions at the given rising positions."""
        return RegionTable(
            self.training_set,
            self.image[rows],
            self.boxes[rows],
            self.labels[rows],
            self.ious[rows],
            self.given[rows],
        )


def region_table(
    training_set: TrainingSet,
    proposals: Callable[[int], np.ndarray],
    *,
    positive_iou: float = 0.5,
    background_iou: float = 0.5,
) -> RegionTable:
    """The annotated boxes and the proposals of every image, with what they show.

    Args:
        proposals: Boxes (N, 4) of the image at a position.
        positive_iou, background_iou: See `match`.
    """
    parts = []
    for position, image in enumerate(training_set.images):
        objects = image.labels != IGNORE
        boxes = np.asarray(proposals(position), np.float32).reshape(-1, 4)
        labels, ious = match(boxes, image, positive_iou=positive_iou, background_iou=background_iou)
        used = labels != IGNORE
        given = np.concatenate((np.ones(objects.sum(), np.bool_), np.zeros(used.sum(), np.bool_)))
        parts.append(
            (
                np.full(len(given), position, np.int64),
                np.concatenate((image.boxes[objects], boxes[used])).astype(np.float32),
                np.concatenate((image.labels[objects], labels[used])),
                np.concatenate((np.ones(objects.sum(), np.float32), ious[used])),
                given,
            )
        )
    return RegionTable(training_set, *(np.concatenate(column) for column in zip(*parts, strict=True)))


def thinned(table: RegionTable, *, positives: int, backgrounds: int, seed: int) -> RegionTable:
    """At most so many positives and background regions of each image, drawn at random; given boxes stay.

    What is cached or held in memory is bounded this way.
    """
    background = len(table.training_set.classes)
    chosen = []
    for position in range(len(table.training_set)):
        generator = np.random.default_rng((seed, position))
        of_image = np.arange(table.starts[position], table.starts[position + 1])
        given, empty = table.given[of_image], table.labels[of_image] == background
        chosen.append(of_image[given])
        for rows, most in ((of_image[~given & ~empty], positives), (of_image[empty], backgrounds)):
            chosen.append(generator.permutation(rows)[:most])
    return table.select(np.sort(np.concatenate(chosen)))


class EndlessPasses:
    """Passes over some rows without end, each in an order of its own that only the seed decides.

    Args:
        chances: (N,) of the rows, which sum to 1: then a pass draws N rows with replacement.
    """

    def __init__(self, rows: np.ndarray, seed: tuple[int, ...], chances: np.ndarray | None = None) -> None:
        self.rows, self.seed, self.chances = rows, seed, chances
        self._orders: dict[int, np.ndarray] = {}  # the last few

    def draw(self, start: int, count: int) -> np.ndarray:
        """The rows at the places `start` to `start + count` of the passes one after the other."""
        if not count:
            return np.empty(0, np.int64)
        places = np.arange(start, start + count)
        epochs = places // len(self.rows)
        return np.concatenate(
            [
                self._order(epoch)[places[epochs == epoch] % len(self.rows)]
                for epoch in np.unique(epochs).tolist()
            ]
        )

    def _order(self, epoch: int) -> np.ndarray:
        if epoch not in self._orders:
            while len(self._orders) >= 4:
                self._orders.pop(next(iter(self._orders)))
            self._orders[epoch] = self._shuffled(epoch)
        return self._orders[epoch]

    def _shuffled(self, epoch: int) -> np.ndarray:
        generator = np.random.default_rng((*self.seed, epoch))
        if self.chances is None:
            return generator.permutation(self.rows)
        return generator.choice(self.rows, size=len(self.rows), p=self.chances)


class BatchPlan:
    """Which regions make the batch of a step.

    Args:
        table: The regions to draw from.
        positives: Object regions in a batch.
        backgrounds: Background regions in a batch.
        background_iou: Only background regions below this IoU with every object are drawn.
        balance: An object region is drawn with a chance in proportion to the number of its class's regions to the
            power of minus this: 0 draws every region equally often, 1 every class.
        seed: Of the order. Every pass over the objects (the backgrounds) has an order of its own.

    Raises:
        ValueError: No objects, or backgrounds wanted and none there.
    """

    def __init__(
        self,
        table: RegionTable,
        *,
        positives: int = 32,
        backgrounds: int = 96,
        background_iou: float = 1.0,
        balance: float = 0.0,
        seed: int = 0,
    ) -> None:
        background = len(table.training_set.classes)
        objects, empty = (
            np.flatnonzero(table.labels != background),
            np.flatnonzero((table.labels == background) & (table.ious < background_iou)),
        )
        for name, rows, count in (("object", objects, positives), ("background", empty, backgrounds)):
            if count < 0 or (count and not len(rows)):
                raise ValueError(f"a batch is to have {count} {name} regions, but the data has {len(rows)}")
        if positives < 1:
            raise ValueError(f"a batch is to have {positives} object regions, but needs at least 1")
        self.seed = seed
        self._parts = (
            (EndlessPasses(objects, (seed, _POSITIVES), _chances(table.labels[objects], balance)), positives),
            (EndlessPasses(empty, (seed, _BACKGROUNDS)), backgrounds),
        )

    @property
    def batch_size(self) -> int:
        """Regions in a batch."""
        return sum(count for _, count in self._parts)

    @property
    def steps_per_epoch(self) -> int:
        """Batches until every object region has been seen once."""
        passes, count = self._parts[_POSITIVES]
        return -(-len(passes.rows) // count)

    def rows(self, step: int) -> np.ndarray:
        """Positions (B,) in the table of the regions of a step, counted from 0; objects first."""
        return np.concatenate([passes.draw(step * count, count) for passes, count in self._parts])


def _chances(labels: np.ndarray, balance: float) -> np.ndarray | None:
    """(N,) chances of rows with these labels (N,), as `BatchPlan` describes; None if all are equal."""
    if not 0 <= balance <= 1:
        raise ValueError(f"balance is {balance}, but must lie between 0 and 1")
    if not balance:
        return None
    _, class_of, counts = np.unique(labels, return_inverse=True, return_counts=True)
    chances = (counts.astype(np.float64) ** -balance)[class_of]
    return np.asarray(chances / chances.sum())


def mirrored(seed: int, step: int, count: int) -> np.ndarray:
    """(count,) bool: which regions of a step's batch are mirrored, half of them on average."""
    return np.random.default_rng((seed, 2, step)).random(count) < 0.5


def annotated_objects(table: RegionTable) -> str:
    """How much there was to learn from, in words; small copies of images are no further ones."""
    given = table.image[table.given]
    own = np.array([image.stored_side is None for image in table.training_set.images])
    return f"{int(own[given].sum())} objects of {int(own.sum())} images"


def table_summary(table: RegionTable) -> Sequence[tuple[str, int]]:
    """Counts for people: images, objects, object regions, background regions."""
    background = len(table.training_set.classes)
    return [
        ("images", len(table.training_set)),
        ("objects", int(table.given.sum())),
        ("object regions", int((table.labels != background).sum())),
        ("background regions", int((table.labels == background).sum())),
    ]
