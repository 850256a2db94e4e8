"""GoogLeNet as a backbone of Hugging Face transformers: importing this file registers it with `AutoBackbone`.

    config = DetrConfig(backbone_config=googlenet_config("torchvision"))
    model = take_weights(DetrForObjectDetection(config), "torchvision")

Input is RGB normalised by ImageNet's mean and deviation, as transformers' image processors do by default.
"""

from dataclasses import asdict
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import torch
from huggingface_hub.dataclasses import strict
from torch import Tensor, nn
from transformers import AutoBackbone, AutoConfig, PreTrainedConfig, PreTrainedModel
from transformers import initialization as init
from transformers.backbone_utils import BackboneConfigMixin, BackboneMixin
from transformers.modeling_outputs import BackboneOutput

from detector.architecture import Architecture
from detector.googlenet import GoogLeNet
from detector.inception import LocalResponseNorm, TransformInput
from detector.plugins.backbone import LEVELS, Backbone, InputConversion, trained_network

# transformers' detectors put frozen batch norms with this constant in the place of a backbone's own.
NORM_EPSILON = 1e-5
Model = TypeVar("Model", bound=nn.Module)


@strict
class GoogLeNetConfig(BackboneConfigMixin, PreTrainedConfig):
    """Architecture of the network (the fields of `Architecture`), and which feature maps it gives.

    `out_features` are names of `detector.plugins.backbone.LEVELS`, `out_indices` their positions; by default the
    last one. Random weights: `take_weights` fills in trained ones.
    """

    model_type = "googlenet_rcnn"
    num_channels: int = 3
    norm: str = "lrn"
    true_5x5: bool = True
    reductions: bool = True
    width: float = 1.0
    transform_input: bool = False

    def __post_init__(self, **kwargs: Any) -> None:
        """Settle the feature maps."""
        self.stage_names = list(LEVELS)
        self.set_output_features_output_indices(
            out_indices=kwargs.pop("out_indices", None), out_features=kwargs.pop("out_features", None)
        )
        super().__post_init__(**kwargs)

    def architecture(self) -> Architecture:
        """The same as what the network is made of."""
        return Architecture(
            norm=self.norm,  # type: ignore[arg-type]  # Architecture checks it
            true_5x5=self.true_5x5,
            reductions=self.reductions,
            width=self.width,
            transform_input=self.transform_input,
        )


def googlenet_config(weights: str | Path, **options: Any) -> GoogLeNetConfig:
    """The configuration of a backbone that `take_weights` can fill from `weights`; see `GoogLeNetConfig`."""
    return GoogLeNetConfig(**asdict(trained_network(weights)[0].architecture), **options)


class GoogLeNetBackbone(BackboneMixin, PreTrainedModel):
    """Normalised images (B, 3, H, W) -> `feature_maps` of the levels the configuration names."""

    config_class = GoogLeNetConfig
    main_input_name = "pixel_values"
    input_modalities = ("image",)
    has_attentions = False
    supports_gradient_checkpointing = False  # `body.network.checkpointing = True` does it
    _no_split_modules: ClassVar[list[str]] = ["Inception", "NaiveInception"]

    def __init__(self, config: GoogLeNetConfig) -> None:
        super().__init__(config)
        network = GoogLeNet(0, architecture=config.architecture())
        parts = {part.module: part for part in network.feature_info}
        self.num_features = [parts[name].channels for name in LEVELS]
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eps = NORM_EPSILON
        self.body = Backbone(network, taps=config.out_features)
        self.post_init()

    def forward(
        self,
        pixel_values: Tensor,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        **kwargs: Any,
    ) -> BackboneOutput | tuple[Any, ...]:
        """See the class; `hidden_states`, where asked for, are the feature maps again."""
        maps = self.body(pixel_values)
        if not (self.config.return_dict if return_dict is None else return_dict):
            return (maps, maps) if output_hidden_states else (maps,)
        return BackboneOutput(feature_maps=maps, hidden_states=maps if output_hidden_states else None)

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """Random weights as the network's own constructor gives, and the constants that no checkpoint holds."""
        if isinstance(module, LocalResponseNorm):
            _refill(module, LocalResponseNorm(len(module.k)))
        elif isinstance(module, TransformInput):
            _refill(module, TransformInput())
        elif isinstance(module, InputConversion):
            _refill(module, InputConversion())
        elif isinstance(module, nn.Conv2d):
            init.xavier_uniform_(module.weight)
            if module.bias is not None:
                init.constant_(module.bias, 0.2)
        elif "BatchNorm" in type(module).__name__:  # the detector's frozen one, too
            for name in ("weight", "running_var"):
                init.ones_(getattr(module, name))
            for name in ("bias", "running_mean"):
                init.zeros_(getattr(module, name))


def take_weights(model: Model, weights: str | Path) -> Model:
    """Fill the GoogLeNet backbones inside `model` with trained weights, and let them see the pixels these want.

    Raises:
        ValueError: There is no such backbone in it, or one of another architecture (see `googlenet_config`).
        OSError: The weights are missing or damaged.
    """
    found = [module for module in model.modules() if isinstance(module, GoogLeNetBackbone)]
    if not found:
        raise ValueError(f"{type(model).__name__} has no GoogLeNet backbone to take weights")
    for module in found:
        network, wanted = trained_network(weights)
        if network.architecture != module.config.architecture():
            raise ValueError(f"{weights}: of another architecture than the backbone; use googlenet_config")
        trained = Backbone(network, taps=module.body.taps, wanted=wanted)
        for part in trained.modules():
            if isinstance(part, nn.BatchNorm2d) and part.running_var is not None:
                part.running_var.add_(part.eps - NORM_EPSILON)  # only the sum of both counts
        present = module.body.state_dict().keys()
        module.body.load_state_dict(
            # frozen batch norms count no batches
            {name: tensor for name, tensor in trained.state_dict().items() if name in present}
        )
    return model


def _refill(module: nn.Module, fresh: nn.Module) -> None:
    for name, buffer in fresh.named_buffers():
        init.copy_(getattr(module, name), buffer.to(getattr(module, name).device))


AutoConfig.register(GoogLeNetConfig.model_type, GoogLeNetConfig)
AutoBackbone.register(GoogLeNetConfig, GoogLeNetBackbone)
