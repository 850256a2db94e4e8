"""Network over regions: the features of a stage, computed once and kept on disk.

What lies below the frozen part of a network gives the same for a region every time it is trained on. On a CPU
these stages are nearly all the work, so they run once.
"""

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict
from mmap import mmap
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock
from torch import Tensor, nn

from detector.googlenet import GoogLeNet
from detector.region_classifier import Preprocessing, RegionClassifier
from detector.regions import warp_regions
from detector.runtime import Runtime
from detector.tap_classifier import tap_features
from detector.training.sampling import RegionTable
from eval.atomic import writing

Progress = Callable[[int, int], None]


class StageFeatures(nn.Module):
    """Pixels of regions to the output of a stage, averaged over the cells of a grid if one is given."""

    def __init__(self, classifier: RegionClassifier, tap: str, grid: int | None = None) -> None:
        super().__init__()
        self.classifier, self.tap, self.grid = classifier, tap, grid

    def forward(self, regions: Tensor) -> Tensor:
        """(R, 3, S, S) RGB of 0..255 -> (R, ...)."""
        network = self.classifier.network
        assert isinstance(network, GoogLeNet)
        x = self.classifier.normalize(regions)
        if self.grid is None:
            return network.taps(x, [self.tap])[self.tap]
        return tap_features(network, x, self.tap, self.grid)


def region_features(
    table: RegionTable,
    run: Runtime,
    *,
    preprocessing: Preprocessing,
    start: int = 0,
    mirror: bool = False,
    batch_size: int = 8,
) -> Iterator[np.ndarray]:
    """Features of the regions from `start` on, in blocks (n, ...) in the order of the table.

    The table has to be sorted by image, as `region_table` makes it: an image is read once.

    Args:
        run: RGB pixels (n, S, S, 3) -> features (n, ...), see `detector.runtime`.
        mirror: Mirror the regions.
    """
    order = np.arange(start, len(table))
    for of_image in np.split(order, np.flatnonzero(np.diff(table.image[start:])) + 1):
        if not len(of_image):
            continue
        image = table.training_set.images[int(table.image[of_image[0]])].pixels()
        for rows in np.split(of_image, range(batch_size, len(of_image), batch_size)):
            regions = cut_regions(image, table.boxes[rows], preprocessing)
            yield run(np.ascontiguousarray(regions[:, :, ::-1] if mirror else regions))


def cut_regions(image: np.ndarray, boxes: np.ndarray, preprocessing: Preprocessing) -> np.ndarray:
    """The regions (R, S, S, 3) of boxes (R, 4) as the network wants them."""
    return warp_regions(
        image,
        boxes,
        size=preprocessing.size,
        context=preprocessing.context,
        crop=preprocessing.crop,
        fill=preprocessing.mean_colour(),
    )


def cached_features(
    path: Path,
    table: RegionTable,
    blocks: Callable[..., Iterator[np.ndarray]],
    *,
    key: Mapping[str, Any],
    progress: Progress = lambda done, total: None,
) -> np.ndarray:
    """Features (R, ...) float16 of a table, from the file `path` (.npy), which is filled where it has to be.

    A stopped run leaves `<path>.unfinished` with its journal; the next goes on there. Of runs that want the same file
    at once one fills it, and the others wait.

    Args:
        blocks: Gives the features from the row `start` on, such as `region_features` with its other arguments.
        key: What else the features depend on: weights, stage, size. Other values, or other regions, start anew.

    Returns:
        The file, mapped into memory for reading.
    """
    wanted = fingerprint(table, key)
    lock = Path(f"{path}.lock")
    if not _is_complete(path, wanted):
        with FileLock(lock):
            if not _is_complete(path, wanted):
                _fill(path, table, blocks, wanted, progress)
            # Whoever waits for it finds the file complete. Windows keeps it while it is open.
            with suppress(OSError):
                lock.unlink()
    progress(len(table), len(table))
    return np.load(path, mmap_mode="r")


def name_of_file(features: np.ndarray) -> np.ndarray | str:
    """For worker processes: a file that is mapped into memory goes by its name, not with its content.

    A part or a copy of one, which numpy calls a memmap too, is not the file.
    """
    if isinstance(features, np.memmap) and isinstance(features.base, mmap):
        return str(features.filename)
    return features


def mapped(features: np.ndarray | str) -> np.ndarray:
    """What `name_of_file` was made of."""
    return np.load(features, mmap_mode="r") if isinstance(features, str) else features


def _is_complete(path: Path, wanted: str) -> bool:
    return path.is_file() and _noted(path.with_suffix(".json")).get("fingerprint") == wanted


def _fill(
    path: Path,
    table: RegionTable,
    blocks: Callable[..., Iterator[np.ndarray]],
    wanted: str,
    progress: Progress,
) -> None:
    finished, unfinished = path.with_suffix(".json"), Path(f"{path}.unfinished")
    journal = Path(f"{unfinished}.json")
    noted = _noted(journal)
    done, target = 0, None
    if noted.get("fingerprint") == wanted and unfinished.is_file():
        done, target = int(noted["done"]), np.lib.format.open_memmap(unfinished, mode="r+")
    progress(done, len(table))
    for block in blocks(start=done):
        if target is None:
            journal.unlink(missing_ok=True)  # of other features, whose file goes now
            target = np.lib.format.open_memmap(
                unfinished, mode="w+", dtype=np.float16, shape=(len(table), *block.shape[1:])
            )
        target[done : done + len(block)] = block
        done += len(block)
        if done % 1024 < len(block) or done == len(table):
            target.flush()
            _note(journal, {"fingerprint": wanted, "done": done})
        progress(done, len(table))
    if target is None:
        raise ValueError("no regions to compute features of")
    finished.unlink(missing_ok=True)  # of an older file: it must never stand beside the new one
    target.flush()
    unfinished.replace(path)
    _note(finished, {"fingerprint": wanted})
    journal.unlink()


def fingerprint(table: RegionTable, key: Mapping[str, Any]) -> str:
    """What tells regions, and what else is in the key, from any others."""
    digest = hashlib.sha256(json.dumps(dict(key), sort_keys=True).encode())
    names = [f"{image.name} {image.digest}{image.stored_side or ''}" for image in table.training_set.images]
    for part in (os.fsencode("\n".join(names)), table.image.tobytes(), table.boxes.tobytes()):
        digest.update(part)
    return digest.hexdigest()


def label_fingerprint(table: RegionTable) -> str:
    """What tells the labels of regions, which features do not depend on, from any others."""
    digest = hashlib.sha256()
    for part in (table.labels, table.ious, table.labelled, table.drawn):
        digest.update(np.ascontiguousarray(part).tobytes())
    return digest.hexdigest()


def _noted(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return {}


def _note(path: Path, content: Mapping[str, Any]) -> None:
    with writing(path) as file:
        json.dump(content, file)


def source_of(classifier: RegionClassifier) -> dict[str, Any]:
    """What all that a network says of a region depends on, for `key`."""
    return {
        "weights": weightsfingerprint(classifier.network.state_dict()),
        "preprocessing": asdict(classifier.preprocessing),
    }


def weightsfingerprint(tensors: Mapping[str, Tensor]) -> str:
    """A digest of a network's weights, for `key`."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(name.encode())
        digest.update(tensors[name].detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
