"""Proposals on disk: `.npz` shards (never pickled), and a reader that finds an image's boxes by its name.

A shard holds n images and N boxes:
    names    (n,) str        of the images, such as "train/a.jpg"
    offsets  (n + 1,) int64  the boxes of image i are rows offsets[i]:offsets[i + 1]
    boxes    (N, 4) float32  xyxy, half-open, pixels of the original image, best-ranked first
    scores   (N,) float32    descending within an image; 1 / rank where the method itself scores nothing
    settings () str          JSON: how the boxes were made
    files    (n,) str        JSON: which file each image was, see `file_identity`; where it is not known, absent
"""

import glob
import json
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from eval.atomic import temporary_name
from eval.image_names import image_stem

# The arrays of a shard: number of dimensions and numpy's kind of dtype.
_ARRAYS = {
    "names": (1, "U"),
    "offsets": (1, "i"),
    "boxes": (2, "f"),
    "scores": (1, "f"),
    "settings": (0, "U"),
}
# Of a file: absolute path, bytes, time of change in nanoseconds; the path alone where there was no file.
FileIdentity = list[str | int]
# What numpy and zipfile raise about other files, about pickles, and about missing or damaged arrays.
_NOT_A_SHARD = (
    *(ValueError, KeyError, EOFError, TypeError, AttributeError, OSError, RuntimeError),
    *(zipfile.BadZipFile, zlib.error),
)


class Proposals(NamedTuple):
    """The proposals of one image."""

    boxes: NDArray[np.float32]  # (N, 4) xyxy, best-ranked first
    scores: NDArray[np.float32]  # (N,) descending


def by_rank(boxes: NDArray[np.float32]) -> Proposals:
    """Give ranked boxes (N, 4) the score 1 / rank."""
    return Proposals(boxes, (1 / np.arange(1, len(boxes) + 1)).astype(np.float32))


def file_identity(path: Path) -> FileIdentity:
    """What tells a file from another of the same name, and from itself after a change; its place, if it is gone."""
    place = path.absolute().as_posix()
    try:
        status = path.stat()
    except OSError:
        return [place]
    return [place, status.st_size, status.st_mtime_ns]


def is_same_file(before: FileIdentity, path: Path) -> bool:
    """Whether a file is the one that was seen before, and unchanged; one that is gone has not changed."""
    now = file_identity(path)
    return before[: len(now)] == now


def write_shard(
    path: str | Path,
    proposals: Mapping[str, Proposals],
    settings: Mapping[str, Any] | None = None,
    files: Mapping[str, FileIdentity] | None = None,
) -> None:
    """Write the proposals of images in the order of the mapping; the file appears only when complete.

    Args:
        settings: How they were made.
        files: Which file each of the images was, where that is known of all.
    """
    counts = [len(of_image.boxes) for of_image in proposals.values()]
    boxes = [np.asarray(of_image.boxes, np.float32).reshape(-1, 4) for of_image in proposals.values()]
    scores = [np.asarray(of_image.scores, np.float32).reshape(-1) for of_image in proposals.values()]
    arrays: dict[str, Any] = {
        "names": _as_text(proposals),
        "offsets": np.concatenate([[0], np.cumsum(counts, dtype=np.int64)]).astype(np.int64),
        "boxes": np.concatenate([np.zeros((0, 4), np.float32), *boxes]),
        "scores": np.concatenate([np.zeros(0, np.float32), *scores]),
        "settings": np.array(json.dumps(dict(settings or {}), sort_keys=True)),
    }
    if files is not None:
        arrays["files"] = _as_text(json.dumps(files[name]) for name in proposals)
    with written_whole(path) as file:
        np.savez_compressed(file, **arrays)


def _as_text(lines: Iterable[str]) -> NDArray[np.str_]:
    return np.array(list(lines), dtype=np.str_)


class Shard(NamedTuple):
    """A shard in memory; the arrays are described at the top of this file."""

    path: Path
    names: list[str]
    offsets: NDArray[np.int64]
    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]
    settings: dict[str, Any]
    files: dict[str, FileIdentity]  # by name; empty where the file does not tell

    def proposals(self, index: int) -> Proposals:
        """Those of the image `names[index]`."""
        rows = slice(self.offsets[index], self.offsets[index + 1])
        return Proposals(self.boxes[rows], self.scores[rows])


def read_shard(path: str | Path) -> Shard:
    """Read one `.npz` file of proposals.

    Raises:
        OSError: there is no such file.
        ValueError: it is not a shard, or damaged.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in _ARRAYS}
            files = file.get("files")
        names, offsets, boxes, scores, settings = arrays.values()
        belong_together = (
            all(arrays[name].ndim == ndim for name, (ndim, _) in _ARRAYS.items())
            and all(arrays[name].dtype.kind == kind for name, (_, kind) in _ARRAYS.items())
            and boxes.shape[1] == 4
            and len(offsets) == len(names) + 1
            and offsets[0] == 0
            and len(boxes) == len(scores) == offsets[-1]
            and bool((np.diff(offsets) >= 0).all())
            and (files is None or (files.shape == names.shape and files.dtype.kind == "U"))
        )
        if not belong_together:
            raise ValueError("arrays do not belong together")
        return Shard(
            Path(path),
            names.tolist(),
            offsets,
            boxes,
            scores,
            settings=dict(json.loads(settings.item())),
            files={}
            if files is None
            else dict(zip(names.tolist(), map(_identity, files.tolist()), strict=True)),
        )
    except _NOT_A_SHARD as error:
        if isinstance(error, OSError) and error.filename is not None:
            raise  # about the file, not its content
        raise ValueError(f"{path}: not a file of proposals (.npz), or damaged ({error})") from error


def _identity(text: str) -> FileIdentity:
    return list(json.loads(text))


class ProposalFile:
    """Proposals computed before, by image name.

        proposals = ProposalFile("proposals/")
        boxes = proposals.boxes("val/ILSVRC2012_val_00000001.JPEG")

    An image is found by its name as stored, or else by its file name without folder and suffix, if only one
    stored image has that.

    Args:
        paths: shards, folders of shards, or globs.
    """

    def __init__(self, paths: str | Path | Sequence[str | Path]) -> None:
        self.shards = [read_shard(path) for path in find_shards(paths)]
        self._places: dict[str, tuple[int, int]] = {}
        self._names_of_stem: dict[str, list[str]] = {}
        for s, shard in enumerate(self.shards):
            for index, name in enumerate(shard.names):
                if name in self._places:
                    other = self.shards[self._places[name][0]].path
                    raise ValueError(f"{shard.path}: image {name!r} is also in {other}")
                self._places[name] = s, index
                self._names_of_stem.setdefault(image_stem(name), []).append(name)

    def __len__(self) -> int:
        return len(self._places)

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __contains__(self, name: str | Path) -> bool:
        return self.stored_name(name) is not None

    def __getitem__(self, name: str | Path) -> Proposals:
        """Boxes and scores of an image.

        Raises:
            ValueError: the image is not in the files, or its name fits several.
        """
        stored = self.stored_name(name)
        if stored is None:
            where = ", ".join(str(shard.path) for shard in self.shards[:3])
            same_stem = self._names_of_stem.get(image_stem(name), [])
            if same_stem:
                raise ValueError(
                    f"{name}: several images of that name have proposals: {', '.join(same_stem)}"
                )
            raise ValueError(f"{name}: no proposals for this image in {where}")
        shard, index = self._places[stored]
        return self.shards[shard].proposals(index)

    def boxes(self, name: str | Path) -> NDArray[np.float32]:
        """(N, 4) xyxy, best-ranked first; errors as for `[name]`."""
        return self[name].boxes

    def stored_name(self, name: str | Path) -> str | None:
        """The name under which an image is stored; None if it is not, or its name fits several."""
        text = name if isinstance(name, str) else name.as_posix()
        if text in self._places:
            return text
        names = self._names_of_stem.get(image_stem(text), [])
        return names[0] if len(names) == 1 else None


def find_shards(paths: str | Path | Sequence[str | Path]) -> list[Path]:
    """Files, folders and globs -> the `.npz` files they mean, sorted within each.

    Raises:
        ValueError: a folder or glob without any.
    """
    found: list[Path] = []
    for path in [paths] if isinstance(paths, str | Path) else paths:
        if Path(path).is_dir():
            matches = sorted(Path(path).glob("*.npz"))
        elif glob.has_magic(str(path)) and not Path(path).exists():
            matches = sorted(Path(match) for match in glob.glob(str(path), recursive=True))
        else:
            matches = [Path(path)]
        if not matches:
            raise ValueError(f"{path}: no .npz files of proposals here")
        found.extend(match for match in matches if match not in found)
    if not found:
        raise ValueError("no proposals files given")
    return found


@contextmanager
def written_whole(path: str | Path) -> Iterator[IO[bytes]]:
    """A binary file that takes the name `path` when the block ends well, and otherwise leaves nothing."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    with temporary_name(path) as temporary, temporary.open("wb") as file:
        yield file


def merged(shards: Iterable[Shard]) -> dict[str, Proposals]:
    """All images of several shards, in their order."""
    return {name: shard.proposals(index) for shard in shards for index, name in enumerate(shard.names)}
