"""The batches of a run by the number of their step: pixels of regions, or features computed before."""

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from detector.region_classifier import Preprocessing
from detector.training.distortion import distort_colours
from detector.training.features import cut_regions, mapped, name_of_file
from detector.training.losses import RegionTargets
from detector.training.sampling import BatchPlan, RegionTable, mirrored
from detector.training.teacher import Teacher
from detector.training.training_set import AnnotatedImage

_BYTES = 128 * 2**20  # of decoded images in memory, of every process that makes batches


class DecodedImages:
    """Images as pixels, the last ones kept, since the regions of a batch often share one.

    Args:
        most: Bytes of those that are kept.
    """

    def __init__(self, most: int = _BYTES) -> None:
        self.most, self.bytes = most, 0
        self._kept: OrderedDict[AnnotatedImage, np.ndarray] = OrderedDict()

    def __call__(self, image: AnnotatedImage) -> np.ndarray:
        """RGB uint8 (height, width, 3)."""
        if image not in self._kept:
            self._kept[image] = image.pixels()
            self.bytes += self._kept[image].nbytes
        self._kept.move_to_end(image)
        pixels = self._kept[image]
        while self.bytes > self.most:
            _, oldest = self._kept.popitem(last=False)
            self.bytes -= oldest.nbytes
        return pixels


_pixels = DecodedImages()


class Batch(NamedTuple):
    """What the network sees, (B, ...), and the truth about it."""

    inputs: Tensor
    targets: RegionTargets


class Batches(Protocol):
    """Where batches come from."""

    batch_size: int
    steps_per_epoch: int

    def batch(self, step: int, share: slice) -> Any:
        """`inputs` and `targets` of the `share` of a step's batch; the same whenever they are asked for."""
        ...


def targets_of(table: RegionTable, rows: np.ndarray, teacher: Teacher | None = None) -> RegionTargets:
    """The truth about the regions at `rows`."""
    possible = table.possible(rows)
    truth = RegionTargets(
        possible=torch.from_numpy(possible),
        ious=torch.from_numpy(table.ious[rows]),
        # An object's region overlaps its object by so much, whatever else there is; without labels of all classes an
        # empty region may well fit something.
        fit_known=torch.from_numpy(
            ((possible.sum(axis=1) == 1) | (table.ious[rows] >= 0.1)) & table.drawn[table.image[rows]]
        ),
    )
    if teacher is None:
        return truth
    opinion = torch.from_numpy(teacher.probabilities[rows].astype(np.float32))
    shares = None
    if teacher.label_shares is not None:
        of_label = np.append(teacher.label_shares, np.float32(1))  # background has no label to share
        shares = torch.from_numpy(of_label[table.labels[rows]])
    weights = torch.full((len(rows),), teacher.weight)
    return RegionTargets(truth.possible, truth.ious, truth.fit_known, opinion, weights, shares)


class PixelBatches:
    """Regions warped from their images, half of them mirrored, their colours distorted.

    Args:
        colour_strength: Of the distortion of colours; 0 leaves them.
    """

    def __init__(
        self,
        table: RegionTable,
        plan: BatchPlan,
        *,
        preprocessing: Preprocessing,
        mirror: bool = True,
        colour_strength: float = 0.0,
        teacher: Teacher | None = None,
    ) -> None:
        self.table, self.plan, self.teacher = table, plan, teacher
        self.preprocessing = preprocessing
        self.mirror, self.colour_strength = mirror, colour_strength
        self.batch_size, self.steps_per_epoch = plan.batch_size, plan.steps_per_epoch

    def batch(self, step: int, share: slice) -> Batch:
        """Pixels (B, 3, S, S) uint8 and truth; `share` says which of the step's regions."""
        rows = self.plan.rows(step)
        flip = mirrored(self.plan.seed, step, len(rows)) & self.mirror
        size = self.preprocessing.size
        places = range(*share.indices(len(rows)))
        pixels = np.empty((len(places), size, size, 3), np.uint8)
        for target, place in enumerate(places):
            row = rows[place]
            image = _pixels(self.table.training_set.images[int(self.table.image[row])])
            region = cut_regions(image, self.table.boxes[row : row + 1], self.preprocessing)[0]
            if self.colour_strength:
                generator = np.random.default_rng((self.plan.seed, 3, step, place))
                region = distort_colours(region, self.colour_strength, generator)
            pixels[target] = region[:, ::-1] if flip[place] else region
        return Batch(
            torch.from_numpy(pixels).permute(0, 3, 1, 2), targets_of(self.table, rows[share], self.teacher)
        )


class FeatureBatches:
    """Features of a frozen stage from the disk.

    Args:
        features: (R, ...) of the regions; a second array, of mirrored regions, is drawn from half of the time.
    """

    def __init__(
        self,
        table: RegionTable,
        plan: BatchPlan,
        features: Sequence[np.ndarray],
        *,
        teacher: Teacher | None = None,
    ) -> None:
        self.table, self.plan, self.features, self.teacher = table, plan, features, teacher
        self.batch_size, self.steps_per_epoch = plan.batch_size, plan.steps_per_epoch

    def __getstate__(self) -> dict[str, Any]:
        """For worker processes: files that are mapped into memory go by their names, not with their content."""
        return self.__dict__ | {"features": [name_of_file(part) for part in self.features]}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.features = [mapped(part) for part in state["features"]]

    def batch(self, step: int, share: slice) -> Batch:
        """Features (B, ...) float32 and truth; `share` says which of the step's regions."""
        rows = self.plan.rows(step)
        flip = mirrored(self.plan.seed, step, len(rows)) & (len(self.features) > 1)
        rows, flip = rows[share], flip[share]
        values = np.stack(
            [self.features[int(side)][row] for row, side in zip(rows.tolist(), flip, strict=True)]
        )
        return Batch(torch.from_numpy(values.astype(np.float32)), targets_of(self.table, rows, self.teacher))


class Steps(Dataset[Any]):
    """The batches of some steps as a torch data set, so that worker processes can prepare them ahead."""

    def __init__(self, batches: Batches, start: int, stop: int, share: slice) -> None:
        self._batches, self._start, self._stop, self._share = batches, start, stop, share

    def __len__(self) -> int:
        return self._stop - self._start

    def __getitem__(self, index: int) -> Any:
        return self._batches.batch(self._start + index, self._share)
