"""Propose boxes for images: `.npz` shards, exports for other frameworks, and recall against annotations.

examples:
  python tools/propose.py --image photos/ --output boxes
  python tools/propose.py --image train/ --output boxes --proposals.mode quality --export detectron2
  python tools/propose.py --list images.txt --output boxes --proposals.superpixel_scale 2
  python tools/propose.py --image val2017/ --output boxes --annotations instances_val2017.json
  torchrun --nproc-per-node 4 tools/propose.py --image train/ --output /shared/boxes

A run that was stopped goes on where it had come to when it is started again. Several processes or machines
(torchrun) divide the shards; when all are done, the first process writes the exports and the recall.
"""

import sys
from argparse import RawDescriptionHelpFormatter
from pathlib import Path
from typing import TYPE_CHECKING

from jsonargparse import ActionConfigFile, DefaultHelpFormatter, Namespace

from detector.command_line import (
    BAD_INPUT,
    PARTLY_DONE,
    ArgumentParser,
    check_folder,
    one_sentence,
    run,
)

if TYPE_CHECKING:
    from eval.dataset import Annotations
    from proposals.job import ShardPlan

PICTURE = "recall.png"  # of the recall, in the folder of the shards


class HelpFormatter(DefaultHelpFormatter, RawDescriptionHelpFormatter):
    """Shows defaults, and the examples as they are written."""


def argument_parser() -> ArgumentParser:
    """The options; those of the search itself take their defaults from `SelectiveSearch`."""
    from proposals import SelectiveSearch
    from proposals.export import ExportFormat
    from proposals.job import IMAGES_PER_SHARD

    parser = ArgumentParser(prog="propose.py", description=__doc__, formatter_class=HelpFormatter)
    add = parser.add_argument
    add("--config", action=ActionConfigFile, help="YAML file of options; later options win")
    add("--image", nargs="+", type=str, default=[], metavar="PATH", help="files, folders, glob patterns")
    add("--list", type=str | None, metavar="FILE", help="text file of image paths, one a line")
    add("--output", type=str, default="outputs/proposals", metavar="DIR", help="folder of the shards")
    add("--overwrite", action="store_true", help="start afresh where the folder holds shards already")
    add("--export", nargs="+", type=ExportFormat, default=[], help="also write these, into --output")
    add("--annotations", type=str | None, metavar="PATH", help="COCO JSON, ILSVRC or VOC XML: for recall")
    add(
        "--image-list",
        type=str | None,
        metavar="FILE",
        help="images that count: lines `name`, or of XML `name index`",
    )
    add("--images-per-shard", type=int, default=IMAGES_PER_SHARD, help="a stopped run repeats at most these")
    parser.add_class_arguments(SelectiveSearch, "proposals")
    return parser


def propose(arguments: Namespace) -> int:
    """Do what the arguments say."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from detector.images import find_images, read_image
    from eval.inputs import read_annotations
    from proposals import SelectiveSearch, job
    from proposals.export import check_names, images_to_export

    patterns = [*arguments.image, *(_lines(arguments.list) if arguments.list else [])]
    if not patterns:
        raise ValueError("no images: give --image or --list")
    if arguments.image_list and not arguments.annotations:
        raise ValueError("--image-list says which of the annotated images count: it needs --annotations")
    check_folder(arguments.output)
    picture = Path(arguments.output, PICTURE).resolve()  # an earlier run's, where the images are around it
    found = find_images(patterns, leave_out=lambda path: path.name == PICTURE and path.resolve() == picture)
    images = {image.name: image.path for image in found}
    annotations, own_names = None, {}
    if arguments.annotations:
        annotations = read_annotations(arguments.annotations, image_list=arguments.image_list)
        own_names = annotations.images.named_as(list(images))
        if not own_names:
            raise ValueError(
                f"{arguments.annotations}: annotates none of the {len(images)} images (such as {next(iter(images))})"
            )

    dataset = None
    if annotations is not None and arguments.export:
        in_order = _in_file_order(arguments.annotations, annotations)
        dataset = [(own_names[name], image_id) for name, image_id in in_order if name in own_names]
    for export_format in arguments.export:  # now: the search may take days
        check_names(images_to_export(images, {}, dataset), export_format)

    # One image on each core is faster than one image on all of them.
    options = arguments.proposals.as_dict()
    process = job.this_process()
    workers = max(1, SelectiveSearch(**options).num_threads // process.on_this_machine)
    search = SelectiveSearch(**options | {"num_threads": 1})
    shards = job.plan(images, Path(arguments.output), arguments.images_per_shard)
    if arguments.overwrite and process.of > 1:
        raise ValueError("--overwrite is for one process: under torchrun give another --output")
    job.check_output(shards, search.settings, arguments.overwrite)

    mine = shards[process.rank :: process.of]
    console = Console(stderr=True, highlight=False)
    if process.rank == 0 and len(shards) < process.of:
        console.print(f"shards: {len(shards)}, for {process.of} processes: fewer --images-per-shard busy all")
    failures: list[str] = []

    def failure(name: str, error: Exception) -> None:
        failures.append(name)
        console.print(f"error: {one_sentence(error)}", markup=False, soft_wrap=True)

    remaining = TimeRemainingColumn(elapsed_when_finished=True)
    columns = TextColumn("images"), BarColumn(), MofNCompleteColumn(), remaining
    with Progress(*columns, console=console, disable=not console.is_terminal or process.rank > 0) as progress:
        bar = progress.add_task("images", total=sum(len(shard.images) for shard in mine))
        for shard in mine:
            job.run_shard(
                shard,
                search,
                read_image,
                search.settings,
                workers=workers,
                on_image=lambda: progress.advance(bar),
                on_failure=failure,
            )

    if failures:
        total = sum(len(shard.images) for shard in mine)
        print(f"{len(failures)} of {total} images failed: {', '.join(failures)}", file=sys.stderr)
    failed = job.sum_over_processes(process, len(failures))
    if process.rank > 0:
        return 0  # torchrun ends all processes when one fails: the first speaks for them, and last
    if failed == len(images):
        return BAD_INPUT
    print(f"shards in {arguments.output}: {len(shards)}")
    _finish(arguments, shards, annotations, own_names, dataset)
    return PARTLY_DONE if failed else 0


def _finish(
    arguments: Namespace,
    shards: "list[ShardPlan]",
    annotations: "Annotations | None",
    own_names: dict[str, str],
    dataset: list[tuple[str, int | str]] | None,
) -> None:
    """What needs all shards: numbers, exports, recall.

    Args:
        own_names: name in the annotations -> name in the shards.
        dataset: see `images_to_export`.
    """
    from rich.console import Console

    from eval import recall_report
    from proposals import job
    from proposals.export import export, images_to_export

    output = Path(arguments.output)
    found = job.collect(shards)
    total = sum(len(of_image.boxes) for of_image in found.values())
    print(f"{total} boxes in {len(found)} images, {total / max(len(found), 1):.0f} on average")

    if annotations is not None:
        boxes = {name: found[own].boxes for name, own in own_names.items() if own in found}
        result = recall_report.measure(annotations, boxes.get)
        measured, annotated = len(result.proposals_per_image), len(annotations.images)
        if not measured:
            raise ValueError(f"{arguments.annotations}: none of its {annotated} images has proposals")
        print(f"recall of {len(result.labels)} objects in {measured} of {annotated} annotated images")
        Console(highlight=False).print(recall_report.table(result))
        recall_report.write_json(output / "recall.json", result, annotations)
        recall_report.write_plot(output / PICTURE, {"proposals": result})
        print(f"recall: {output / 'recall.json'} {output / PICTURE}")

    if arguments.export:
        files = {name: path for shard in shards for name, path in shard.images.items()}
        exported = images_to_export(files, found, dataset)
        for export_format in arguments.export:
            path = output / f"{export_format}.pkl"
            export(path, exported, export_format)
            print(f"{export_format}: {len(exported)} images in {path}")
        if annotations is not None and len(exported) < len(annotations.images):
            missing = len(annotations.images) - len(exported)
            print(f"{missing} annotated images were not given: the exports lack them")


def _in_file_order(path: str, annotations: "Annotations") -> list[tuple[str, int | str]]:
    """Names and ids of annotated images as other frameworks list them: COCO's in the order of the file."""
    from eval import coco
    from eval.image_names import image_stem
    from eval.inputs import is_json

    images = annotations.images
    if images.made_up:
        return [(name, image_stem(name)) for name in images.names]
    names = dict(zip(images.ids.tolist(), images.names, strict=True))
    ids = [int(row["id"]) for row in coco.read_file(path).images or []] if is_json(path) else list(names)
    return [(names[image_id], image_id) for image_id in ids if image_id in names]  # a list may leave some out


def _lines(path: str) -> list[str]:
    from eval.text_files import read_text

    lines = [line.strip() for line in read_text(path).splitlines()]
    return [line for line in lines if line and not line.startswith("#")]


def main() -> int:
    """Parse the command line and propose."""
    return run(lambda: propose(argument_parser().parse_args()))


if __name__ == "__main__":
    sys.exit(main())
