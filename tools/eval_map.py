"""Evaluate detections against ground truth under the rules of ILSVRC, PASCAL VOC or COCO.

examples:
  the official ILSVRC result of a submission file
    python tools/eval_map.py --detections val.pred.txt --annotations ILSVRC2013_DET_bbox_val.tgz \\
        --image-list val.txt --blacklist ILSVRC2014_det_validation_blacklist.txt
  COCO results under COCO's own rules
    python tools/eval_map.py --protocol coco --detections results.json --annotations instances.json
  run a detector over the images first, then evaluate what it finds
    python tools/eval_map.py --config configs/zero_shot.yaml --image val/ --annotations annotations/
  is the second detector better, and by more than luck? with a page to look at
    python tools/eval_map.py --detections a.json --compare b.json --annotations instances.json \\
        --html report.html
"""

import argparse
import sys
import warnings
from pathlib import Path

from detector.command_line import BAD_INPUT, PARTLY_DONE, check_file, check_outputs, run

# Those of eval.protocols, not imported from there so that --help need not wait for numba.
PROTOCOLS = ("ilsvrc", "iou50", "voc2007", "voc2012", "coco")
OUTPUT = Path("outputs/eval")


def main() -> int:
    """Parse, and hand over to the package."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--detections", type=Path, metavar="FILE", help="submission (.gz too), COCO results, detections.json")
    add(
        "--annotations",
        type=Path,
        metavar="PATH",
        help="COCO JSON, or folder, tar or zip of ILSVRC or VOC XML",
    )
    add(
        "--image-list",
        type=Path,
        metavar="FILE",
        help="the images that count: lines `name`, or of XML `name index`",
    )
    add("--config", type=Path, metavar="YAML", help="the detector to run first, instead of --detections")
    add("--image", nargs="+", metavar="PATH", help="its images: files, folders, glob patterns")
    add(
        "--output",
        type=Path,
        metavar="DIR",
        help=f"where its detections go, default: {OUTPUT}",
    )
    add("--resume", action="store_true", help="go on where a stopped run of it had come to")
    add("--blacklist", type=Path, metavar="FILE", help="lines `image_index wnid`: pairs to leave out")
    add("--protocol", choices=PROTOCOLS, default="ilsvrc", help="default: %(default)s")
    add(
        "--iou", type=float, default=0.5, help="overlap that makes a hit (not for coco), default: %(default)s"
    )
    add(
        "--engine",
        choices=("own", "pycocotools"),
        default="own",
        help="who computes coco, default: %(default)s",
    )
    add("--compare", type=Path, metavar="FILE", help="other detections to set against --detections")
    add("--errors", action="store_true", help="say what the false positives and missed boxes cost")
    add(
        "--bootstrap",
        type=int,
        metavar="N",
        help="draws for intervals; 1000 with --compare or --html, else none",
    )
    add("--json", type=Path, metavar="OUT", help="write the result here")
    add("--csv", type=Path, metavar="OUT", help="write the per-class table here")
    add("--html", type=Path, metavar="OUT", help="write a page with figures here")
    arguments = parser.parse_args()
    if arguments.config or arguments.image:  # long work: what can be checked is checked before
        return run(lambda: detect_and_evaluate(arguments))
    if arguments.detections is None or arguments.annotations is None:
        return run(lambda: explain(arguments))
    return run(lambda: evaluate_files(arguments))


def explain(arguments: argparse.Namespace) -> int:
    """Say what is missing and show a command that runs at once."""
    from eval.inputs import example_files

    if len(sys.argv) > 1:
        needed = {"--detections": arguments.detections, "--annotations": arguments.annotations}
        missing = [option for option, path in needed.items() if path is None]
        verb = "is" if len(missing) == 1 else "are"
        raise ValueError(
            f"{' and '.join(missing)} {verb} missing; both --detections and --annotations are needed"
        )
    annotations, detections = example_files()
    # Installed, the tool is a program of its own; in a checkout it is a script.
    command = f"python {sys.argv[0]}" if sys.argv[0].endswith(".py") else Path(sys.argv[0]).name
    print(
        "eval_map.py needs detections (ILSVRC submission text, COCO results or detections.json) and\n"
        "annotations (COCO JSON, or a folder or archive of ILSVRC or VOC XML); --help lists everything.\n"
        "This runs at once:\n\n"
        f"  {command} --detections {detections} \\\n      --annotations {annotations}"
    )
    return 0


def detect_and_evaluate(arguments: argparse.Namespace) -> int:
    """Run the detector, and evaluate its detections."""
    from detector.detect_files import detect_files
    from detector.options import read_config
    from eval.inputs import read_annotations
    from eval.protocols import check

    if arguments.detections or not (arguments.config and arguments.image and arguments.annotations):
        raise ValueError("to run a detector give --config, --image and --annotations, and no --detections")
    arguments.output = arguments.output or OUTPUT
    check_files(arguments)
    with warnings.catch_warnings(action="ignore"):  # `evaluate_files` tells of them
        annotations = read_annotations(
            arguments.annotations, image_list=arguments.image_list, blacklist=arguments.blacklist
        )
    check(annotations, protocol=arguments.protocol, iou=arguments.iou, engine=arguments.engine)
    # An average precision counts every detection, however low its score.
    report, _ = detect_files(
        read_config(arguments.config, score_threshold=0.0),
        arguments.image,
        output=arguments.output,
        image_list=arguments.image_list,
        only=annotations.images,
        known=annotations.categories,
        resume=arguments.resume,
        pictures=False,
    )
    if report.result is None:
        return BAD_INPUT
    arguments.detections = report.result
    return evaluate_files(arguments) or (PARTLY_DONE if report.failures else 0)


def check_files(arguments: argparse.Namespace) -> None:
    """Refuse files that are not there, and results that have no place or would take that of another file."""
    from eval.bootstrap import MOST_REPLICATES
    from eval.inputs import check_is_file
    from eval.protocols import NO_BLACKLIST

    if not arguments.config and (arguments.output or arguments.resume):
        raise ValueError(
            "--output and --resume belong to the run of a detector, which needs --config and --image"
        )
    if arguments.protocol == "coco" and arguments.blacklist:  # also where it would change nothing
        raise ValueError(NO_BLACKLIST)
    for path in filter(None, (arguments.detections, arguments.compare)):
        check_is_file(path)
    names = ("detections", "compare", "annotations", "image_list", "blacklist", "config")
    read = [(name.replace("_", "-"), path) for name in names if (path := getattr(arguments, name))]
    if arguments.image:
        from detector.images import find_images

        read += [("image", image.path) for image in find_images(arguments.image)]
    written = [(name, path) for name in ("json", "csv", "html") if (path := getattr(arguments, name))]
    for name, path in written:
        check_file(path, name)
    if not arguments.detections:
        from detector.detections import FILE_NAMES

        written.insert(0, ("output", arguments.output / FILE_NAMES["coco"]))
    check_outputs(written, read)
    if arguments.bootstrap is not None and not 0 <= arguments.bootstrap <= MOST_REPLICATES:
        raise ValueError(f"--bootstrap is {arguments.bootstrap}, but must be 0 to {MOST_REPLICATES}")


def evaluate_files(arguments: argparse.Namespace) -> int:
    """Read, evaluate, write, print."""
    from eval import inputs, summary
    from eval.bootstrap import REPLICATES, bootstrap_mean_ap, compare
    from eval.errors import break_down
    from eval.evaluation import Evaluation
    from eval.operating_points import all_classes
    from eval.protocols import evaluate

    check_files(arguments)
    with warnings.catch_warnings(record=True, action="always") as caught:
        annotations = inputs.read_annotations(
            arguments.annotations, image_list=arguments.image_list, blacklist=arguments.blacklist
        )

        def result_of(path: Path) -> Evaluation:
            return evaluate(
                inputs.read_detections(path, annotations), annotations,
                protocol=arguments.protocol, iou=arguments.iou, engine=arguments.engine,
            )  # fmt: skip

        result = result_of(arguments.detections)
        other = result_of(arguments.compare) if arguments.compare else None
    for warning in caught:
        print(f"warning: {warning.message}", file=sys.stderr)
    draws = arguments.bootstrap
    if draws is None:
        draws = REPLICATES if arguments.html or other else 0
    interval = bootstrap_mean_ap(result, replicates=draws) if draws else None
    breakdown = break_down(result) if arguments.errors or arguments.html else None
    comparison = compare(result, other, replicates=draws) if other else None
    together = all_classes(result)
    names = arguments.detections.name, ""
    if other:
        names = summary.short_names(arguments.detections, arguments.compare)
    if arguments.json:  # files first: whoever reads what is printed may go away
        content = summary.as_json(
            result, interval=interval, breakdown=breakdown, comparison=comparison, together=together
        )
        summary.write_json(arguments.json, content)
    if arguments.csv:
        summary.write_csv(arguments.csv, result)
    if arguments.html:
        from eval.report import write_report

        write_report(
            arguments.html, result, title=names[0], interval=interval, breakdown=breakdown,
            comparison=comparison, together=together, other_title=names[1],
        )  # fmt: skip
    summary.print_evaluation(
        result, interval=interval, breakdown=breakdown if arguments.errors else None, together=together
    )
    if comparison and other:
        summary.print_comparison(comparison, result, other, names=names)
    if written := [str(path) for path in (arguments.json, arguments.csv, arguments.html) if path]:
        print(f"written: {', '.join(written)}", file=sys.stderr)  # what is printed is the result
    return 0


if __name__ == "__main__":
    sys.exit(main())
