"""Graph-based image segmentation (Felzenszwalb & Huttenlocher, IJCV 2004) on the 8-connected pixel grid.

The edges are sorted once per image and serve every k: `sort_edges` then `segment` for each k. An edge is one
integer, `4 * pixel + direction`, so that the graph takes 4 bytes an edge and no coordinates.
"""

from typing import NamedTuple

import cv2
import numba
import numpy as np
from numpy.typing import NDArray

SIGMA = 0.8  # of the smoothing before the segmentation, in pixels (both papers)
# Edge weights are distances in grey levels, rounded to 1/64: far below the noise of an 8-bit image, and small
# enough (255 * sqrt(3) * 64 < 2**15) for an exact one-pass counting sort.
WEIGHT_STEPS = 64
_NUM_WEIGHTS = 1 << 15
_NO_EDGE = _NUM_WEIGHTS  # beyond the image's border

RIGHT, DOWN, DOWN_RIGHT, DOWN_LEFT = range(4)


class SortedEdges(NamedTuple):
    """All edges of the pixel grid in ascending order of weight, equal weights in raster order."""

    edges: NDArray[np.int32]  # (E,) each 4 * pixel + direction, pixel = y * width + x
    first: NDArray[np.int32]  # (2**15 + 1,) the edges of weight w are edges[first[w]:first[w + 1]]


class Segmentation(NamedTuple):
    """A partition of the image into connected regions 0..n-1, numbered in the order of their first pixels."""

    labels: NDArray[np.int32]  # (H, W)
    pairs: NDArray[np.int32]  # (P, 2) touching regions a < b, each pair once
    num_regions: int


def smooth(planes: NDArray[np.float32], sigma: float = SIGMA) -> NDArray[np.float32]:
    """Blur each of the planes (P, H, W) with a Gaussian cut at 4 sigma."""
    side = 2 * int(4 * sigma) + 1
    return np.stack(
        [cv2.GaussianBlur(plane, (side, side), sigma, borderType=cv2.BORDER_REPLICATE) for plane in planes]
    )


def sort_edges(smoothed: NDArray[np.float32]) -> SortedEdges:
    """Weigh and sort the edges of the 8-connected grid over smoothed planes (P, H, W)."""
    return SortedEdges(*_sort_edges(smoothed))


def segment(edges: SortedEdges, height: int, width: int, k: float, min_size: int) -> Segmentation:
    """Merge regions along ascending edges while the edge is no larger than both internal differences.

    Args:
        edges: of `sort_edges`.
        height: of the image.
        width: of the image.
        k: preference for large regions: tau(C) = k / |C|, in grey levels.
        min_size: afterwards regions of fewer pixels are merged along their weakest edge.
    """
    labels, pairs, num_regions = _segment(edges.edges, edges.first, height, width, float(k), int(min_size))
    return Segmentation(labels.reshape(height, width), pairs, num_regions)


def kernel_was_compiled() -> bool:
    """Whether `sort_edges` had to be compiled in this process, instead of being loaded from numba's cache."""
    return bool(_sort_edges.stats.cache_misses)


@numba.njit(nogil=True, cache=True)
def _sort_edges(smoothed):  # type: ignore[no-untyped-def]
    num_planes, height, width = smoothed.shape
    weights = np.full((height, 4, width), _NO_EDGE, np.uint16)
    squared = np.empty(width, np.float32)
    for y in range(height):
        for direction in range(4):
            dy = 0 if direction == RIGHT else 1
            dx = 0 if direction == DOWN else (-1 if direction == DOWN_LEFT else 1)
            if y + dy >= height:
                continue
            begin = 1 if dx < 0 else 0
            end = width - 1 if dx > 0 else width
            squared[:] = 0
            for plane in range(num_planes):
                here = smoothed[plane, y]
                there = smoothed[plane, y + dy]
                for x in range(begin, end):
                    difference = there[x + dx] - here[x]
                    squared[x] += difference * difference
            row = weights[y, direction]
            for x in range(begin, end):
                row[x] = np.uint16(np.sqrt(squared[x]) * np.float32(WEIGHT_STEPS) + np.float32(0.5))

    first = np.zeros(_NUM_WEIGHTS + 2, np.int32)  # one bucket more, for the edges that do not exist
    for weight in weights.ravel():
        first[np.int64(weight) + 1] += 1
    for weight in range(_NUM_WEIGHTS + 1):
        first[weight + 1] += first[weight]
    cursor = first.copy()
    edges = np.empty(first[_NUM_WEIGHTS], np.int32)
    for y in range(height):
        for x in range(width):
            for direction in range(4):
                weight = np.int64(weights[y, direction, x])
                if weight != _NO_EDGE:
                    edges[cursor[weight]] = 4 * (y * width + x) + direction
                    cursor[weight] += 1
    return edges, first[: _NUM_WEIGHTS + 1]


@numba.njit(nogil=True, cache=True)
def _find(parent, node):  # type: ignore[no-untyped-def]
    """The root of `node`, halving the path on the way."""
    while parent[node] != node:
        parent[node] = parent[parent[node]]
        node = parent[node]
    return node


@numba.njit(nogil=True, cache=True)
def _segment(edges, first, height, width, k, min_size):  # type: ignore[no-untyped-def]
    num_pixels = height * width
    step = np.array([1, width, width + 1, width - 1], np.int32)
    parent = np.arange(num_pixels).astype(np.int32)
    size = np.ones(num_pixels, np.int32)
    k = k * WEIGHT_STEPS
    threshold = np.full(num_pixels, k)  # Int(C) + tau(C), of roots
    boundary = np.empty(edges.size, np.int32)  # edges between two regions, still in ascending order
    num_boundary = 0
    for weight in range(first.size - 1):
        for position in range(first[weight], first[weight + 1]):
            edge = edges[position]
            pixel = edge >> 2
            a = _find(parent, pixel)
            b = _find(parent, pixel + step[edge & 3])
            if a == b:
                continue
            if weight <= threshold[a] and weight <= threshold[b]:
                if size[a] < size[b]:
                    a, b = b, a
                parent[b] = a
                size[a] += size[b]
                threshold[a] = weight + k / size[a]
            else:
                boundary[num_boundary] = edge
                num_boundary += 1

    kept = 0
    for position in range(num_boundary):
        edge = boundary[position]
        pixel = edge >> 2
        a = _find(parent, pixel)
        b = _find(parent, pixel + step[edge & 3])
        if a == b:
            continue
        if size[a] < min_size or size[b] < min_size:
            if size[a] < size[b]:
                a, b = b, a
            parent[b] = a
            size[a] += size[b]
        else:
            boundary[kept] = edge
            kept += 1

    labels = np.empty(num_pixels, np.int32)
    label_of_root = np.full(num_pixels, -1, np.int32)
    num_regions = 0
    for pixel in range(num_pixels):
        root = _find(parent, pixel)
        if label_of_root[root] < 0:
            label_of_root[root] = num_regions
            num_regions += 1
        labels[pixel] = label_of_root[root]

    return labels, _unique_pairs(labels, boundary[:kept], step, num_regions), num_regions


@numba.njit(nogil=True, cache=True)
def _unique_pairs(labels, boundary, step, num_regions):  # type: ignore[no-untyped-def]
    """Each pair of labels a < b joined by a boundary edge, once."""
    first = np.zeros(num_regions + 1, np.int32)
    for edge in boundary:
        a, b = labels[edge >> 2], labels[(edge >> 2) + step[edge & 3]]
        if a != b:
            first[min(a, b) + 1] += 1
    for region in range(num_regions):
        first[region + 1] += first[region]
    others = np.empty(first[num_regions], np.int32)  # the larger labels, grouped by the smaller
    cursor = first.copy()
    for edge in boundary:
        a, b = labels[edge >> 2], labels[(edge >> 2) + step[edge & 3]]
        if a != b:
            smaller = min(a, b)
            others[cursor[smaller]] = max(a, b)
            cursor[smaller] += 1
    pairs = np.empty((others.size, 2), np.int32)
    num_pairs = 0
    seen_by = np.full(num_regions, -1, np.int32)
    for region in range(num_regions):
        for other in others[first[region] : first[region + 1]]:
            if seen_by[other] != region:
                seen_by[other] = region
                pairs[num_pairs, 0] = region
                pairs[num_pairs, 1] = other
                num_pairs += 1
    return pairs[:num_pairs].copy()
