"""Scoring regions: the network alone, and whole images, beside the plain way.

    python tools/benchmark.py detect --images val/
    python tools/benchmark.py detect --images photo.jpg --config configs/zero_shot.yaml
    python tools/benchmark.py detect --images val/ --device cuda --precision bfloat16

The plain way is what a script would do with the paper in hand: eager PyTorch in its default (NCHW) layout, one
pass for every box of selective search's fast mode (R-CNN's count, at most --plain-boxes). It takes minutes for an
image, so --plain-images bounds how many of the images it is run on; each is run both ways, one after the other. Of an
ensemble it runs the first network, and its seconds count once for each member.
Both run on the device; the float32 of the plain way is PyTorch's without TF32. The machine's rate is that of a product
of float32 matrices, measured in turns with the networks.
"""

import argparse
import os
import time
from collections.abc import Callable, Iterable
from copy import deepcopy
from dataclasses import replace
from functools import partial
from typing import get_args

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import at_least_one, none_or_more
from benchmarks.images import exit_code, read_images
from detector.configuration import DetectorConfig, build_detector, choose_device, sources
from detector.images import find_images
from detector.options import read_config
from detector.rcnn import RCNN
from detector.region_classifier import RegionClassifier
from detector.regions import warp_regions
from detector.runtime import Precision, Runtime, arithmetic, choose_runtime
from detector.weights import load_weights
from proposals import SelectiveSearch

MATRIX = 2048  # side of the matrices that stand for the machine


def main(argv: list[str]) -> int:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(
        prog="benchmark.py detect",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--config", metavar="FILE", help="YAML of a detector; default: what detect.py does by default")
    add("--images", nargs="+", metavar="PATH", help="files, folders, glob patterns; none: the network only")
    add(
        "--plain-images",
        type=none_or_more,
        default=1,
        metavar="N",
        help="images that are also done the plain way",
    )
    add(
        "--plain-boxes",
        type=at_least_one,
        default=2000,
        metavar="N",
        help="boxes the plain way scores, at most",
    )
    add("--device", choices=("cpu", "cuda"), default="cpu", help="where the networks run")
    add(
        "--precision",
        choices=get_args(Precision),
        help="of the detector on whole images, by default as configured; the networks alone run in all",
    )
    add(
        "--batch-size",
        type=at_least_one,
        metavar="N",
        help="of the eager networks; default: 16, on a GPU 128",
    )
    add("--repeats", type=at_least_one, default=5, metavar="N", help="turns of each side")
    arguments = parser.parse_args(argv)
    config = read_config(arguments.config) if arguments.config else DetectorConfig()
    precision = arguments.precision or config.precision
    config = replace(config, device=arguments.device, precision=precision)
    device = choose_device(arguments.device)
    images = find_images(arguments.images) if arguments.images else []
    batch_size = arguments.batch_size or (16 if device.type == "cpu" else 128)

    console = Console(highlight=False)
    network = load_weights(sources(config)[0], temperature=config.temperature)
    console.print(network_table(network, device, batch_size, arguments.repeats))
    failed: list[str] = []
    if images:
        pixels = (pixels for _, pixels in read_images(images, failed))
        plain = Plain(network, device, config, arguments.plain_boxes, batch_size)
        members = len(sources(config))
        table = image_table(pixels, build_detector(config), plain, arguments.plain_images, members)
        if len(failed) < len(images):
            console.print(table)
    return exit_code(failed, len(images))


def eager_nchw(classifier: RegionClassifier, device: torch.device) -> Runtime:
    """The module as it comes, in PyTorch's default layout."""
    classifier = classifier.eval().to(device).to(memory_format=torch.contiguous_format)

    @torch.inference_mode()
    def run(regions: np.ndarray) -> np.ndarray:
        pixels = torch.from_numpy(regions).to(device).permute(0, 3, 1, 2).contiguous()
        with arithmetic(device, "float32"):
            return classifier(pixels).cpu().numpy()

    return run


def in_fours(run: Runtime) -> Runtime:
    """In the batches of `RegionScorer`."""
    return lambda regions: np.concatenate(
        [run(part) for part in np.split(regions, range(4, len(regions), 4))]
    )


def multiply_adds(classifier: RegionClassifier) -> float:
    """Of one region, in the convolutions and linear layers of the network itself.

    Half of the operations that PyTorch counts; the banded convolutions of the LRN are left out.
    """
    size = classifier.preprocessing.size
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        classifier.network(torch.zeros(1, 3, size, size))
    whole = counter.get_total_flops()
    norms = sum(sum(flops.values()) for name, flops in counter.get_flop_counts().items() if ".norm" in name)
    return (whole - norms) / 2


def ways(classifier: RegionClassifier, device: torch.device) -> dict[str, Runtime]:
    """The plain way, and those of the detector on this device; the layouts need modules of their own."""
    size = classifier.preprocessing.size
    plain = {"eager NCHW": eager_nchw(deepcopy(classifier), device)}
    if device.type == "cpu":
        compiled = partial(choose_runtime, classifier, "openvino", size=size)
        return plain | {
            "eager channels-last": choose_runtime(deepcopy(classifier), "torch"),
            "OpenVINO": in_fours(compiled()),
            "OpenVINO, bfloat16": in_fours(compiled(precision="bfloat16")),
        }
    return plain | {
        f"eager, {precision}": choose_runtime(deepcopy(classifier), "torch", device, precision=precision)
        for precision in get_args(Precision)
    }


def network_table(classifier: RegionClassifier, device: torch.device, batch_size: int, repeats: int) -> Table:
    """Regions a second of every runtime, in turns, and the share of the machine's matrix rate."""
    size = classifier.preprocessing.size
    regions = np.random.default_rng(0).integers(0, 256, (batch_size, size, size, 3), dtype=np.uint8)
    matrix = torch.randn(MATRIX, MATRIX, device=device)
    work = multiply_adds(classifier)
    runtimes = ways(classifier, device)

    def multiply() -> None:
        product = matrix @ matrix
        product[0, 0].item()  # a GPU says so when it has done

    answers = {name: run(regions) for name, run in runtimes.items()}
    best = dict.fromkeys(runtimes, float("inf"))
    product = float("inf")
    for _ in range(repeats):
        for name, run in runtimes.items():
            best[name] = min(best[name], _seconds(partial(run, regions)))
        product = min(product, _seconds(multiply))
    rate = MATRIX**3 / product

    machine = f"{os.cpu_count()} cores" if device.type == "cpu" else torch.cuda.get_device_name(device)
    table = Table(
        title=f"the network alone: {work / 1e9:.2f} G multiply-adds a region, {machine},"
        f" matrix products at {rate / 1e9:.0f} G/s",
        caption="off by: the largest difference from eager NCHW's probabilities",
    )
    for column in ("", "regions/s", "beside eager NCHW", "of the matrix rate", "off by"):
        table.add_column(column, justify="left" if not column else "right")
    for name, seconds in best.items():
        speed = batch_size / seconds
        table.add_row(
            name,
            f"{speed:.1f}",
            f"{best['eager NCHW'] / seconds:.2f}",
            f"{speed * work / rate:.0%}",
            f"{np.abs(answers[name] - answers['eager NCHW']).max():.1e}",
        )
    return table


class Plain:
    """Every box of an image through the eager network; `boxes` is how many they were."""

    def __init__(
        self,
        classifier: RegionClassifier,
        device: torch.device,
        config: DetectorConfig,
        most: int,
        batch_size: int,
    ) -> None:
        self.search = SelectiveSearch(
            **{**config.proposals, "mode": "fast"}, max_boxes=most, seed=config.seed
        )
        self.convention = classifier.preprocessing
        self.run = eager_nchw(classifier, device)
        self.batch_size = batch_size
        self.boxes = 0

    def __call__(self, image: np.ndarray) -> None:
        boxes = self.search(image)
        self.boxes = len(boxes)
        size, fill = self.convention.size, self.convention.mean_colour()
        for start in range(0, len(boxes), self.batch_size):
            batch = boxes[start : start + self.batch_size]
            self.run(warp_regions(image, batch, size=size, context=16, fill=fill))


def image_table(
    images: Iterable[np.ndarray], detector: RCNN, plain: Plain, plain_images: int, members: int
) -> Table:
    """Seconds of whole images, after a warm-up."""
    table = Table(title="whole images, from pixels to detections")
    plain_way = "plain way" if members == 1 else f"plain way, times {members}"
    for column in ("image", "detector", "boxes", plain_way, "its boxes", "times faster"):
        table.add_column(column, justify="right")
    every, scored = [], 0
    for number, image in enumerate(images):
        if not number:
            detector(image)  # to warm up
        before = detector.timer.counts["boxes"]
        every.append(seconds := _seconds(partial(detector, image)))
        boxes = detector.timer.counts["boxes"] - before
        scored += boxes
        if number < plain_images:
            slow = members * _seconds(partial(plain, image))
            table.add_row(
                f"{image.shape[1]}x{image.shape[0]}",
                f"{seconds:.2f} s",
                str(boxes),
                f"{slow:.1f} s",
                str(plain.boxes),
                f"{slow / seconds:.1f}",
            )
    if every:
        table.caption = (
            f"detector, median of {len(every)} images: {np.median(every):.2f} s;"
            f" {scored / len(every):.0f} boxes on average"
        )
    return table


def _seconds(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start
