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
from typing import Literal

from jsonargparse import ActionConfigFile, DefaultHelpFormatter, Namespace

from detector.command_line import BAD_INPUT, PARTLY_DONE, ArgumentParser, run


class HelpFormatter(DefaultHelpFormatter, RawDescriptionHelpFormatter):
    """Shows defaults, and the examples as they are written."""


def argument_parser() -> ArgumentParser:
    """The options; those of the detector itself are in `detector.options`."""
    from detector.options import add_detector_options

    parser = ArgumentParser(prog="detect.py", description=__doc__, formatter_class=HelpFormatter)
    add = parser.add_argument
    add("--config", action=ActionConfigFile, help="YAML file of options; later options win")
    add("--image", nargs="+", type=str, metavar="PATH", help="files, folders, glob patterns")
    add("--output", type=str, default="outputs", metavar="DIR", help="where results go")
    add("--format", type=Literal["coco", "ilsvrc", "csv"], default="coco", help="result file")
    add("--image-list", type=str | None, metavar="FILE", help="ILSVRC list of `name index` lines")
    add("--no-images", action="store_true", help="write the result file only, no pictures")
    add("--resume", action="store_true", help="go on where a stopped run had come to")
    add_detector_options(parser)
    return parser


def detect(arguments: Namespace) -> int:
    """Run the detector over the images and print what came of it."""
    from rich.console import Console

    from detector.configuration import build_detector, stored_boxes
    from detector.images import find_images
    from detector.job import plan, run_job
    from detector.job_display import JobDisplay, stage_table
    from detector.options import detector_config
    from detector.weights import describe, find_weights
    from eval.ilsvrc import read_image_list

    if not arguments.image:
        raise ValueError("--image is missing: name one or more image files, folders or glob patterns")
    if arguments.format == "ilsvrc" and not arguments.image_list:
        raise ValueError(
            "--format ilsvrc needs --image-list FILE: the format names images by their index there"
        )
    config = detector_config(arguments)
    images = find_images(arguments.image)
    indices = read_image_list(arguments.image_list) if arguments.image_list else None
    tasks, unplanned = plan(images, Path(arguments.output), indices)
    detector = build_detector(config)

    console = Console(stderr=True, highlight=False)
    console.print(f"weights: {describe(find_weights(config.weights))}", soft_wrap=True)
    with JobDisplay(console, total=len(tasks)) as display:
        for sentence in unplanned.values():
            display.failure(sentence)
        report = run_job(
            detector,
            tasks,
            output=Path(arguments.output),
            format=arguments.format,
            settings=config.what_decides_the_result(),
            boxes_of=stored_boxes(config),
            resume=arguments.resume,
            pictures=not arguments.no_images,
            on_image=display.image,
            on_regions=display.regions,
            on_failure=display.failure,
        )
    failures = unplanned | report.failures
    if report.result is None:
        if len(images) > 1:
            print(f"none of the {len(images)} images could be processed; nothing written", file=sys.stderr)
        return BAD_INPUT
    Console(highlight=False).print(stage_table(detector.timer, report.finished))
    resumed = f" ({report.resumed} from before)" if report.resumed else ""
    count = report.finished + report.resumed
    print(f"{report.detections} detections in {count} images{resumed}: {report.result}")
    if failures:
        print(f"{len(failures)} of {len(images)} images failed: {', '.join(failures)}", file=sys.stderr)
        return PARTLY_DONE
    return 0


def main() -> int:
    """Parse the command line and detect."""
    return run(lambda: detect(argument_parser().parse_args()))


if __name__ == "__main__":
    sys.exit(main())
