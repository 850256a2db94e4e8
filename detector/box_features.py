"""What a map of the whole image says about a box: pooled features of it, of its surroundings and of its core.

One network pass gives the map; pooling a box from it costs next to nothing (He et al., *Spatial pyramid pooling in deep
convolutional networks*, ECCV 2014; Girshick, *Fast R-CNN*, ICCV 2015).
"""

import numpy as np
import torch
from torch import Tensor

WINDOWS = (1.0, 1.7, 0.6)  # the box, with surroundings, without its rim: sides in those of the box
GEOMETRY = 10  # numbers about size, shape, place and rank
_LEAST = 1e-6  # where the root begins: at 0 its slope has no end


def box_features(features: np.ndarray, boxes: np.ndarray, *, width: float, height: float) -> np.ndarray:
    """Describe boxes by a map of features of their image.

    Args:
        features: (D, h, w) float32, not negative; one cell is one unit of length.
        boxes: (N, 4) xyxy in these units, best-ranked first.
        width, height: Of the image in these units; its last cells may be partly outside.

    Returns:
        (N, 3 * D + `GEOMETRY`) float32.
    """
    windows = box_windows(boxes, *features.shape[1:], width=width, height=height)
    pooled = pooled_features(torch.from_numpy(np.asarray(features, np.float32)), torch.from_numpy(windows))
    return np.concatenate([pooled.numpy(), box_geometry(boxes, width=width, height=height)], axis=1)


def box_windows(boxes: np.ndarray, rows: int, columns: int, *, width: float, height: float) -> np.ndarray:
    """(3, N, rows * columns) float32: what share of each window of boxes (N, 4) lies in each cell of a map."""
    boxes = np.asarray(boxes, np.float32).reshape(-1, 4)
    limits = np.array([width, height, width, height], np.float32)
    middle, half = (boxes[:, :2] + boxes[:, 2:]) / 2, (boxes[:, 2:] - boxes[:, :2]) / 2
    windows = [np.concatenate([middle - times * half, middle + times * half], axis=1) for times in WINDOWS]
    return np.stack([_shares(np.clip(window, 0, limits), rows, columns) for window in windows])


def pooled_features(features: Tensor, windows: Tensor) -> Tensor:
    """A map (D, h, w) and windows (3, N, h * w) -> (N, 3 * D).

    The square root tames the few large values of averaged ReLU outputs. Surroundings and core come as differences:
    a box that ends where its object ends differs from what is around it, and is like its core.
    """
    box, around, core = (windows @ features.flatten(1).T).clamp_min(_LEAST).sqrt()
    return torch.cat([box, box - around, core - box], dim=1)


def _shares(windows: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """(N, h * w): what share of each window (N, 4) lies in each cell."""

    def along(low: np.ndarray, high: np.ndarray, count: int) -> np.ndarray:
        start = np.arange(count, dtype=np.float32)
        common = np.minimum(high[:, None], start + 1) - np.maximum(low[:, None], start)
        common = np.clip(common, 0, None)
        return np.asarray(common / np.maximum(common.sum(axis=1, keepdims=True), 1e-9))  # (N, count)

    down, across = along(windows[:, 1], windows[:, 3], rows), along(windows[:, 0], windows[:, 2], columns)
    return np.asarray((down[:, :, None] * across[:, None, :]).reshape(len(windows), rows * columns))


def box_geometry(boxes: np.ndarray, *, width: float, height: float) -> np.ndarray:
    """(N, `GEOMETRY`) float32 of boxes (N, 4): sides, shape and area (logs), borders that are touched, the rank."""
    boxes = np.asarray(boxes, np.float32).reshape(-1, 4)
    sides = np.maximum(boxes[:, 2:] - boxes[:, :2], 1e-6)
    across, down = np.log(sides[:, 0] / width), np.log(sides[:, 1] / height)
    shape = np.log(sides[:, 0] / sides[:, 1])
    near = 1 / 32  # a pixel of the resized image
    columns = [
        across,
        down,
        shape,
        shape**2,
        (across + down) ** 2,
        boxes[:, 0] <= near,
        boxes[:, 1] <= near,
        boxes[:, 2] >= width - near,
        boxes[:, 3] >= height - near,
        np.log1p(np.arange(len(boxes))) / 8,
    ]
    return np.stack(columns, axis=1).astype(np.float32)
