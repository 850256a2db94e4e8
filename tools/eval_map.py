"""Evaluate detections against ground truth under the rules of ILSVRC, PASCAL VOC or COCO.

examples:
  the official ILSVRC result of a submission file
    python tools/eval_map.py --detections val.pred.txt --annotations ILSVRC2013_DET_bbox_val.tgz \\
        --image-list val.txt --blacklist ILSVRC2014_det_validation_blacklist.txt
  COCO results under COCO's own rules
    python tools/eval_map.py --protocol coco --detections results.json --annotations instances_val2017.json
  which of two detectors is better, and is the difference more than luck?
    python tools/eval_map.py --detections a.json --compare b.json --annotations instances.json --html report.html
"""

import argparse
import sys
import warnings
from pathlib import Path

from detector.command_line import run


def main() -> int:
    """Parse, read, evaluate, print, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add(
        "--detections",
        type=Path,
        metavar="FILE",
        help="submission text (.gz too), COCO results, detections.json",
    )
    add(
        "--annotations",
        type=Path,
        metavar="PATH",
        help="COCO JSON, or a folder, tar or zip of ILSVRC or VOC XML",
    )
    add(
        "--image-list", type=Path, metavar="FILE", help="lines `name index`: the images that count (XML only)"
    )
    add("--blacklist", type=Path, metavar="FILE", help="lines `image_index wnid`: pairs to leave out")
    add(
        "--protocol",
        choices=("ilsvrc", "iou50", "voc2007", "voc2012", "coco"),
        default="ilsvrc",
        help="default: %(default)s",
    )
    add("--iou", type=float, default=0.5, help="overlap that makes a hit, default: %(default)s")
    add("--json", type=Path, metavar="OUT", help="write the result here")
    add("--csv", type=Path, metavar="OUT", help="write the per-class table here")
    arguments = parser.parse_args()
    return run(lambda: evaluate_files(arguments))


def evaluate_files(arguments: argparse.Namespace) -> int:
    """Do what the arguments say."""
    from eval import inputs, summary
    from eval.protocols import evaluate

    warnings.showwarning = lambda message, *_, **__: print(f"warning: {message}", file=sys.stderr)
    annotations = inputs.read_annotations(
        arguments.annotations, image_list=arguments.image_list, blacklist=arguments.blacklist
    )
    detections = inputs.read_detections(arguments.detections, annotations)
    result = evaluate(detections, annotations, protocol=arguments.protocol, iou=arguments.iou)
    summary.print_evaluation(result)
    if arguments.json:
        summary.write_json(arguments.json, summary.as_json(result))
    if arguments.csv:
        summary.write_csv(arguments.csv, result)
    return 0


if __name__ == "__main__":
    sys.exit(main())
