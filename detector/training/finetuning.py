"""What a run of fine-tuning is told."""

from dataclasses import dataclass, field
from typing import Literal

from detector.runtime import RuntimeName
from detector.training.data import DataConfig
from detector.training.fit import FitConfig
from detector.training.ranges import at_least, share


@dataclass(frozen=True)
class Finetuning:
    """A run of `train.py finetune`.

    Attributes:
        data: Annotated images and proposals.
        validation: Images to measure mAP on; none by default.
        fit: The learning itself.
        weights: What training starts from, as for detection.
        output: Folder of the model and what belongs to it.
        keep: Folder of the proposals, features and teacher's opinions, which runs on the same data can share; the
            output folder by default.
        freeze: The stage up to which weights stay as they are; None trains everything.
        cache: Compute the features of the frozen stages once and keep them on disk.
        auxiliary: Train with the paper's two auxiliary classifiers, which start from nothing.
        lrn: Keep local response normalisation; a network without starts with constant factors in its place.
        width: Widen a network without LRN to this factor on the paper's channels; it starts from the same outputs.
        cache_mirrored: Also those of mirrored regions, at twice the work and space.
        head: `classes` starts from the means of the rows of the classification layer, `random` from nothing;
            `members` keeps these 1000 rows and sums them up into the 200 classes (`class_scores.MemberLogits`).
        quality: Also learn to predict a region's IoU, which scores are multiplied with.
        quality_weight: Of its loss.
        teacher_weight: How much regions of unlabelled classes hold on to the teacher's zero-shot scores.
        teacher: The weights that give these, looking at regions as they want; those that training starts from by
            default.
        label_share: How much an object's label counts against the teacher's opinion of its class: below 1, a network
            that few classes have boxes for stays a judge of the others.
        teacher_objects: How many objects of a class the teacher's opinion is worth: with n of them its label counts
            n / (n + this), but at least `label_share`; 0 lets `label_share` count for all classes. With
            `data.small_copies` every object counts twice.
        teacher_trust: What share of its opinion the teacher keeps on background of images with boxes, in favour of
            background: zero-shot scores know no background, and few regions show an object that has no box.
        balance: How much rarer classes count more among the objects: 0 draws every region equally often, 1 every
            class.
        positives: Object regions in a batch.
        backgrounds: Background regions in a batch.
        background_iou: Only background regions below this IoU with every object are drawn.
        max_positives: Most proposals on objects of an image that are used, besides the annotated boxes.
        max_backgrounds: Most background regions of an image that are used.
        mirror: Mirror half of the regions.
        colour_strength: Of random brightness, contrast and saturation.
        dropout: Share of the pooled features that is dropped.
        size: Side of a region in pixels; None takes that of the weights.
        context: Pixels of surroundings on each side of a region; None takes that of the weights, in proportion.
        crop: `warp` stretches a box to the square, `square` takes the square around its longer side; None takes that
            of the weights.
        batch_size: Regions at a time when features are computed.
        runtime: How the network runs when features are computed, see `detector.runtime`.
        device: `auto` takes a GPU if there is one.
        seed: Of every random choice.
        order_seed: Instead of `seed`, of the order and the distortion of regions and of what drops out: so runs that
            share `keep` see the same regions in orders of their own, as the members of an ensemble should.
        resume: Go on from the checkpoint in the output folder.
        dry_run: Read the data, draw the picture of regions, and stop.
    """

    data: DataConfig = field(default_factory=DataConfig)
    validation: DataConfig = field(default_factory=DataConfig)
    fit: FitConfig = field(default_factory=FitConfig)
    weights: str | None = None
    output: str = "finetuned"
    keep: str | None = None
    freeze: str | None = None
    cache: bool = False
    cache_mirrored: bool = False
    auxiliary: bool = False
    lrn: bool = True
    width: float | None = None
    head: Literal["classes", "members", "random"] = "classes"
    quality: bool = False
    quality_weight: float = 1.0
    teacher_weight: float = 0.0
    teacher: str | None = None
    teacher_trust: float = 1.0
    label_share: float = 1.0
    teacher_objects: float = 0.0
    balance: float = 0.0
    positives: int = 32
    backgrounds: int = 96
    background_iou: float = 1.0
    max_positives: int = 30
    max_backgrounds: int = 100
    mirror: bool = True
    colour_strength: float = 0.0
    dropout: float = 0.4
    size: int | None = None
    context: int | None = None
    crop: Literal["warp", "square"] | None = None
    batch_size: int = 8
    runtime: RuntimeName = "auto"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    seed: int = 0
    order_seed: int | None = None
    resume: bool = False
    dry_run: bool = False

    def __post_init__(self) -> None:
        """Refuse numbers that make no sense."""
        at_least(self, 1, "positives", "batch_size")
        at_least(self, 0, "backgrounds", "max_positives", "max_backgrounds", "seed", "order_seed")
        at_least(self, 0, "quality_weight", "teacher_weight", "teacher_objects")
        share(self, "teacher_trust", "label_share", "balance", "background_iou", "colour_strength")
        share(self, "dropout", below_one=True)


def check(config: Finetuning) -> None:
    """Say what does not go together, before the long work.

    Raises:
        ValueError: Options that exclude one another.
    """
    if config.cache and config.freeze is None:
        raise ValueError("--cache keeps the features of frozen stages: name the last of them with --freeze")
    if config.cache_mirrored and not (config.cache and config.mirror):
        raise ValueError(
            "--cache-mirrored keeps features of mirrored regions, so it needs --cache and --mirror"
        )
    if config.colour_strength and config.cache:
        raise ValueError("--colour-strength changes pixels, and --cache keeps features: choose one of them")
    if config.quality_weight != 1 and not config.quality:
        raise ValueError("--quality-weight is of the loss of an output that only --quality learns")
    if config.auxiliary and config.cache:
        raise ValueError("--auxiliary looks at stages in the middle of the network, and --cache skips these")
    if config.auxiliary and config.head == "members":
        raise ValueError(
            "--auxiliary looks at the 200 classes, and --head members has 1000: choose one of them"
        )
    if (not config.lrn or config.width) and config.freeze is not None:
        raise ValueError(
            "--no-lrn and --width change all stages, which then have to learn, and --freeze keeps them as they are"
        )
    if (not config.lrn or config.width) and config.auxiliary:
        raise ValueError(
            "--auxiliary classifiers belong to the paper's network, and --no-lrn and --width change it"
        )
    idle = {
        "--teacher": config.teacher is not None,
        "--label-share": config.label_share < 1,
        "--teacher-objects": config.teacher_objects > 0,
        "--teacher-trust": config.teacher_trust < 1,
    }
    for option, given in idle.items():
        if given and not config.teacher_weight:
            raise ValueError(f"{option} is about a teacher, and there is none: add --teacher-weight 1")
