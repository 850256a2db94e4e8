"""The training loop: batches in, better weights out, stopped and resumed at will, on one process or many."""

import math
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from rich.console import Console
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader

from detector.training.batches import Batches, Steps
from detector.training.checkpoint import FILE, load_checkpoint, save_checkpoint
from detector.training.curves import draw_curves
from detector.training.display import bar
from detector.training.interruption import interruptible, until
from detector.training.processes import Processes
from detector.training.ranges import above, at_least, share
from detector.training.run_log import RunLog
from detector.training.schedule import Schedule

Losses = Callable[[Any, Any], dict[str, Tensor]]  # outputs, targets -> sums over the batch, by name
_SECONDS = 60.0  # most between two checkpoints
PRECISIONS = {"float32": None, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True)
class FitConfig:
    """How weights are learnt.

    Attributes:
        epochs: Passes over the object regions, or images.
        steps: Steps instead of epochs.
        learning_rate: At first, see `schedule`.
        head_factor: How many times faster the output layer learns than the stages before it.
        momentum: Of stochastic gradient descent.
        weight_decay: Likewise.
        schedule: How the learning rate goes down.
        averaging: Decay of the running (Polyak) average of the weights, which is the result; 0 averages nothing. It
            begins with a short memory, so that a short run does not end where it began.
        precision: Of the network's arithmetic; the weights stay float32. GPUs that have TF32 take it for the
            convolutions of `float32`.
        accumulate: Parts that a batch is computed in, where it does not fit into memory.
        clip_norm: Largest norm of the gradient; None lets it be.
        log_every: Steps between lines of the log.
        checkpoint_every: Most steps between checkpoints; there is one at least every minute, too.
        evaluate_every: Steps between measurements on the validation images; 0 measures at the end.
        workers: Processes that prepare batches ahead; 0 prepares them in between.
    """

    epochs: float = 8.0
    steps: int | None = None
    learning_rate: float = 0.001
    head_factor: float = 1.0
    momentum: float = 0.9
    weight_decay: float = 2e-4
    schedule: Schedule = field(default_factory=Schedule)
    averaging: float = 0.999
    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    accumulate: int = 1
    clip_norm: float | None = None
    log_every: int = 10
    checkpoint_every: int = 200
    evaluate_every: int = 0
    workers: int = 0

    def __post_init__(self) -> None:
        """Refuse what makes no sense."""
        above(self, 0, "epochs", "learning_rate", "head_factor", "clip_norm", part="fit")
        at_least(self, 1, "steps", "accumulate", "log_every", "checkpoint_every", part="fit")
        at_least(self, 0, "weight_decay", "evaluate_every", "workers", part="fit")
        share(self, "momentum", "averaging", part="fit", below_one=True)

    def what_decides_the_result(self) -> dict[str, Any]:
        """All but what only decides what is told, and when."""
        bystanders = ("log_every", "checkpoint_every", "evaluate_every", "workers")
        return {name: value for name, value in asdict(self).items() if name not in bystanders}

    def number_of_steps(self, steps_per_epoch: int) -> int:
        """How many steps a run has."""
        return math.ceil(self.epochs * steps_per_epoch) if self.steps is None else self.steps


def fit(
    network: nn.Module,
    batches: Batches,
    losses: Losses,
    config: FitConfig,
    *,
    folder: Path,
    settings: dict[str, Any],
    seed: int,
    resume: bool,
    console: Console,
    device: torch.device,
    here: Processes | None = None,
    evaluate: Callable[[nn.Module], dict[str, float]] | None = None,
) -> nn.Module:
    """Train and return the averaged network.

    The gradient of a step is that of the sum of the losses over the whole batch divided by its size, however many
    processes share it.

    Args:
        network: The parameters that require gradients are trained.
        losses: Network outputs and targets -> sums over their rows.
        folder: Takes `checkpoint.safetensors`, `log.csv`, `curves.png` and `tensorboard/`.
        settings: What the result depends on: a checkpoint of other settings is not resumed, see `load_checkpoint`.
        seed: Of dropout.
        resume: Go on from the checkpoint. There is one from the start on, at least every minute, and after Ctrl-C
            of a run of one process.
        here: This process among those of the run.
        evaluate: Measures a network: columns of the log by name; all processes call it.

    Raises:
        OSError, ValueError: No checkpoint to go on from, or the weights are no numbers any more.
        KeyboardInterrupt: Ctrl-C.
    """
    here = here or Processes()
    steps = config.number_of_steps(batches.steps_per_epoch)
    own = here.share(batches.batch_size)
    network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    named = [(name, part) for name, part in network.named_parameters() if part.requires_grad]
    trained = [parameter for _, parameter in named]
    head = [parameter for name, parameter in named if "classifier." in name]
    body = [parameter for name, parameter in named if "classifier." not in name]
    factors = (1.0, config.head_factor)
    optimizer = torch.optim.SGD(
        [{"params": body}, {"params": head}],
        lr=config.learning_rate,
        momentum=config.momentum,
        weight_decay=config.weight_decay,
    )
    average = AveragedModel(
        network, multi_avg_fn=partial(_moving_average, config.averaging), use_buffers=True
    )
    half = PRECISIONS[config.precision]
    scaler = torch.amp.GradScaler(device.type, enabled=half is torch.float16)
    path, done = folder / FILE, 0
    if resume:
        done, state = load_checkpoint(
            path, network=network, average=average, optimizer=optimizer, settings=settings
        )
        if state:
            scaler.load_state_dict(state)
        if here.first:
            console.print(f"resumed after step {done} of {steps}")
    model = network if here.count == 1 else DistributedDataParallel(network)
    loader: DataLoader[Any] = DataLoader(
        Steps(batches, done, steps, own),
        batch_size=None,
        num_workers=config.workers,
        pin_memory=device.type == "cuda",
        # Not forked: a copy of this process would have its locks, but not the threads that hold them.
        multiprocessing_context="spawn" if config.workers else None,
    )

    def checkpoint(step: int) -> None:
        _check_finite(network, step)
        if here.first:
            save_checkpoint(
                path,
                step=step,
                network=network,
                average=average,
                optimizer=optimizer,
                scaler=scaler.state_dict(),
                settings=settings,
            )

    if not resume:  # an older one is of another run, whose log ends here, too
        checkpoint(done)
    with (
        RunLog(folder, done, here.first) as log,
        bar(console, "training") as progress,
        interruptible(here.count == 1) as asked,
    ):
        since, clock, saved, finished = done, time.perf_counter(), time.monotonic(), done
        for step, batch in enumerate(until(asked, _in_one_sentence(loader)), start=done):
            progress(step, steps)
            rate = config.learning_rate * config.schedule.factor_at(
                step, steps=steps, steps_per_epoch=batches.steps_per_epoch
            )
            for group, factor in zip(optimizer.param_groups, factors, strict=True):
                group["lr"] = rate * factor
            # Each step has its own random numbers (dropout), so that a resumed run draws the same ones.
            torch.manual_seed((seed * 1_000_003 + step) * 1009 + here.rank)
            sums = _gradient(model, batch, losses, scaler, config, device, batches.batch_size, here.count)
            if config.clip_norm is not None:
                scaler.unscale_(optimizer)
                nn.utils.clip_grad_norm_(trained, config.clip_norm)
            scaler.step(optimizer)
            scaler.update()
            optimizer.zero_grad(set_to_none=True)
            if config.averaging:
                average.update_parameters(network)
            finished, last = step + 1, step + 1 == steps
            measured = evaluate and (
                last or (config.evaluate_every > 0 and finished % config.evaluate_every == 0)
            )
            if finished % config.log_every == 0 or last or measured:
                names = list(sums)
                means = here.sum(torch.stack([sums[name] for name in names])) / batches.batch_size
                values = dict(zip(names, means.tolist(), strict=True))
                loss = sum(values.values())
                if not math.isfinite(loss):
                    raise ValueError(f"the loss is {loss} after step {finished}: {_DIVERGED}")
                seconds = time.perf_counter() - clock
                speed = (finished - since) * batches.batch_size / max(seconds, 1e-9)
                values |= {"loss": loss, "learning_rate": rate, "regions_per_second": speed}
                values["epoch"] = finished / batches.steps_per_epoch
                if evaluate and measured:
                    values |= evaluate(average.module if config.averaging else network)
                log.write(finished, values)
                since, clock = finished, time.perf_counter()
            if finished % config.checkpoint_every == 0 or last or time.monotonic() - saved > _SECONDS:
                checkpoint(finished)
                saved = time.monotonic()
        if finished < steps:
            checkpoint(finished)
            console.print(f"stopped after step {finished} of {steps}; go on with --resume")
            raise KeyboardInterrupt
        progress(steps, steps)
    if here.first:
        draw_curves(folder / "log.csv", folder / "curves.png")
    return average.module if config.averaging else network


def _moving_average(decay: float, averages: list[Tensor], weights: list[Tensor], count: Tensor | int) -> None:
    """After `count` averaged steps no more than (1 + count) / (10 + count) of the average is kept."""
    get_ema_multi_avg_fn(min(decay, (1 + int(count)) / (10 + int(count))))(averages, weights, count)


def _in_one_sentence(loader: Iterable[Any]) -> Iterator[Any]:
    """The batches; what another process could not read is said without its traceback."""
    try:
        yield from loader
    except (OSError, ValueError) as error:
        _, traceback, text = str(error).partition("Original Traceback")
        if not traceback:
            raise
        raise type(error)(text.strip().splitlines()[-1].partition(": ")[2]) from None


_DIVERGED = "lower --fit.learning_rate, or set --fit.clip_norm; the last checkpoint is intact"


def _check_finite(network: nn.Module, finished: int) -> None:
    """Keep weights that have diverged out of the checkpoint: the loss tells only of those before the last step."""
    if not all(bool(parameter.isfinite().all()) for parameter in network.parameters()):
        raise ValueError(f"some weights are no numbers any more after step {finished}: {_DIVERGED}")


def _gradient(
    model: nn.Module,
    batch: Any,
    losses: Losses,
    scaler: torch.amp.GradScaler,
    config: FitConfig,
    device: torch.device,
    batch_size: int,
    count: int,
) -> dict[str, Tensor]:
    """Add up the gradients of a batch, part by part; returns the sums of the losses, by name."""
    model.train()
    half = PRECISIONS[config.precision]
    rows = len(batch.inputs)
    each = -(-rows // config.accumulate)
    sums: dict[str, Tensor] = {}
    for start in range(0, rows, each):
        part = slice(start, start + each)
        inputs = batch.inputs[part].to(device, non_blocking=True)
        if inputs.ndim == 4:
            inputs = inputs.contiguous(memory_format=torch.channels_last)
        last = start + each >= rows
        apart = model.no_sync() if isinstance(model, DistributedDataParallel) and not last else nullcontext()
        with apart:
            with torch.autocast(device.type, dtype=half, enabled=half is not None):
                found = losses(model(inputs), batch.targets[part].to(device))
            # DDP takes the mean over the processes, and this is to be the sum over all of them.
            total = torch.stack(list(found.values())).sum() * (count / batch_size)
            scaler.scale(total).backward()
        for name, value in found.items():
            sums[name] = sums.get(name, torch.zeros_like(value)) + value.detach()
    return sums
