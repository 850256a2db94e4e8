"""Detecting in many images: numbered, resumable, and not stopped by one that cannot be read."""

import json
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

import numpy as np
from PIL import Image

from detector.ahead import ahead
from detector.command_line import one_sentence
from detector.detections import FILE_NAMES, Detections, Format, save
from detector.images import ImageFile, read_image
from detector.rcnn import RCNN
from detector.taxonomy import DetectionClass
from eval.atomic import temporary_name
from eval.image_names import image_stem
from proposals.files import FileIdentity, file_identity, is_same_file

_PICTURE = re.compile(r".*_detections(-\d+)?\.jpg", re.DOTALL)
# Bytes of a picture's name: file systems take 255, and `temporary_name` adds 15
_LONGEST_NAME = 240


@dataclass(frozen=True)
class Task:
    """One image of a job: its file, its number in result files, and where its picture goes."""

    image: ImageFile
    image_id: int
    picture: Path


@dataclass
class Report:
    """How a job went: the result file (None if no image could be read) and, by image, what failed."""

    result: Path | None = None
    finished: int = 0
    resumed: int = 0
    detections: int = 0
    failures: dict[str, str] = field(default_factory=dict)


def plan(
    images: Sequence[ImageFile], output: Path, indices: Mapping[str, int] | None = None
) -> tuple[list[Task], dict[str, str]]:
    """Number the images and name their pictures.

    Args:
        indices: Number of each image by its file name without suffix (an ILSVRC image list, whose names may have
            folders before them); without it images are numbered from 1 in their order.

    Returns:
        The tasks, and by image why it got none.

    Raises:
        ValueError: Two names of the list differ in their folders only.
    """
    if indices is not None:
        stems = {image_stem(name): index for name, index in indices.items()}
        if len(stems) != len(indices):
            raise ValueError("the image list has two images of the same name in different folders")
        indices = stems
    tasks: list[Task] = []
    failures: dict[str, str] = {}
    # a picture that was itself named as an image is not written over
    taken = {image.path.name for image in images if is_picture(image.path, output)}
    numbered: dict[int, str] = {}
    for position, image in enumerate(images, start=1):
        image_id = position if indices is None else indices.get(image_stem(image.path))
        if image_id is None:
            failures[image.name] = f"{image.name}: is not in the image list"
        elif image_id in numbered:
            failures[image.name] = f"{image.name}: has the same index {image_id} as {numbered[image_id]}"
        else:
            numbered[image_id] = image.name
            tasks.append(Task(image, image_id, _picture(output, image, taken)))
    return tasks, failures


def _picture(output: Path, image: ImageFile, taken: set[str]) -> Path:
    """`<output>/<name>_detections.jpg`, numbered where this name is taken."""
    name, count = _picture_name(image.path.stem, "_detections.jpg"), 1
    while name in taken:
        count += 1
        name = _picture_name(image.path.stem, f"_detections-{count}.jpg")
    taken.add(name)
    return output / name


def _picture_name(stem: str, ending: str) -> str:
    while len(os.fsencode(stem + ending)) > _LONGEST_NAME:
        stem = stem[:-1]  # a character, which may be several bytes
    return stem + ending


def is_picture(path: Path, output: Path) -> bool:
    """Whether a file is a picture that a job wrote into this folder, which the next one should not look at."""
    return _PICTURE.fullmatch(path.name) is not None and os.path.realpath(path.parent) == os.path.realpath(
        output
    )


def run_job(
    detector: RCNN,
    tasks: Iterable[Task],
    *,
    output: Path,
    format: Format,
    settings: Mapping[str, Any],
    boxes_of: Callable[[str], np.ndarray] | None = None,
    workers: int = 0,
    resume: bool = False,
    pictures: bool = True,
    on_image: Callable[[Task], None] = lambda task: None,
    on_regions: Callable[[int, int], None] = lambda done, total: None,
    on_failure: Callable[[str], None] = lambda sentence: None,
) -> Report:
    """Detect in every image and write one result file, plus a picture of each image's detections.

    What is done is noted in a journal beside the result, image by image. The result itself appears only when
    the job has come to its end, and the journal goes.

    Args:
        settings: What the result depends on; a journal of other settings is not resumed.
        boxes_of: Look-up of stored proposals by an image's name; without it the detector makes its own.
        workers: Images that are read and searched for boxes while those before them are scored.
        resume: Go on where a job that was stopped had come to.
        on_image: Called before each image, also one that was done before.
        on_regions: Called with the numbers of regions done and to do in the image.
        on_failure: Called with one sentence for each image that fails.

    Raises:
        ValueError: `resume`, and the journal is of a job with other settings.
    """
    report = Report()
    found: list[Detections] = []
    with Journal(
        output / "detections.unfinished.jsonl", settings, detector.scorer.classes, resume
    ) as journal:

        def begin(task: Task) -> Detections | tuple[np.ndarray, np.ndarray]:
            known = journal.of(task)
            return _search(detector, task, boxes_of) if known is None else known

        for task, begun in ahead(begin, tasks, workers):
            on_image(task)
            try:
                start = begun()
                if isinstance(start, Detections):
                    done = start
                    image = None if not pictures or task.picture.exists() else read_image(task.image.path)
                else:
                    image = start[0]
                    done = _detect(detector, task, *start, on_regions)
            except (OSError, ValueError) as error:
                report.failures[task.image.name] = one_sentence(error)
                on_failure(one_sentence(error))
                continue
            if pictures and image is not None:
                try:
                    _draw(detector, task, done, image)
                except (OSError, ValueError) as error:  # what was found counts all the same
                    reason = one_sentence(error).removeprefix(f"{task.picture}: ")
                    report.failures[task.image.name] = (
                        f"{task.picture}: no picture could be written ({reason})"
                    )
                    on_failure(report.failures[task.image.name])
            if done is start:
                report.resumed += 1
            else:
                journal.append(task, done)
                report.finished += 1
            found.append(done)
            report.detections += len(done)
    if found:
        report.result = output / FILE_NAMES[format]
        save(found, report.result, format)
    journal.path.unlink()
    return report


def _search(
    detector: RCNN, task: Task, boxes_of: Callable[[str], np.ndarray] | None
) -> tuple[np.ndarray, np.ndarray]:
    """Pixels and proposals of an image."""
    with detector.timer.stage("read"):
        image = read_image(task.image.path)
    if boxes_of is None:
        return image, detector.propose(image)
    boxes = boxes_of(task.image.name)
    _check_inside(task.image.name, boxes, image)
    return image, boxes


def _check_inside(name: str, boxes: np.ndarray, image: np.ndarray) -> None:
    """Refuse stored boxes (N, 4) that leave the image by more than a pixel, which another program may round to."""
    for axis, side, extent in ((0, image.shape[1], "wide"), (1, image.shape[0], "high")):
        lowest = float(boxes[:, axis::2].min(initial=0))
        highest = float(boxes[:, axis::2].max(initial=0))
        if not (lowest >= -1 and highest <= side + 1):  # NaN fails, too
            reached = highest if lowest >= -1 else lowest
            raise ValueError(
                f"{name}: its proposals are of another image: a box reaches {reached:g}, the image is {side} {extent}"
            )


def _detect(
    detector: RCNN,
    task: Task,
    image: np.ndarray,
    boxes: np.ndarray,
    on_regions: Callable[[int, int], None],
) -> Detections:
    detections = detector(image, boxes=boxes, progress=on_regions)
    detections.image_name, detections.image_id = task.image.name, task.image_id
    return detections


def _draw(detector: RCNN, task: Task, detections: Detections, image: np.ndarray) -> None:
    with detector.timer.stage("draw"), temporary_name(task.picture) as temporary:
        Image.fromarray(detections.draw(image)).save(temporary, format="JPEG", quality=90)


class Journal:
    """The detections of each finished image, a line each, so that a stopped job loses only one image.

    Args:
        path: The journal's file; an earlier one is continued if `resume`, else replaced.
        settings: Stored in the first line, and compared when resuming.
        classes: Of the detections.
    """

    def __init__(
        self, path: Path, settings: Mapping[str, Any], classes: tuple[DetectionClass, ...], resume: bool
    ) -> None:
        self.path = path
        self.classes = classes
        self._done: dict[tuple[int, str], tuple[FileIdentity, Detections]] = {}
        self._header = json.dumps({"settings": settings}, sort_keys=True)
        self._complete_bytes = self._read() if resume and path.is_file() else 0
        self._file: TextIO

    def __enter__(self) -> "Journal":
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if self._complete_bytes:
            with self.path.open("r+b") as file:
                file.truncate(self._complete_bytes)  # the last line may be cut short
            self._file = self.path.open("a", encoding="utf-8")
        else:
            self._file = self.path.open("w", encoding="utf-8")
            self._write(self._header)
        return self

    def __exit__(self, *exception: object) -> None:
        self._file.close()

    def of(self, task: Task) -> Detections | None:
        """What is known of an image, unless another file has its name now."""
        file, detections = self._done.get((task.image_id, task.image.name), ([], None))
        return detections if is_same_file(file, task.image.path) else None

    def append(self, task: Task, detections: Detections) -> None:
        """Note one finished image."""
        record = {
            "file": file_identity(task.image.path),
            "image_id": detections.image_id,
            "image_name": detections.image_name,
            "width": detections.width,
            "height": detections.height,
            # float32 has at most 9 significant digits, which JSON keeps: what is read is what was written
            "boxes": detections.boxes.tolist(),
            "scores": detections.scores.tolist(),
            "labels": detections.labels.tolist(),
        }
        self._write(json.dumps(record))

    def _write(self, line: str) -> None:
        self._file.write(line + "\n")
        self._file.flush()

    def _read(self) -> int:
        """Fill `_done`; returns the length in bytes of the complete lines."""
        length = 0
        with self.path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                if not line.endswith(b"\n"):
                    break
                try:
                    if number == 1:
                        before = dict(json.loads(line)["settings"])
                    else:
                        self._take(json.loads(line))
                except (ValueError, KeyError, TypeError, AttributeError):
                    raise ValueError(
                        f"{self.path}:{number}: is not a journal of a stopped job; move it away"
                    ) from None
                if number == 1:
                    self._check(before)
                length += len(line)
        return length

    def _take(self, record: dict[str, Any]) -> None:
        """Put one finished image, as `append` notes it, into `_done`."""
        identity = record.pop("file", [])
        self._done[record["image_id"], record["image_name"]] = (
            identity,
            Detections(
                boxes=np.array(record.pop("boxes"), np.float32).reshape(-1, 4),
                scores=np.array(record.pop("scores"), np.float32),
                labels=np.array(record.pop("labels"), np.int64),
                classes=self.classes,
                **record,
            ),
        )

    def _check(self, before: dict[str, Any]) -> None:
        now = json.loads(self._header)["settings"]  # compared as values: 10 pixels are 10.0 pixels
        changed = [key for key in sorted(before | now) if before.get(key) != now.get(key)]
        if changed:
            raise ValueError(
                f"{self.path}: the stopped job had other settings ({', '.join(changed)});"
                " use the same ones, or start again without --resume"
            )
