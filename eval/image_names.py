"""Which image is meant: names come with and without folders and suffixes."""

from pathlib import PurePath

IMAGE_SUFFIXES = {".jpg", ".jpeg", ".jpe", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm"}


def image_stem(name: str | PurePath) -> str:
    """A name without its folders and without the suffix of an image file; other dots stay (`a_jpg.rf.1f`)."""
    path = PurePath(name)
    return path.stem if path.suffix.lower() in IMAGE_SUFFIXES else path.name
