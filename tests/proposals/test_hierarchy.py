"""Segmentation, features and grouping agree with the slow reference, exactly."""

import numpy as np
import pytest
import selective_search_reference as reference
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from numpy.typing import NDArray

from proposals.colour_spaces import COLOUR_SPACES, ColourSpace, convert
from proposals.grouping import group
from proposals.region_features import _derivatives, measure_regions, pixel_bins
from proposals.segmentation import Segmentation, segment, smooth, sort_edges

COMBINATIONS = ("CTSF", "TSF", "F", "S", "C", "T", "CT", "CF")

images = npst.arrays(
    np.uint8,
    st.tuples(st.integers(1, 9), st.integers(1, 9), st.just(3)),
    # Few values make many equal weights and similarities, where only the rule for ties decides.
    elements=st.one_of(st.integers(0, 255), st.sampled_from([0, 128, 255])),
)


def random_image(seed: int, height: int, width: int) -> NDArray[np.uint8]:
    """Blocks of colour with noise: something to segment."""
    generator = np.random.default_rng(seed)
    blocks = generator.integers(0, 256, (-(-height // 5), -(-width // 5), 3)).repeat(5, 0).repeat(5, 1)
    noise = generator.normal(0, 8, (height, width, 3))
    return (blocks[:height, :width] + noise).clip(0, 255).astype(np.uint8)


def segmented(planes: NDArray[np.float32], k: float, min_size: int) -> Segmentation:
    height, width = planes.shape[1:]
    return segment(sort_edges(smooth(planes)), height, width, k, min_size)


def check_segmentation(smoothed: NDArray[np.float32], k: float, min_size: int) -> None:
    height, width = smoothed.shape[1:]
    labels, pairs, num_regions = segment(sort_edges(smoothed), height, width, k, min_size)
    expected = reference.segment(reference.sorted_edges(smoothed), labels.size, k, min_size)
    assert labels.ravel().tolist() == expected
    assert num_regions == max(expected) + 1
    assert len(pairs) == len({tuple(pair) for pair in pairs.tolist()})
    assert {tuple(pair) for pair in pairs.tolist()} == reference.touching(labels)


def check_grouping(planes: NDArray[np.float32], k: float, terms: str) -> int:
    labels, pairs, num_regions = segmented(planes, k, round(k))
    regions = measure_regions(labels, num_regions, pixel_bins(planes))
    hierarchy = group(
        regions, pairs, colour="C" in terms, texture="T" in terms, size="S" in terms, fill="F" in terms
    )
    merges, boxes = reference.group(labels, planes, *_derivatives(planes), terms)
    assert [tuple(merge) for merge in hierarchy.merges.tolist()] == merges
    assert [tuple(box) for box in hierarchy.boxes.tolist()] == boxes
    return num_regions


@settings(max_examples=40, deadline=None)
@given(images, st.sampled_from(COLOUR_SPACES), st.floats(0.5, 100), st.integers(0, 12))
def test_segmentation_is_the_reference(
    image: NDArray[np.uint8], colour_space: ColourSpace, k: float, min_size: int
) -> None:
    check_segmentation(smooth(convert(image, colour_space)), k, min_size)


@settings(max_examples=60, deadline=None)
@given(npst.arrays(np.float32, (1, 6, 7), elements=st.integers(0, 3)), st.integers(1, 6), st.integers(0, 5))
def test_edges_as_heavy_as_the_threshold(planes: NDArray[np.float32], k: int, min_size: int) -> None:
    check_segmentation(planes, k, min_size)


@settings(max_examples=25, deadline=None)
@given(images, st.sampled_from(COLOUR_SPACES), st.floats(0.5, 8), st.sampled_from(COMBINATIONS))
def test_grouping_is_the_reference(
    image: NDArray[np.uint8], colour_space: ColourSpace, k: float, terms: str
) -> None:
    check_grouping(convert(image, colour_space), k, terms)


@pytest.mark.parametrize("colour_space", COLOUR_SPACES)
def test_hierarchies_of_a_larger_image(colour_space: ColourSpace) -> None:
    planes = convert(random_image(3, 26, 30), colour_space)
    check_segmentation(smooth(planes), 20, 20)
    for terms in ("CTSF", "S"):
        assert check_grouping(planes, 8, terms) > 10


def test_derivatives_are_those_of_a_gaussian() -> None:
    planes = convert(random_image(5, 12, 14), "I")
    along, across = _derivatives(planes)
    np.testing.assert_allclose(along[0], reference.gaussian_derivative(planes[0], 1), atol=1e-3)
    np.testing.assert_allclose(across[0], reference.gaussian_derivative(planes[0], 0), atol=1e-3)


def test_regions_count_every_pixel_in_every_histogram() -> None:
    planes = convert(random_image(7, 30, 25), "Lab")
    labels, _, num_regions = segmented(planes, 10, 10)
    regions = measure_regions(labels, num_regions, pixel_bins(planes))
    assert regions.sizes.tolist() == np.bincount(labels.ravel()).tolist()
    colour, texture = regions.histograms[:, :75], regions.histograms[:, 75:]
    for counts in (colour.reshape(-1, 3, 25).sum(2), texture.reshape(-1, 24, 10).sum(2)):
        assert (counts == regions.sizes[:, None]).all()


def test_min_size_holds_and_k_coarsens() -> None:
    planes = convert(random_image(11, 60, 60), "HSV")
    edges = sort_edges(smooth(planes))
    counts = []
    for k in (5, 50, 500):
        labels, _, num_regions = segment(edges, 60, 60, k, min_size=k)
        assert np.bincount(labels.ravel()).min() >= min(k, labels.size)
        counts.append(num_regions)
    assert counts[0] > counts[1] > counts[2] >= 1


def test_edges_are_ascending_and_complete() -> None:
    planes = convert(random_image(2, 17, 23), "rgI")
    edges, first = sort_edges(smooth(planes))
    assert len(set(edges.tolist())) == len(edges) == 17 * 22 + 16 * 23 + 2 * 16 * 22
    assert (np.diff(first) >= 0).all() and first[0] == 0 and first[-1] == len(edges)
