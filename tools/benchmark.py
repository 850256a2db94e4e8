"""Measure this project against what a user would otherwise run, both sides in one process or run.

    python tools/benchmark.py proposals --images DIR
    python tools/benchmark.py eval

Every benchmark prints ratios next to seconds; `python tools/benchmark.py NAME --help` says what it needs.
"""

import argparse
import importlib
import sys

from detector.command_line import run

BENCHMARKS = {
    "proposals": "selective search: seconds, recall and MABO beside OpenCV contrib's",
    "eval": "mAP of a million detections beside pycocotools and the Rust evaluators",
}


def main() -> int:
    """Parse, and hand over to the benchmark's own module `benchmarks/<name>.py`."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="benchmark", required=True)
    for name, summary in BENCHMARKS.items():
        module = importlib.import_module(f"benchmarks.{name}")
        module.add_arguments(commands.add_parser(name, help=summary, description=module.__doc__))
    arguments = parser.parse_args()
    module = importlib.import_module(f"benchmarks.{arguments.benchmark}")
    return run(lambda: module.benchmark(arguments))


if __name__ == "__main__":
    sys.exit(main())
