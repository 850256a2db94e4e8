"""What is in an image as a whole: the classifier of ILSVRC 2014, averaged over crops and over networks."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from detector.multi_crop import NumCrops, crops
from detector.region_classifier import Normalize
from detector.runtime import Runtime, RuntimeName, choose_runtime
from detector.safetensors_file import WeightsCard
from detector.taxonomy import DetectionClass, classification_classes
from detector.weights import WeightsRecord, describe, load_network


class Softmax(nn.Module):
    """Probabilities of the first outputs of a network: a detector may have more, such as a region's fit.

    Args:
        count: C, of these outputs.
    """

    def __init__(self, count: int) -> None:
        super().__init__()
        self.count = count

    def forward(self, logits: Tensor) -> Tensor:
        """(R, C or more) -> (R, C), rows sum to 1."""
        return logits[:, : self.count].softmax(dim=1)


def output_classes(card: WeightsCard) -> tuple[DetectionClass, ...]:
    """What each output of a network stands for; ids of the 1000 ILSVRC classes count from 0.

    Raises:
        ValueError: The outputs are not one distribution over classes.
    """
    if card.outputs not in ("cls1000", "members", "detection"):
        raise ValueError(
            f"{card.name}: its outputs are {card.outputs}, and cannot be averaged as probabilities"
        )
    if card.outputs != "detection":
        return tuple(DetectionClass(kind.index, kind.name, kind.wnid) for kind in classification_classes())
    return (*card.classes, DetectionClass(0, "background"))


class Classifier:
    """Image in, one probability per class out: the mean over crops and networks (section 7 of the paper).

    Args:
        sources: Weights of one network or more with the same classes, see `detector.weights.find_weights`.
        num_crops: 1, 10 or 144, see `detector.multi_crop`.
        batch_size: Crops a network sees at a time.
        runtime: How the networks run, see `detector.runtime`.
        device: Where they run.

    Raises:
        OSError, ValueError: Weights that cannot be read, or that tell apart other classes than the first.
    """

    def __init__(
        self,
        sources: Sequence[WeightsRecord | Path],
        *,
        num_crops: NumCrops = 1,
        batch_size: int = 12,
        runtime: RuntimeName = "auto",
        device: str | torch.device = "cpu",
    ) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size is {batch_size}, but must be at least 1")
        if not sources:
            raise ValueError("a classifier needs the weights of at least one network")
        self.num_crops = num_crops
        self.batch_size = batch_size
        self._networks: list[tuple[int, Runtime]] = []
        for source in sources:
            network, card = load_network(source)
            classes = output_classes(card)
            if not self._networks:
                self.classes = classes
            elif classes != self.classes:
                raise ValueError(
                    f"{describe(source)}: tells apart {len(classes)} classes, and not those"
                    f" of {describe(sources[0])}, so that their judgements cannot be averaged"
                )
            module = nn.Sequential(Normalize(card.preprocessing), network, Softmax(len(classes)))
            size = card.preprocessing.size
            self._networks.append((size, choose_runtime(module, runtime, device, size=size)))

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """RGB uint8 (H, W, 3) -> probabilities (C,) float32."""
        total = np.zeros(len(self.classes))
        for size, run in self._networks:
            views = crops(image, self.num_crops, size=size)
            for start in range(0, len(views), self.batch_size):
                total += run(np.ascontiguousarray(views[start : start + self.batch_size])).sum(axis=0)
        return (total / (len(self._networks) * self.num_crops)).astype(np.float32)

    def top(self, probabilities: np.ndarray, count: int = 5) -> list[int]:
        """The labels of the most probable classes, best first."""
        return np.argsort(-probabilities, kind="stable")[:count].tolist()
