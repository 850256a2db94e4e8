"""What selective search knows of a region: size, box and histograms (Uijlings et al., sec. 3.2).

Every pixel adds one count per plane to a colour histogram of 25 bins, and one per plane and orientation
to a texture histogram of 10 bins. The bins of a pixel depend only on the colour space, so `pixel_bins` runs
once per colour space and `measure_regions` once per segmentation. Counts are integers: merging regions adds
them exactly.
"""

from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from eval.compiled import compiled

COLOUR_BINS = 25
TEXTURE_BINS = 10
ORIENTATIONS = 8  # of the half-rectified Gaussian derivatives: 4 axes, either sign
TEXTURE_SIGMA = 1.0
_AXES = ORIENTATIONS // 2
_RADIUS = 4


class RegionFeatures(NamedTuple):
    """The n regions of a segmentation in P planes."""

    sizes: NDArray[np.int32]  # (n,) pixels
    boxes: NDArray[np.int32]  # (n, 4) xyxy, half-open
    histograms: NDArray[np.int32]  # (n, 25 P + 80 P) counts, the colour bins first


def pixel_bins(planes: NDArray[np.float32]) -> NDArray[np.uint16]:
    """The histogram bins of each pixel.

    Args:
        planes: (P, H, W), 0..255.

    Returns:
        (H, W, 5 P) columns of the histogram: P colour bins, then for each plane those of 4 axes of the
        derivative. A negative derivative along an axis is a positive one of the opposite orientation; the
        orientation that the rectification sets to zero is left to `measure_regions`.
    """
    along, across = _derivatives(planes)
    return _pixel_bins(planes, along, across)


def measure_regions(labels: NDArray[np.int32], num_regions: int, bins: NDArray[np.uint16]) -> RegionFeatures:
    """Measure the regions of `labels` (H, W) with the `bins` (H, W, 5 P) of `pixel_bins`."""
    return RegionFeatures(*_measure_regions(labels, num_regions, bins))


def _derivatives(planes: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Gaussian derivatives along x and along y of planes (P, H, W)."""
    offsets = np.arange(-_RADIUS, _RADIUS + 1, dtype=np.float64)
    gaussian = np.exp(-(offsets**2) / (2 * TEXTURE_SIGMA**2))
    gaussian /= gaussian.sum()
    derivative = offsets / TEXTURE_SIGMA**2 * gaussian  # correlation, so not mirrored
    border = cv2.BORDER_REPLICATE
    along = [cv2.sepFilter2D(plane, cv2.CV_32F, derivative, gaussian, borderType=border) for plane in planes]
    across = [cv2.sepFilter2D(plane, cv2.CV_32F, gaussian, derivative, borderType=border) for plane in planes]
    return np.stack(along), np.stack(across)


@compiled
def _pixel_bins(planes, along, across):  # type: ignore[no-untyped-def]
    num_planes, height, width = planes.shape
    diagonal = np.float32(np.sqrt(0.5))
    bins = np.empty((height, width, 5 * num_planes), np.uint16)
    for plane in range(num_planes):
        largest = np.float32(0)
        for y in range(height):
            for x in range(width):
                u, v = abs(along[plane, y, x]), abs(across[plane, y, x])
                largest = max(largest, max(max(u, v), diagonal * (u + v)))
        # Bins divide the range from 0 to the largest response of the plane.
        scale = np.float32(TEXTURE_BINS) / largest if largest > 0 else np.float32(0)
        colour_start = COLOUR_BINS * plane
        texture_start = COLOUR_BINS * num_planes + ORIENTATIONS * TEXTURE_BINS * plane
        column = num_planes + _AXES * plane
        for y in range(height):
            for x in range(width):
                value = np.int32(planes[plane, y, x] * np.float32(COLOUR_BINS / 256))
                bins[y, x, plane] = colour_start + value
                u, v = along[plane, y, x], across[plane, y, x]
                for axis in range(_AXES):
                    if axis == 0:
                        response = u
                    elif axis == 1:
                        response = diagonal * (u + v)
                    elif axis == 2:
                        response = v
                    else:
                        response = diagonal * (v - u)
                    orientation = axis if response >= 0 else axis + _AXES
                    strength = min(np.int32(abs(response) * scale), TEXTURE_BINS - 1)
                    bins[y, x, column + axis] = texture_start + TEXTURE_BINS * orientation + strength
    return bins


@compiled
def _measure_regions(labels, num_regions, bins):  # type: ignore[no-untyped-def]
    height, width, num_columns = bins.shape
    num_planes = num_columns // (1 + _AXES)
    num_colour = COLOUR_BINS * num_planes
    num_bins = num_colour + ORIENTATIONS * TEXTURE_BINS * num_planes
    sizes = np.zeros(num_regions, np.int32)
    boxes = np.zeros((num_regions, 4), np.int32)
    boxes[:, 0] = width
    boxes[:, 1] = height
    histograms = np.zeros((num_regions, num_bins), np.int32)
    for y in range(height):
        for x in range(width):
            region = labels[y, x]
            sizes[region] += 1
            box = boxes[region]
            box[0] = min(box[0], x)
            box[1] = min(box[1], y)
            box[2] = max(box[2], x + 1)
            box[3] = max(box[3], y + 1)
            histogram = histograms[region]
            for column in range(num_columns):
                histogram[bins[y, x, column]] += 1
    # Each pixel counts once in every orientation: where it was rectified away, in the bin of zero.
    for region in range(num_regions):
        histogram = histograms[region]
        for start in range(num_colour, num_bins, TEXTURE_BINS):
            counted = 0
            for strength in range(TEXTURE_BINS):
                counted += histogram[start + strength]
            histogram[start] += sizes[region] - counted
    return sizes, boxes, histograms
