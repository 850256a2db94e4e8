"""Which hierarchies selective search builds: the modes of Uijlings et al., table 5, and free lists."""

import math
from dataclasses import dataclass
from itertools import product
from numbers import Real
from typing import Literal

from proposals.colour_spaces import COLOUR_SPACES, ColourSpace

Mode = Literal["single", "fast", "quality"]


@dataclass(frozen=True, kw_only=True)
class Strategy:
    """One hierarchical grouping.

    Args:
        colour_space: HSV, Lab, rgI, H or I.
        similarity: terms of the similarity of two regions joined by `+`: C colour, T texture, S size, F fill.
        k: of the initial segmentation, and its smallest region in pixels; larger means fewer, larger regions.
    """

    colour_space: ColourSpace = "HSV"
    similarity: str = "C+T+S+F"
    k: float = 100.0

    def __post_init__(self) -> None:
        terms = str(self.similarity).split("+")  # of a file it may be anything
        if not set(terms) <= set("CTSF") or len(set(terms)) < len(terms):
            raise ValueError(
                f"similarity {self.similarity!r}: expected some of C, T, S and F joined by +, such as C+T+S+F"
            )
        if self.colour_space not in COLOUR_SPACES:
            raise ValueError(
                f"colour space {self.colour_space!r}: expected one of {', '.join(COLOUR_SPACES)}"
            )
        if not (isinstance(self.k, Real) and 0 < self.k < math.inf):
            raise ValueError(f"k is {self.k!r}: expected a positive, finite number")


def strategies_of(mode: Mode) -> tuple[Strategy, ...]:
    """The strategies of a mode of the paper: `single` 1, `fast` 8, `quality` 80 hierarchies."""
    match mode:
        case "single":
            return (Strategy(colour_space="HSV", similarity="C+T+S+F", k=100),)
        case "fast":
            return _combinations(("HSV", "Lab"), ("C+T+S+F", "T+S+F"), (50, 100))
        case "quality":
            return _combinations(COLOUR_SPACES, ("C+T+S+F", "T+S+F", "F", "S"), (50, 100, 150, 300))
    raise ValueError(f"mode {mode!r}: expected single, fast or quality")


def _combinations(
    colour_spaces: tuple[ColourSpace, ...], similarities: tuple[str, ...], ks: tuple[float, ...]
) -> tuple[Strategy, ...]:
    return tuple(
        Strategy(colour_space=colour_space, similarity=similarity, k=k)
        for colour_space, similarity, k in product(colour_spaces, similarities, ks)
    )
