"""Classify images: the most probable classes of each, or the error where the true classes are known.

examples:
  python tools/classify.py --image photo.jpg
  python tools/classify.py --image holiday/ 'more/*.png' --top 3 --output classes.csv
  python tools/classify.py --image photo.jpg --crops 144 --weights bvlc
  python tools/classify.py --image photo.jpg --weights first.safetensors second.safetensors
  python tools/classify.py --evaluate imagenet/val/ --crops 10

--evaluate takes the true class of an image from the WordNet id in its name or its folder's (n02123045).
Without --weights a classifier is used if one is at hand (torchvision's or BVLC's; nothing is downloaded); the detector
that ships, which takes its place, has learnt to tell what is in a box and errs more on whole images.
"""

import sys
from argparse import RawDescriptionHelpFormatter
from pathlib import Path
from typing import Literal

from jsonargparse import DefaultHelpFormatter, Namespace

from detector.command_line import BAD_INPUT, PARTLY_DONE, ArgumentParser, check_outputs, run


class HelpFormatter(DefaultHelpFormatter, RawDescriptionHelpFormatter):
    """Shows defaults, and the examples as they are written."""


def argument_parser() -> ArgumentParser:
    """The options."""
    from detector.multi_crop import NumCrops
    from detector.runtime import RuntimeName

    parser = ArgumentParser(prog="classify.py", description=__doc__, formatter_class=HelpFormatter)
    add = parser.add_argument
    add("--image", nargs="+", type=str, default=[], metavar="PATH", help="files, folders, glob patterns")
    add("--evaluate", nargs="+", type=str, default=[], metavar="PATH", help="the same, to measure the error")
    add(
        "--weights",
        nargs="+",
        type=str,
        metavar="NAME",
        help="one or more, averaged; default: torchvision or bvlc, which classify, if at hand; else detect.py's",
    )
    add("--crops", type=NumCrops, default=1, help="crops of each image to average over")
    add("--top", type=int, default=5, help="classes printed for each image")
    add("--output", type=str | None, metavar="FILE", help="also write them all as CSV")
    add("--runtime", type=RuntimeName, default="auto", help="how the network runs")
    add("--device", type=Literal["auto", "cpu", "cuda"], default="auto", help="where the network runs")
    return parser


def classify(arguments: Namespace) -> int:
    """Classify the images and print what they show."""
    from rich.console import Console
    from rich.progress import track

    from detector.classification import Classifier
    from detector.classification_display import (
        ResultConsole,
        confusion_table,
        error_sentence,
        print_judgement,
    )
    from detector.classify_files import classify_files, write_judgements
    from detector.configuration import choose_device
    from detector.images import find_images
    from detector.weights import describe, find_weights

    if bool(arguments.image) == bool(arguments.evaluate):
        raise ValueError(
            "name images either with --image, to classify, or with --evaluate, to measure the error"
        )
    if arguments.top < 1:
        raise ValueError(f"--top is {arguments.top}, but must be at least 1")
    images = find_images(arguments.image or arguments.evaluate)
    output = Path(arguments.output) if arguments.output else None
    if output and not output.parent.is_dir():
        raise ValueError(f"--output {output}: there is no folder {output.parent}")
    if output and output.is_dir():
        raise ValueError(f"--output {output}: is a folder, name a CSV file in it")
    evaluate = bool(arguments.evaluate)
    sources = [find_weights(choice, classifier=True) for choice in arguments.weights or [None]]
    if output:
        read = [("evaluate" if evaluate else "image", image.path) for image in images]
        read += [("weights", source) for source in sources if isinstance(source, Path)]
        check_outputs([("output", output)], read)
    classifier = Classifier(
        sources,
        num_crops=arguments.crops,
        runtime=arguments.runtime,
        device=choose_device(arguments.device),
    )
    console, errors = ResultConsole(highlight=False), Console(stderr=True, highlight=False)
    errors.print(f"weights: {', '.join(map(describe, sources))}", markup=False, soft_wrap=True)
    report = classify_files(
        classifier,
        track(images, "images", console=errors, disable=not errors.is_terminal),
        top=arguments.top,
        evaluate=evaluate,
        on_judgement=lambda judgement: (
            None if evaluate else print_judgement(console, judgement, classifier.classes, arguments.top)
        ),
        on_failure=lambda sentence: errors.print(f"error: {sentence}", markup=False, soft_wrap=True),
    )
    if not report.judgements:
        return BAD_INPUT
    if evaluate:
        if report.confusions():
            console.print(confusion_table(report, classifier.classes))
        console.print(error_sentence(report, classifier.num_crops), markup=False, soft_wrap=True)
    if output:
        write_judgements(output, report.judgements, classifier.classes)
    if report.failures:
        print(f"{len(report.failures)} of {len(images)} images failed", file=sys.stderr)
    return PARTLY_DONE if report.failures else 0


def main() -> int:
    """Parse the command line and classify."""
    return run(lambda: classify(argument_parser().parse_args()))


if __name__ == "__main__":
    sys.exit(main())
