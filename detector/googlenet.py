"""GoogLeNet as in Szegedy et al., *Going deeper with convolutions* (CVPR 2015), table 1, and its variants.

The paper's own network: true 5x5 convolutions, biases, local response normalisation, no batch norm, pools
that round their output size up. With 1000 classes it has 6,998,552 parameters. `detector.architecture` says what
else there is; `python -m detector.googlenet` prints the table.
"""

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from detector.architecture import PAPER, SLIM_NAMES, TABLE_1, Architecture
from detector.inception import (
    AuxiliaryClassifier,
    Inception,
    LocalResponseNorm,
    NaiveInception,
    TransformInput,
    convolution,
)


class Logits(NamedTuple):
    """What a network with auxiliary classifiers gives while training, each (R, num_classes).

    The auxiliary ones are None where the pass began (`resume`) behind the stage they look at.
    """

    main: Tensor
    aux_4a: Tensor | None
    aux_4d: Tensor | None


class Feature(NamedTuple):
    """A stage whose output can be had: channels, pixels of the image a step of its map, and its other name."""

    module: str
    channels: int
    stride: int
    slim_name: str | None


class GoogLeNet(nn.Module):
    """A row of named stages, from images to class logits.

    Args:
        num_classes: Outputs of the classifier; 1000 for ILSVRC classification, 201 for detection
            (200 classes and, last, background); with 0 there is no classifier, and the network gives the pooled
            features.
        architecture: The variant; by default the paper's network.
        auxiliary: Have the auxiliary classifiers on stages 4a and 4d, which work while training only.
        dropout: Share of the pooled features dropped before the classifier while training (the paper's 40 %).
        checkpointing: While training, compute the inside of every Inception module a second time for the
            gradients instead of keeping it: less memory for a third more time, with the same result.

    Attributes:
        feature_info: Every stage: name, channels, stride and TF-slim's name. `pool5` is the pooled features.
        num_features: Channels of the pooled features.
    """

    def __init__(
        self,
        num_classes: int = 1000,
        *,
        architecture: Architecture = PAPER,
        auxiliary: bool = False,
        dropout: float = 0.4,
        checkpointing: bool = False,
    ) -> None:
        if num_classes < 0:
            raise ValueError(f"num_classes is {num_classes}, but must be at least 0")
        if auxiliary and not num_classes:
            raise ValueError("auxiliary classifiers need classes: num_classes must be above 0")
        super().__init__()
        self.num_classes = num_classes
        self.architecture = architecture
        self.checkpointing = checkpointing
        self.stages = architecture.stages()
        self._frozen: tuple[str, ...] = ()
        self._norm_eval = False

        norm, scaled = architecture.norm, architecture.scaled
        block = Inception if architecture.reductions else NaiveInception
        last_pool = 2 if norm == "batch" else 3
        self.transform_input = TransformInput() if architecture.transform_input else nn.Identity()
        self.conv1 = convolution(3, scaled(64), 7, stride=2, norm=norm)
        self.conv2_reduce = convolution(scaled(64), scaled(64), 1, norm=norm)
        self.conv2 = convolution(scaled(64), scaled(192), 3, norm=norm)
        if norm == "lrn":
            self.norm1 = LocalResponseNorm(scaled(64))
            self.norm2 = LocalResponseNorm(scaled(192))
        for name in ("pool1", "pool2", "pool3", "pool4"):
            self.add_module(name, nn.MaxPool2d(last_pool if name == "pool4" else 3, 2, ceil_mode=True))
        channels = scaled(192)
        for name, widths in TABLE_1.items():
            module = block(channels, widths, architecture)
            self.add_module(f"inception_{name}", module)
            channels = module.out_channels
            if auxiliary and name in ("4a", "4d"):
                self.add_module(f"aux_{name}", AuxiliaryClassifier(channels, num_classes, architecture))
        self.num_features = channels
        self.dropout = nn.Dropout(dropout)
        if num_classes:
            self.classifier = nn.Linear(channels, num_classes)
            nn.init.xavier_uniform_(self.classifier.weight)
            nn.init.zeros_(self.classifier.bias)
        self.auxiliary = auxiliary
        self.feature_info = tuple(self._features())

    def forward(self, x: Tensor) -> Tensor | Logits:
        """Normalised images (R, 3, H, W) -> logits (R, num_classes), or pooled features with no classes.

        The training size is 224x224; any size from 31 pixels a side passes, since the last pool is global. While
        training, a network with auxiliary classifiers gives `Logits`.
        """
        return self._run(self.transform_input(x), self.stages)

    def features(self, x: Tensor) -> Tensor:
        """Normalised images (R, 3, H, W) -> feature map (R, 1024, H/32, W/32), see `taps` for other sizes."""
        return self.taps(x, ["inception_5b"])["inception_5b"]

    def taps(self, x: Tensor, names: Iterable[str]) -> dict[str, Tensor]:
        """Outputs of any stages; what comes after the deepest of them is not computed.

        Args:
            x: Normalised images (R, 3, H, W).
            names: Stages, by their own name (`inception_4e`) or TF-slim's (`Mixed_4f`).

        Returns:
            By the names as asked for: feature maps (R, channels, H / stride, W / stride), and of `pool5` the
            pooled features (R, 1024). Where the stride does not divide a side, its last cell, of which only a part
            would lie in the image, is there or not: the paper's pools have no padding.

        Raises:
            ValueError: No such stage.
        """
        wanted = {name: self.stage_position(name) for name in names}
        outputs: dict[int, Tensor] = {}
        x = self.transform_input(x)
        for position in range(max(wanted.values(), default=-1) + 1):
            x = outputs[position] = self._stage(self.stages[position], x)
        return {name: outputs[position] for name, position in wanted.items()}

    def resume(self, features: Tensor, *, after: str) -> Tensor | Logits:
        """The rest of the computation: `resume(taps(x, [name])[name], after=name)` equals `forward(x)`.

        Args:
            features: Output of the stage `after`.
            after: Its own name, or TF-slim's.

        Raises:
            ValueError: No such stage.
        """
        position = self.stage_position(after)
        return self._run(features, self.stages[position + 1 :], done=self.stages[position])

    def cells(self, size: int) -> int:
        """How many cells a side the last feature map of square images of `size` pixels a side has.

        Only conv1 and the pools change it, and where the stride does not divide the size, each variant in its own way.
        """
        x = torch.zeros(1, 1, size, size)[:, :, ::2, ::2]  # as many as conv1 gives
        for name in ("pool1", "pool2", "pool3", "pool4"):
            x = self.get_submodule(name)(x)
        return x.shape[-1]

    def freeze(self, until: str | None, *, norm_eval: bool = False) -> None:
        """Fix the weights and the batch norm statistics of all stages up to and including `until`.

        Args:
            until: A stage, by its own name or TF-slim's; None trains everything.
            norm_eval: Fix the statistics of all other batch norms too, whose weights go on learning: what
                detectors do that train on one or two images at a time.

        Raises:
            ValueError: No such stage.
        """
        self._frozen = () if until is None else self.stages[: self.stage_position(until) + 1]
        self._norm_eval = norm_eval
        for name in self.stages[:-1]:  # pool5 is no module
            self.get_submodule(name).requires_grad_(name not in self._frozen)
        self.train(self.training)

    def train(self, mode: bool = True) -> "GoogLeNet":
        """Switch between training and inference; what `freeze` has fixed stays in inference."""
        super().train(mode)
        for name in self._frozen:
            if name != "pool5":
                self.get_submodule(name).eval()
        if self._norm_eval:
            for module in _batch_norms(self):
                module.eval()
        return self

    def _run(self, x: Tensor, stages: tuple[str, ...], done: str = "") -> Tensor | Logits:
        """The output of stage `done`, or the image, through `stages` and the classifier."""
        with_auxiliary = self.auxiliary and self.training
        auxiliary: dict[str, Tensor] = {}
        if with_auxiliary and done in _AUXILIARY:
            auxiliary[done] = self.get_submodule(_AUXILIARY[done])(x)
        for name in stages:
            x = self._stage(name, x)
            if with_auxiliary and name in _AUXILIARY:
                auxiliary[name] = self.get_submodule(_AUXILIARY[name])(x)
        if not self.num_classes:
            return x
        logits = self.classifier(self.dropout(x))
        return Logits(logits, *(auxiliary.get(name) for name in _AUXILIARY)) if with_auxiliary else logits

    def _stage(self, name: str, x: Tensor) -> Tensor:
        if name == "pool5":
            return x.mean(dim=(2, 3))  # (R, num_features)
        module = self.get_submodule(name)
        if self.checkpointing and self.training and torch.is_grad_enabled() and name.startswith("inception"):
            if torch.compiler.is_compiling():  # counts a batch once by itself, and knows no contexts
                return checkpoint(module, x, use_reentrant=False)
            return checkpoint(module, x, use_reentrant=False, context_fn=lambda: _twice(module))
        x = module(x)
        return F.relu(x, inplace=True) if name.startswith("conv") else x

    def stage_position(self, name: str) -> int:
        """The place of a stage, by its own name or TF-slim's, among `stages`.

        Raises:
            ValueError: No such stage.
        """
        for position, stage in enumerate(self.stages):
            if name in (stage, SLIM_NAMES[stage]):
                return position
        raise ValueError(
            f"{name!r} is no stage of this network; it has {', '.join(self.stages)} (or TF-slim's names)"
        )

    def _features(self) -> Iterator[Feature]:
        channels, stride = 3, 1
        for name in self.stages:
            module = None if name == "pool5" else self.get_submodule(name)
            if isinstance(module, Inception | NaiveInception):
                channels = module.out_channels
            elif name.startswith("conv"):
                channels = self.architecture.scaled(192 if name == "conv2" else 64)
            if name == "conv1" or (name.startswith("pool") and name != "pool5"):
                stride *= 2
            yield Feature(name, channels, stride, SLIM_NAMES[name])


_AUXILIARY = {"inception_4a": "aux_4a", "inception_4d": "aux_4d"}


def _batch_norms(module: nn.Module) -> list[_BatchNorm]:
    """All of them, also those that `nn.SyncBatchNorm.convert_sync_batchnorm` has put in their places."""
    return [part for part in module.modules() if isinstance(part, _BatchNorm)]


def _twice(module: nn.Module) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    """Contexts of the first and of the second computation of a checkpointed module."""
    return nullcontext(), _without_statistics(module)


@contextmanager
def _without_statistics(module: nn.Module) -> Iterator[None]:
    """Batch norms do not move their statistics: the same batch would count twice."""
    norms = _batch_norms(module)
    before = [(norm.momentum, norm.num_batches_tracked.clone()) for norm in norms]  # type: ignore[union-attr]
    for norm in norms:
        norm.momentum = 0.0
    try:
        yield
    finally:
        for norm, (momentum, batches) in zip(norms, before, strict=True):
            norm.momentum = momentum
            norm.num_batches_tracked.copy_(batches)  # type: ignore[union-attr]


if __name__ == "__main__":
    from detector.network_table import main

    main()
