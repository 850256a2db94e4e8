"""Annotations of every common layout to a `TrainingSet`: COCO JSON, VOC and ILSVRC DET XML."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePath, PurePosixPath, PureWindowsPath
from typing import Any

import numpy as np

from detector.taxonomy import DET200, DetectionClass
from detector.training.det_lists import Listed, labelled_by_folder, listed_name
from detector.training.problems import Problems
from detector.training.training_set import IGNORE, AnnotatedImage, TrainingSet, annotated_image
from eval.coco import read_file
from eval.coco_lists import image_set, read_categories
from eval.image_names import IMAGE_SUFFIXES, image_stem
from eval.inputs import is_json
from eval.json_parser import HAS_BOX, HAS_CATEGORY, HAS_IMAGE
from eval.text_files import read_text
from eval.voc import VOC_CLASSES
from eval.xml_files import XmlFile, XmlObject, iterate_xml_files, parse_annotation

_WNID = re.compile(r"n\d{8}")
_NEEDED = {HAS_IMAGE: "image_id", HAS_CATEGORY: "category_id", HAS_BOX: "bbox"}
_SUFFIXES = ("JPEG", "jpg", "jpeg", "JPG", "png")


def read_training_set(
    source: str | Path,
    images: str | Path,
    problems: Problems,
    *,
    image_list: str | Path | None = None,
    labelled: Mapping[str, Listed] | None = None,
) -> TrainingSet:
    """Read annotations: COCO instances (a JSON file), or VOC or ILSVRC XML (a folder, tar or zip).

    Args:
        source: The annotations.
        images: Folder that the images' names are relative to.
        problems: Told what is wrong.
        image_list: Only these images, see `read_names` (ImageSets, R-CNN's val1 and val2).
        labelled: What class lists say of an image, see `detector.training.det_lists.read_class_lists`.

    Raises:
        OSError, ValueError: Nothing can be read, or problems are refused.
    """
    wanted = None if image_list is None else set(read_names(image_list))
    if is_json(source):
        found = read_coco(source, images, problems, wanted)
    else:
        found = read_xml(source, images, problems, wanted, labelled)
    if not found.images:
        expected = "expected COCO JSON, or XML of VOC or ILSVRC"
        if wanted is not None:
            expected = f"none of its images may be in {image_list}"
        raise ValueError(f"{source}: no usable training images in it ({problems.summary() or expected})")
    return found


def read_names(path: str | Path) -> list[str]:
    """The first word of each line of an image list; what follows (an index, a flag) is not looked at.

    A name with blanks in it is one if it ends as a file of an image does.
    """
    lines = [line.strip() for line in read_text(path).splitlines() if line.strip()]
    names = [line if PurePath(line).suffix.lower() in IMAGE_SUFFIXES else line.split()[0] for line in lines]
    if not names:
        raise ValueError(f"{path}: no images in it, expected a name in each line")
    return names


def _listed(name: str, wanted: set[str] | None) -> bool:
    """Whether an image list has the image, with or without suffix and folder."""
    stem = image_stem(name)
    return wanted is None or not wanted.isdisjoint(
        {name, (Path(name).parent / stem).as_posix(), Path(name).name, stem, listed_name(name)}
    )


def read_coco(
    source: str | Path, images: str | Path, problems: Problems, wanted: set[str] | None = None
) -> TrainingSet:
    """Read COCO instances; `iscrowd`, `ignore`, and `category_id` 0 where no category has it, mean: ignore.

    An image may have `labelled_classes`, a list of category ids whose every instance is boxed. Without it all
    are, as in COCO itself.
    """
    file = read_file(source)
    if file.images is None or file.categories is None:
        raise ValueError(f"{source}: no `images` and `categories` in it, expected COCO instances")
    classes = tuple(
        DetectionClass(kind.id, kind.name, kind.wnid) for kind in read_categories(source, file.categories)
    )
    if not classes:
        raise ValueError(f"{source}: no categories in it")
    _check_names(source, classes)
    label_of = {kind.id: label for label, kind in enumerate(classes)}
    _, image_ids, category_ids, crowd = file.records.whole
    to_ignore = file.records.ignore | (crowd != 0)
    complete = (file.records.present & sum(_NEEDED)) == sum(_NEEDED)
    rows_of: dict[int, list[int]] = {image_id: [] for image_id in image_set(source, file.images).ids.tolist()}
    for row, image_id in enumerate(image_ids.tolist()):
        if not complete[row]:
            problems.add(
                "incomplete annotation",
                f"{source}: annotation {row + 1} has no"
                f" {' and no '.join(name for flag, name in _NEEDED.items() if not file.records.present[row] & flag)}",
            )
        elif image_id in rows_of:
            rows_of[image_id].append(row)
        else:
            problems.add(
                "annotation without image",
                f"{source}: annotation {row + 1} belongs to image {image_id}, which is not listed",
            )
    found = []
    for image in file.images:
        name = image.get("file_name")
        if not isinstance(name, str):
            problems.add("image without file_name", f"{source}: image {image['id']} has no `file_name`")
            continue
        if not _listed(name, wanted):
            continue
        boxes, labels = [], []
        for row in rows_of[int(image["id"])]:
            category = int(category_ids[row])
            x, y, width, height = file.records.boxes[row]
            if to_ignore[row] or (category == 0 and category not in label_of):
                label = IGNORE
            elif category in label_of:
                label = label_of[category]
            else:
                problems.add("unknown class", f"{source}: {name} has a box of the unknown class {category}")
                continue
            boxes.append((x, y, x + width, y + height))
            labels.append(label)
        annotated = annotated_image(
            name,
            Path(images) / name,
            np.array(boxes).reshape(-1, 4),
            np.array(labels, np.int64),
            _labelled_classes(source, image, label_of, problems),
            problems,
        )
        size = image.get("width"), image.get("height")
        if annotated is not None and _has_size(source, size, annotated, problems):
            found.append(annotated)
    return TrainingSet(classes, tuple(found))


def _check_names(source: str | Path, classes: Sequence[DetectionClass]) -> None:
    """Refuse two classes of one name: `detect.py --classes` calls them by it, whatever its case."""
    of_name: dict[str, DetectionClass] = {}
    for kind in classes:
        other = of_name.setdefault(kind.name.lower(), kind)
        if other is not kind:
            raise ValueError(
                f"{source}: the categories {other.id} and {kind.id} share the name {kind.name!r}, so that nobody"
                " could tell what was found; rename one, or merge them"
            )


def _has_size(
    source: str | Path, size: tuple[Any, Any], annotated: AnnotatedImage, problems: Problems
) -> bool:
    """Whether the file is as large as its annotation says, where that says anything: else no box is right."""
    for given, real in zip(size, (annotated.width, annotated.height), strict=True):
        if isinstance(given, int | float) and abs(given - real) > max(2, 0.02 * real):
            problems.add(
                "image of another size",
                f"{source}: {annotated.name} is annotated as {size[0]}x{size[1]}, but has"
                f" {annotated.width}x{annotated.height} pixels",
            )
            return False
    return True


def _labelled_classes(
    source: str | Path, image: dict[str, Any], label_of: Mapping[int, int], problems: Problems
) -> np.ndarray:
    labelled = np.full(len(label_of), "labelled_classes" not in image)
    categories = image.get("labelled_classes", [])
    if not isinstance(categories, list):
        raise ValueError(
            f"{source}: {image['file_name']} has labelled_classes {categories!r}, expected a list of category ids"
        )
    for category in categories:
        if isinstance(category, int) and category in label_of:
            labelled[label_of[category]] = True
        else:
            problems.add(
                "unknown class", f"{source}: {image['file_name']} labels the unknown class {category}"
            )
    return labelled


def read_xml(
    source: str | Path,
    images: str | Path,
    problems: Problems,
    wanted: set[str] | None = None,
    labelled: Mapping[str, Listed] | None = None,
) -> TrainingSet:
    """Read VOC or ILSVRC DET XML, told apart by their class names (words or WNIDs).

    VOC's own classes and the classes of own photos are completely labelled, `difficult` boxes are ignored. For
    ILSVRC DET see `detector.training.det_lists`. Where no image has the name of an XML file, its `filename` counts.
    """
    if wanted is not None:  # these names have no suffix of an image, as those of the list may have
        wanted = wanted | {(PurePath(name).parent / image_stem(name)).as_posix() for name in wanted}
    files = []
    for file in iterate_xml_files(source):
        if _listed(_relative(source, file), wanted):
            try:
                files.append((file, parse_annotation(file)))
            except ValueError as error:
                problems.add("damaged annotation", str(error))
    names = {item.name for _, content in files for item in content.objects}
    if any(_WNID.fullmatch(name) for name in names):
        classes, first_pixel = DET200, 0
        label_of = {kind.wnid: label for label, kind in enumerate(classes)}
    else:
        own = VOC_CLASSES if names <= set(VOC_CLASSES) else tuple(sorted(names))
        classes, first_pixel = tuple(DetectionClass(k + 1, name) for k, name in enumerate(own)), 1
        label_of = {kind.name: label for label, kind in enumerate(classes)}
    found: list[AnnotatedImage] = []
    annotated_names = set()
    lists = labelled or {}
    image_files = _ImageFiles(images)
    for file, content in files:
        name = _relative(source, file)
        annotated_names.add(listed_name(name))
        boxes, labels = _boxes_of(file, content.objects, label_of, first_pixel, problems)
        complete = np.ones(len(classes), np.bool_)
        if classes is DET200:
            complete = labelled_by_folder(name, lists.get(listed_name(name)))
        image_name, path = name, image_files.find(name)
        if path is None and content.filename:
            image_name = (
                PurePosixPath(name).parent / image_stem(PureWindowsPath(content.filename))
            ).as_posix()
            path = image_files.find(image_name)
        if path is None:
            problems.add("annotation without image", f"{file.where}: no image {name}.* in {images}")
            continue
        annotated = annotated_image(image_name, path, boxes, labels, complete, problems)
        size = content.size or (None, None)
        if annotated is not None and _has_size(file.where, size, annotated, problems):
            found.append(annotated)
    for name in sorted(lists.keys() - annotated_names):  # negative images have no XML
        absent = all(there is False for there in lists[name].values())
        if classes is DET200 and _listed(name, wanted) and absent:
            complete = labelled_by_folder(name, lists[name])
            none = np.empty(0, np.int64)
            # The lists are of all images, and these of one part may be all that is read.
            places = [place for place in (f"train/{name}", name) if (Path(images) / place).parent.is_dir()]
            if not places:
                continue
            name, path = next(
                ((place, path) for place in places if (path := image_files.find(place)) is not None),
                (name, None),
            )
            if path is None:
                problems.add(
                    "annotation without image", f"no image {name}.* in {images}, which the lists name"
                )
                continue
            annotated = annotated_image(name, path, none, none, complete, problems)
            if annotated is not None:
                found.append(annotated)
    return TrainingSet(classes, tuple(found))


def _relative(source: str | Path, file: XmlFile) -> str:
    """`train/ILSVRC2014_train_0006/ILSVRC2014_train_00060036` of a folder; the stem inside an archive."""
    if not Path(source).is_dir():
        return file.stem
    return Path(file.where).relative_to(source).with_suffix("").as_posix()


class _ImageFiles:
    """The files of images that annotations name without a suffix."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self._by_stem: dict[Path, dict[str, Path]] = {}  # what lies in a folder, listed once

    def find(self, name: str) -> Path | None:
        """The image file of that name, whatever its suffix; None if there is none."""
        guesses = [self.folder / f"{name}.{suffix}" for suffix in _SUFFIXES]
        found = next((guess for guess in guesses if guess.is_file()), None)
        return found or self._listed(guesses[0].parent).get(PurePosixPath(name).name)

    def _listed(self, folder: Path) -> dict[str, Path]:
        if folder not in self._by_stem:
            files = sorted(folder.iterdir(), reverse=True) if folder.is_dir() else []
            self._by_stem[folder] = {
                path.stem: path for path in files if path.suffix.lower() in IMAGE_SUFFIXES
            }
        return self._by_stem[folder]


def _boxes_of(
    file: XmlFile,
    objects: Sequence[XmlObject],
    label_of: Mapping[str, int],
    first_pixel: int,
    problems: Problems,
) -> tuple[np.ndarray, np.ndarray]:
    boxes, labels = [], []
    for item in objects:
        if item.name not in label_of:
            problems.add("unknown class", f"{file.where}: {item.name} is none of the known classes")
            continue
        x1, y1 = item.xmin - first_pixel, item.ymin - first_pixel
        boxes.append((x1, y1, item.xmax - first_pixel + 1, item.ymax - first_pixel + 1))
        labels.append(IGNORE if item.difficult else label_of[item.name])
    return np.array(boxes).reshape(-1, 4), np.array(labels, np.int64)
