"""The lists `images` and `categories` of COCO JSON: what they hold, and which classes of two files are the same."""

import itertools
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from eval.dataset import Category, ImageSet


def image_set(path: str | Path, rows: list[dict[str, Any]]) -> ImageSet:
    """The `images` of the file `path`, by id; one without a `file_name` goes by its id.

    Raises:
        ValueError: One without an id, or two with the same.
    """
    pairs = sorted(
        (identity, _text(row, "file_name", str(identity)))
        for identity, row in _with_ids(path, "an image", rows)
    )
    ids = np.array([identity for identity, _ in pairs], np.int64)
    if (np.diff(ids) == 0).any():
        raise ValueError(f"{path}: two images have the id {ids[1:][np.diff(ids) == 0][0]}")
    return ImageSet(ids, tuple(name for _, name in pairs))


def read_categories(path: str | Path, rows: list[dict[str, Any]]) -> list[Category]:
    """The `categories` of the file `path`, by id; one without a `name` goes by its id.

    Raises:
        ValueError: One without an id, or two with the same.
    """
    found = sorted(
        Category(identity, _text(row, "name", str(identity)), _text(row, "wnid", ""))
        for identity, row in _with_ids(path, "a category", rows)
    )
    for one, other in itertools.pairwise(found):
        if one.id == other.id:
            raise ValueError(f"{path}: two categories have the id {one.id}")
    return found


def whole_number(value: object) -> int | None:
    """A value of JSON as an integer of 64 bits; None if it is not one, as 1.5, "1" and null are not."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return value if isinstance(value, int) and abs(value) < 2**63 else None


def _with_ids(path: str | Path, one: str, rows: list[dict[str, Any]]) -> Iterator[tuple[int, dict[str, Any]]]:
    for row in rows:
        identity = whole_number(row.get("id")) if isinstance(row, dict) else None
        if identity is None:
            raise ValueError(f"{path}: {one} has no whole number as `id` that 64 bits hold")
        yield identity, row


def _text(row: dict[str, Any], name: str, default: str) -> str:
    """A field as text; null is a field that is not there."""
    value = row.get(name)
    return default if value is None else str(value)


def translate_categories(own: Sequence[Category], known: tuple[Category, ...]) -> npt.NDArray[np.int32]:
    """Where among the `known` categories each of the `own` (K,) stands, by WNID, name or id; -1 for none.

    Raises:
        ValueError: Several have the WNID or name of one, and none of these has its id.
    """
    by_wnid: dict[str, list[int]] = defaultdict(list)
    by_name: dict[str, list[int]] = defaultdict(list)
    for label, category in enumerate(known):
        by_wnid[category.wnid].append(label)
        by_name[category.name].append(label)
    by_id = {category.id: label for label, category in enumerate(known)}
    found = []
    for category in own:
        labels = (category.wnid and by_wnid.get(category.wnid)) or by_name.get(category.name) or []
        alike = len(labels)
        if alike > 1:
            labels = [label for label in labels if known[label].id == category.id]
        if alike and not labels:
            raise ValueError(
                f"the annotations have {alike} classes {category.name!r}, none of them with the id {category.id}"
            )
        if not alike and category.name == str(category.id):
            labels = [by_id.get(category.id, -1)]
        found.append(labels[0] if labels else -1)
    return np.array(found, np.int32)
