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
from dataclasses import fields
from pathlib import Path
from typing import Any, Literal

from jsonargparse import ActionConfigFile, DefaultHelpFormatter, Namespace

from detector.command_line import BAD_INPUT, PARTLY_DONE, ArgumentParser, run


class HelpFormatter(DefaultHelpFormatter, RawDescriptionHelpFormatter):
    """Shows defaults, and the examples as they are written."""


def argument_parser() -> ArgumentParser:
    """The options; those of the detector itself take their defaults from `DetectorConfig`."""
    from detector.configuration import DetectorConfig
    from proposals import SelectiveSearch

    parser = ArgumentParser(prog="detect.py", description=__doc__, formatter_class=HelpFormatter)
    defaults = DetectorConfig()

    def option(name: str, type_: Any, text: str, **more: Any) -> None:
        field = name.removeprefix("--").replace("-", "_")
        parser.add_argument(name, type=type_, default=getattr(defaults, field), help=text, **more)

    parser.add_argument("--config", action=ActionConfigFile, help="YAML file of options; later options win")
    parser.add_argument("--image", nargs="+", type=str, metavar="PATH", help="files, folders, glob patterns")
    parser.add_argument("--output", type=str, default="outputs", metavar="DIR", help="where results go")
    parser.add_argument("--format", type=Literal["coco", "ilsvrc", "csv"], default="coco", help="result file")
    parser.add_argument(
        "--image-list", type=str | None, metavar="FILE", help="ILSVRC list of `name index` lines"
    )
    parser.add_argument("--no-images", action="store_true", help="write the result file only, no pictures")
    parser.add_argument("--resume", action="store_true", help="go on where a stopped run had come to")
    option("--weights", str | None, "a weights file, `torchvision` or `bvlc`; default: the first at hand")
    option("--classes", str, "report only these", nargs="+", metavar="NAME")
    option("--score-threshold", float, "lowest score to report")
    option("--max-detections", int, "most detections of an image")
    option("--num-proposals", int | None, "boxes scored in an image, best first; null scores all")
    option("--nms-iou", float, "a better detection of the class with more overlap suppresses")
    option("--context", int, "pixels around a region of 224x224")
    option("--temperature", float, "of the softmax of classification networks (zero-shot)")
    option("--device", Literal["auto", "cpu", "cuda"], "auto: a GPU if there is one")
    option("--batch-size", int, "regions the network sees at a time")
    option("--seed", int, "of the ranking of proposals")
    parser.add_class_arguments(SelectiveSearch, "proposals", skip={"max_boxes", "seed"})
    return parser


def detect(arguments: Namespace) -> int:
    """Run the detector over the images and print what came of it."""
    from rich.console import Console

    from detector.configuration import DetectorConfig, build_detector
    from detector.images import find_images
    from detector.job import plan, run_job
    from detector.job_display import JobDisplay, stage_table
    from detector.weights import describe, find_weights
    from eval.ilsvrc import read_image_list

    if not arguments.image:
        raise ValueError("--image is missing: name one or more image files, folders or glob patterns")
    if arguments.format == "ilsvrc" and not arguments.image_list:
        raise ValueError(
            "--format ilsvrc needs --image-list FILE: the format names images by their index there"
        )
    values = arguments.as_dict()
    config = DetectorConfig(**{field.name: values[field.name] for field in fields(DetectorConfig)})

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
