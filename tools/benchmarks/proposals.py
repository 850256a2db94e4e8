"""Selective search: seconds, recall and MABO of every mode, beside OpenCV contrib's fast mode.

    python tools/benchmark.py proposals --images val/ --annotations instances.json
    python tools/benchmark.py proposals --images val/ --annotations xml/ --image-list val.txt \\
        --contrib-python contrib/bin/python

All sides get the same pixels, resized to width 500, one after the other on each image. Seconds are the median
over the images of the fastest of --repeats turns, after a warm-up; CPU seconds, summed over the threads, hardly
depend on what else the machine does. OpenCV contrib cannot live beside opencv-python: give the interpreter of an
environment of its own (`python -m venv contrib && contrib/bin/pip install opencv-contrib-python numpy`).
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from rich.table import Table

from benchmarks import at_least_one
from benchmarks.images import exit_code, read_images
from detector.command_line import check_file, check_outputs
from detector.images import ImageFile, find_images
from eval import recall_report
from eval.atomic import writing
from eval.inputs import read_annotations
from eval.recall import RecallResult
from proposals import SelectiveSearch

WIDTH = 500
NUMBERS = (100, 200, 300, 500, 700, 1000, 1400, 2000)
SIDES: dict[str, dict[str, Any]] = {
    "single": {"mode": "single"},
    "fast": {"mode": "fast"},
    "fast, superpixel_scale 2": {"mode": "fast", "superpixel_scale": 2.0},
    "fast, min_box_side 20": {"mode": "fast", "min_box_side": 20},
    "quality": {"mode": "quality"},
}
CONTRIB = "OpenCV contrib fast"
# Recall, MABO and boxes on VOC 2007 test, Uijlings et al. 2013, tables 5 and 6.
PAPER = {"single": (0.840, 0.690, 289), "fast": (0.980, 0.804, 2134), "quality": (0.991, 0.879, 10097)}

Boxes = NDArray[np.float32]
Search = Callable[[NDArray[np.uint8]], Boxes]

# Runs in the other interpreter: a path of an RGB array a line in, seconds a line out, the boxes beside the path.
_CONTRIB_PROGRAM = """
import sys, time, cv2, numpy as np
create = cv2.ximgproc.segmentation.createSelectiveSearchSegmentation
print(cv2.__version__, flush=True)
for line in sys.stdin:
    path = line.rstrip("\\n")
    image = np.ascontiguousarray(np.load(path)[:, :, ::-1])
    start, cpu = time.perf_counter(), time.process_time()
    search = create()
    search.setBaseImage(image)
    search.switchToSelectiveSearchFast()
    boxes = search.process()
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    np.save(path + ".boxes", boxes)
    print(seconds, cpu, flush=True)
"""
_CANNOT_RUN = "--contrib-python: this interpreter cannot run OpenCV contrib's selective search"


class Took(NamedTuple):
    """What one search cost, in seconds."""

    seconds: float
    cpu: float


class ContribSearch:
    """OpenCV contrib's fast mode in a process of its own; `took` is what its last search took there."""

    def __init__(self, python: str, folder: Path) -> None:
        self._path = folder / "image.npy"
        self._process = subprocess.Popen(
            [python, "-c", _CONTRIB_PROGRAM],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            # This program's own packages must not shadow those of the other interpreter.
            env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
        )
        self.version = self._answer()
        self.took = Took(0, 0)

    def __call__(self, image: NDArray[np.uint8]) -> Boxes:
        """Ranked boxes (N, 4) xyxy of an RGB image."""
        np.save(self._path, image)
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(f"{self._path}\n")
            self._process.stdin.flush()
        except BrokenPipeError:  # by that name it would say that who reads what we print has gone
            raise ValueError(_CANNOT_RUN) from None
        self.took = Took(*map(float, self._answer().split()))
        boxes = np.load(f"{self._path}.boxes.npy").astype(np.float32).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        return boxes

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()

    def _answer(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise ValueError(_CANNOT_RUN)
        return line.strip()


def main(argv: list[str]) -> int:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(
        prog="benchmark.py proposals",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--images", nargs="+", required=True, metavar="PATH", help="files, folders, glob patterns")
    add("--annotations", required=True, metavar="PATH", help="COCO JSON, or ILSVRC or VOC XML")
    add("--image-list", metavar="FILE", help="images that count: lines `name`, or of XML `name index`")
    add("--every", type=at_least_one, default=1, metavar="N", help="take every Nth annotated image")
    add("--repeats", type=at_least_one, default=1, metavar="N", help="turns of each side on each image")
    add("--sides", nargs="+", choices=SIDES, default=list(SIDES), metavar="SIDE", help=", ".join(SIDES))
    add("--contrib-python", metavar="PYTHON", help="an interpreter that has opencv-contrib-python")
    add("--plot", metavar="FILE", help="draw the curves into this image file")
    add("--json", metavar="FILE", help="write the table's numbers here")
    arguments = parser.parse_args(argv)

    found = find_images(arguments.images)
    _check_outputs(arguments, found)
    annotations = read_annotations(arguments.annotations, image_list=arguments.image_list)
    files = {image.name: image.path for image in found}
    own_names = annotations.images.named_as(list(files))
    images = [ImageFile(files[own], name) for name, own in own_names.items()][:: arguments.every]
    if not images:
        raise ValueError(f"{arguments.annotations}: annotates none of the images")

    with tempfile.TemporaryDirectory() as folder:
        searches: dict[str, Search] = {name: SelectiveSearch(**SIDES[name]) for name in arguments.sides}
        contrib = None
        if arguments.contrib_python:
            contrib = searches[CONTRIB] = ContribSearch(arguments.contrib_python, Path(folder))
        failed: list[str] = []
        took, boxes = _run(searches, images, arguments.repeats, failed)
        if contrib is not None:
            contrib.close()
    if len(failed) == len(images):
        return exit_code(failed, len(images))

    results = {name: recall_report.measure(annotations, found.get, NUMBERS) for name, found in boxes.items()}
    console = Console(highlight=False)
    objects = len(next(iter(results.values())).labels)
    version = f", OpenCV contrib {contrib.version}" if contrib else ""
    console.print(f"{objects} objects in {len(images) - len(failed)} images, {os.cpu_count()} cores{version}")
    console.print(_quality(results))
    console.print(_costs(took))
    if contrib is not None:
        for name in arguments.sides:
            console.print(_beside_contrib(name, results[name], results[CONTRIB]))
    if arguments.json:
        with writing(arguments.json) as file:
            json.dump(_numbers(results, took), file, indent=1)
    if arguments.plot:
        recall_report.write_plot(arguments.plot, results)
    return exit_code(failed, len(images))


def _check_outputs(arguments: argparse.Namespace, images: list[ImageFile]) -> None:
    """Refuse, before the work, results that have no place or would take that of what is read."""
    read: list[tuple[str, str | Path]] = [("images", image.path) for image in images]
    read += [("annotations", arguments.annotations)]
    if arguments.image_list:
        read += [("image-list", arguments.image_list)]
    written = [(name, path) for name in ("json", "plot") if (path := getattr(arguments, name))]
    for name, path in written:
        check_file(path, name)
    check_outputs(written, read)
    if arguments.plot:
        recall_report.check_picture(arguments.plot)


def _run(
    searches: dict[str, Search], images: list[ImageFile], repeats: int, failed: list[str]
) -> tuple[dict[str, list[Took]], dict[str, dict[str, Boxes]]]:
    """Every search on every image that can be read -> its cost, and boxes in pixels of the original by image name."""
    took: dict[str, list[Took]] = {name: [] for name in searches}
    boxes: dict[str, dict[str, Boxes]] = {name: {} for name in searches}
    console = Console(stderr=True)
    shown = track(images, "images", console=console, disable=not console.is_terminal)
    for position, (image_name, image) in enumerate(read_images(shown, failed)):
        height, width = image.shape[:2]
        size = WIDTH, max(1, round(height * WIDTH / width))
        interpolation = cv2.INTER_AREA if width > WIDTH else cv2.INTER_CUBIC
        resized = np.asarray(cv2.resize(image, size, interpolation=interpolation), dtype=np.uint8)
        scale = np.array([width / size[0], height / size[1]] * 2)
        turns: dict[str, list[Took]] = {name: [] for name in searches}
        for turn in range(repeats + (position == 0)):
            for name, search in searches.items():
                start, cpu = time.perf_counter(), time.process_time()
                found = search(resized)
                cost = Took(time.perf_counter() - start, time.process_time() - cpu)
                if turn or position:  # the very first is a warm-up
                    turns[name].append(search.took if isinstance(search, ContribSearch) else cost)
                boxes[name][image_name] = (found * scale).astype(np.float32)
        for name, costs in turns.items():
            took[name].append(Took(*(min(cost) for cost in zip(*costs, strict=True))))
    return took, boxes


def _medians(took: list[Took]) -> Took:
    return Took(*(float(np.median(costs)) for costs in zip(*took, strict=True)))


def _numbers(results: dict[str, RecallResult], took: dict[str, list[Took]]) -> dict[str, Any]:
    return {
        name: {
            "seconds": _medians(took[name]).seconds,
            "cpu_seconds": _medians(took[name]).cpu,
            "boxes": result.mean_proposals,
            "recall": float(result.recall(0.5)[-1]),
            "mabo": float(result.mabo()[-1]),
            "numbers": result.numbers.tolist(),
            "recall_at": result.recall(0.5).tolist(),
            "mabo_at": result.mabo().tolist(),
        }
        for name, result in results.items()
    }


# Two narrow tables: where 80 columns are all there is, as through a pipe, one would lose its headings.
def _quality(results: dict[str, RecallResult]) -> Table:
    table = _table("", "boxes", "recall", "MABO", "average recall")
    for name, result in results.items():
        table.add_row(
            name,
            f"{result.mean_proposals:.0f}",
            f"{result.recall(0.5)[-1]:.3f}",
            f"{result.mabo()[-1]:.3f}",
            f"{result.average_recall()[-1]:.3f}",
        )
        if name in PAPER:
            recall, mabo, boxes = PAPER[name]
            table.add_row("  the paper's, on VOC07", str(boxes), f"{recall:.3f}", f"{mabo:.3f}", "")
    return table


def _costs(took: dict[str, list[Took]]) -> Table:
    ratios = ["contrib takes", "of CPU s"] if CONTRIB in took else []
    table = _table("", "seconds", "CPU s", *ratios)
    for name, costs in took.items():
        row = [f"{cost:.3f}" for cost in _medians(costs)]
        if ratios:
            # Image by image, so that what else the machine does weighs on both.
            of_images = np.array(took[CONTRIB]) / np.array(costs)
            row += [f"{ratio:.1f} times" for ratio in np.median(of_images, axis=0)]
        table.add_row(name, *row)
    return table


def _table(name: str, *figures: str, title: str | None = None) -> Table:
    table = Table(name, title=title)
    for figure in figures:
        table.add_column(figure, justify="right")
    return table


def _beside_contrib(name: str, ours: RecallResult, contrib: RecallResult) -> Table:
    figures = ("recall", "contrib", "gain", "MABO", "contrib", "gain")
    table = _table("boxes", *figures, title=f"{name} beside contrib")
    for number in NUMBERS:
        cells = [str(number)]
        for measure in (lambda result: result.recall(0.5), lambda result: result.mabo()):
            mine, other = (_at(result, measure(result), number) for result in (ours, contrib))
            cells += [f"{mine:.3f}", f"{other:.3f}", f"{mine - other:+.3f}"]
        table.add_row(*cells)
    return table


def _at(result: RecallResult, values: NDArray[np.float64], number: int) -> float:
    """The value at a number of boxes; beyond what any image has, that of all boxes."""
    return float(values[min(int(np.searchsorted(result.numbers, number)), len(values) - 1)])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
