"""PASCAL VOC annotations: XML with 1-based inclusive corners and a difficult flag."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from eval.dataset import Annotations, Category, make_annotations
from eval.xml_files import XmlAnnotations, read_objects, write_objects

VOC_CLASSES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable",
    "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip


def read_annotations(source: str | Path, image_list: Mapping[str, int] | None = None) -> Annotations:
    """Read VOC XML files from a folder, tar or zip; see `eval.xml_files.read_objects` for list and errors."""
    return annotations_of(read_objects(source, image_list))


def annotations_of(found: XmlAnnotations) -> Annotations:
    """VOC annotations, 0-based; the classes are VOC's twenty, or the names that occur if there are others."""
    names: tuple[str, ...] = tuple(sorted({item.name for item in found.objects}))
    if set(names) <= set(VOC_CLASSES):
        names = VOC_CLASSES
    label_by_name = {name: label for label, name in enumerate(names)}
    return make_annotations(
        found.images,
        [Category(label + 1, name) for label, name in enumerate(names)],
        image=found.owners,
        label=[label_by_name[item.name] for item in found.objects],
        boxes=np.array(
            [(item.xmin - 1, item.ymin - 1, item.xmax - 1, item.ymax - 1) for item in found.objects],
            np.float64,
        ),
        difficult=[item.difficult for item in found.objects],
        last_pixel=True,
    )


def write_annotations(
    folder: str | Path, annotations: Annotations, *, sizes: Sequence[tuple[int, int]] | None = None
) -> None:
    """Write one VOC XML per image; see `eval.xml_files.write_objects`."""
    names = [category.name for category in annotations.categories]
    write_objects(folder, annotations, class_names=names, first_pixel=1, sizes=sizes)
