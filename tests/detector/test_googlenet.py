"""The paper's network: its size, its normalisation, its indifference to layout and batch."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from detector.googlenet import GoogLeNet
from detector.inception import LocalResponseNorm


@pytest.fixture(scope="module")
def network() -> GoogLeNet:
    torch.manual_seed(0)
    return GoogLeNet().eval()


def test_has_the_papers_parameters(network: GoogLeNet) -> None:
    assert sum(parameter.numel() for parameter in network.parameters()) == 6_998_552
    assert sum(tensor.numel() for tensor in network.state_dict().values()) == 6_998_552  # and nothing else


@settings(max_examples=30, deadline=None)
@given(
    channels=st.integers(1, 40),
    height=st.integers(1, 5),
    width=st.integers(1, 5),
    scale=st.sampled_from([0.0, 1.0, 1e3]),
    seed=st.integers(0, 99),
)
def test_local_response_norm_equals_the_definition(
    channels: int, height: int, width: int, scale: float, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(2, channels, height, width, generator=generator) * scale
    expected = F.local_response_norm(x.double(), 5, alpha=1e-4, beta=0.75, k=1.0)
    torch.testing.assert_close(LocalResponseNorm(channels)(x).double(), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("size", [31, 32, 97, 224, 225])
def test_any_size_gives_the_feature_map_of_ceil_mode_pools(network: GoogLeNet, size: int) -> None:
    def pooled(length: int) -> int:
        return max(1, -(-(length - 3) // 2) + 1)

    first = (size + 1) // 2  # the 7x7 convolution of stride 2
    side = pooled(pooled(pooled(pooled(first))))
    with torch.inference_mode():
        x = torch.randn(1, 3, size, size)
        assert network.features(x).shape == (1, 1024, side, side)
        assert network(x).shape == (1, 1000)


def test_batch_and_memory_layout_do_not_matter(network: GoogLeNet) -> None:
    x = torch.randn(3, 3, 64, 64)
    with torch.inference_mode():
        single = torch.cat([network(image[None]) for image in x])
        torch.testing.assert_close(network(x), single, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(
            network(x.to(memory_format=torch.channels_last)), single, rtol=1e-4, atol=1e-5
        )
        assert network(x[:0]).shape == (0, 1000)


def test_gradients_reach_every_parameter() -> None:
    torch.manual_seed(0)
    network = GoogLeNet(7)
    network(torch.randn(2, 3, 64, 64)).square().sum().backward()
    assert all(
        parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in network.parameters()
    )
