"""Image and strategies -> the nodes of all hierarchies, on threads that share what strategies have in common.

Colour planes, sorted edges and histogram bins depend on the colour space; the segmentation and the region
histograms also on k; only the grouping on the similarity. Importing this module imports numba.
"""

import sys
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from eval.compiled import folder_of
from proposals.colour_spaces import ColourSpace, convert
from proposals.grouping import group
from proposals.ranking import novel_first
from proposals.region_features import measure_regions, pixel_bins
from proposals.segmentation import SortedEdges, kernel_was_compiled, segment, smooth, sort_edges
from proposals.strategies import Strategy

_compiling = threading.Lock()
_compiled = threading.Event()


class _Prepared(NamedTuple):
    """What all strategies of one colour space share."""

    edges: SortedEdges
    bins: NDArray[np.uint16]


def build_hierarchies(
    image: NDArray[np.uint8], strategies: Sequence[Strategy], superpixel_scale: float, num_threads: int
) -> list[NDArray[np.int32]]:
    """Run every strategy on an RGB image (H, W, 3).

    Returns:
        For each strategy, in the given order, the (2n - 1, 4) boxes of its nodes: n regions, then each merge.
    """
    _compile()
    height, width = image.shape[:2]
    colour_spaces = list(dict.fromkeys(strategy.colour_space for strategy in strategies))
    segmentations = list(dict.fromkeys((strategy.colour_space, strategy.k) for strategy in strategies))

    def prepare(colour_space: ColourSpace) -> _Prepared:
        planes = convert(image, colour_space)
        return _Prepared(sort_edges(smooth(planes)), pixel_bins(planes))

    def segment_and_group(key: tuple[ColourSpace, float]) -> dict[Strategy, NDArray[np.int32]]:
        k = key[1] * superpixel_scale
        edges, bins = prepared[key[0]]
        # A region cannot have more pixels than the image has, however large k is.
        min_size = round(min(k, height * width))
        labels, pairs, num_regions = segment(edges, height, width, k, min_size)
        regions = measure_regions(labels, num_regions, bins)
        return {
            strategy: group(
                regions,
                pairs,
                colour="C" in strategy.similarity,
                texture="T" in strategy.similarity,
                size="S" in strategy.similarity,
                fill="F" in strategy.similarity,
            ).boxes
            for strategy in strategies
            if (strategy.colour_space, strategy.k) == key
        }

    with ThreadPoolExecutor(num_threads) as pool:
        prepared = dict(zip(colour_spaces, pool.map(prepare, colour_spaces), strict=True))
        boxes = {
            strategy: nodes
            for results in pool.map(segment_and_group, segmentations)
            for strategy, nodes in results.items()
        }
    return [boxes[strategy] for strategy in strategies]


def _compile() -> None:
    """Have numba load or compile everything now, once, and say so where it has to compile."""
    with _compiling:
        if not _compiled.is_set():
            _load_kernels()
            _compiled.set()


def _load_kernels() -> None:
    planes = np.zeros((1, 2, 2), np.float32)
    edges = sort_edges(planes)
    if kernel_was_compiled():
        kept = folder_of(Path(__file__).parent) is not None
        when = (
            "once on this machine"
            if kept
            else "in every run, as no folder that would keep it can be written to"
        )
        print(f"Selective search: compiling, {when} ...", file=sys.stderr, flush=True)
    labels, pairs, num_regions = segment(edges, 2, 2, 1.0, 1)
    regions = measure_regions(labels, num_regions, pixel_bins(planes))
    novel_first(group(regions, pairs, colour=True, texture=True, size=True, fill=True).boxes)
