"""From a file of detections to mAP: this project beside pycocotools and the Rust evaluators.

    python tools/benchmark.py eval --against hotcoco=VENV/bin/python
    python tools/benchmark.py eval --detections 10000000 --only-ours --repeats 1

All sides read the same COCO files in one run, each in a process of its own, in turn, and the fastest turn
counts as a whole; a side that fails is named, and the exit code is 1. `seconds` run from opening the files to
the figures, after the imports (numba's, which it puts off until the first call, are made to happen before);
`ratio` is to our coco row; `CPU` is the processor time of all threads meanwhile, which other programs on the
machine disturb less; `process` is the whole program with its imports, `memory` its peak. Two rows evaluate the
same detections under the ILSVRC rules, one of them from a submission text. Other evaluators live in
interpreters of their own, given by --against.
"""

import argparse
import json
import os
import subprocess
import sys
import tarfile
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks import at_least_one
from detector.command_line import PARTLY_DONE
from eval import ilsvrc, inputs

ROOT = Path(__file__).resolve().parents[2]

_COCO_API = """
import {module} as module
from {module} import COCO
COCOeval = getattr(module, "COCOeval", None) or module.COCOeval_faster
def evaluate(truth, results, text, xml, listed):
    truth = COCO(truth)
    evaluator = COCOeval(truth, truth.loadRes(results), "bbox")
    evaluator.evaluate()
    evaluator.accumulate()
    evaluator.summarize()
    return float(evaluator.stats[0])
"""
_PYCOCOTOOLS = """
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
""" + _COCO_API[_COCO_API.index("def evaluate") :]
_OURS = """
import eval.coco_metrics
from eval import inputs
from eval.protocols import evaluate as evaluate_protocol
from numba.core.registry import cpu_target
cpu_target.target_context.refresh()  # numba's own imports
def evaluate(truth, results, text, xml, listed):
    annotations = inputs.read_annotations({truth})
    detections = inputs.read_detections({found}, annotations)
    return evaluate_protocol(detections, annotations, protocol={protocol!r}).mean_ap
"""
_RUNNER = """
import contextlib, io, json, resource, sys, time
{definition}
with contextlib.redirect_stdout(io.StringIO()):
    start, cpu = time.perf_counter(), time.process_time()
    ap = evaluate(*sys.argv[1:])
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024  # Linux counts in KiB
print(json.dumps(dict(ap=ap, seconds=seconds, cpu=cpu, memory=memory)))
"""


class Side(NamedTuple):
    """One program to measure: how it is called, by which interpreter, in what code."""

    name: str
    python: str
    definition: str
    ours: bool = False


def main(argv: list[str]) -> int:
    """Make the files, let the sides take turns, print the table."""
    parser = argparse.ArgumentParser(
        prog="benchmark.py eval", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--detections", type=at_least_one, default=1_000_000)
    parser.add_argument("--images", type=at_least_one, default=20_121)
    parser.add_argument("--classes", type=at_least_one, default=200)
    parser.add_argument("--boxes", type=at_least_one, default=55_502)
    parser.add_argument(
        "--repeats", type=at_least_one, default=3, help="turns of each fast side (pycocotools gets one)"
    )
    parser.add_argument(
        "--against", action="append", default=[], metavar="MODULE=PYTHON", help="a further evaluator"
    )
    parser.add_argument("--xml", action="store_true", help="also from an archive of ILSVRC XML")
    parser.add_argument(
        "--only-ours", action="store_true", help="leave pycocotools out (minutes for a million)"
    )
    arguments = parser.parse_args(argv)
    if arguments.xml and arguments.classes > len(ilsvrc.DET_CATEGORIES):
        raise ValueError(f"--xml has names for {len(ilsvrc.DET_CATEGORIES)} classes, not {arguments.classes}")
    sides = [
        _own("ours, coco", "coco", "truth", "results"),
        _own("ours, ilsvrc, json", "ilsvrc", "truth", "results"),
        _own("ours, ilsvrc, text", "ilsvrc", "truth", "text"),
    ]
    if arguments.xml:
        sides.append(_own("ours, ilsvrc, XML + text", "ilsvrc", "xml, image_list=listed", "text"))
    for entry in arguments.against:
        module, separator, python = entry.partition("=")
        if not separator or not Path(python).is_file():
            raise ValueError(f"--against {entry}: expected MODULE=PATH_OF_A_PYTHON")
        # Not resolved: the link in a virtual environment is what makes it one.
        sides.append(Side(module, os.path.abspath(python), _COCO_API.format(module=module)))
    if not arguments.only_ours:
        sides.append(Side("pycocotools", sys.executable, _PYCOCOTOOLS))
    with tempfile.TemporaryDirectory() as folder:
        files = write_scene(Path(folder), arguments)
        sizes = ", ".join(
            f"{file.name} {file.stat().st_size / 1e6:.0f} MB" for file in files if file.exists()
        )
        print(f"{arguments.detections:,} detections, {arguments.boxes:,} boxes, {arguments.images:,} images")
        print(sizes)
        best: dict[str, dict[str, float]] = {}
        failed: dict[str, str] = {}
        for turn in range(arguments.repeats):
            for side in sides:
                if side.name in failed or (turn and side.name in ("pycocotools", "faster_coco_eval")):
                    continue
                try:
                    measured = _measure(side, files)
                except ChildProcessError as error:
                    failed[side.name] = str(error)
                    best.pop(side.name, None)
                    continue
                if side.name not in best or measured["seconds"] < best[side.name]["seconds"]:
                    best[side.name] = measured
    _print(best)
    for name, reason in failed.items():
        print(f"{name} failed: {reason}", file=sys.stderr)
    return PARTLY_DONE if failed else 0


def _own(name: str, protocol: str, truth: str, found: str) -> Side:
    """This project as a side; `truth` and `found` are the arguments of its readers."""
    return Side(name, sys.executable, _OURS.format(truth=truth, found=found, protocol=protocol), ours=True)


def write_scene(folder: Path, size: argparse.Namespace) -> list[Path]:
    """Annotations, COCO results and the same detections as an ILSVRC submission, the same in every run.

    About every third detection lies near a box of its class, the others anywhere; scores have full precision.
    """
    rng = np.random.default_rng(2014)

    def boxes(count: int) -> np.ndarray:
        corner = rng.uniform(0, 300, (count, 2))
        return np.round(np.concatenate((corner, rng.uniform(10, 200, (count, 2))), axis=1), 2)

    true_boxes = boxes(size.boxes)
    true_image, true_class = (
        rng.integers(1, size.images + 1, size.boxes),
        rng.integers(1, size.classes + 1, size.boxes),
    )
    detected = boxes(size.detections)
    image = np.sort(rng.integers(1, size.images + 1, size.detections))
    category = rng.integers(1, size.classes + 1, size.detections)
    near = np.flatnonzero(rng.random(size.detections) < 1 / 3)
    order = np.argsort(true_image, kind="stable")
    source = order[np.clip(np.searchsorted(true_image[order], image[near]), 0, size.boxes - 1)]
    hits = true_image[source] == image[near]
    near, source = near[hits], source[hits]
    detected[near] = np.round(true_boxes[source] + rng.normal(0, 8, (len(near), 4)), 2)
    detected[:, 2:] = np.maximum(detected[:, 2:], 1)
    category[near] = true_class[source]
    scores = rng.random(size.detections)
    truth, results, text = folder / "truth.json", folder / "results.json", folder / "submission.txt"
    rows = zip(true_image.tolist(), true_class.tolist(), true_boxes.tolist(), strict=True)
    truth.write_text(
        json.dumps(
            {
                "images": [
                    {"id": i, "file_name": f"{i:08}.jpg", "width": 500, "height": 500}
                    for i in range(1, size.images + 1)
                ],
                "categories": [{"id": k, "name": f"class {k}"} for k in range(1, size.classes + 1)],
                "annotations": [
                    {
                        "id": n,
                        "image_id": i,
                        "category_id": k,
                        "bbox": box,
                        "area": box[2] * box[3],
                        "iscrowd": 0,
                    }
                    for n, (i, k, box) in enumerate(rows, start=1)
                ],
            }
        )
    )
    separator = "["
    with results.open("w") as as_json, text.open("w") as as_text:
        for start in range(0, size.detections, 100_000):  # a list of ten million dicts would not fit
            part = slice(start, start + 100_000)
            columns = (image[part], category[part], scores[part], detected[part])
            for i, k, score, (x, y, w, h) in zip(*(column.tolist() for column in columns), strict=True):
                box = f"[{x}, {y}, {w}, {h}]"
                as_json.write(
                    f'{separator}{{"image_id": {i}, "category_id": {k}, "bbox": {box}, "score": {score}}}'
                )
                as_text.write(f"{i} {k} {score:.6f} {x:.6f} {y:.6f} {x + w - 1:.6f} {y + h - 1:.6f}\n")
                separator = ", "
        as_json.write("]")
    archive, listed = folder / "xml.tar.gz", folder / "list.txt"
    if size.xml:
        _write_xml(truth, archive, listed)
    return [truth, results, text, archive, listed]


def _write_xml(truth: Path, archive: Path, listed: Path) -> None:
    """The annotations of `truth` as an archive of ILSVRC XML, and the image list that belongs to it."""
    annotations = inputs.read_annotations(truth)
    classes = ilsvrc.DET_CATEGORIES[: len(annotations.categories)]
    ilsvrc.write_annotations(truth.parent / "xml", replace(annotations, categories=classes))
    with tarfile.open(archive, "w:gz", compresslevel=1) as packed:
        packed.add(truth.parent / "xml", arcname="val")
    names = (Path(name).stem for name in annotations.images.names)
    listed.write_text("".join(f"{name} {n}\n" for name, n in zip(names, annotations.images.ids, strict=True)))


def _measure(side: Side, files: list[Path]) -> dict[str, float]:
    """One turn of a side: its `ap`, `seconds`, `cpu` (s), `memory` (MiB) and `process` (s).

    Raises:
        ChildProcessError: It failed; with its exit code and last words.
    """
    start = time.perf_counter()
    done = subprocess.run(
        [side.python, "-c", _RUNNER.format(definition=side.definition), *map(str, files)],
        capture_output=True,
        text=True,
        cwd=ROOT if side.ours else files[0].parent,
    )
    process = time.perf_counter() - start
    if done.returncode:
        words = done.stderr.strip().splitlines()[-1:]
        raise ChildProcessError(": ".join([f"exit code {done.returncode}", *words]))
    return {**json.loads(done.stdout.splitlines()[-1]), "process": process}


def _print(best: dict[str, dict[str, float]]) -> None:
    table = Table()
    reference = best.get("ours, coco", {}).get("seconds", float("nan"))
    for name in ("evaluator", "seconds", "ratio", "CPU", "process", "memory", "AP"):
        table.add_column(name, justify="left" if name == "evaluator" else "right")
    for name, row in best.items():
        table.add_row(
            name, f"{row['seconds']:.2f}", f"{row['seconds'] / reference:.2f}", f"{row['cpu']:.2f}",
            f"{row['process']:.2f}", f"{row['memory']:.0f} MB", f"{row['ap']:.9f}",
        )  # fmt: skip
    Console().print(table)
