"""A `RegionClassifier` as ONNX or `torch.export` file, which is written only if it says what the network says."""

import io
import json
import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from detector.objectness import trunk_of
from detector.region_classifier import RegionClassifier
from detector.tap_classifier import TapClassifier
from eval.atomic import temporary_name

SUFFIXES = (".onnx", ".pt2")
TOLERANCE = 1e-4
ONNX_PACKAGES = "onnx, onnxruntime and onnxscript (`pip install 'googlenet-rcnn[onnx]'`)"

Outputs = tuple[Tensor, ...]


class ExportableScores(nn.Module):
    """RGB regions (R, 3, S, S) of 0..255 -> a tuple of one: probabilities (R, C)."""

    output_names = ("scores",)

    def __init__(self, classifier: RegionClassifier) -> None:
        super().__init__()
        self.classifier = classifier

    def card(self, side: int) -> dict[str, str]:
        """What a program that runs the file has to know."""
        return describe_outputs(self.classifier, side)

    def forward(self, regions: Tensor) -> Outputs:
        """See the class."""
        return (self.classifier(regions),)


class ExportableTaps(nn.Module):
    """RGB regions (R, 3, H, W) of 0..255 -> the feature maps (R, channels, H/stride, W/stride) of some layers."""

    def __init__(self, classifier: RegionClassifier, taps: Sequence[str]) -> None:
        super().__init__()
        self.normalize, self.network = classifier.normalize, trunk_of(classifier)
        if isinstance(classifier.network, TapClassifier):  # what lies behind its own tap is gone
            stages = self.network.feature_info
            last = [stage.module for stage in stages].index(classifier.network.tap)
            for stage in stages[last + 1 :]:
                if not {stage.module, stage.slim_name}.isdisjoint(taps):
                    raise ValueError(
                        f"--taps {stage.module}: these weights end with {classifier.network.tap}"
                    )
        positions = [self.network.stage_position(tap) for tap in taps]  # says a wrong name in one sentence
        for index, position in enumerate(positions):
            if position in positions[:index]:
                raise ValueError(f"--taps {' '.join(taps)}: {taps[index]} is the same layer as one before it")
        self.output_names = tuple(taps)

    def card(self, side: int) -> dict[str, str]:
        """Nothing: maps have no classes."""
        return {}

    def forward(self, regions: Tensor) -> Outputs:
        """See the class."""
        features = self.network.taps(self.normalize(regions), self.output_names)
        return tuple(features[name] for name in self.output_names)


def example_regions(side: int, count: int, seed: int = 0) -> Tensor:
    """Regions (count, 3, side, side) uint8 that reach both ends of the range: noise, then noise in black and white."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randint(0, 256, (count, 3, side, side), generator=generator, dtype=torch.uint8)
    noise[1::2] = (noise[1::2] > 127) * 255
    return noise


def export(module: ExportableScores | ExportableTaps, path: Path, *, side: int) -> float:
    """Write `module` to `path`, after the file was read back and agreed with `module` on other numbers of regions.

    The file takes any number of regions, as uint8 (R, 3, side, side), and knows its classes and input size.

    Args:
        module: What to export; it is put into eval mode.
        path: `.onnx` or `.pt2` (`torch.export`); written whole or not at all.
        side: Side of the square regions in pixels.

    Returns:
        The largest difference found between an output of the file and of the module.

    Raises:
        ValueError: Another suffix, or the outputs differ by more than `TOLERANCE` (relative to the largest).
        OSError: The packages that ONNX needs are not installed, or the file cannot be written.
    """
    if path.suffix not in SUFFIXES:
        raise ValueError(f"{path}: name a file that ends in {' or '.join(SUFFIXES)}")
    onnx = path.suffix == ".onnx"
    if not path.parent.is_dir():
        raise FileNotFoundError(f"{path}: there is no folder {path.parent} to write it to")
    module.eval()
    with _quiet(), torch.no_grad():
        serialise = _onnx_bytes if onnx else _torch_export_bytes
        contents = serialise(module, example_regions(side, 2), module.card(side))
        with temporary_name(path) as temporary:
            temporary.write_bytes(contents)
            load = _load_onnx if onnx else _load_torch_export
            difference = compare(module, load(temporary), side=side, name=str(path))
    return difference


def compiled_difference(
    module: ExportableScores | ExportableTaps, *, side: int, backend: str = "inductor"
) -> float:
    """Compile `module` for this machine with `torch.compile`, and compare as `export` does."""
    module.eval()
    with _quiet(), torch.no_grad():
        return compare(module, torch.compile(module, backend=backend), side=side, name="torch.compile")


def compare(module: nn.Module, other: Callable[[Tensor], Sequence[Tensor]], *, side: int, name: str) -> float:
    """Largest difference between an output of two networks over batches of 1 and 3 regions.

    It is told as a share of the largest value of that output (or of 1, where that is smaller).

    Raises:
        ValueError: It is larger than `TOLERANCE`.
    """
    largest = 0.0
    for count in (1, 3):
        regions = example_regions(side, count, seed=count)
        for ours, theirs in zip(module(regions), other(regions), strict=True):
            if ours.shape != theirs.shape:
                raise ValueError(
                    f"{name}: gives the shape {tuple(theirs.shape)}, the network {tuple(ours.shape)}"
                )
            difference = (ours - theirs).abs().max().item() / max(1.0, ours.abs().max().item())
            if not difference <= TOLERANCE:
                raise ValueError(
                    f"{name}: its outputs differ from the network's by {difference:.2g} of the largest,"
                    f" allowed are {TOLERANCE:.2g}"
                )
            largest = max(largest, difference)
    return largest


def describe_outputs(classifier: RegionClassifier, side: int) -> dict[str, str]:
    """What a program that runs the file has to know, as JSON strings: classes and input convention.

    Args:
        side: Of the regions; the context around a box goes with it.
    """
    usual = classifier.preprocessing
    return {
        "classes": json.dumps([asdict(kind) for kind in classifier.classes]),
        "input": json.dumps(
            {
                "pixels": "RGB, 0..255, uint8, (R, 3, size, size); normalisation is part of the network",
                "size": side,
                "context": round(usual.context * side / usual.size),
                "crop": usual.crop,
            }
        ),
    }


def _dynamic_shapes() -> tuple[dict[int, Any]]:
    return ({0: torch.export.Dim("regions", min=1)},)


def _torch_export_bytes(
    module: ExportableScores | ExportableTaps, example: Tensor, card: dict[str, str]
) -> bytes:
    program = torch.export.export(module, (example,), dynamic_shapes=_dynamic_shapes())
    buffer = io.BytesIO()
    torch.export.save(program, buffer, extra_files=card)
    return buffer.getvalue()


def _load_torch_export(path: Path) -> Callable[[Tensor], Outputs]:
    with path.open("rb") as file:
        return torch.export.load(io.BytesIO(file.read())).module()


def _onnx_bytes(module: ExportableScores | ExportableTaps, example: Tensor, card: dict[str, str]) -> bytes:
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise OSError(f"exporting to ONNX needs {ONNX_PACKAGES}; {error.name} is missing") from None
    program = torch.onnx.export(
        module,
        (example,),
        dynamo=True,
        verbose=False,
        input_names=["regions"],
        output_names=list(module.output_names),
        dynamic_shapes=_dynamic_shapes(),
    )
    assert program is not None
    proto = program.model_proto
    for key, value in card.items():
        entry = proto.metadata_props.add()
        entry.key, entry.value = key, value
    return proto.SerializeToString()


def _load_onnx(path: Path) -> Callable[[Tensor], Outputs]:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])

    def run(regions: Tensor) -> Outputs:
        return tuple(torch.from_numpy(output) for output in session.run(None, {"regions": regions.numpy()}))

    return run


@contextmanager
def _quiet() -> Iterator[None]:
    """PyTorch's exporters report their own insides as warnings; what matters here is checked by `compare`."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
