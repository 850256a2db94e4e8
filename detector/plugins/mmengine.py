"""GoogLeNet as a backbone of MMDetection and the other OpenMMLab frameworks: importing this file registers it.

    custom_imports = dict(imports=["detector.plugins.mmengine"])
    model = dict(backbone=dict(_delete_=True, type="GoogLeNetBackbone", weights="torchvision"), ...)

It stands in MMEngine's root registry, so that MMDetection, MMSegmentation and their siblings all find it. Input is
RGB normalised by ImageNet's mean and deviation, as the data preprocessors of their ResNet configurations do.
"""

from collections.abc import Sequence
from typing import Any

from mmengine.model import BaseModule
from mmengine.registry import MODELS
from torch import Tensor

from detector.architecture import PAPER
from detector.plugins.backbone import LEVELS, build_backbone, changed


@MODELS.register_module()
class GoogLeNetBackbone(BaseModule):
    """Normalised images (B, 3, H, W) -> a tuple of feature maps.

    Args:
        weights: `torchvision`, `bvlc`, a model that ships (`googlenet-det200`, ...), a weights file or the folder of a
            training run, with the architecture they have; None: random ones.
        out_indices: Which of the levels to give: 0..4 of the strides 2, 4, 8, 16, 32 with 64, 192, 480, 832 and 1024
            channels.
        frozen_stages: Levels 0..`frozen_stages` keep their weights; -1: none does.
        norm_eval: Keep batch norms in inference mode; by default those of trained weights, also of a checkpoint.
        with_cp: Gradient checkpointing: less memory while training, for a third more time.
        init_cfg: As in MMEngine; `dict(type="Pretrained", checkpoint=FILE)` reads a checkpoint of this module.
        **architecture: Of a network with random weights: fields of `detector.architecture.Architecture`.
    """

    def __init__(
        self,
        weights: str | None = None,
        out_indices: Sequence[int] = (1, 2, 3, 4),
        frozen_stages: int = -1,
        norm_eval: bool | None = None,
        with_cp: bool = False,
        init_cfg: dict[str, Any] | list[dict[str, Any]] | None = None,
        **architecture: Any,
    ) -> None:
        if not all(0 <= index < len(LEVELS) for index in out_indices):
            raise ValueError(
                f"out_indices are {tuple(out_indices)}, but must be among 0 to {len(LEVELS) - 1}"
            )
        if not -1 <= frozen_stages < len(LEVELS):
            raise ValueError(f"frozen_stages is {frozen_stages}, but must be -1 to {len(LEVELS) - 1}")
        super().__init__(init_cfg)
        if norm_eval is None:
            norm_eval = weights is not None or _is_pretrained(init_cfg)
        self.body = build_backbone(
            weights,
            taps=[LEVELS[index] for index in out_indices],
            architecture=changed(PAPER, architecture) if architecture else None,
            freeze=LEVELS[frozen_stages] if frozen_stages >= 0 else None,
            norm_eval=norm_eval,
            checkpointing=with_cp,
        )
        self.out_channels = self.body.channels

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """See the class."""
        return self.body(x)


def _is_pretrained(init_cfg: dict[str, Any] | list[dict[str, Any]] | None) -> bool:
    parts = init_cfg if isinstance(init_cfg, list) else [init_cfg or {}]
    return any(part.get("type") == "Pretrained" for part in parts)
