"""Image files in, RGB pixels out, whatever the file was."""

import glob
import os
import struct
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from eval.image_names import IMAGE_SUFFIXES

_ORIENTATION = 0x0112  # EXIF tag
_TURNS = {  # by its value: how the pixels are turned to be looked at; 1 is as they are
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# Pillow's ways to say that a file is damaged
DAMAGED = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    TypeError,
    AttributeError,
    KeyError,
    IndexError,
    NotImplementedError,
    struct.error,
)


@dataclass(frozen=True)
class ImageFile:
    """An image to work on: where it lies, and the name it goes by in results."""

    path: Path
    name: str


def find_images(
    patterns: Iterable[str], leave_out: Callable[[Path], bool] = lambda path: False
) -> list[ImageFile]:
    """Files, folders (searched with their sub-folders) and glob patterns -> images, each once.

    The order is that of `patterns`, and by name within a folder or a glob. Images found in a folder go by their path
    inside it, the others by their path as given; so do those that would share a name. A file named explicitly is taken
    whatever its suffix is, and whether or not it exists: what is wrong with it shows when it is read.

    Args:
        patterns: Files, folders, globs.
        leave_out: Says of a file in a folder or a glob that it is none of the images.

    Raises:
        ValueError: A folder or a glob without images.
    """
    images: dict[Path, ImageFile] = {}

    def add(path: Path, name: Path) -> None:
        # `..` behind a linked folder leads elsewhere; a linked file is an image of its own
        place = Path(os.path.realpath(path.parent), path.name)
        images.setdefault(place, ImageFile(path, name.as_posix()))

    for pattern in patterns:
        if Path(pattern).is_dir():
            matches = [path for path in _images_below(Path(pattern)) if not leave_out(path)]
            if not matches:
                raise ValueError(f"{pattern}: no images in this folder (looked for {_known_suffixes()})")
            for path in matches:
                add(path, path.relative_to(pattern))
        elif Path(pattern).exists() or not glob.has_magic(pattern):
            add(Path(pattern), Path(pattern))
        else:
            paths = [Path(match) for match in sorted(glob.glob(pattern, recursive=True))]
            matches = [
                path
                for path in paths
                if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file() and not leave_out(path)
            ]
            if not matches:
                folder = next(
                    (f"; it matches the folder {path}, name that" for path in paths if path.is_dir()), ""
                )
                raise ValueError(f"{pattern}: matches no images (looked for {_known_suffixes()}){folder}")
            for path in matches:
                add(path, path)
    found = list(images.values())
    while len(names := Counter(image.name for image in found)) < len(found):
        # again and again: the path of one may be the name of another
        found = [
            image if names[image.name] == 1 else ImageFile(image.path, image.path.as_posix())
            for image in found
        ]
    return found


def _images_below(folder: Path) -> list[Path]:
    return sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in IMAGE_SUFFIXES
        and path.is_file()
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    )


def _known_suffixes() -> str:
    return " ".join(sorted(IMAGE_SUFFIXES))


def read_image(path: str | Path) -> np.ndarray:
    """Read any image Pillow can, the way it looks on a screen: RGB uint8 (H, W, 3).

    Turned by its EXIF orientation; transparency over white; 16 bit and floating point brought to 8 bit;
    CMYK, palette and grey converted; of an animation the first frame.

    Raises:
        OSError: No such file, or not an image that can be read to its end.
    """
    path = Path(path)
    if path.is_dir():
        raise IsADirectoryError(f"{path}: is a folder, not an image")
    try:
        with Image.open(path) as image:
            image.load()
            turn = _TURNS.get(exif_orientation(image))
            return np.ascontiguousarray(_to_rgb(image if turn is None else image.transpose(turn)))
    except FileNotFoundError:
        raise FileNotFoundError(f"{path}: no such file") from None
    except UnidentifiedImageError:
        empty = path.stat().st_size == 0
        raise OSError(f"{path}: {'the file is empty' if empty else 'not an image'}") from None
    except Image.DecompressionBombError:
        raise OSError(f"{path}: more than {2 * (Image.MAX_IMAGE_PIXELS or 0):,} pixels, too large") from None
    except PermissionError:
        raise
    except DAMAGED as error:
        raise OSError(f"{path}: cannot be read as an image ({error})") from None


def exif_orientation(image: Image.Image) -> int:
    """How an opened image is to be turned by its EXIF data, 1 to 8; 1, as it is, where these are damaged.

    Only this one tag is looked at: cameras and programs write the others in ways that Pillow fails to write again.
    """
    try:
        value = image.getexif().get(_ORIENTATION, 1)
    except DAMAGED:
        return 1
    return int(value) if value in _TURNS else 1


def _to_rgb(image: Image.Image) -> np.ndarray:
    if image.mode.startswith("I") or image.mode == "F":  # one channel deeper than 8 bit: Pillow would clip it
        return np.repeat(_to_8_bit(np.asarray(image))[:, :, None], 3, axis=2)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    return np.asarray(image.convert("RGB"))


def _to_8_bit(pixels: np.ndarray) -> np.ndarray:
    """Grey pixels of unknown depth (H, W) -> uint8: 0..255, 0..65535 and floats of 0..1 as such, others stretched."""
    values = np.nan_to_num(pixels.astype(np.float64))
    low, high = float(values.min()), float(values.max())
    if low >= 0 and high <= 1 and pixels.dtype.kind == "f":
        return (values * 255).round().astype(np.uint8)
    if low >= 0 and high <= 255 and pixels.dtype.newbyteorder("=") != np.uint16:
        return values.round().astype(np.uint8)
    if low >= 0 and high <= 65535:
        return (values / 257).round().astype(np.uint8)
    return ((values - low) * (255 / (high - low) if high > low else 0)).round().astype(np.uint8)
