"""Which image is meant: names come with and without folders and suffixes."""

from pathlib import Path, PurePath

from eval.text_files import read_text

IMAGE_SUFFIXES = {".jpg", ".jpeg", ".jpe", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm"}


def image_stem(name: str | PurePath) -> str:
    """A name without its folders and without the suffix of an image file; other dots stay (`a_jpg.rf.1f`)."""
    path = PurePath(name)
    return path.stem if path.suffix.lower() in IMAGE_SUFFIXES else path.name


def read_name_list(path: str | Path) -> list[str] | None:
    """What the lines of a file name, each image once; None where it is another file, such as of `name index` lines.

    A name with blanks in it is one if it ends as a file of an image does.

    Raises:
        OSError, ValueError: No such file, or no text.
    """
    names = [line.strip() for line in read_text(path).splitlines() if line.strip()]
    alone = all(len(name.split()) == 1 or PurePath(name).suffix.lower() in IMAGE_SUFFIXES for name in names)
    return list(dict.fromkeys(names)) if names and alone else None
