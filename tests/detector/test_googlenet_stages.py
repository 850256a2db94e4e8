"""What holds for every variant: sizes, taps, training, freezing, number formats, programs made of it."""

import copy
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, fx, nn

from detector.architecture import PAPER, SLIM, SLIM_NAMES, TORCHVISION, VARIANTS, Architecture
from detector.googlenet import GoogLeNet, Logits

NARROW = {
    name: replace(architecture, width=architecture.width / 8)
    for name, architecture in (VARIANTS | {"torchvision": TORCHVISION}).items()
}
every_variant = pytest.mark.parametrize("architecture", NARROW.values(), ids=NARROW)
NORMS = [replace(PAPER, width=1 / 8), replace(SLIM, width=1 / 8)]


def build(architecture: Architecture, num_classes: int = 7, **options: bool) -> GoogLeNet:
    """A network with random weights, whose batch norms have seen something."""
    torch.manual_seed(0)
    network = GoogLeNet(num_classes, architecture=architecture, **options)
    with torch.no_grad():
        network(torch.randn(4, 3, 64, 64))
    return network.eval()


@settings(max_examples=40, deadline=None)
@given(
    architecture=st.sampled_from(list(NARROW.values())),
    height=st.integers(32, 150) | st.just(1000),
    width=st.integers(32, 150),
)
def test_the_feature_map_is_as_large_as_feature_info_says(
    architecture: Architecture, height: int, width: int
) -> None:
    network = GoogLeNet(7, architecture=architecture).eval()
    with torch.inference_mode():
        x = torch.randn(1, 3, height, width)
        outputs = network.taps(x, network.stages)
        assert network(x).shape == (1, 7)
    for feature in network.feature_info:
        shape = outputs[feature.module].shape
        assert shape[1] == feature.channels
        if feature.module != "pool5":
            # a pool leaves out the last row or column where its window would begin beyond it
            for length, side in ((height, shape[2]), (width, shape[3])):
                assert length / feature.stride - 1 < side < length / feature.stride + 1
    if height % 32 == width % 32 == 0:
        assert outputs["inception_5b"].shape[2:] == (height // 32, width // 32)


@every_variant
@pytest.mark.parametrize("size", [31, 64, 112, 176, 208, 224])
def test_the_cells_of_the_last_map_are_known_before(architecture: Architecture, size: int) -> None:
    network = build(architecture)
    with torch.inference_mode():
        assert network.features(torch.zeros(1, 3, size, size)).shape[2:] == (network.cells(size),) * 2


@every_variant
def test_the_rest_after_any_tap_equals_the_whole(architecture: Architecture) -> None:
    network = build(architecture)
    x = torch.randn(2, 3, 49, 64)
    with torch.inference_mode():
        whole = network(x)
        taps = network.taps(x, network.stages)
        for name, features in taps.items():
            before = features.clone()
            torch.testing.assert_close(network.resume(features, after=name), whole, rtol=0, atol=0, msg=name)
            assert torch.equal(features, before), name  # no stage writes into its input
            assert torch.equal(network.taps(x, [name])[name], features), name
        assert torch.equal(network.features(x), taps["inception_5b"])


def test_taps_stop_at_the_deepest_and_know_both_names() -> None:
    network = build(NARROW["the paper's"])
    seen: list[str] = []
    for name, module in network.named_children():
        module.register_forward_hook(lambda *_, name=name: seen.append(name))
    found = network.taps(torch.randn(1, 3, 64, 64), ["Mixed_4b", "Conv2d_2c_3x3", "conv2"])
    assert list(found) == ["Mixed_4b", "Conv2d_2c_3x3", "conv2"]
    assert torch.equal(found["conv2"], found["Conv2d_2c_3x3"])
    assert seen[-1] == "inception_4a" and "inception_4b" not in seen
    assert network.taps(torch.randn(1, 3, 64, 64), []) == {}
    with pytest.raises(
        ValueError, match="'Mixed_6a' is no stage of this network; it has conv1, pool1, norm1,"
    ):
        network.taps(torch.randn(1, 3, 64, 64), ["Mixed_6a"])
    with pytest.raises(ValueError, match="'norm1' is no stage of this network"):
        build(NARROW["no norm"]).resume(torch.zeros(0), after="norm1")
    assert len({name for name in SLIM_NAMES.values() if name}) == len(SLIM_NAMES) - 2


@every_variant
def test_without_classes_it_gives_the_pooled_features(architecture: Architecture) -> None:
    network, whole = build(architecture, num_classes=0), build(architecture)
    network.load_state_dict({k: v for k, v in whole.state_dict().items() if not k.startswith("classifier")})
    x = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        assert network(x).shape == (2, network.num_features)
        assert torch.equal(network(x), whole.taps(x, ["pool5"])["pool5"])


@every_variant
def test_training_uses_the_auxiliary_classifiers_and_inference_does_not(architecture: Architecture) -> None:
    network = build(architecture, auxiliary=True)
    plain = build(architecture)
    plain.load_state_dict({k: v for k, v in network.state_dict().items() if not k.startswith("aux_")})
    x = torch.randn(3, 3, 64, 64)
    with torch.inference_mode():
        assert torch.equal(network(x), plain(x))  # a tensor, and the same one
    trained = network.train()(x)
    assert isinstance(trained, Logits)
    assert all(logits is not None and logits.shape == (3, 7) for logits in trained)
    torch.cat([logits for logits in trained if logits is not None]).square().sum().backward()
    # a bias before batch norm's own would have none
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in network.parameters())


def test_the_auxiliary_classifiers_are_the_papers() -> None:
    network = GoogLeNet(auxiliary=True)
    sizes = {
        name: sum(p.numel() for p in network.get_submodule(name).parameters())
        for name in ("aux_4a", "aux_4d")
    }
    fully = 2048 * 1024 + 1024 + 1024 * 1000 + 1000
    assert sizes == {"aux_4a": 512 * 128 + 128 + fully, "aux_4d": 528 * 128 + 128 + fully}
    assert network.aux_4a.dropout.p == 0.7 and network.dropout.p == 0.4  # type: ignore[union-attr]
    x = torch.randn(1, 512, 14, 14)
    network.aux_4a.eval()  # type: ignore[union-attr]
    by_the_paper = nn.functional.avg_pool2d(x, 5, 3)  # table 1: 4x4
    assert by_the_paper.shape[2:] == (4, 4)
    torch.testing.assert_close(network.aux_4a(x), network.aux_4a(by_the_paper))  # type: ignore[operator]


def test_a_pass_begun_behind_an_auxiliary_classifier_goes_without_it() -> None:
    network = build(NARROW["the paper's"], auxiliary=True).train()
    taps = network.taps(
        torch.randn(2, 3, 64, 64), ["inception_3b", "inception_4a", "inception_4c", "inception_4e"]
    )
    logits = {name: network.resume(features, after=name) for name, features in taps.items()}
    have = {name: [part is not None for part in parts] for name, parts in logits.items()}
    assert have == {
        "inception_3b": [True, True, True],
        "inception_4a": [True, True, True],
        "inception_4c": [True, False, True],
        "inception_4e": [True, False, False],
    }


def moved(network: GoogLeNet, train_step: bool = True) -> set[str]:
    """The stages and heads whose parameters or statistics a step of training changes."""
    before = copy.deepcopy(network.state_dict())
    optimizer = torch.optim.SGD([p for p in network.parameters() if p.requires_grad], lr=0.1)
    network.train()(torch.randn(4, 3, 64, 64)).square().sum().backward()
    if train_step:
        optimizer.step()
    return {
        name.split(".")[0]
        for name, value in network.state_dict().items()
        if not torch.equal(value, before[name])
    }


@every_variant
def test_frozen_stages_stay_as_they_are(architecture: Architecture) -> None:
    network = build(architecture)
    network.freeze("Mixed_4b")
    changed = moved(network)
    assert changed == {
        "inception_4b",
        "inception_4c",
        "inception_4d",
        "inception_4e",
        *("inception_5a", "inception_5b", "classifier"),
    }
    network.freeze(None)
    assert {"conv1", "inception_4a"} < moved(network)
    network.freeze("pool5")
    assert moved(network) == {"classifier"}
    with pytest.raises(ValueError, match="'stem' is no stage"):
        network.freeze("stem")


def test_norm_eval_fixes_all_statistics() -> None:
    network = build(NORMS[1])
    network.freeze("conv1", norm_eval=True)
    assert moved(network, train_step=False) == set()
    assert "inception_3a" in moved(network)
    network.freeze("conv1")
    assert "inception_3a" in moved(network, train_step=False)


def test_norm_eval_fixes_the_statistics_of_converted_norms() -> None:
    network = nn.SyncBatchNorm.convert_sync_batchnorm(build(NORMS[1]))
    network.freeze("conv1", norm_eval=True)
    assert moved(network, train_step=False) == set()


@pytest.mark.parametrize("converted", [False, True])
@pytest.mark.parametrize("architecture", NORMS)
def test_checkpointing_changes_nothing_but_memory(architecture: Architecture, converted: bool) -> None:
    def step(checkpointing: bool) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        network = build(architecture, auxiliary=True)
        if converted:  # as training on several GPUs does it
            network = nn.SyncBatchNorm.convert_sync_batchnorm(network)
        network.checkpointing = checkpointing
        kept = 0

        def count(tensor: Tensor) -> Tensor:
            nonlocal kept
            kept += tensor.numel()
            return tensor

        torch.manual_seed(1)
        with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
            logits = network.train()(torch.randn(3, 3, 64, 64))
        sizes.append(kept)
        (logits.main.square().sum() + logits.aux_4a.square().sum()).backward()
        return {n: p.grad for n, p in network.named_parameters() if p.grad is not None}, network.state_dict()

    sizes: list[int] = []
    (gradients, state), (expected_gradients, expected_state) = step(True), step(False)
    assert gradients.keys() == expected_gradients.keys()
    for name, gradient in expected_gradients.items():
        torch.testing.assert_close(gradients[name], gradient)
    for name, value in expected_state.items():
        assert torch.equal(state[name], value), name
    assert sizes[0] < sizes[1]


@pytest.mark.filterwarnings("ignore:Guards may run slower on Python 3.13.0")
@pytest.mark.parametrize("architecture", NORMS)
def test_checkpointing_may_be_compiled(architecture: Architecture) -> None:
    """Without the C++ compiler, whose work takes minutes. A batch counts once in the statistics here, too."""

    def step(compiled: bool) -> dict[str, Tensor]:
        network = build(architecture, num_classes=0, checkpointing=compiled).train()
        run = torch.compile(network, backend="aot_eager") if compiled else network
        torch.manual_seed(1)
        run(torch.randn(2, 3, 64, 64)).square().sum().backward()
        return network.state_dict() | {n: p.grad for n, p in network.named_parameters() if p.grad is not None}

    torch._dynamo.reset()
    torch.testing.assert_close(step(True), step(False))


@every_variant
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_16_bit_numbers_are_nearly_enough(architecture: Architecture, dtype: torch.dtype) -> None:
    network = build(architecture)
    x = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        expected = network(x)
        for found in (copy.deepcopy(network).to(dtype)(x.to(dtype)), _autocast(network, x, dtype)):
            assert found.dtype == dtype
            torch.testing.assert_close(
                found.float(), expected, rtol=0.05, atol=0.05 * expected.std().item() + 0.02
            )


def _autocast(network: GoogLeNet, x: Tensor, dtype: torch.dtype) -> Tensor:
    with torch.autocast("cpu", dtype):
        return network(x)


def test_the_paper_network_bears_pixels_of_255_in_16_bit() -> None:
    """Squares of activations of some hundreds would leave the range of float16."""
    network = build(NORMS[0])
    x = torch.randn(2, 3, 64, 64) * 128
    with torch.inference_mode():
        expected = network(x)
        conv1 = network.taps(x, ["pool1"])["pool1"]
        assert conv1.square().max() > 65504
        found = copy.deepcopy(network).half()(x.half()).float()
    torch.testing.assert_close(found, expected, rtol=0.05, atol=0.05 * expected.std().item() + 0.02)


@every_variant
def test_layout_and_batch_do_not_matter(architecture: Architecture) -> None:
    network = build(architecture)
    x = torch.randn(3, 3, 64, 49)
    with torch.inference_mode():
        expected = network(x)
        single = torch.cat([network(image[None]) for image in x])
        torch.testing.assert_close(single, expected, rtol=1e-4, atol=1e-5)
        last = copy.deepcopy(network).to(memory_format=torch.channels_last)
        for form in (torch.contiguous_format, torch.channels_last):
            torch.testing.assert_close(last(x.to(memory_format=form)), expected, rtol=1e-4, atol=1e-5)
        assert network(x[:0]).shape == (0, 7)


@every_variant
def test_it_can_be_traced_and_exported(architecture: Architecture) -> None:
    network = build(architecture, auxiliary=True)
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        expected = network(x)
        assert torch.equal(fx.symbolic_trace(network)(x), expected)
        with pytest.warns(FutureWarning):  # tracing is deprecated, and still what other programs do
            traced = torch.jit.trace(network, x)
        torch.testing.assert_close(traced(x), expected)
        torch.testing.assert_close(torch.export.export(network, (x,)).module()(x), expected)


@every_variant
def test_a_state_dict_makes_the_same_network_again(architecture: Architecture) -> None:
    network = build(architecture, auxiliary=True)
    again = GoogLeNet(7, architecture=architecture, auxiliary=True)
    again.load_state_dict(network.state_dict())
    x = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        assert torch.equal(again.eval()(x), network(x))


def test_arguments_without_sense() -> None:
    for arguments, sentence in (
        ({"num_classes": -1}, "num_classes is -1"),
        ({"num_classes": 0, "auxiliary": True}, "auxiliary classifiers need classes"),
    ):
        with pytest.raises(ValueError, match=sentence):
            GoogLeNet(**arguments)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="norm is 'group', but must be lrn, batch or none"):
        Architecture(norm="group")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="width is 0, but must be above 0"):
        Architecture(width=0)
