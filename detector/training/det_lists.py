"""What the ILSVRC DET training data says about classes it does not box.

The images come in three kinds. Validation images and those gathered in 2014 (`ILSVRC2014_train_*`) are labelled
for all 200 classes. A folder of one synset (`ILSVRC2013_train/n02084071/`) is labelled for that class only. And the
lists of the development kit (`ImageSets/DET/train_1.txt` .. `train_200.txt`, one for each DET id) say of an image
and a class: 1 present and boxed, -1 absent, 0 only some of its instances boxed.
"""

import re
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

import numpy as np

from detector.taxonomy import DET200
from eval.text_files import read_text

_LABEL_OF_WNID = {kind.wnid: label for label, kind in enumerate(DET200)}
_CLASS_LIST = re.compile(r"train_(\d+)\.txt")
_SYNSET = re.compile(r"n\d{8}(?=_|$)")  # that an image's own name begins with, or its folder is called

Listed = Mapping[int, bool | None]
"""By label: whether the class is there, completely boxed; None: only some of its instances are boxed."""


def labelled_by_folder(name: str, listed: Listed | None = None) -> np.ndarray:
    """(200,) bool: the classes completely labelled in the image of that name (with its folder, if it has one).

    Args:
        listed: What class lists say of the image; they add to what the folder says, and know better.
    """
    labelled = np.zeros(len(DET200), np.bool_)
    path = PurePosixPath(name)
    synsets = {match.group() for part in path.parts if (match := _SYNSET.match(part))}
    if synsets:
        labelled[[_LABEL_OF_WNID[wnid] for wnid in synsets if wnid in _LABEL_OF_WNID]] = True
    elif "_train_" not in path.name or path.name.startswith("ILSVRC2014_train"):
        labelled[:] = True
    for label, there in (listed or {}).items():
        labelled[label] = there is not None
    return labelled


def listed_name(name: str) -> str:
    """The name that lists give to an image: `train/ILSVRC2013_train/n02084071/...` without `train/`."""
    return name.removeprefix("train/")


def read_class_lists(folder: str | Path) -> dict[str, dict[int, bool | None]]:
    """Read `train_<DET id>.txt` lists: what they say of each image, by its `listed_name`.

    Raises:
        ValueError: No such lists, or a line that is not `name flag`.
    """
    found: dict[str, dict[int, bool | None]] = {}
    meaning = {"1": True, "-1": False, "0": None}
    lists = [
        (match, path)
        for path in sorted(Path(folder).glob("train_*.txt"))
        if (match := _CLASS_LIST.fullmatch(path.name))
    ]
    if not lists:
        raise ValueError(f"{folder}: no lists train_1.txt .. train_200.txt in this folder")
    for match, path in lists:
        label = int(match.group(1)) - 1
        if not 0 <= label < len(DET200):
            raise ValueError(f"{path}: there is no DET class {label + 1}")
        for number, line in enumerate(read_text(path).splitlines(), start=1):
            words = line.split()
            if not words:
                continue
            if len(words) != 2 or words[1] not in meaning:
                raise ValueError(
                    f"{path}:{number}: expected `name flag` with flag 1, 0 or -1, found {line!r}"
                )
            found.setdefault(listed_name(words[0]), {})[label] = meaning[words[1]]
    return found
