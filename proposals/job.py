"""Proposals of many images: in shards, on all cores, stopped and resumed at will, on one machine or many."""

import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from proposals.files import (
    FileIdentity,
    Proposals,
    by_rank,
    file_identity,
    find_shards,
    is_same_file,
    merged,
    read_shard,
    write_shard,
)

Image = NDArray[np.uint8]
Boxes = NDArray[np.float32]

IMAGES_PER_SHARD = 200
# How long a process that is done waits for the slowest one.
_PATIENCE = timedelta(days=30)
_WAYS_OUT = "take --overwrite or another --output"


class ShardPlan(NamedTuple):
    """A shard to make: its file, and the image files by the names they will have in it."""

    path: Path
    images: dict[str, Path]


class Process(NamedTuple):
    """Which of several processes this one is."""

    rank: int
    of: int
    on_this_machine: int  # how many share its cores


def this_process() -> Process:
    """What torchrun says in the environment; without it, the only process."""
    rank, of, on_this_machine = (
        int(os.environ.get(name, default))
        for name, default in (("RANK", 0), ("WORLD_SIZE", 1), ("LOCAL_WORLD_SIZE", 1))
    )
    return Process(rank, of, on_this_machine)


def sum_over_processes(process: Process, number: int) -> int:
    """Wait until every process has come here, and add up their numbers."""
    if process.of == 1:
        return number
    import torch
    from torch import distributed

    distributed.init_process_group("gloo", timeout=_PATIENCE)
    total = torch.tensor(number)
    distributed.all_reduce(total)
    distributed.destroy_process_group()
    return int(total)


def plan(
    images: Mapping[str, Path], output: Path, images_per_shard: int = IMAGES_PER_SHARD
) -> list[ShardPlan]:
    """Divide images into shards `proposals-00001-of-00007.npz` in the folder `output`, in their order."""
    if images_per_shard < 1:
        raise ValueError(f"images per shard are {images_per_shard}: expected at least 1")
    names = list(images)
    starts = range(0, len(names), images_per_shard)
    return [
        ShardPlan(
            output / f"proposals-{number:05}-of-{len(starts):05}.npz",
            {name: images[name] for name in names[start : start + images_per_shard]},
        )
        for number, start in enumerate(starts, start=1)
    ]


def check_output(shards: Sequence[ShardPlan], settings: Mapping[str, Any], overwrite: bool) -> None:
    """See that the shards already in the output folder are of this job; with `overwrite`, remove them.

    Raises:
        ValueError: they are of other images, also of those of the same names in another place, or other settings.
    """
    if not shards:
        raise ValueError("no images to propose boxes for")
    planned = {shard.path: shard for shard in shards}
    for path in sorted(shards[0].path.parent.glob("proposals-*-of-*.npz")):
        if overwrite:
            path.unlink()
            continue
        if path not in planned:
            raise ValueError(f"{path}: left by a job with other images; {_WAYS_OUT}")
        existing = read_shard(path)
        if existing.settings != settings:
            raise ValueError(f"{path}: made with other settings; {_WAYS_OUT}")
        strangers = set(existing.names) - set(planned[path].images)
        if strangers:
            raise ValueError(f"{path}: holds {min(strangers)}, not an image of this job; {_WAYS_OUT}")
        if len(existing.files) < len(existing.names):
            raise ValueError(f"{path}: does not tell which files its images were; {_WAYS_OUT}")
        for name, file in existing.files.items():
            place = planned[path].images[name].absolute().as_posix()
            if file[:1] != [place]:
                raise ValueError(f"{path}: its {name} is {file[0]}, not {place}; {_WAYS_OUT}")


def run_shard(
    shard: ShardPlan,
    search: Callable[[Image], Boxes],
    read: Callable[[Path], Image],
    settings: Mapping[str, Any],
    *,
    workers: int = 1,
    on_image: Callable[[], None] = lambda: None,
    on_failure: Callable[[str, Exception], None] = lambda name, error: None,
) -> int:
    """Make one shard, or what is missing of it; an image whose file has changed since is made again.

    Args:
        shard: what to make.
        search: image -> ranked boxes; called from several threads.
        read: file -> RGB image.
        settings: noted in the file.
        workers: images worked on at a time.
        on_image: called after each image of the shard, whether new, there before, or failed.
        on_failure: called with the name and the error (OSError or ValueError) of an image; it is left out of
            the shard and tried again by the next run.

    Returns:
        The number of images that failed.
    """
    existing = [read_shard(shard.path)] if shard.path.exists() else []
    files = {
        name: file
        for part in existing
        for name, file in part.files.items()
        if name in shard.images and is_same_file(file, shard.images[name])
    }
    done = {name: of_image for name, of_image in merged(existing).items() if name in files}
    outdated = sum(len(part.names) for part in existing) > len(done)
    missing = {name: path for name, path in shard.images.items() if name not in done}
    for _ in done:
        on_image()

    def propose(path: Path) -> tuple[FileIdentity, Proposals] | OSError | ValueError:
        try:
            file = file_identity(path)  # before it is read: what changes it after that is noticed
            return file, by_rank(search(read(path)))
        except (OSError, ValueError) as error:
            return error

    failed = 0
    pool = ThreadPoolExecutor(workers)
    try:
        for name, result in zip(missing, pool.map(propose, missing.values()), strict=True):
            if isinstance(result, tuple):
                files[name], done[name] = result
            else:
                failed += 1
                on_failure(name, result)
            on_image()
    finally:
        pool.shutdown(cancel_futures=True)  # when interrupted, without the images that wait
    if len(missing) > failed or outdated or not existing:
        write_shard(shard.path, {name: done[name] for name in shard.images if name in done}, settings, files)
    return failed


def collect(shards: Sequence[ShardPlan]) -> dict[str, Proposals]:
    """The proposals of all images of finished shards."""
    return merged(read_shard(path) for path in find_shards([shard.path for shard in shards]))
