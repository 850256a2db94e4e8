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

_LABEL_OF_WNID = {kind.wnid: label for label, kind in enumerate(DET200)}
_CLASS_LIST = re.compile(r"train_(\d+)\.txt")


def labelled_by_folder(name: str, listed: Mapping[int, bool] | None = None) -> np.ndarray:
    """(200,) bool: the classes completely labelled in the image of that name (with its folder).

    Args:
        listed: What class lists say of the image; they add to what the folder says.
    """
    labelled = np.zeros(len(DET200), np.bool_)
    folders = PurePosixPath(name).parts[:-1]
    synsets = [_LABEL_OF_WNID[folder] for folder in folders if folder in _LABEL_OF_WNID]
    stem = PurePosixPath(name).name
    if synsets:
        labelled[synsets] = True
    elif "_train_" not in stem or stem.startswith("ILSVRC2014_train"):
        labelled[:] = True
    for label in listed or ():
        labelled[label] = True
    return labelled


def read_class_lists(folder: str | Path) -> dict[str, dict[int, bool]]:
    """Read `train_<DET id>.txt` lists: by image, the labels that are complete, and whether they occur.

    Classes listed as partly labelled (0) are not in the result.

    Raises:
        ValueError: No such lists, or a line that is not `name flag`.
    """
    found: dict[str, dict[int, bool]] = {}
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
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
            words = line.split()
            if not words:
                continue
            if len(words) != 2 or words[1] not in ("1", "0", "-1"):
                raise ValueError(
                    f"{path}:{number}: expected `name flag` with flag 1, 0 or -1, found {line!r}"
                )
            if words[1] != "0":
                found.setdefault(words[0], {})[label] = words[1] == "1"
    return found
