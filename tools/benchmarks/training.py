"""Does the data path keep up? Fine-tuning beside a bare loop of the same network on random tensors.

    python tools/benchmark.py training --weights bvlc --annotations instances.json --images photos/
    python tools/benchmark.py training ... --size 224 --steps 6 --rounds 3

Both sides take the same steps: forward, losses, backward, optimiser. One draws its regions from photos (read,
warped, mirrored) as `train.py finetune` does, with --workers processes ahead; the other has one random batch in
memory. They take turns, and the fastest turn of each counts, since what else the machine does only slows down.
"""

import argparse
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.utils.data import DataLoader

from benchmarks import at_least_one, none_or_more
from detector.googlenet import GoogLeNet
from detector.training.batches import Batch, PixelBatches, Steps
from detector.training.data import DataConfig, read_regions
from detector.training.finetune import Trainee
from detector.training.head import detection_head
from detector.training.losses import region_losses
from detector.training.problems import Problems
from detector.training.sampling import BatchPlan
from detector.training.start import start_weights


def main(argv: list[str]) -> int:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(
        prog="benchmark.py training",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--annotations", required=True, metavar="FILE", help="COCO JSON, or a folder of XML")
    add("--images", required=True, metavar="DIR", help="folder of the images")
    add("--weights", metavar="NAME", help="as for detection")
    add("--first", type=at_least_one, default=20, metavar="N", help="images used, default: %(default)s")
    add("--num-proposals", type=at_least_one, default=200, help="boxes of an image, default: %(default)s")
    add("--size", type=at_least_one, default=224, help="side of a region in pixels, default: %(default)s")
    add(
        "--batch",
        type=at_least_one,
        default=32,
        help="regions in a step, a quarter objects, default: %(default)s",
    )
    add("--steps", type=at_least_one, default=4, help="steps of a turn, default: %(default)s")
    add("--rounds", type=at_least_one, default=3, help="turns of each side, default: %(default)s")
    add(
        "--workers", type=none_or_more, default=1, help="processes that prepare batches, default: %(default)s"
    )
    arguments = parser.parse_args(argv)

    classifier, _ = start_weights(arguments.weights, arguments.size)
    table = read_regions(
        DataConfig(
            [arguments.annotations], [arguments.images], first=arguments.first,
            num_proposals=arguments.num_proposals,
        ),
        Problems(),
        seed=0,
        keep=None,
    )  # fmt: skip
    plan = BatchPlan(
        table, positives=arguments.batch // 4, backgrounds=arguments.batch - arguments.batch // 4
    )
    batches = PixelBatches(table, plan, preprocessing=classifier.preprocessing)
    network = classifier.network
    assert isinstance(network, GoogLeNet)
    network.classifier = detection_head(network.classifier, table.training_set.classes, quality=True, seed=0)
    model = Trainee(network, classifier.normalize, None).train().to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-5, momentum=0.9)
    fixed = batches.batch(0, slice(0, plan.batch_size))
    noise = Batch(torch.randint(0, 256, fixed.inputs.shape, dtype=torch.uint8), fixed.targets)

    def bare() -> Iterator[Batch]:
        while True:
            yield noise

    loader: DataLoader[Any] = DataLoader(
        Steps(batches, 0, arguments.rounds * arguments.steps + 1, slice(0, plan.batch_size)),
        batch_size=None,
        num_workers=arguments.workers,
    )
    photos, tensors = iter(loader), bare()
    step = _stepper(model, optimizer)
    step(next(photos))  # warm-up, and the workers are under way
    best = {"photos": float("inf"), "random tensors": float("inf")}
    for _ in range(arguments.rounds):
        for name, source in (("random tensors", tensors), ("photos", photos)):
            start = time.perf_counter()
            for _ in range(arguments.steps):
                step(next(source))
            best[name] = min(best[name], time.perf_counter() - start)
    table_out = Table("", "regions/s", "share")
    for name, seconds in best.items():
        speed = arguments.steps * plan.batch_size / seconds
        table_out.add_row(name, f"{speed:.2f}", f"{best['random tensors'] / seconds:.3f}")
    Console(highlight=False).print(table_out)
    seconds = _data_seconds(batches, arguments.steps)
    share = seconds / (best["random tensors"] / arguments.steps)
    print(f"preparing a batch takes {seconds:.3f} s on one core, {share:.1%} of a bare step")
    return 0


def _stepper(model: Trainee, optimizer: torch.optim.Optimizer) -> Callable[[Batch], Tensor]:
    def step(batch: Batch) -> Tensor:
        inputs = batch.inputs.contiguous(memory_format=torch.channels_last)
        loss = torch.stack(
            list(region_losses(model(inputs), batch.targets, quality_weight=1.0).values())
        ).sum()
        loss = loss / len(inputs)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return loss.detach()

    return step


def _data_seconds(batches: PixelBatches, steps: int) -> float:
    """Seconds that reading and warping one batch takes, the fastest of some."""
    best = float("inf")
    for step in range(max(steps, 2)):
        start = time.perf_counter()
        batches.batch(1000 + step, slice(0, batches.batch_size))
        best = min(best, time.perf_counter() - start)
    return best
