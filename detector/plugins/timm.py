"""GoogLeNet as timm models: importing this file registers `googlenet_rcnn` and `googlenet_rcnn_bn`.

timm has no Inception v1 of its own. Input is RGB normalised by ImageNet's mean and deviation, as timm's data pipeline
does by default, whatever the weights were trained on.
"""

import warnings
from pathlib import Path
from typing import Any

import torch
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from timm.models._features import feature_take_indices
from torch import Tensor, nn

from detector.architecture import PAPER, SLIM, TABLE_1, Architecture
from detector.googlenet import GoogLeNet
from detector.plugins.backbone import (
    IMAGENET_INPUT,
    LEVELS,
    TWO_ARCHITECTURES,
    InputConversion,
    changed,
    trained_network,
)
from detector.region_classifier import Preprocessing
from detector.rgb_input import take_out_transform


class TimmGoogLeNet(nn.Module):
    """GoogLeNet with the methods timm expects of its models: classifier, feature extractor, or both."""

    def __init__(
        self,
        *,
        num_classes: int = 1000,
        in_chans: int = 3,
        drop_rate: float = 0.4,
        drop_path_rate: float = 0.0,
        global_pool: str = "avg",
        output_stride: int | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        weights: str | Path | None = None,
        architecture: Architecture = PAPER,
        **changes: Any,
    ) -> None:
        """Options besides timm's own are `weights`, or those of `Architecture`: `width=0.5`, `norm="none"`, ...

        Raises:
            ValueError: Something that GoogLeNet does not have, or weights and `changes` of the architecture.
            TypeError: An option of another name.
        """
        if in_chans != 3 or drop_path_rate or output_stride not in (None, 32):
            raise ValueError("GoogLeNet has in_chans=3, drop_path_rate=0 and output_stride=32 only")
        super().__init__()
        self._weights, self._changes = weights, changes
        self.global_pool = _checked_pool(global_pool, num_classes)
        self._take(GoogLeNet(num_classes, architecture=changed(architecture, changes), dropout=drop_rate))
        self.to(device=device, dtype=dtype)
        if weights is not None:
            self.load_pretrained(weights)

    def forward(self, x: Tensor) -> Tensor:
        """Normalised images (B, 3, H, W) -> logits (B, num_classes), or pooled features without classes.

        With `global_pool=""` it is the last feature map.
        """
        return self.forward_head(self.forward_features(x))

    def forward_features(self, x: Tensor) -> Tensor:
        """Normalised images (B, 3, H, W) -> the last feature map (B, num_features, H/32, W/32)."""
        return self.network.features(self.input(x))

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """The last feature map -> what `forward` gives, or with `pre_logits` the pooled features."""
        if not self.global_pool:
            return x
        if pre_logits:
            return x.mean(dim=(2, 3))
        return self.network.resume(x, after=LEVELS[-1])  # type: ignore[return-value]  # no auxiliary classifiers

    def forward_intermediates(
        self,
        x: Tensor,
        indices: int | list[int] | None = None,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = "NCHW",
        intermediates_only: bool = False,
    ) -> list[Tensor] | tuple[Tensor, list[Tensor]]:
        """Feature maps of the five levels `indices` names; with the last feature map before them if asked for."""
        if output_fmt != "NCHW":
            raise ValueError(f"output_fmt is {output_fmt}, but GoogLeNet's feature maps are NCHW")
        taken, _ = feature_take_indices(len(LEVELS), indices)
        wanted = [LEVELS[index] for index in taken]
        names = wanted if intermediates_only else [*wanted, LEVELS[-1]]
        features = self.network.taps(self.input(x), names)
        maps = [features[name] for name in wanted]
        return maps if intermediates_only else (features[LEVELS[-1]], maps)

    def prune_intermediate_layers(
        self, indices: int | list[int] = 1, prune_norm: bool = False, prune_head: bool = True
    ) -> list[int]:
        """Drop the classifier and the stages behind the deepest level; the indices stay what they are."""
        taken, deepest = feature_take_indices(len(LEVELS), indices)
        for name in self.network.stages[self.network.stages.index(LEVELS[deepest]) + 1 :]:
            if hasattr(self.network, name):  # pool5 is no module
                setattr(self.network, name, nn.Identity())
        if prune_head:
            self.reset_classifier(0)
        return taken

    def get_classifier(self) -> nn.Module:
        """The last layer: linear, or nothing."""
        return getattr(self.network, "classifier", nn.Identity())

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Begin with a new classifier for other classes; none with 0. Pooling stays what it is unless named."""
        pool = self.global_pool if global_pool is None else global_pool
        self.global_pool = _checked_pool(pool, num_classes)
        self.network.num_classes = self.num_classes = num_classes
        layer = nn.Linear(self.num_features, num_classes) if num_classes else nn.Identity()
        layer.to(next(self.network.parameters()))  # its device and its kind of numbers
        self.network.classifier = layer  # type: ignore[assignment]  # what num_classes=0 has

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Less memory while training, for a third more time."""
        self.network.checkpointing = enable

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Groups of parameters for timm's layer-wise learning rates: the stem, each Inception module, the rest."""
        blocks = [(rf"^network\.inception_{name}\.", (index,)) for index, name in enumerate(TABLE_1)]
        return {"stem": r"^network\.conv", "blocks": r"^network\.inception" if coarse else blocks}

    def load_pretrained(self, source: str | Path) -> None:
        """Take the weights that `tools/detect.py --weights` calls `source`, and their architecture and input.

        Raises:
            ValueError: The network was asked to have an architecture of its own, or other weights.
        """
        if self._weights is not None and str(self._weights) != str(source):
            raise ValueError(f"give either pretrained=True, which is {source}, or weights={self._weights}")
        if self._changes:
            raise ValueError(TWO_ARCHITECTURES)
        classes, placement = self.num_classes, next(self.network.parameters())
        network, wanted = trained_network(source)
        network.dropout = self.network.dropout
        trained_classes = network.num_classes
        self._take(network, wanted)
        if classes != trained_classes:
            if classes:
                warnings.warn(
                    f"{source} has {trained_classes} outputs: the classifier of {classes} begins anew",
                    stacklevel=2,
                )
            self.reset_classifier(classes)
        self.to(placement)

    def _take(self, network: GoogLeNet, wanted: Preprocessing = IMAGENET_INPUT) -> None:
        self.input = InputConversion(take_out_transform(network, wanted))
        self.network = network
        self.num_classes = network.num_classes
        self.num_features = self.head_hidden_size = network.num_features
        parts = {part.module: part for part in network.feature_info}
        self.feature_info = [
            {"num_chs": parts[name].channels, "reduction": parts[name].stride, "module": f"network.{name}"}
            for name in LEVELS
        ]


def _checked_pool(global_pool: str, num_classes: int) -> str:
    allowed = ("avg",) if num_classes else ("avg", "")
    if global_pool not in allowed:
        raise ValueError(
            f"global_pool is {global_pool!r}, but GoogLeNet has 'avg', or '' (none) where num_classes is 0"
        )
    return global_pool


def _cfg(source: str, origin: str) -> dict[str, Any]:
    return {
        "file": source,  # the name of weights, which `TimmGoogLeNet.load_pretrained` looks up
        "custom_load": True,
        "input_size": (3, 224, 224),
        "pool_size": (7, 7),
        "crop_pct": 0.875,
        "interpolation": "bilinear",
        "num_classes": 1000,
        "first_conv": "network.conv1" if source == "bvlc" else "network.conv1.conv",
        "classifier": "network.classifier",
        "description": origin,
        "paper_ids": "arXiv:1409.4842",
    }


default_cfgs = generate_default_cfgs(
    {
        "googlenet_rcnn.bvlc_in1k": _cfg("bvlc", "the paper's network, trained by BVLC with Caffe"),
        "googlenet_rcnn_bn.tv_in1k": _cfg("torchvision", "batch norm, 3x3 for 5x5, from torchvision"),
    }
)


def _check_checkpoint(tensors: dict[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """Refuse files that timm reads itself and, not finding its names, would leave unused without an error."""
    if not any(name.startswith("network.") for name in tensors):
        raise ValueError(
            "not a checkpoint of this timm model; weights files of the detector go in as `weights=FILE`"
        )
    return tensors


def _create(variant: str, pretrained: bool, architecture: Architecture, **options: Any) -> nn.Module:
    if options.get("features_only"):
        options.setdefault("num_classes", 0)  # nobody would see the classifier, nor that it begins anew
    return build_model_with_cfg(
        TimmGoogLeNet,
        variant,
        pretrained,
        feature_cfg={"feature_cls": "getter"},
        pretrained_filter_fn=_check_checkpoint,
        architecture=architecture,
        **options,
    )


@register_model
def googlenet_rcnn(pretrained: bool = False, **options: Any) -> nn.Module:
    """The paper's network: true 5x5 convolutions, biases, local response normalisation."""
    return _create("googlenet_rcnn", pretrained, PAPER, **options)


@register_model
def googlenet_rcnn_bn(pretrained: bool = False, **options: Any) -> nn.Module:
    """TF-slim's and torchvision's: batch norm, 3x3 convolutions in place of 5x5."""
    return _create("googlenet_rcnn_bn", pretrained, SLIM, **options)
