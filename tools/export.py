"""Export the network for other runtimes: ONNX and `torch.export`, each compared with PyTorch before it is kept.

A .safetensors file is a model of this project in 8 bits, a quarter of the size, to pass on.

examples:
  python tools/export.py --output googlenet.onnx
  python tools/export.py --weights bvlc --output googlenet.onnx googlenet.pt2
  python tools/export.py --output features.onnx --taps inception_3b inception_4e inception_5b --size 512
  python tools/export.py --compile
  python tools/export.py --weights finetuned --output my-detector.safetensors

The exported network takes any number of regions as RGB pixels, uint8 (R, 3, size, size): the normalisation that
its weights need is inside. Its `scores` are (R, classes); the classes are listed in the file.
"""

import sys
from argparse import RawDescriptionHelpFormatter
from pathlib import Path

from jsonargparse import DefaultHelpFormatter, Namespace

from detector.command_line import ArgumentParser, check_outputs, run


class HelpFormatter(DefaultHelpFormatter, RawDescriptionHelpFormatter):
    """Shows defaults, and the examples as they are written."""


def argument_parser() -> ArgumentParser:
    """The options."""
    parser = ArgumentParser(prog="export.py", description=__doc__, formatter_class=HelpFormatter)
    add = parser.add_argument
    add("--weights", type=str | None, metavar="NAME|FILE", help="as in detect.py; by default the first found")
    add(
        "--output",
        nargs="+",
        type=str,
        default=[],
        metavar="FILE",
        help="files to write: .onnx, .pt2, .safetensors",
    )
    add("--origin", type=str | None, metavar="TEXT", help="how the model came about (.safetensors)")
    add("--licence", type=str | None, metavar="TEXT", help="under which terms it may be used (.safetensors)")
    add("--taps", nargs="+", type=str, default=[], metavar="LAYER", help="feature maps instead of scores")
    add(
        "--size",
        type=int | None,
        metavar="PIXELS",
        help="side of the input; by default what it was trained on",
    )
    add("--compile", action="store_true", help="compare torch.compile on this machine with PyTorch as well")
    return parser


def export(arguments: Namespace) -> int:
    """Write and check what the arguments ask for."""
    from detector.plugins.export import SUFFIXES, ExportableScores, ExportableTaps, compiled_difference
    from detector.plugins.export import export as export_file
    from detector.safetensors_file import pack
    from detector.weights import describe, find_weights, load_weights

    suffixes = (*SUFFIXES, ".safetensors")
    if not arguments.output and not arguments.compile:
        raise ValueError(f"nothing to do: give --output FILE ({', '.join(suffixes)}), or --compile")
    for output in arguments.output:
        if Path(output).suffix not in suffixes:
            raise ValueError(f"--output {output}: name a file that ends in {', '.join(suffixes)}")
    if arguments.size is not None and arguments.size < 32:
        raise ValueError(f"--size {arguments.size}: the network needs 32 pixels or more")
    models = [Path(output) for output in arguments.output if output.endswith(".safetensors")]
    if models and (arguments.taps or arguments.size is not None):
        raise ValueError(
            f"--output {models[0]}: is the model as it is; --taps and --size are for other files"
        )
    if not models and (arguments.origin or arguments.licence):
        raise ValueError("--origin and --licence are written to .safetensors files, and none is asked for")
    source = find_weights(arguments.weights)
    if isinstance(source, Path):
        check_outputs([("output", output) for output in arguments.output], [("weights", source)])
    if models:
        if not isinstance(source, Path):
            raise ValueError(f"--output {models[0]}: --weights must be a .safetensors model of this project")
        for output in models:
            error = pack(source, output, name=output.stem, origin=arguments.origin, licence=arguments.licence)
            print(f"{output}: written; weights in 8 bits, a layer's off by {error:.1%} at most")
    others = [output for output in arguments.output if not output.endswith(".safetensors")]
    if not others and not arguments.compile:
        return 0
    classifier = load_weights(source)
    module = ExportableTaps(classifier, arguments.taps) if arguments.taps else ExportableScores(classifier)
    side = arguments.size or classifier.preprocessing.size
    print(f"{describe(source)}: {', '.join(module.output_names)} of regions of {side}x{side}")
    for output in others:
        difference = export_file(module, Path(output), side=side)
        print(f"{output}: written; differs from PyTorch by {difference:.1e} of the largest output")
    if arguments.compile:
        difference = compiled_difference(module, side=side)
        print(f"torch.compile: differs from PyTorch by {difference:.1e} of the largest output")
    return 0


def main() -> int:
    """Parse the command line and export."""
    return run(lambda: export(argument_parser().parse_args()))


if __name__ == "__main__":
    sys.exit(main())
