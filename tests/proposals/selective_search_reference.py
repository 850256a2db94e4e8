"""Selective search written for reading: plain loops, nothing shared between steps, nothing incremental."""

import math

import numpy as np
from numpy.typing import NDArray

Graph = list[tuple[int, int, int]]  # (weight, pixel, other pixel), ascending


def sorted_edges(smoothed: NDArray[np.float32]) -> Graph:
    """The edges of the 8-connected grid of planes (P, H, W), equal weights in raster order."""
    _, height, width = smoothed.shape
    edges = []
    for y in range(height):
        for x in range(width):
            for dy, dx in ((0, 1), (1, 0), (1, 1), (1, -1)):
                if 0 <= x + dx < width and y + dy < height:
                    squared = np.float32(0)
                    for plane in smoothed:
                        difference = plane[y + dy, x + dx] - plane[y, x]
                        squared += difference * difference
                    weight = int(np.sqrt(squared) * np.float32(64) + np.float32(0.5))
                    edges.append((weight, y * width + x, (y + dy) * width + x + dx))
    return sorted(edges, key=lambda edge: edge[0])  # Python's sort is stable


def segment(edges: Graph, num_pixels: int, k: float, min_size: int) -> list[int]:
    """Felzenszwalb & Huttenlocher's algorithm 1 on explicit sets of pixels -> the label of each pixel."""
    component = {pixel: {pixel} for pixel in range(num_pixels)}  # pixel -> its set, shared by all members
    internal = {id(component[pixel]): 0 for pixel in range(num_pixels)}

    def merge(a: set[int], b: set[int], weight: int) -> None:
        a |= b
        internal[id(a)] = weight
        for pixel in b:
            component[pixel] = a

    for weight, pixel, other in edges:
        a, b = component[pixel], component[other]
        if a is not b:
            limit = min(internal[id(part)] + k * 64 / len(part) for part in (a, b))
            if weight <= limit:
                merge(a, b, weight)
    for weight, pixel, other in edges:
        a, b = component[pixel], component[other]
        if a is not b and min(len(a), len(b)) < min_size:
            merge(a, b, weight)

    numbers: dict[int, int] = {}
    return [numbers.setdefault(id(component[pixel]), len(numbers)) for pixel in range(num_pixels)]


def touching(labels: NDArray[np.int32]) -> set[tuple[int, int]]:
    """Pairs a < b of labels of (H, W) with pixels that touch, corners included."""
    height, width = labels.shape
    pairs = set()
    for y in range(height):
        for x in range(width):
            for dy, dx in ((0, 1), (1, 0), (1, 1), (1, -1)):
                if 0 <= x + dx < width and y + dy < height:
                    a, b = sorted((int(labels[y, x]), int(labels[y + dy, x + dx])))
                    if a < b:
                        pairs.add((a, b))
    return pairs


def histogram(
    pixels: list[tuple[int, int]],
    planes: NDArray[np.float32],
    along: NDArray[np.float32],
    across: NDArray[np.float32],
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Colour (P, 25) and texture (P, 8, 10) counts of some pixels, from planes and their derivatives."""
    num_planes = len(planes)
    colour = np.zeros((num_planes, 25), np.int64)
    texture = np.zeros((num_planes, 8, 10), np.int64)
    half = np.float32(np.sqrt(0.5))
    for plane in range(num_planes):
        axes = np.stack(
            [
                along[plane],
                half * (along[plane] + across[plane]),
                across[plane],
                half * (across[plane] - along[plane]),
            ]
        )
        responses = np.concatenate([axes, -axes]).clip(0)  # half-rectified
        largest = responses.max()
        scale = np.float32(10) / largest if largest > 0 else np.float32(0)
        for y, x in pixels:
            colour[plane, int(planes[plane, y, x] * np.float32(25 / 256))] += 1
            for orientation in range(8):
                strength = int(responses[orientation, y, x] * scale)
                texture[plane, orientation, min(strength, 9)] += 1
    return colour, texture


def fixed_point(counts: NDArray[np.int64], total: int) -> NDArray[np.int64]:
    """Counts over their total, as whole multiples of 2**-29."""
    return (counts * (2**29 / total)).astype(np.int64)


def group(
    labels: NDArray[np.int32],
    planes: NDArray[np.float32],
    along: NDArray[np.float32],
    across: NDArray[np.float32],
    terms: str,
) -> tuple[list[tuple[int, int]], list[tuple[int, int, int, int]]]:
    """Algorithm 1 of Uijlings et al., every pair looked at in every step -> merges and boxes of all nodes."""
    image_size = labels.size
    regions = [list(zip(*np.nonzero(labels == label), strict=True)) for label in range(labels.max() + 1)]
    alive = set(range(len(regions)))
    neighbours = touching(labels)
    histograms = [histogram(pixels, planes, along, across) for pixels in regions]

    def box(pixels: list[tuple[int, int]]) -> tuple[int, int, int, int]:
        ys, xs = zip(*pixels, strict=True)
        return int(min(xs)), int(min(ys)), int(max(xs)) + 1, int(max(ys)) + 1

    def similarity(a: int, b: int) -> float:
        size_a, size_b = len(regions[a]), len(regions[b])
        shared = 0
        for term, index in (("C", 0), ("T", 1)):
            if term in terms:
                of_a, of_b = histograms[a][index], histograms[b][index]
                parts = of_a.size // of_a.shape[-1]
                shared += np.minimum(
                    fixed_point(of_a, size_a * parts), fixed_point(of_b, size_b * parts)
                ).sum()
        total = float(shared / 2**29)
        if "S" in terms:
            total += 1 - (size_a + size_b) / image_size
        if "F" in terms:
            x1, y1, x2, y2 = box(regions[a] + regions[b])
            total += 1 - ((x2 - x1) * (y2 - y1) - size_a - size_b) / image_size
        return total

    merges = []
    while len(alive) > 1:
        candidates = [(-similarity(a, b), a, b) for a, b in neighbours]
        _, a, b = min(candidates)
        new = len(regions)
        regions.append(regions[a] + regions[b])
        histograms.append(histogram(regions[new], planes, along, across))
        merges.append((a, b))
        alive = (alive - {a, b}) | {new}
        renamed = {(new if x in (a, b) else x, new if y in (a, b) else y) for x, y in neighbours}
        neighbours = {(min(pair), max(pair)) for pair in renamed if pair[0] != pair[1]}
    return merges, [box(pixels) for pixels in regions]


def gaussian_derivative(plane: NDArray[np.float32], axis: int) -> NDArray[np.float64]:
    """Derivative of Gaussian of sigma 1 by direct summation, the border repeated; axis 1 is x."""
    height, width = plane.shape
    result = np.zeros((height, width))
    taps = range(-4, 5)
    norm = sum(math.exp(-(t * t) / 2) for t in taps)
    for y in range(height):
        for x in range(width):
            for dy in taps:
                for dx in taps:
                    weight = math.exp(-(dx * dx + dy * dy) / 2) / norm**2 * (dx if axis == 1 else dy)
                    value = plane[min(max(y + dy, 0), height - 1), min(max(x + dx, 0), width - 1)]
                    result[y, x] += weight * float(value)
    return result
