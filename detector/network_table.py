"""Table 1 of the paper, computed from the networks themselves: output shapes, parameters, multiply-adds."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from detector.architecture import PAPER, SLIM_NAMES, TABLE_1, VARIANTS, Architecture
from detector.googlenet import GoogLeNet


class Row(NamedTuple):
    """One stage: output (channels, height, width) or (features,), parameters, multiply-adds for one image."""

    name: str
    output: tuple[int, ...]
    parameters: int
    multiply_adds: int


def stage_rows(network: GoogLeNet, size: int = 224) -> list[Row]:
    """Every stage of the network and, last, its classifier, for an image of `size` x `size` pixels.

    Multiply-adds are those of convolutions and linear layers, as the paper counts operations.
    """
    operations: dict[nn.Module, int] = {}

    def count(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        assert isinstance(module, nn.Conv2d | nn.Linear)
        places = output[0, 0].numel() if isinstance(module, nn.Conv2d) else 1
        operations[module] = module.weight.numel() * places

    layers = [module for module in network.modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    hooks = [layer.register_forward_hook(count) for layer in layers]
    outputs: dict[str, Tensor] = {}
    with torch.inference_mode():
        image = torch.zeros(1, 3, size, size, device=next(network.parameters()).device)
        outputs |= network.eval().taps(image, network.stages)
        outputs["classifier"] = network.resume(outputs["pool5"], after="pool5")  # type: ignore[assignment]
    for hook in hooks:
        hook.remove()
    rows = []
    for name, output in outputs.items():
        module = nn.Identity() if name == "pool5" else network.get_submodule(name)
        parameters = sum(parameter.numel() for parameter in module.parameters())
        multiply_adds = sum(operations.get(layer, 0) for layer in module.modules())
        rows.append(Row(name, tuple(output.shape[1:]), parameters, multiply_adds))
    return rows


def main() -> None:
    """Print the paper's network stage by stage, and the variants beside it."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    def table(title: str, *columns: str) -> Table:
        made = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD)
        for number, column in enumerate(columns):
            made.add_column(column, justify="left" if number == 0 else "right", no_wrap=True)
        return made

    # wide enough for every line, also where the output is a file
    console = Console(highlight=False, width=110)
    network = GoogLeNet(architecture=PAPER)
    rows = stage_rows(network)
    stages = table(
        "GoogLeNet, table 1 of the paper: one image of 224x224 pixels",
        *("stage", "TF-slim", "output", "1x1", "3x3 red.", "3x3", "5x5 red.", "5x5", "pool", "params", "ops"),
    )
    for row in rows:
        channels, *sides = row.output
        shape = "x".join(str(number) for number in (*sides, channels))
        widths = TABLE_1.get(row.name.removeprefix("inception_"))
        branches = [str(width) for width in widths] if widths else [""] * 6
        costs = [_short(row.parameters), _short(row.multiply_adds)]
        stages.add_row(row.name, SLIM_NAMES.get(row.name) or "", shape, *branches, *costs)
    stages.add_section()
    totals = [_short(sum(row.parameters for row in rows)), _short(sum(row.multiply_adds for row in rows))]
    stages.add_row("together", "", "", *[""] * 6, *totals)
    console.print(stages)

    variants = table("The variants, with 1000 classes", "variant", "parameters", "multiply-adds", "features")
    for name, architecture in VARIANTS.items():
        parameters, operations, features = cost(architecture)
        variants.add_row(name, f"{parameters:,}", f"{operations:,}", str(features))
    auxiliary = GoogLeNet(auxiliary=True)
    extra = sum(p.numel() for name, p in auxiliary.named_parameters() if name.startswith("aux_"))
    variants.caption = (
        f"The two auxiliary classifiers of training add {extra:,} parameters to the paper's network."
    )
    variants.caption_justify = "left"
    console.print(variants)


def cost(architecture: Architecture) -> tuple[int, int, int]:
    """Parameters, multiply-adds for a 224x224 image and pooled features of a network of 1000 classes."""
    network = GoogLeNet(architecture=architecture)
    rows = stage_rows(network)
    return sum(row.parameters for row in rows), sum(row.multiply_adds for row in rows), network.num_features


def _short(number: int) -> str:
    """1,584 thousand -> `1.58M`, as the paper's table rounds."""
    for unit, letter in ((10**9, "G"), (10**6, "M"), (10**3, "K")):
        if number >= unit:
            return f"{number / unit:#.3g}".rstrip(".") + letter
    return str(number) if number else ""
