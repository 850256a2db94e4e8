"""The images of a benchmark, one after the other: what cannot be read costs no other image its measurement."""

import sys
from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from detector.command_line import BAD_INPUT, PARTLY_DONE, one_sentence
from detector.images import ImageFile, read_image


def read_images(images: Iterable[ImageFile], failed: list[str]) -> Iterator[tuple[str, NDArray[np.uint8]]]:
    """Names and pixels (H, W, 3); an image that cannot be read is told on stderr, and added to `failed`."""
    for image in images:
        try:
            pixels = read_image(image.path)
        except (OSError, ValueError) as error:
            print(f"error: {one_sentence(error)}", file=sys.stderr)
            failed.append(image.name)
        else:
            yield image.name, pixels


def exit_code(failed: list[str], total: int) -> int:
    """That of a benchmark which so many of its images failed, told on stderr."""
    if not failed:
        return 0
    print(f"{len(failed)} of {total} images failed: {', '.join(failed)}", file=sys.stderr)
    return BAD_INPUT if len(failed) == total else PARTLY_DONE
