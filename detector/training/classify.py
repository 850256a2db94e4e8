"""Pretraining: the network learns the 1000 classification classes from whole images, by the paper's recipe."""

from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from rich.console import Console
from torch import Tensor, nn

from detector.command_line import one_sentence
from detector.configuration import choose_device
from detector.googlenet import GoogLeNet, Logits
from detector.images import read_image
from detector.region_classifier import Normalize, Preprocessing
from detector.safetensors_file import WeightsCard, write_weights_file
from detector.training.checkpoint import BYSTANDERS
from detector.training.classification_data import LabelledImages, read_folders, read_list
from detector.training.display import left_out
from detector.training.distortion import centre_crop, distort_colours, random_crop
from detector.training.features import weightsfingerprint
from detector.training.fit import FitConfig, fit
from detector.training.losses import AUXILIARY_WEIGHT
from detector.training.problems import Policy, Problems
from detector.training.processes import Processes, processes
from detector.training.ranges import at_least, share
from detector.training.sampling import EndlessPasses
from detector.training.start import output_folder, resumes, start_weights, without_auxiliaries
from detector.weights import CAFFE_INPUT, MODEL_FILE


@dataclass(frozen=True)
class Pretraining:
    """A run of `train.py classify`.

    Attributes:
        images: Folder with a folder of images for each class (ILSVRC CLS), or of the images of `image_list`.
        image_list: Lines `name label`, labels from 0, instead of folders.
        validation_images: Likewise, to measure top-1 and top-5 on; none by default.
        validation_list: Likewise.
        fit: The learning itself.
        weights: What training starts from; None starts from random weights.
        output: Folder of the model and what belongs to it.
        images_per_batch: Images in a batch, over all processes.
        size: Side of the input in pixels.
        auxiliary: Train with the paper's two auxiliary classifiers.
        colour_strength: Of random brightness, contrast and saturation.
        dropout: Share of the pooled features that is dropped.
        problems: `skip` leaves out unusable images and counts them; `refuse` stops at the first.
        device: `auto` takes a GPU if there is one.
        seed: Of every random choice.
        resume: Go on from the checkpoint in the output folder.
        dry_run: Read the data, count it, and stop.
    """

    images: str = ""
    image_list: str | None = None
    validation_images: str | None = None
    validation_list: str | None = None
    fit: FitConfig = field(default_factory=FitConfig)
    weights: str | None = None
    output: str = "pretrained"
    images_per_batch: int = 32
    size: int = 224
    auxiliary: bool = True
    colour_strength: float = 0.4
    dropout: float = 0.4
    problems: Policy = "skip"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    seed: int = 0
    resume: bool = False
    dry_run: bool = False

    def __post_init__(self) -> None:
        """Refuse numbers that make no sense."""
        at_least(self, 1, "images_per_batch")
        at_least(self, 32, "size")
        at_least(self, 0, "seed")
        share(self, "colour_strength")
        share(self, "dropout", below_one=True)


class ImageBatch(NamedTuple):
    """Pixels (B, 3, S, S) uint8 and labels (B,)."""

    inputs: Tensor
    targets: Tensor


class ImageBatches:
    """Random crops of shuffled images. One that cannot be read is replaced by the next that can.

    Args:
        report: Told of images that cannot be read.
    """

    def __init__(
        self,
        images: LabelledImages,
        *,
        batch_size: int,
        size: int,
        colour_strength: float,
        seed: int,
        problems: Problems,
    ) -> None:
        self.images, self.batch_size, self.size = images, batch_size, size
        self.colour_strength, self.seed, self.problems = colour_strength, seed, problems
        self.steps_per_epoch = -(-len(images) // batch_size)
        self._passes = EndlessPasses(np.arange(len(images)), (seed,))

    def batch(self, step: int, share: slice) -> ImageBatch:
        """Pixels and labels; `share` says which of the step's images."""
        rows = self._passes.draw(step * self.batch_size, self.batch_size)
        pixels, labels = [], []
        for place in range(*share.indices(self.batch_size)):
            generator = np.random.default_rng((self.seed, 1, step, place))
            row, image = self._readable(int(rows[place]))
            crop = random_crop(image, self.size, generator)
            crop = crop[:, ::-1] if generator.random() < 0.5 else crop
            pixels.append(
                distort_colours(crop, self.colour_strength, generator) if self.colour_strength else crop
            )
            labels.append(self.images.labels[row])
        return ImageBatch(torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2), torch.tensor(labels))

    def _readable(self, row: int) -> tuple[int, np.ndarray]:
        for following in range(len(self.images)):
            candidate = (row + following) % len(self.images)
            try:
                return candidate, read_image(self.images.paths[candidate])
            except OSError as error:
                self.problems.add("unreadable image", one_sentence(error))
        raise ValueError("none of the training images can be read")


class Classifier(nn.Module):
    """What is trained: the network behind its normalisation."""

    def __init__(self, network: GoogLeNet, preprocessing: Preprocessing) -> None:
        super().__init__()
        self.normalize, self.network = Normalize(preprocessing), network

    def forward(self, inputs: Tensor) -> Tensor | Logits:
        """Pixels (R, 3, S, S) uint8 -> logits (R, classes), and auxiliary ones while training."""
        return self.network(self.normalize(inputs))


def classification_losses(outputs: Tensor | Logits, labels: Tensor) -> dict[str, Tensor]:
    """The sums over images of the loss, and of those of auxiliary outputs times 0.3."""
    summed = partial(F.cross_entropy, reduction="sum")
    if isinstance(outputs, Logits):
        looks = [look for look in (outputs.aux_4a, outputs.aux_4d) if look is not None]
        auxiliary = torch.stack([summed(look.float(), labels) for look in looks]).sum()
        return {"class": summed(outputs.main.float(), labels), "auxiliary": AUXILIARY_WEIGHT * auxiliary}
    return {"class": summed(outputs.float(), labels)}


def pretrain(config: Pretraining, console: Console) -> Path | None:
    """Train a classifier and return its file; None after a dry run.

    Raises:
        OSError, ValueError: What keeps it from being trained, in one sentence.
    """
    if not config.images:
        raise ValueError("--images is missing: name the folder of the training images")
    device = choose_device(config.device)
    with processes(device) as here:
        if device.type == "cuda" and here.count > 1:
            device = torch.device("cuda", here.local_rank)
        here.share(config.images_per_batch)  # what cannot be divided is said before the images are read
        quiet = console if here.first else Console(quiet=True)
        problems = Problems(config.problems, left_out(quiet))
        resume = resumes(config.output, config.resume, quiet)
        output = output_folder(config.output, weights=config.weights)
        images = _read(config.images, config.image_list, problems)
        validation = None
        if config.validation_images:
            validation = _read(config.validation_images, config.validation_list, problems)
            if validation.classes != images.classes:
                raise ValueError(f"{config.validation_images}: has other classes than the training images")
        quiet.print(f"{len(images):,} images of {len(set(images.labels)):,} classes")
        if config.dry_run:
            return None
        network, preprocessing, name = _network(config, len(images.classes))
        result = fit(
            Classifier(network, preprocessing),
            ImageBatches(
                images,
                batch_size=config.images_per_batch,
                size=config.size,
                colour_strength=config.colour_strength,
                seed=config.seed,
                problems=problems,
            ),
            classification_losses,
            config.fit,
            folder=output,
            settings={
                key: value
                for key, value in asdict(config).items()
                if key not in (*BYSTANDERS, "problems", "validation_images", "validation_list")
            }
            | {
                "fit": config.fit.what_decides_the_result(),
                "labels": images.fingerprint(),
                "first_weights": weightsfingerprint(network.state_dict()),
            },
            seed=config.seed,
            resume=resume,
            console=quiet,
            device=device,
            here=here,
            evaluate=None if validation is None else accuracy_on(validation, config.size, device, here),
        )
        if problems.counts:
            quiet.print(f"left out in all: {problems.summary()}")
        path = output / MODEL_FILE
        if here.first:
            _write(path, result, preprocessing, images, name)
        here.barrier()
        return path


def _read(images: str, image_list: str | None, problems: Problems) -> LabelledImages:
    return read_list(image_list, images, problems) if image_list else read_folders(images, problems)


def _network(config: Pretraining, classes: int) -> tuple[GoogLeNet, Preprocessing, str]:
    torch.manual_seed(config.seed)  # of the first weights
    if config.weights is None:
        network = GoogLeNet(classes, auxiliary=config.auxiliary, dropout=config.dropout)
        return network, replace(CAFFE_INPUT, size=config.size), "random weights"
    classifier, name = start_weights(config.weights, config.size)
    start = classifier.network
    assert isinstance(start, GoogLeNet)
    if start.num_classes != classes:
        raise ValueError(
            f"--weights {name}: has {start.num_classes} outputs, but the images {classes} classes"
        )
    network = GoogLeNet(
        classes, architecture=start.architecture, auxiliary=config.auxiliary, dropout=config.dropout
    )
    network.load_state_dict(start.state_dict(), strict=False)  # the auxiliary classifiers start from nothing
    return network, classifier.preprocessing, name


def accuracy_on(
    images: LabelledImages, size: int, device: torch.device, here: Processes
) -> Callable[[nn.Module], dict[str, float]]:
    """A function from a classifier to its top-1 and top-5 on the centres of images, over all processes."""

    @torch.inference_mode()
    def evaluate(model: nn.Module) -> dict[str, float]:
        model.eval()
        hits = torch.zeros(3, dtype=torch.float64)  # top-1, top-5, images
        for row in range(here.rank, len(images), here.count):
            try:
                crop = centre_crop(read_image(images.paths[row]), size)
            except OSError:
                continue  # named while training reads its own; a picture less to measure on
            pixels = torch.from_numpy(crop).permute(2, 0, 1)[None].to(device)
            best = model(pixels)[0].topk(min(5, len(images.classes))).indices.tolist()
            hits += torch.tensor([best[0] == images.labels[row], images.labels[row] in best, 1.0])
        hits = here.sum(hits.to(device) if device.type == "cuda" else hits)
        top_1, top_5, count = hits.tolist()
        return {"top_1": top_1 / max(count, 1), "top_5": top_5 / max(count, 1)}

    return evaluate


def _write(
    path: Path, result: nn.Module, preprocessing: Preprocessing, images: LabelledImages, name: str
) -> None:
    assert isinstance(result, Classifier)
    card = WeightsCard(
        name=path.parent.name,
        origin=f"trained on {len(images)} images of {len(set(images.labels))} classes, from {name}",
        licence="that of the training images",
        outputs="cls1000",
        preprocessing=preprocessing,
        architecture=result.network.architecture,
    )
    write_weights_file(path, without_auxiliaries(result.network.state_dict()), card)
