"""One process or many: `torchrun` starts them, this module is where they meet.

torchrun --nproc-per-node 4 --max-restarts 3 tools/train.py finetune --config configs/finetune_ilsvrc.yaml
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor


@dataclass(frozen=True)
class Processes:
    """This process's place among those of the run."""

    rank: int = 0
    count: int = 1
    local_rank: int = 0

    @property
    def first(self) -> bool:
        """Whether this is the one that writes files and talks."""
        return self.rank == 0

    def share(self, batch_size: int) -> slice:
        """The part of every batch that this process works on.

        Raises:
            ValueError: The batch cannot be divided evenly.
        """
        if batch_size % self.count:
            raise ValueError(f"a batch of {batch_size} cannot be divided among {self.count} processes evenly")
        each = batch_size // self.count
        return slice(self.rank * each, (self.rank + 1) * each)

    def sum(self, values: Tensor) -> Tensor:
        """Sum over all processes."""
        if self.count > 1:
            dist.all_reduce(values)
        return values

    def barrier(self) -> None:
        """Wait for the others."""
        if self.count > 1:
            dist.barrier()


def was_restarted() -> bool:
    """Whether torchrun has started this process anew after another one died: it goes on from the checkpoint."""
    return _restarts() > 0


def _restarts() -> int:
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"))


@contextmanager
def processes(device: torch.device) -> Iterator[Processes]:
    """Join the other processes, if torchrun started some.

    Raises:
        OSError: In all processes that are left when one of them dies.
    """
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if count == 1:
        yield Processes()
        return
    local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    if device.type == "cuda":
        torch.cuda.set_device(local_rank)
    # The first process may prepare proposals and features for hours while the others wait for it; one that
    # dies is noticed at once all the same, since its connections close.
    backend = "nccl" if device.type == "cuda" else "gloo"
    timeout = timedelta(hours=24)
    store, rank, _ = next(dist.rendezvous("env://", timeout=timeout))  # type: ignore[attr-defined]
    # torchrun's store outlives a restart, and in it the addresses of the processes that are gone
    store = dist.PrefixStore(f"start {_restarts()}", store)  # type: ignore[attr-defined]
    dist.init_process_group(backend, store=store, rank=rank, world_size=count, timeout=timeout)
    here = Processes(dist.get_rank(), count, local_rank)
    try:
        yield here
    except (RuntimeError, dist.DistBackendError) as error:
        reason = str(error).splitlines()[0]
        if not any(
            word in reason.lower() for word in ("connection", "gloo", "nccl", "peer", "socket", "timed out")
        ):
            raise  # a defect of ours
        raise OSError(
            f"process {here.rank} of {count} lost another one ({reason}); the last checkpoint is intact, go on"
            " with --resume"
        ) from None
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()
