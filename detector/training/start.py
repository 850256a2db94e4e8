"""What a training run starts from: the network of existing weights, and a folder to write to."""

from dataclasses import replace
from pathlib import Path

from detector.googlenet import GoogLeNet
from detector.region_classifier import RegionClassifier
from detector.weights import describe, find_weights, load_weights


def start_weights(
    choice: str | None, size: int | None, context: int | None = None
) -> tuple[RegionClassifier, str]:
    """The classifier to start from and its name.

    Args:
        size: Side of its regions in pixels, from now on; None: as its weights want.
        context: Pixels around a box in them; None: in proportion to what its weights want.

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
    around = round(before.context * side / before.size) if context is None else context
    classifier.preprocessing = replace(before, size=side, context=around)
    return classifier, describe(source)


def output_folder(path: str | Path) -> Path:
    """The folder of a run, made if it is not there.

    Raises:
        ValueError: There is a file of that name.
    """
    folder = Path(path)
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder}: is a file; --output names a folder for the model and what belongs to it")
    folder.mkdir(parents=True, exist_ok=True)
    return folder
