"""Train: SVMs on few photos, fine-tuning of a detector, pretraining of a classifier, heads that judge boxes, boxes from
labels.

examples:
  python tools/train.py svm --annotations instances.json --images photos/ --output my_detector
  python tools/detect.py --weights my_detector --image more_photos/
  python tools/train.py finetune --config configs/finetune_small.yaml --annotations a.json --images photos/
  python tools/train.py finetune --config configs/finetune_small.yaml --annotations a.json --images photos/ --resume
  python tools/train.py classify --config configs/pretrain_imagenet.yaml --images ILSVRC/Data/CLS-LOC/train
  python tools/train.py objectness --weights finetuned --annotations a.json --images photos/ --output with_objectness
  python tools/train.py fit --weights member --chooser with_objectness --annotations a.json --images photos/
  python tools/train.py boxes --detections outputs/detections.json --image-labels photos.csv --output boxes.json
  torchrun --nproc-per-node 2 tools/train.py finetune --config configs/finetune_ilsvrc.yaml \\
      --annotations ILSVRC/Annotations/DET --images ILSVRC/Data/DET --data.class_lists ILSVRC/ImageSets/DET

`python tools/train.py SUBCOMMAND --help` lists the options of each; --config reads them from a YAML file such as
those in configs/.
"""

import sys
from argparse import RawDescriptionHelpFormatter

from jsonargparse import ActionConfigFile, DefaultHelpFormatter, Namespace

from detector.command_line import ArgumentParser, run


class HelpFormatter(DefaultHelpFormatter, RawDescriptionHelpFormatter):
    """Shows defaults, and the examples as they are written."""


def argument_parser() -> ArgumentParser:
    """One subcommand a kind of training, whose options are the fields of its configuration."""
    from detector.training.boxes_from_labels import BoxesFromLabels
    from detector.training.classify import Pretraining
    from detector.training.finetuning import Finetuning
    from detector.training.objectness import ObjectnessTraining
    from detector.training.options import add_training_options
    from detector.training.region_fit import RegionFitTraining
    from detector.training.svm_job import SVMTraining

    parser = ArgumentParser(prog="train.py", description=__doc__, formatter_class=HelpFormatter)
    commands = parser.add_subcommands(dest="command")
    kinds = {
        "svm": (SVMTraining, "SVMs on few photos, R-CNN's last stage"),
        "classify": (Pretraining, "a classifier from whole images, the paper's recipe"),
        "finetune": (Finetuning, "a detector from a classifier, by the regions of annotated images"),
        "objectness": (ObjectnessTraining, "which boxes a trained detector should look at first"),
        "fit": (RegionFitTraining, "how well the boxes of regions fit, as a member of an ensemble sees it"),
        "boxes": (BoxesFromLabels, "boxes for images of known classes, where a detector sees these best"),
    }
    for name, (configuration, text) in kinds.items():
        command = ArgumentParser(description=__doc__, formatter_class=HelpFormatter)
        command.add_argument(
            "--config", action=ActionConfigFile, help="YAML file of options; later options win"
        )
        add_training_options(command, configuration)
        commands.add_subcommand(name, command, help=text)
    return parser


def train(arguments: Namespace) -> int:
    """Run the subcommand and say what came of it."""
    from rich.console import Console

    from detector.training.boxes_from_labels import BoxesFromLabels, make_boxes
    from detector.training.classify import Pretraining, pretrain
    from detector.training.finetune import finetune
    from detector.training.finetuning import Finetuning
    from detector.training.objectness import ObjectnessTraining, train_objectness
    from detector.training.options import training_configuration
    from detector.training.region_fit import RegionFitTraining, train_region_fit
    from detector.training.svm_job import SVMTraining, train_svms

    console = Console(stderr=True, highlight=False)
    options = arguments[arguments.command]
    if arguments.command == "boxes":
        print(f"boxes: {make_boxes(training_configuration(options, BoxesFromLabels), console)}")
        return 0
    if arguments.command == "svm":
        path = train_svms(training_configuration(options, SVMTraining), console)
    elif arguments.command == "classify":
        path = pretrain(training_configuration(options, Pretraining), console)
    elif arguments.command == "objectness":
        path = train_objectness(training_configuration(options, ObjectnessTraining), console)
    elif arguments.command == "fit":
        path = train_region_fit(training_configuration(options, RegionFitTraining), console)
    else:
        path = finetune(training_configuration(options, Finetuning), console)
    print(f"model: {path}" if path else "dry run: nothing trained")
    return 0


def main() -> int:
    """Parse the command line and train."""
    return run(lambda: train(argument_parser().parse_args()))


if __name__ == "__main__":
    sys.exit(main())
