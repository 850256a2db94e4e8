"""Measure this project against what a user would otherwise run, both sides in one run.

    python tools/benchmark.py proposals --images DIR
    python tools/benchmark.py training --annotations instances.json --images DIR
    python tools/benchmark.py eval

Every benchmark prints ratios next to seconds; `python tools/benchmark.py NAME --help` says what it needs.
"""

import argparse
import importlib
import sys

from detector.command_line import run

BENCHMARKS = {
    "proposals": "selective search: seconds, recall and MABO beside OpenCV contrib's",
    "training": "fine-tuning on photos beside a bare loop of the network on random tensors",
    "detect": "regions a second and whole images, beside the eager network on every box",
    "eval": "a million detections to mAP, beside pycocotools and the Rust evaluators",
}


def main() -> int:
    """Hand the arguments after the benchmark's name to its own module, `benchmarks/<name>.py`."""
    listing = "\n".join(f"  {name:<12}{summary}" for name, summary in BENCHMARKS.items())
    parser = argparse.ArgumentParser(
        description=f"{__doc__}\nbenchmarks:\n{listing}", formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("benchmark", choices=BENCHMARKS)
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help="what the benchmark itself takes")
    arguments = parser.parse_args()
    module = importlib.import_module(f"benchmarks.{arguments.benchmark}")
    return run(lambda: module.main(arguments.arguments))


if __name__ == "__main__":
    sys.exit(main())
