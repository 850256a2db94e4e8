"""What a training run starts from: the network of existing weights, and a folder to write to."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Literal

from rich.console import Console
from torch import Tensor

from detector.command_line import check_folder, check_outputs
from detector.googlenet import GoogLeNet
from detector.region_classifier import RegionClassifier
from detector.training.checkpoint import FILE, NO_CHECKPOINT
from detector.training.processes import was_restarted
from detector.weights import MODEL_FILE, describe, find_weights, load_weights


def start_weights(
    choice: str | None,
    size: int | None,
    context: int | None = None,
    crop: Literal["warp", "square"] | None = None,
) -> tuple[RegionClassifier, str]:
    """The classifier to start from and its name, of a file with its folder.

    Args:
        size: Side of its regions in pixels, from now on; None: as its weights want.
        context: Pixels around a box in them; None: in proportion to what its weights want.
        crop: How a box becomes a square, see `Preprocessing`; None: as its weights want.

    Raises:
        OSError, ValueError: No weights, or weights of another network than `GoogLeNet`.
    """
    source = find_weights(choice)
    classifier = load_weights(source)
    if not isinstance(classifier.network, GoogLeNet):
        raise ValueError(
            f"--weights {describe(source)}: training starts from a GoogLeNet of this project, which these are not"
        )
    before = classifier.preprocessing
    side = before.size if size is None else size
    if side < 32:
        raise ValueError(f"--size is {size}, but must be at least 32")
    if context is not None and not 0 <= 2 * context < side:
        raise ValueError(
            f"--context is {context}, but must be at least 0 and below half of the region's {side} pixels"
        )
    around = round(before.context * side / before.size) if context is None else context
    classifier.preprocessing = replace(before, size=side, context=around, crop=crop or before.crop)
    # What is told of a model's origin goes with it to other machines, whose folders are none of this one's.
    return classifier, "/".join(source.parts[-2:]) if isinstance(source, Path) else describe(source)


def stage_name(network: GoogLeNet, name: str) -> str:
    """The network's own name of a stage that may be called as TF-slim does.

    Raises:
        ValueError: No such stage.
    """
    for stage in network.feature_info:
        if name in (stage.module, stage.slim_name):
            return stage.module
    raise ValueError(f"{name!r} is no stage of the network; it has {', '.join(network.stages)}")


def without_auxiliaries(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights that are left when training is over: the auxiliary classifiers go."""
    return {name: tensor for name, tensor in tensors.items() if not name.startswith("aux_")}


def body_of(network: GoogLeNet) -> dict[str, Tensor]:
    """The weights of all stages, without the outputs."""
    return {
        name: tensor
        for name, tensor in without_auxiliaries(network.state_dict()).items()
        if not name.startswith("classifier.")
    }


def resumes(output: str | Path, asked: bool, console: Console) -> bool:
    """Whether a run goes on from the checkpoint in its folder, as it was asked to or as torchrun does by itself.

    One that was stopped before its first checkpoint has learnt nothing: it starts from step 0.

    Raises:
        FileNotFoundError: It was asked to, and the folder is not there or holds a model only.
    """
    folder = Path(output)
    checkpoint = folder / FILE
    if checkpoint.is_file():
        return asked or was_restarted()
    if asked and (not folder.is_dir() or (folder / MODEL_FILE).exists()):
        raise FileNotFoundError(NO_CHECKPOINT.format(checkpoint))
    if asked:
        console.print(
            f"{folder}: stopped before its first checkpoint; starting from step 0",
            markup=False,
            soft_wrap=True,
        )
    return False


def output_folder(path: str | Path, *, option: str = "output", **start: str | None) -> Path:
    """The folder of a run, made if it is not there.

    Args:
        option: That names it.
        start: The weights that the run starts from, by option: its model does not take their place.

    Raises:
        OSError, ValueError: There is a file of that name, or these weights are the model in it.
    """
    folder = Path(path)
    check_folder(folder, option)
    found = [(name, find_weights(choice)) for name, choice in start.items() if choice is not None]
    files = [(name, source) for name, source in found if isinstance(source, Path)]
    check_outputs([(option, folder / MODEL_FILE)], files)
    folder.mkdir(parents=True, exist_ok=True)
    return folder
