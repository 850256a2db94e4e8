"""Numbers of a configuration that make no sense are refused when it is made, by the name of their option."""

import math
from typing import Any


def at_least(config: Any, least: float, *names: str, part: str = "") -> None:
    """Refuse fields that are below `least` or not finite; None, which stands for a default, may be.

    Args:
        part: What the configuration is a part of the options as: "fit" for `--fit.steps`.

    Raises:
        ValueError: Naming the option and its value.
    """
    for name in names:
        value = getattr(config, name)
        if value is not None and not least <= value < math.inf:
            raise ValueError(f"{_option(name, part)} is {value}, but must be at least {least}")


def above(config: Any, limit: float, *names: str, part: str = "") -> None:
    """As `at_least`, and the limit itself is refused."""
    for name in names:
        value = getattr(config, name)
        if value is not None and not limit < value < math.inf:
            raise ValueError(f"{_option(name, part)} is {value}, but must be above {limit}")


def share(config: Any, *names: str, part: str = "", below_one: bool = False) -> None:
    """Refuse fields outside 0 to 1.

    Args:
        below_one: Refuse 1, too.
    """
    for name in names:
        value = getattr(config, name)
        if not 0 <= value <= 1 or (below_one and value == 1):
            end = ", and below 1" if below_one else ""
            raise ValueError(f"{_option(name, part)} is {value}, but must lie between 0 and 1{end}")


def _option(name: str, part: str) -> str:
    """As `detector.training.options` spells it."""
    return f"--{part}.{name}" if part else f"--{name.replace('_', '-')}"
