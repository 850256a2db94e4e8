"""The options of a detector, for every command line that has one."""

from dataclasses import fields
from pathlib import Path
from typing import Any, Literal, NoReturn

from jsonargparse import Namespace

from detector.command_line import ArgumentParser
from detector.configuration import DetectorConfig
from detector.runtime import Precision, RuntimeName
from proposals import SelectiveSearch


def add_detector_options(parser: ArgumentParser) -> None:
    """Add an option for every field of `DetectorConfig`, which also gives the defaults."""
    defaults = DetectorConfig()

    def option(name: str, type_: Any, text: str, **more: Any) -> None:
        field = name.removeprefix("--").replace("-", "_")
        parser.add_argument(name, type=type_, default=getattr(defaults, field), help=text, **more)

    option(
        "--weights",
        str | list[str] | None,
        "a file, the folder of a training run, the name of a model that ships (`googlenet-det200`, ...),"
        " `torchvision` or `bvlc`; `[A, B, ...]` is an ensemble; default: the first at hand",
    )
    option("--member-weights", list[float] | None, "what each member of an ensemble counts; null: all alike")
    option("--cascade", int | None, "regions that the members after the first look at; null: all")
    option("--classes", str, "report only these", nargs="+", metavar="NAME")
    option("--score-threshold", float, "lowest score to report")
    option("--max-detections", int, "most detections of an image")
    option("--num-proposals", int | None, "boxes scored in an image, best first; null scores all")
    option("--objectness", bool, "order boxes by the model's opinion of them, and let it count in the scores")
    option("--min-objectness", float, "boxes of which the model thinks less are not scored")
    option(
        "--exact",
        bool,
        "score every box with every model in float32, whatever --num-proposals: the reference",
    )
    option("--proposal-files", str, "boxes from files of tools/propose.py instead", nargs="+", metavar="PATH")
    option("--nms-iou", float, "a detection goes if a better one of its class overlaps it by more than this")
    option(
        "--soft-nms",
        float | None,
        "if it overlaps less, the score is multiplied with exp(-IoU^2 / this); null: not",
    )
    option(
        "--box-voting",
        float | None,
        "mean of the boxes that overlap by this IoU; null: proposals as they are",
    )
    option("--context", int | None, "pixels around a box in the region; null: as the network was trained")
    option("--temperature", float, "of the softmax of classification networks (zero-shot)")
    option("--device", Literal["auto", "cpu", "cuda"], "auto: a GPU if there is one")
    option("--runtime", RuntimeName, "auto: OpenVINO on the CPU; torch: the network as it is")
    option("--precision", Precision, "of the arithmetic; tf32 (GPUs), bfloat16: faster where supported")
    option("--batch-size", int | None, "regions the network sees at a time; null: what suits the device")
    option(
        "--workers", int | None, "images searched for boxes while others are scored; null: cores beside a GPU"
    )
    option("--seed", int, "of the ranking of proposals")
    parser.add_class_arguments(SelectiveSearch, "proposals", skip={"max_boxes", "seed"})


def add_job_options(parser: ArgumentParser) -> None:
    """Add what says of a run of `detect.py` which images it looks at, and where results go."""
    add = parser.add_argument
    add("--image", nargs="+", type=str, metavar="PATH", help="files, folders, glob patterns")
    add("--output", type=str, default="outputs", metavar="DIR", help="where results go")
    add("--format", type=Literal["coco", "ilsvrc", "csv"], default="coco", help="result file")
    add(
        "--image-list",
        type=str | None,
        metavar="FILE",
        help="only these: lines `name`, or ILSVRC's `name index`",
    )
    add("--no-images", action="store_true", help="write the result file only, no pictures")
    add("--resume", action="store_true", help="go on where a stopped run had come to")


def read_config(path: str | Path, **changes: Any) -> DetectorConfig:
    """The detector of a YAML file such as those in configs/, with `changes`; what is wrong in it is named.

    What the file says of images and results, as one that `detect.py --print_config` wrote does, is passed over.

    Raises:
        OSError, ValueError: No such file, or something in it is no option or has no such value.
    """
    parser = _FileParser()
    add_detector_options(parser)
    add_job_options(parser)
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path}: no such file")
    return detector_config(parser.parse_path(path), **changes)


def detector_config(arguments: Namespace, **changes: Any) -> DetectorConfig:
    """The parsed options of a detector, other options left out, as a configuration with `changes`.

    Raises:
        ValueError: `proposals` is no group of options.
    """
    values = arguments.as_dict()
    if not isinstance(values["proposals"], dict):
        raise ValueError(f"proposals is {values['proposals']}, but must be options, such as mode: fast")
    return DetectorConfig(**{field.name: values[field.name] for field in fields(DetectorConfig)} | changes)


class _FileParser(ArgumentParser):
    """Parser of a configuration file: what is wrong in it is raised and does not end the program."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        raise ValueError(self.complaint(message))
