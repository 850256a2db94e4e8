"""Hierarchical grouping: merge the most similar neighbours until one is left (Uijlings et al., alg. 1).

Arithmetic is exact where it matters: histograms are counts, normalised to fixed-point integers, so that
an intersection is an integer sum whose order cannot change the result. Of equal similarities the pair of
regions that appeared first is merged first. The hierarchy is a function of the image and nothing else.
"""

from typing import NamedTuple

import numba
import numpy as np
from numpy.typing import NDArray

from proposals.region_features import COLOUR_BINS, ORIENTATIONS, TEXTURE_BINS, RegionFeatures

# A histogram sums to this much; two of them (colour and texture) still fit an int32.
ONE = 1 << 29


class Hierarchy(NamedTuple):
    """A binary tree over n regions: nodes 0..n-1 are the regions, node n + i is merge i."""

    boxes: NDArray[np.int32]  # (2n - 1, 4) xyxy, half-open
    merges: NDArray[np.int32]  # (n - 1, 2) the two nodes a < b that became node n + i


def group(
    regions: RegionFeatures,
    pairs: NDArray[np.int32],
    *,
    colour: bool,
    texture: bool,
    size: bool,
    fill: bool,
) -> Hierarchy:
    """Group regions by the sum of the chosen similarities, each in 0..1.

    Args:
        regions: the n initial regions.
        pairs: (P, 2) which of them touch, a < b, each pair once; they connect all regions.
        colour: intersection of the colour histograms.
        texture: intersection of the texture histograms.
        size: the share of the image that the two do not cover: small regions merge first.
        fill: 1 minus the share of the image in the common box that neither covers: gaps are filled first.
    """
    return Hierarchy(*_group(*regions, pairs, colour, texture, size, fill))


@numba.njit(nogil=True, cache=True)
def _before(similarities, pairs, i, j):  # type: ignore[no-untyped-def]
    """Whether entry i leaves the heap before entry j: higher similarity, then the earlier pair."""
    if similarities[i] != similarities[j]:
        return similarities[i] > similarities[j]
    if pairs[i, 0] != pairs[j, 0]:
        return pairs[i, 0] < pairs[j, 0]
    return pairs[i, 1] < pairs[j, 1]


@numba.njit(nogil=True, cache=True)
def _push(heap, heap_size, similarities, pairs, entry):  # type: ignore[no-untyped-def]
    position = heap_size
    while position > 0:
        above = (position - 1) >> 1
        if not _before(similarities, pairs, entry, heap[above]):
            break
        heap[position] = heap[above]
        position = above
    heap[position] = entry


@numba.njit(nogil=True, cache=True)
def _pop(heap, heap_size, similarities, pairs):  # type: ignore[no-untyped-def]
    """Take the first entry; the heap shrinks by one."""
    top = heap[0]
    last = heap[heap_size - 1]
    heap_size -= 1
    position = 0
    while True:
        child = 2 * position + 1
        if child >= heap_size:
            break
        if child + 1 < heap_size and _before(similarities, pairs, heap[child + 1], heap[child]):
            child += 1
        if not _before(similarities, pairs, heap[child], last):
            break
        heap[position] = heap[child]
        position = child
    heap[position] = last
    return top


@numba.njit(nogil=True, cache=True)
def _normalise(counts, size, num_planes, normalised):  # type: ignore[no-untyped-def]
    """Counts of a region -> fixed point, colour and texture each summing to (just under) ONE."""
    num_colour = COLOUR_BINS * num_planes
    colour_scale = ONE / (size * num_planes)
    texture_scale = ONE / (size * num_planes * ORIENTATIONS)
    for i in range(num_colour):
        normalised[i] = np.int32(counts[i] * colour_scale)
    for i in range(num_colour, counts.size):
        normalised[i] = np.int32(counts[i] * texture_scale)


@numba.njit(nogil=True, cache=True)
def _intersection(a, b):  # type: ignore[no-untyped-def]
    total = np.int32(0)
    for i in range(a.size):
        total = np.int32(total + min(a[i], b[i]))  # kept at 32 bits, it runs on twice the SIMD lanes
    return total


@numba.njit(nogil=True, cache=True)
def _similarity(a, b, sizes, boxes, slots, normalised, lowest, highest, image_size, size, fill):  # type: ignore[no-untyped-def]
    total = 0.0
    if highest > lowest:
        shared = _intersection(normalised[slots[a], lowest:highest], normalised[slots[b], lowest:highest])
        total += shared / ONE
    both = np.int64(sizes[a]) + np.int64(sizes[b])
    if size:
        total += 1.0 - both / image_size
    if fill:
        width = np.int64(max(boxes[a, 2], boxes[b, 2]) - min(boxes[a, 0], boxes[b, 0]))
        height = np.int64(max(boxes[a, 3], boxes[b, 3]) - min(boxes[a, 1], boxes[b, 1]))
        total += 1.0 - (width * height - both) / image_size
    return total


@numba.njit(nogil=True, cache=True)
def _group(region_sizes, region_boxes, histograms, pairs, colour, texture, size, fill):  # type: ignore[no-untyped-def]
    n = region_sizes.size
    num_nodes = 2 * n - 1
    num_planes = histograms.shape[1] // (COLOUR_BINS + ORIENTATIONS * TEXTURE_BINS)
    image_size = region_sizes.sum()
    sizes = np.empty(num_nodes, np.int32)
    boxes = np.empty((num_nodes, 4), np.int32)
    sizes[:n] = region_sizes
    boxes[:n] = region_boxes
    merges = np.empty((n - 1, 2), np.int32)
    alive = np.zeros(num_nodes, np.bool_)
    alive[:n] = True

    lowest = 0 if colour else COLOUR_BINS * num_planes
    highest = histograms.shape[1] if texture else COLOUR_BINS * num_planes
    # Histograms live in n slots; a merged region takes over the slot of its first part.
    slots = np.empty(num_nodes, np.int32)
    slots[:n] = np.arange(n)
    with_histograms = highest > lowest
    counts = histograms.copy() if with_histograms else histograms[:0].copy()
    normalised = np.empty_like(counts)
    if with_histograms:
        for region in range(n):
            _normalise(counts[region], sizes[region], num_planes, normalised[region])

    # An edge is an entry: its two nodes and their similarity. Each of the two keeps it in a linked list, and
    # entries with a dead node are skipped when met.
    capacity = max(16, 8 * len(pairs))
    ends = np.empty((capacity, 2), np.int32)
    similarities = np.empty(capacity, np.float64)
    following = np.empty((capacity, 2), np.int32)
    heap = np.empty(capacity, np.int32)
    head = np.full(num_nodes, -1, np.int32)  # 2 * entry + side
    num_entries = 0
    heap_size = 0
    for a, b in pairs:
        ends[num_entries, 0] = a
        ends[num_entries, 1] = b
        similarities[num_entries] = _similarity(
            a, b, sizes, boxes, slots, normalised, lowest, highest, image_size, size, fill
        )
        following[num_entries, 0] = head[a]
        following[num_entries, 1] = head[b]
        head[a] = 2 * num_entries
        head[b] = 2 * num_entries + 1
        _push(heap, heap_size, similarities, ends, num_entries)
        num_entries += 1
        heap_size += 1

    linked_to = np.full(num_nodes, -1, np.int32)
    node = n
    while heap_size > 0:
        entry = _pop(heap, heap_size, similarities, ends)
        heap_size -= 1
        a, b = ends[entry, 0], ends[entry, 1]
        if not (alive[a] and alive[b]):
            continue
        alive[a] = alive[b] = False
        alive[node] = True
        merges[node - n, 0] = a
        merges[node - n, 1] = b
        sizes[node] = sizes[a] + sizes[b]
        boxes[node, 0] = min(boxes[a, 0], boxes[b, 0])
        boxes[node, 1] = min(boxes[a, 1], boxes[b, 1])
        boxes[node, 2] = max(boxes[a, 2], boxes[b, 2])
        boxes[node, 3] = max(boxes[a, 3], boxes[b, 3])
        slot = slots[a]
        slots[node] = slot
        if with_histograms:
            counts[slot] += counts[slots[b]]
            _normalise(counts[slot], sizes[node], num_planes, normalised[slot])
        for part in (a, b):
            link = head[part]
            while link >= 0:
                old, side = link >> 1, link & 1
                link = following[old, side]
                other = ends[old, 1 - side]
                if not alive[other] or linked_to[other] == node:
                    continue
                linked_to[other] = node
                if num_entries == capacity:
                    capacity *= 2
                    ends = _grown_2d(ends, capacity)
                    following = _grown_2d(following, capacity)
                    similarities = _grown(similarities, capacity)
                    heap = _grown(heap, capacity)
                ends[num_entries, 0] = other
                ends[num_entries, 1] = node  # a new node has the highest number
                similarities[num_entries] = _similarity(
                    other, node, sizes, boxes, slots, normalised, lowest, highest, image_size, size, fill
                )
                following[num_entries, 0] = head[other]
                following[num_entries, 1] = head[node]
                head[other] = 2 * num_entries
                head[node] = 2 * num_entries + 1
                _push(heap, heap_size, similarities, ends, num_entries)
                num_entries += 1
                heap_size += 1
        node += 1
    return boxes, merges


@numba.njit(nogil=True, cache=True)
def _grown(array, capacity):  # type: ignore[no-untyped-def]
    grown = np.empty(capacity, array.dtype)
    grown[: array.size] = array
    return grown


@numba.njit(nogil=True, cache=True)
def _grown_2d(array, capacity):  # type: ignore[no-untyped-def]
    grown = np.empty((capacity, array.shape[1]), array.dtype)
    grown[: len(array)] = array
    return grown
