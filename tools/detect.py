"""Detect objects in images: boxes, classes and scores, as annotated pictures and one result file.

examples:
  python tools/detect.py --image photo.jpg
  python tools/detect.py --image holiday/ 'more/*.png' --output found --score-threshold 0.5
  python tools/detect.py --image street.jpg --classes person car "traffic light"
  python tools/detect.py --image photo.jpg --weights bvlc_googlenet.npz --num-proposals 1000
  python tools/detect.py --image val/ --image-list val.txt --format ilsvrc --no-images --resume
  python tools/detect.py --config configs/zero_shot.yaml --image photo.jpg --proposals.mode quality
"""

import sys
from argparse import RawDescriptionHelpFormatter
from pathlib import Path

from jsonargparse import ActionConfigFile, DefaultHelpFormatter, Namespace

from detector.command_line import BAD_INPUT, PARTLY_DONE, ArgumentParser, run


class HelpFormatter(DefaultHelpFormatter, RawDescriptionHelpFormatter):
    """Shows defaults, and the examples as they are written."""


def argument_parser() -> ArgumentParser:
    """The options of the job and of the detector."""
    from detector.options import add_detector_options, add_job_options

    parser = ArgumentParser(prog="detect.py", description=__doc__, formatter_class=HelpFormatter)
    parser.add_argument("--config", action=ActionConfigFile, help="YAML file of options; later options win")
    add_job_options(parser)
    add_detector_options(parser)
    return parser


def detect(arguments: Namespace) -> int:
    """Run the detector over the images and print what came of it."""
    from rich.console import Console

    from detector.detect_files import detect_files
    from detector.job_display import stage_table
    from detector.options import detector_config

    if not arguments.image:
        raise ValueError("--image is missing: name one or more image files, folders or glob patterns")
    if arguments.format == "ilsvrc" and not arguments.image_list:
        raise ValueError(
            "--format ilsvrc needs --image-list FILE: the format names images by their index there"
        )
    report, timer = detect_files(
        detector_config(arguments),
        arguments.image,
        output=Path(arguments.output),
        format=arguments.format,
        image_list=arguments.image_list,
        resume=arguments.resume,
        pictures=not arguments.no_images,
    )
    if report.result is None:
        return BAD_INPUT
    Console(highlight=False).print(stage_table(timer, report.finished))
    resumed = f" ({report.resumed} from before)" if report.resumed else ""
    found, seen = report.detections, report.finished + report.resumed
    print(
        f"{found} detection{'s' * (found != 1)} in {seen} image{'s' * (seen != 1)}{resumed}: {report.result}"
    )
    if not arguments.no_images:
        print(f"pictures of them: {Path(arguments.output) / '*_detections.jpg'}")
    return PARTLY_DONE if report.failures else 0


def main() -> int:
    """Parse the command line and detect."""
    return run(lambda: detect(argument_parser().parse_args()))


if __name__ == "__main__":
    sys.exit(main())
