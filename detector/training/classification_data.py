"""Images with one label each: ILSVRC CLS folders, lists, and CSV files."""

import csv
import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

from detector.taxonomy import classification_classes
from detector.training.problems import Problems
from eval.image_names import IMAGE_SUFFIXES
from eval.text_files import read_text


@dataclass(frozen=True)
class LabelledImages:
    """Files and labels of N images; `classes` names what the labels count."""

    classes: tuple[str, ...]
    paths: tuple[Path, ...]
    labels: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.paths)

    def fingerprint(self) -> str:
        """What tells these images (by names and sizes of files) and labels from others, wherever their folder lies."""
        digest = hashlib.sha256(repr(self.labels).encode())
        names = [os.path.abspath(path) for path in self.paths]
        start = len(os.path.commonpath([os.path.dirname(name) for name in names]))
        for name in names:
            digest.update(os.fsencode(name[start:]) + f" {os.stat(name).st_size}\n".encode())
        return digest.hexdigest()


def read_folders(root: str | Path, problems: Problems) -> LabelledImages:
    """One folder a class, as in ILSVRC CLS: `root/n01440764/*.JPEG`.

    The labels are the official class indices, so that a part of the classes trains the usual outputs.

    Raises:
        OSError, ValueError: No folders with images, or one that is none of the 1000 synsets.
    """
    folders = sorted(path for path in Path(root).iterdir() if path.is_dir() and not path.name.startswith("."))
    official = {kind.wnid: kind.index for kind in classification_classes()}
    strange = [folder for folder in folders if folder.name not in official]
    if strange:
        raise ValueError(
            f"{strange[0]}: is none of the 1000 ILSVRC classes, expected WordNet ids such as n01440764 as names;"
            " a detector of other classes learns from boxes (train.py svm or finetune)"
        )
    paths: list[Path] = []
    labels: list[int] = []
    for folder in folders:
        images = sorted(path for path in folder.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES)
        if not images:
            problems.add("empty class", f"{folder}: no images of this class")
        paths += images
        labels += [official[folder.name]] * len(images)
    if not paths:
        raise ValueError(f"{root}: no folders with images in it, expected one folder a class")
    return LabelledImages(tuple(official), tuple(paths), tuple(labels))


def read_list(source: str | Path, images: str | Path, problems: Problems) -> LabelledImages:
    """Lines `name label` (Caffe's train.txt and val.txt, labels from 0), or CSV with columns file and label.

    Raises:
        OSError, ValueError: No such file, no such lines, or none of its images can be used.
    """
    names = tuple(kind.wnid for kind in classification_classes())
    rows: list[tuple[str, int]] = []
    text = read_text(source).splitlines()
    try:
        if Path(source).suffix == ".csv":
            table = csv.DictReader(text)
            columns = table.fieldnames or ()
            if "det_id" in columns and "label" not in columns:
                raise ValueError("det_id counts the 200 detection classes, label the 1000 from 0")
            rows = [(row["file"], int(row["label"])) for row in table]
        else:
            rows = [(words[0], int(words[1])) for words in (line.split() for line in text) if words]
        if not all(name for name, _ in rows):
            raise ValueError("a line names no file")
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise ValueError(
            f"{source}: expected lines `name label`, or CSV columns file and label ({error})"
        ) from None
    paths, labels = [], []
    for name, label in rows:
        path = Path(images) / name
        if not 0 <= label < len(names):
            problems.add("unknown class", f"{source}: {name} has the unknown label {label}")
        elif not path.is_file():
            problems.add("annotation without image", f"{path}: labelled, but there is no such image")
        else:
            paths.append(path)
            labels.append(label)
    if not paths:
        raise ValueError(f"{source}: no usable images in it ({problems.summary() or 'it names none'})")
    return LabelledImages(names, tuple(paths), tuple(labels))
