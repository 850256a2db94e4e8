"""Graph-based image segmentation (Felzenszwalb & Huttenlocher, IJCV 2004) on the 8-connected pixel grid.

The edges are sorted once per image and serve every k: `sort_edges` then `segment` for each k. An edge is one
integer, `4 * pixel + direction`, so that the graph takes 4 bytes an edge and no coordinates.
"""

from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from eval.compiled import compiled

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
    _, height, width = smoothed.shape
    weights = np.full((height, 4, width), _NO_EDGE, np.uint16)
    _weigh(smoothed, np.empty(width, np.float32), weights)
    count = np.bincount(weights.ravel(), minlength=_NUM_WEIGHTS)[:_NUM_WEIGHTS]
    first = np.concatenate([[0], np.cumsum(count)]).astype(np.int32)
    edges = np.empty(first[-1], np.int32)
    _counting_sort(weights, first.copy(), edges)
    return SortedEdges(edges, first)


def segment(edges: SortedEdges, height: int, width: int, k: float, min_size: int) -> Segmentation:
    """Merge regions along ascending edges while the edge is no larger than both internal differences.

    Args:
        edges: of `sort_edges`.
        height: of the image.
        width: of the image.
        k: preference for large regions: tau(C) = k / |C|, in grey levels.
        min_size: afterwards regions of fewer pixels are merged along their weakest edge.
    """
    num_pixels = height * width
    parent = np.arange(num_pixels, dtype=np.int32)
    size = np.ones(num_pixels, np.int32)
    scaled_k = float(k) * WEIGHT_STEPS
    threshold = np.full(num_pixels, scaled_k)
    step = np.array([1, width, width + 1, width - 1], np.int32)  # from a pixel along each direction
    boundary = np.empty(len(edges.edges), np.int32)
    num_boundary = _merge(
        edges.edges,
        edges.first,
        float(k) * WEIGHT_STEPS,
        int(min_size),
        parent,
        size,
        threshold,
        step,
        boundary,
    )
    labels = np.empty(num_pixels, np.int32)
    num_regions = _number(parent, labels)
    pairs = np.empty((num_boundary, 2), np.int32)
    num_pairs = _unique_pairs(
        labels, boundary, num_boundary, step, np.zeros((3, num_regions + 1), np.int32), pairs
    )
    return Segmentation(labels.reshape(height, width), pairs[:num_pairs].copy(), num_regions)


def kernel_was_compiled() -> bool:
    """Whether `sort_edges` had to be compiled in this process, instead of being loaded from numba's cache."""
    return bool(_weigh.stats.cache_misses)


# The kernels below are plain loops over arrays allocated above: numba compiles those several times faster
# than slices and array expressions.


@compiled
def _weigh(smoothed, squared, weights):  # type: ignore[no-untyped-def]
    """Fill `weights` (H, 4, W) with the rounded edge weights; `squared` (W,) is workspace."""
    num_planes, height, width = smoothed.shape
    for y in range(height):
        for direction in range(4):
            dy = 0 if direction == RIGHT else 1
            dx = 0 if direction == DOWN else (-1 if direction == DOWN_LEFT else 1)
            if y + dy >= height:
                continue
            begin = 1 if dx < 0 else 0
            end = width - 1 if dx > 0 else width
            for x in range(width):
                squared[x] = 0
            for plane in range(num_planes):
                for x in range(begin, end):
                    difference = smoothed[plane, y + dy, x + dx] - smoothed[plane, y, x]
                    squared[x] += difference * difference
            for x in range(begin, end):
                weights[y, direction, x] = np.uint16(
                    np.sqrt(squared[x]) * np.float32(WEIGHT_STEPS) + np.float32(0.5)
                )


@compiled
def _counting_sort(weights, cursor, edges):  # type: ignore[no-untyped-def]
    """Sort the edges by `weights` (H, 4, W), given the place in `edges` where each weight begins."""
    height, _, width = weights.shape
    for y in range(height):
        for x in range(width):
            for direction in range(4):
                weight = weights[y, direction, x]
                if weight != _NO_EDGE:
                    edges[cursor[weight]] = 4 * (y * width + x) + direction
                    cursor[weight] += 1


@compiled
def _root(parent, node):  # type: ignore[no-untyped-def]
    while parent[node] != node:
        node = parent[node]
    return node


@compiled
def _join(parent, size, one, other):  # type: ignore[no-untyped-def]
    """Join two trees of a forest, the smaller below the larger; returns the root."""
    if size[one] < size[other]:
        one, other = other, one
    parent[other] = one
    size[one] += size[other]
    return one


@compiled
def _merge(edges, first, k, min_size, parent, size, threshold, step, boundary):  # type: ignore[no-untyped-def]
    """Both passes of the segmentation on the forest `parent`.

    `size` and `threshold` (Int(C) + tau(C), `k` in steps of weight) hold for roots. The edges left between
    two regions go to `boundary`, in ascending order of weight; returns their number.
    """
    num_boundary = 0
    for weight in range(first.size - 1):
        for position in range(first[weight], first[weight + 1]):
            pixel = edges[position] >> 2
            other = pixel + step[edges[position] & 3]
            if parent[pixel] == parent[other]:  # most edges, as both mostly point to the root
                continue
            a, b = _root(parent, pixel), _root(parent, other)
            parent[pixel], parent[other] = a, b
            if a == b:
                continue
            if weight <= threshold[a] and weight <= threshold[b]:
                joined = _join(parent, size, a, b)
                threshold[joined] = weight + k / size[joined]
            else:
                boundary[num_boundary] = edges[position]
                num_boundary += 1

    kept = 0
    for position in range(num_boundary):  # an edge inside a region stays inside: no need to see all again
        pixel = boundary[position] >> 2
        other = pixel + step[boundary[position] & 3]
        if parent[pixel] == parent[other]:
            continue
        a, b = _root(parent, pixel), _root(parent, other)
        parent[pixel], parent[other] = a, b
        if a == b:
            continue
        if size[a] < min_size or size[b] < min_size:
            _join(parent, size, a, b)
        else:
            boundary[kept] = boundary[position]
            kept += 1
    return kept


@compiled
def _number(parent, labels):  # type: ignore[no-untyped-def]
    """Number the trees of the forest in the order of their first pixels; returns how many there are."""
    for pixel in range(parent.size):
        labels[pixel] = -1
    num_regions = 0
    for pixel in range(parent.size):
        root = _root(parent, pixel)
        parent[pixel] = root
        # A root keeps the number of its tree in its own place; a pixel before its root is met first there.
        if labels[root] < 0:
            labels[root] = num_regions
            num_regions += 1
        labels[pixel] = labels[root]
    return num_regions


@compiled
def _unique_pairs(labels, boundary, num_boundary, step, workspace, pairs):  # type: ignore[no-untyped-def]
    """Write each pair of labels a < b joined by a boundary edge once; returns their number.

    The pairs are grouped by a, where `seen_by` tells a repeated b; `workspace` (3, n + 1) is zero.
    """
    first, cursor, seen_by = workspace[0], workspace[1], workspace[2]
    for position in range(num_boundary):
        edge = boundary[position]
        a, b = labels[edge >> 2], labels[(edge >> 2) + step[edge & 3]]
        if a != b:
            first[min(a, b) + 1] += 1
    for region in range(first.size - 1):
        first[region + 1] += first[region]
        cursor[region] = first[region]
        seen_by[region] = -1
    for position in range(num_boundary):
        edge = boundary[position]
        a, b = labels[edge >> 2], labels[(edge >> 2) + step[edge & 3]]
        if a != b:
            smaller = min(a, b)
            pairs[cursor[smaller], 1] = max(a, b)
            cursor[smaller] += 1
    num_pairs = 0
    for region in range(first.size - 1):
        for position in range(first[region], first[region + 1]):
            other = pairs[position, 1]
            if seen_by[other] != region:
                seen_by[other] = region
                pairs[num_pairs, 0] = region
                pairs[num_pairs, 1] = other
                num_pairs += 1
    return num_pairs
