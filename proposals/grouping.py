"""Hierarchical grouping: merge the most similar neighbours until one is left (Uijlings et al., alg. 1).

Arithmetic is exact where it matters: histograms are counts, normalised to fixed-point integers, so that
an intersection is an integer sum whose order cannot change the result. Of equal similarities the pair of
regions that appeared first is merged first. The hierarchy is a function of the image and nothing else.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from eval.compiled import compiled
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
    n, num_bins = regions.histograms.shape
    num_planes = num_bins // (COLOUR_BINS + ORIENTATIONS * TEXTURE_BINS)
    num_colour = COLOUR_BINS * num_planes
    used = slice(0 if colour else num_colour, num_bins if texture else num_colour)
    sizes = np.concatenate([regions.sizes, np.zeros(n - 1, np.int32)])
    boxes = np.concatenate([regions.boxes, np.zeros((n - 1, 4), np.int32)])
    merges = np.empty((n - 1, 2), np.int32)
    counts = regions.histograms[:, used].copy()
    _group(
        sizes,
        boxes,
        merges,
        counts,
        num_colour if colour else 0,
        num_planes,
        pairs.copy(),
        int(regions.sizes.sum()),
        size,
        fill,
        np.empty_like(counts),
        np.empty((len(pairs), 2), np.int32),
        np.full(2 * n - 1, -1, np.int32),
        np.full(2 * n - 1, -1, np.int32),
        np.arange(2 * n - 1, dtype=np.int32),
    )
    return Hierarchy(boxes, merges)


# The kernels below are plain loops over arrays allocated above: numba compiles those several times faster
# than slices and array expressions.


@compiled
def _before(similarities, ends, i, j):  # type: ignore[no-untyped-def]
    """Whether edge i is to be merged before edge j: higher similarity, then the earlier pair of nodes."""
    if similarities[i] != similarities[j]:
        return similarities[i] > similarities[j]
    first_i, first_j = min(ends[i, 0], ends[i, 1]), min(ends[j, 0], ends[j, 1])
    if first_i != first_j:
        return first_i < first_j
    return max(ends[i, 0], ends[i, 1]) < max(ends[j, 0], ends[j, 1])


@compiled
def _settle(heap, places, heap_size, similarities, ends, position):  # type: ignore[no-untyped-def]
    """Restore the order of the heap around a position whose edge is new or has changed."""
    edge = heap[position]
    while position > 0 and _before(similarities, ends, edge, heap[(position - 1) >> 1]):
        heap[position] = heap[(position - 1) >> 1]
        places[heap[position]] = position
        position = (position - 1) >> 1
    child = 2 * position + 1
    while child < heap_size:
        if child + 1 < heap_size and _before(similarities, ends, heap[child + 1], heap[child]):
            child += 1
        if not _before(similarities, ends, heap[child], edge):
            break
        heap[position] = heap[child]
        places[heap[position]] = position
        position = child
        child = 2 * position + 1
    heap[position] = edge
    places[edge] = position


@compiled
def _normalise(counts, normalised, slot, num_colour, num_planes, size):  # type: ignore[no-untyped-def]
    """Counts of a region -> fixed point, colour and texture each summing to (just under) ONE."""
    colour_scale = ONE / (size * num_planes)
    texture_scale = ONE / (size * num_planes * ORIENTATIONS)
    for i in range(num_colour):
        normalised[slot, i] = np.int32(counts[slot, i] * colour_scale)
    for i in range(num_colour, counts.shape[1]):
        normalised[slot, i] = np.int32(counts[slot, i] * texture_scale)


@compiled
def _similarity(a, b, sizes, boxes, normalised, slots, image_size, size, fill):  # type: ignore[no-untyped-def]
    shared = np.int32(0)  # kept at 32 bits, the sum runs on twice the SIMD lanes
    slot_a, slot_b = slots[a], slots[b]
    for i in range(normalised.shape[1]):
        shared = np.int32(shared + min(normalised[slot_a, i], normalised[slot_b, i]))
    total = shared / ONE
    both = np.int64(sizes[a]) + np.int64(sizes[b])
    if size:
        total += 1.0 - both / image_size
    if fill:
        width = np.int64(max(boxes[a, 2], boxes[b, 2]) - min(boxes[a, 0], boxes[b, 0]))
        height = np.int64(max(boxes[a, 3], boxes[b, 3]) - min(boxes[a, 1], boxes[b, 1]))
        total += 1.0 - (width * height - both) / image_size
    return total


@compiled
def _group(  # type: ignore[no-untyped-def]
    sizes,  # (2n - 1,) of the nodes, the first n given
    boxes,  # (2n - 1, 4) likewise
    merges,  # (n - 1, 2) result
    counts,  # (n, bins) histograms in n slots; a merged node takes over the slot of its first part
    num_colour,
    num_planes,
    ends,  # (P, 2) the two nodes of each edge; merging re-labels edges and never makes one
    image_size,
    size,
    fill,
    normalised,  # (n, bins) workspace
    following,  # (P, 2) workspace: the edges of a node are a linked list of 2 * edge + side
    head,  # (2n - 1,) its beginnings, all -1
    edge_to,  # (2n - 1,) workspace, all -1
    slots,  # (2n - 1,) workspace, 0, 1, 2, ...
):
    num_edges = len(ends)
    num_nodes = len(counts)
    for region in range(num_nodes):
        _normalise(counts, normalised, region, num_colour, num_planes, sizes[region])
    similarities = np.empty(num_edges, np.float64)
    heap = np.empty(num_edges, np.int32)
    places = np.empty(num_edges, np.int32)  # of each edge in the heap, -1 once it is gone
    for edge in range(num_edges):
        a, b = ends[edge, 0], ends[edge, 1]
        similarities[edge] = _similarity(a, b, sizes, boxes, normalised, slots, image_size, size, fill)
        for side in range(2):
            following[edge, side] = head[ends[edge, side]]
            head[ends[edge, side]] = 2 * edge + side
        heap[edge] = edge
        _settle(heap, places, edge + 1, similarities, ends, edge)

    heap_size = num_edges
    while heap_size > 0:
        top = heap[0]
        a, b = min(ends[top, 0], ends[top, 1]), max(ends[top, 0], ends[top, 1])
        node = num_nodes
        num_nodes += 1
        merges[node - len(counts), 0] = a
        merges[node - len(counts), 1] = b
        sizes[node] = sizes[a] + sizes[b]
        for side in range(2):
            boxes[node, side] = min(boxes[a, side], boxes[b, side])
            boxes[node, 2 + side] = max(boxes[a, 2 + side], boxes[b, 2 + side])
        slot = slots[a]
        slots[node] = slot
        for i in range(counts.shape[1]):
            counts[slot, i] += counts[slots[b], i]
        _normalise(counts, normalised, slot, num_colour, num_planes, sizes[node])

        for part in (a, b):
            link = head[part]
            while link >= 0:
                link_of_edge = link
                edge, side = link >> 1, link & 1
                link = following[edge, side]
                if places[edge] < 0:
                    continue
                other = ends[edge, 1 - side]
                if edge == top or edge_to[other] == node:
                    # The merged edge itself, or a second one between the same two nodes: out of the heap.
                    heap_size -= 1
                    position = places[edge]
                    places[edge] = -1
                    if position < heap_size:
                        heap[position] = heap[heap_size]
                        _settle(heap, places, heap_size, similarities, ends, position)
                    continue
                edge_to[other] = node
                ends[edge, side] = node
                following[edge, side] = head[node]
                head[node] = link_of_edge
                similarities[edge] = _similarity(
                    other, node, sizes, boxes, normalised, slots, image_size, size, fill
                )
                _settle(heap, places, heap_size, similarities, ends, places[edge])
