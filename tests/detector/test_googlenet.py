"""The paper's network: its size, its normalisation, its indifference to layout and batch."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from detector.architecture import SLIM, TABLE_1, TORCHVISION, Architecture
from detector.googlenet import GoogLeNet
from detector.inception import LocalResponseNorm
from detector.network_table import main, stage_rows


@pytest.fixture(scope="module")
def network() -> GoogLeNet:
    torch.manual_seed(0)
    return GoogLeNet().eval()


def test_has_the_papers_parameters(network: GoogLeNet) -> None:
    assert sum(parameter.numel() for parameter in network.parameters()) == 6_998_552
    assert sum(tensor.numel() for tensor in network.state_dict().values()) == 6_998_552  # and nothing else


def parameters(architecture: Architecture) -> int:
    return sum(parameter.numel() for parameter in GoogLeNet(architecture=architecture).parameters())


def test_has_slims_and_torchvisions_parameters() -> None:
    assert parameters(SLIM) == parameters(TORCHVISION) == 6_624_904
    features = GoogLeNet(0, architecture=SLIM)
    norms = [module for module in features.modules() if isinstance(module, nn.BatchNorm2d)]
    convolutions = sum(m.weight.numel() for m in features.modules() if isinstance(m, nn.Conv2d))
    # slim's batch norm stores shift, moving mean and moving variance, and no scale
    assert convolutions + 3 * sum(norm.num_features for norm in norms) == 5_607_184


def test_the_other_variants_parameters() -> None:
    assert parameters(Architecture(norm="none")) == 6_998_552
    extra = sum((25 - 9) * w.reduce5x5 * w.conv5x5 for w in TABLE_1.values())
    assert parameters(Architecture(norm="batch")) == 6_624_904 + extra
    channels, naive = 192, 0
    for w in TABLE_1.values():
        for width, side in ((w.conv1x1, 1), (w.conv3x3, 3), (w.conv5x5, 5)):
            naive += width * (channels * side * side + 1)
        channels += w.conv1x1 + w.conv3x3 + w.conv5x5
    stem = 64 * (3 * 49 + 1) + 64 * (64 + 1) + 192 * (64 * 9 + 1)
    assert parameters(Architecture(reductions=False)) == stem + naive + 1000 * (channels + 1)
    wider = GoogLeNet(architecture=Architecture(width=1.25))
    assert wider.num_features == 1280 and wider.classifier.in_features == 1280


def test_is_22_layers_deep_and_costs_what_the_paper_says() -> None:
    rows = stage_rows(GoogLeNet())
    by_name = {row.name: row for row in rows}
    assert sum(row.parameters for row in rows) == 6_998_552
    assert sum(row.multiply_adds for row in rows) == 1_582_671_872
    inceptions = [name for name in by_name if name.startswith("inception_")]
    assert len([name for name in by_name if name.startswith("conv")]) + 2 * len(inceptions) + 1 == 22
    # table 1: output sizes, and parameters and operations in thousands and millions
    assert by_name["conv1"].output == (64, 112, 112) and by_name["pool2"].output == (192, 28, 28)
    for name, output, thousands, millions in (
        ("inception_3a", (256, 28, 28), 159, 128),
        ("inception_3b", (480, 28, 28), 380, 304),
        ("inception_4a", (512, 14, 14), 364, 73),
        ("inception_4e", (832, 14, 14), 840, 170),
        ("inception_5b", (1024, 7, 7), 1388, 71),
    ):
        row = by_name[name]
        assert row.output == output
        assert row.parameters == pytest.approx(thousands * 1024, rel=0.02)  # its K are 1024
        assert row.multiply_adds == pytest.approx(millions * 1e6, rel=0.02)


def test_the_table_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    main()
    printed = capsys.readouterr().out
    for text in ("Mixed_4f", "inception_5b", "28x28x480", "6,998,552", "6,624,904", "1.58G", "6,379,728"):
        assert text in printed
    assert all(len(line) <= 110 for line in printed.splitlines())


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


@settings(max_examples=30, deadline=None)
@given(channels=st.integers(1, 40), scale=st.sampled_from([0.0, 1.0, 1e3]), seed=st.integers(0, 99))
def test_gradient_of_local_response_norm_is_that_of_the_definition(
    channels: int, scale: float, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    x, up = torch.randn(2, 2, channels, 3, 4, generator=generator, dtype=torch.float64)
    ours, plain = (x * scale).requires_grad_(), (x * scale).requires_grad_()
    module = LocalResponseNorm(channels)
    module(ours).backward(up)
    F.local_response_norm(plain, 5, alpha=1e-4, beta=0.75, k=1.0).backward(up)
    torch.testing.assert_close(ours.grad, plain.grad, rtol=1e-5, atol=1e-7)
    with torch.no_grad():
        torch.testing.assert_close(module(ours.detach()), module(ours), rtol=0, atol=0)


def test_local_response_norm_bears_the_transforms_of_torch_func() -> None:
    x = torch.randn(2, 8, 3, 4, dtype=torch.float64)

    def loss(module: nn.Module, x: torch.Tensor) -> torch.Tensor:
        return module(x).square().sum()

    ours, definition = LocalResponseNorm(8), nn.LocalResponseNorm(5, alpha=1e-4, beta=0.75, k=1.0)
    gradients = [
        torch.func.grad(lambda x, module=module: loss(module, x))(x) for module in (ours, definition)
    ]
    torch.testing.assert_close(*gradients)
    each = torch.vmap(torch.func.grad(lambda image: loss(ours, image[None])))(x)
    torch.testing.assert_close(each, gradients[1])


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
