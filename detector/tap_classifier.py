"""A linear classifier on the features of any stage of GoogLeNet: what SVMs of few photos become."""

import torch.nn.functional as F
from torch import Tensor, nn

from detector.googlenet import GoogLeNet


class TapClassifier(nn.Module):
    """Features of a stage, averaged over the cells of a grid, then one linear output a class.

    Args:
        trunk: The network; its stages behind `tap` are dropped.
        tap: The stage whose features are used, see `GoogLeNet.feature_info`.
        grid: Cells a side; 1 averages over the whole region, more keep where in the region things are.
        in_features: Channels of the stage times cells.
        outputs: Classes.
    """

    def __init__(self, trunk: GoogLeNet, *, tap: str, grid: int, in_features: int, outputs: int) -> None:
        super().__init__()
        if grid < 1:
            raise ValueError(f"grid is {grid}, but must be at least 1")
        self.trunk = trunk
        behind = trunk.stages[[stage.module for stage in trunk.feature_info].index(tap) + 1 :]
        for name in (*behind, "classifier"):
            if hasattr(trunk, name):  # pool5 is no module
                delattr(trunk, name)
        self.tap = tap
        self.grid = grid
        self.head = nn.Linear(in_features, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Normalised images (R, 3, H, W) -> logits (R, outputs)."""
        return self.head(tap_features(self.trunk, x, self.tap, self.grid))


def tap_features(trunk: GoogLeNet, x: Tensor, tap: str, grid: int) -> Tensor:
    """Normalised images (R, 3, H, W) -> (R, channels * grid * grid), the tap's output averaged over a grid."""
    features = trunk.taps(x, [tap])[tap]
    if tap == "pool5":  # (R, 1024), pooled already
        return features
    if grid == 1:
        return features.mean(dim=(2, 3))
    return F.adaptive_avg_pool2d(features, grid).flatten(1)
