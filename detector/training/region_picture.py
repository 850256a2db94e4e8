"""A sample of what a network is trained on, as one picture: the quickest way to see that the data is right."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from detector.drawing import draw_boxes
from detector.region_classifier import Preprocessing
from detector.training.features import cut_regions
from detector.training.sampling import RegionTable
from eval.atomic import temporary_name

SIDE = 112  # pixels of a region in the picture


def write_region_picture(
    path: Path,
    table: RegionTable,
    *,
    preprocessing: Preprocessing,
    seed: int,
    count: int = 64,
) -> None:
    """Write a square of warped regions, half of them objects with their class, half background with their IoU.

    Args:
        preprocessing: How the network wants its regions; here they are smaller or larger.
        count: Most regions.
    """
    context = min(round(preprocessing.context * SIDE / preprocessing.size), (SIDE - 1) // 2)
    small = replace(preprocessing, size=SIDE, context=context)
    background = len(table.training_set.classes)
    generator = np.random.default_rng(seed)
    rows = np.concatenate(
        [
            generator.permutation(np.flatnonzero(mask))[: count // 2]
            for mask in (table.labels != background, table.labels == background)
        ]
    )
    columns = max(1, math.isqrt(max(len(rows) - 1, 0)) + 1)
    sheet = np.full((max(1, -(-len(rows) // columns)) * SIDE, columns * SIDE, 3), 255, np.uint8)
    for place, row in enumerate(rows.tolist()):
        image = table.training_set.images[int(table.image[row])].pixels()
        warped = cut_regions(image, table.boxes[row : row + 1], small)[0]
        label = int(table.labels[row])
        caption = (
            f"background {table.ious[row]:.2f}"
            if label == background
            else f"{table.training_set.classes[label].name} {table.ious[row]:.2f}"
        )
        frame = np.array([[1, 1, SIDE - 1, SIDE - 1]], np.float32)
        y, x = divmod(place, columns)
        sheet[y * SIDE : (y + 1) * SIDE, x * SIDE : (x + 1) * SIDE] = draw_boxes(
            warped, frame, [caption], np.array([label])
        )
    with temporary_name(path) as temporary:
        Image.fromarray(sheet).save(temporary, format="JPEG", quality=90)
