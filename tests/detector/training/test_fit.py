"""The loop: it learns, its average is one, and a run stopped anywhere ends as one that was not."""

import csv
import json
import math
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from safetensors import safe_open
from torch import Tensor, nn
from torch._utils import ExceptionWrapper

from detector.training.batches import Batch
from detector.training.checkpoint import FILE
from detector.training.fit import FitConfig, _in_one_sentence, _moving_average, fit
from detector.training.losses import RegionTargets, region_losses
from detector.training.schedule import Schedule

CONFIG = FitConfig(
    steps=12, learning_rate=0.1, averaging=0.8, checkpoint_every=4, log_every=2,
    schedule=Schedule("cosine", warmup_steps=2),
)  # fmt: skip


class MadeUp:
    """16 points a step; the class is the quadrant, background what is near the middle."""

    batch_size = 16
    steps_per_epoch = 5

    def __init__(self, stop_before: int | None = None) -> None:
        self.stop_before = stop_before

    def batch(self, step: int, share: slice) -> Batch:
        if step == self.stop_before:
            raise KeyboardInterrupt
        points = torch.randn(16, 2, generator=torch.Generator().manual_seed(step))
        labels = (points[:, 0] > 0).long()
        labels[points.norm(dim=1) < 0.5] = 2
        targets = RegionTargets(torch.eye(3).bool()[labels], torch.rand(16), torch.ones(16, dtype=torch.bool))
        return Batch(points[share], targets[share])


def small_network() -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(2, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.3), nn.Linear(16, 4))


def losses(outputs: Tensor, targets: RegionTargets) -> dict[str, Tensor]:
    return region_losses(outputs, targets, quality_weight=0.0)


Run = Callable[..., nn.Module]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    def call(
        folder: str, batches: MadeUp, config: FitConfig = CONFIG, resume: bool = False, **more: Any
    ) -> nn.Module:
        (tmp_path / folder).mkdir(exist_ok=True)
        return fit(
            small_network(), batches, losses, config,
            folder=tmp_path / folder, seed=0, resume=resume,
            console=Console(quiet=True), device=torch.device("cpu"), **{"settings": {"a": 1}} | more,
        )  # fmt: skip

    return call


def rows(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


def test_the_loss_falls(run: Run, tmp_path: Path) -> None:
    run("a", MadeUp(), replace(CONFIG, steps=150))
    log = rows(tmp_path / "a" / "log.csv")
    assert float(log[-1]["loss"]) < 0.5 * float(log[0]["loss"])
    assert [int(row["step"]) for row in log] == list(range(2, 151, 2))
    assert float(log[4]["epoch"]) == 2.0


@pytest.mark.parametrize("stop_before", [0, 2, 4, 7, 11])
def test_a_stopped_run_ends_with_the_same_bits(run: Run, tmp_path: Path, stop_before: int) -> None:
    expected = run("whole", MadeUp())
    with pytest.raises(KeyboardInterrupt):
        run("stopped", MadeUp(stop_before))
    found = run("stopped", MadeUp(), resume=True)
    for name, tensor in expected.state_dict().items():
        assert torch.equal(found.state_dict()[name], tensor), name
    whole, stopped = rows(tmp_path / "whole" / "log.csv"), rows(tmp_path / "stopped" / "log.csv")
    assert [(row["step"], row["loss"]) for row in whole] == [(row["step"], row["loss"]) for row in stopped]


@pytest.fixture
def heeds_ctrl_c() -> Iterator[None]:
    """A shell that puts the tests into the background lets them ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


class Interrupted(MadeUp):
    """Ctrl-C while the batch of a step is made; `asked` has the steps whose batches were."""

    def __init__(self, at: int | None = None) -> None:
        super().__init__()
        self.at, self.asked = at, list[int]()

    def batch(self, step: int, share: slice) -> Batch:
        self.asked.append(step)
        if step == self.at:
            signal.raise_signal(signal.SIGINT)
        return super().batch(step, share)


def test_a_run_goes_on_behind_the_last_step_before_ctrl_c(
    run: Run, tmp_path: Path, capfd: pytest.CaptureFixture[str], heeds_ctrl_c: None
) -> None:
    config = replace(CONFIG, checkpoint_every=100)
    expected = run("whole", MadeUp(), config)
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        run("stopped", Interrupted(5), config)
    assert signal.getsignal(signal.SIGINT) is before
    assert "Ctrl-C again stops at once" in capfd.readouterr().err
    rest = Interrupted()
    found = run("stopped", rest, config, resume=True)
    assert rest.asked == list(range(5, 12))
    for name, tensor in expected.state_dict().items():
        assert torch.equal(found.state_dict()[name], tensor), name


def test_ctrl_c_is_ignored_where_it_was_before(run: Run) -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        batches = Interrupted(5)
        run("a", batches)
    finally:
        signal.signal(signal.SIGINT, before)
    assert batches.asked == list(range(12))


def test_a_second_ctrl_c_stops_at_once(run: Run, heeds_ctrl_c: None) -> None:
    class Twice(Interrupted):
        def batch(self, step: int, share: slice) -> Batch:
            found = super().batch(step, share)
            if step == self.at:
                signal.raise_signal(signal.SIGINT)
                time.sleep(60)  # which the signal ends
                self.asked.append(-1)
            return found

    batches = Twice(5)
    with pytest.raises(KeyboardInterrupt):
        run("a", batches)
    assert batches.asked[-1] == 5


def test_there_is_a_checkpoint_every_minute(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = replace(CONFIG, checkpoint_every=100)
    expected = run("whole", MadeUp(), config)
    monkeypatch.setattr("detector.training.fit._SECONDS", -1.0)
    with pytest.raises(KeyboardInterrupt):
        run("stopped", MadeUp(3), config)
    rest = Interrupted()
    found = run("stopped", rest, config, resume=True)
    assert rest.asked[0] == 3
    for name, tensor in expected.state_dict().items():
        assert torch.equal(found.state_dict()[name], tensor), name


def test_a_run_in_the_folder_of_another_goes_on_from_its_own_checkpoint(run: Run) -> None:
    run("a", MadeUp(), replace(CONFIG, steps=3), settings={"a": 2})
    with pytest.raises(KeyboardInterrupt):
        run("a", MadeUp(2))
    rest = Interrupted()
    run("a", rest, resume=True)
    assert rest.asked == list(range(12))


def test_resuming_needs_the_same_run(run: Run, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no checkpoint to resume from"):
        run("a", MadeUp(), resume=True)
    run("a", MadeUp())
    with pytest.raises(ValueError, match=r"other settings \(a 1, now 2\)"):
        fit(
            small_network(), MadeUp(), losses, CONFIG, folder=tmp_path / "a", settings={"a": 2}, seed=0,
            resume=True, console=Console(quiet=True), device=torch.device("cpu"),
        )  # fmt: skip
    (tmp_path / "a" / FILE).write_bytes(b"half a file")
    with pytest.raises(OSError, match="damaged checkpoint"):
        run("a", MadeUp(), resume=True)


def test_weights_that_have_diverged_are_not_kept(run: Run, tmp_path: Path) -> None:
    config = replace(CONFIG, learning_rate=1e38, log_every=100, schedule=Schedule("constant"))
    with pytest.raises(ValueError, match="the last checkpoint is intact"):
        run("a", MadeUp(), config)
    with safe_open(tmp_path / "a" / FILE, "pt") as file:
        assert json.loads(file.metadata()["about"])["step"] == 0


def test_average_is_the_exponential_average_of_the_weights(run: Run) -> None:
    weights = [
        run(f"n{n}", MadeUp(), replace(CONFIG, steps=n, averaging=0.0, schedule=Schedule("constant")))
        for n in (1, 2, 3)
    ]
    average = run("average", MadeUp(), replace(CONFIG, steps=3, schedule=Schedule("constant")))
    w1, w2, w3 = (network.state_dict()["0.weight"] for network in weights)
    short = 2 / 11, 3 / 12  # the memory at first; later 0.8
    expected = short[1] * (short[0] * w1 + (1 - short[0]) * w2) + (1 - short[1]) * w3
    torch.testing.assert_close(average.state_dict()["0.weight"], expected)


def test_accumulated_parts_give_the_same_step(tmp_path: Path) -> None:
    def weight(accumulate: int) -> Tensor:
        torch.manual_seed(1)
        found = fit(
            nn.Linear(2, 4), MadeUp(), losses, replace(CONFIG, steps=3, accumulate=accumulate, averaging=0.0),
            folder=tmp_path, settings={}, seed=0, resume=False, console=Console(quiet=True),
            device=torch.device("cpu"),
        )  # fmt: skip
        return found.state_dict()["weight"]

    torch.testing.assert_close(weight(1), weight(3))


def test_bfloat16_and_worker_processes(run: Run) -> None:
    expected = run("a", MadeUp())
    found = run("b", MadeUp(), replace(CONFIG, workers=1))
    assert torch.equal(found.state_dict()["0.weight"], expected.state_dict()["0.weight"])
    half = run("c", MadeUp(), replace(CONFIG, precision="bfloat16"))
    torch.testing.assert_close(
        half.state_dict()["0.weight"], expected.state_dict()["0.weight"], atol=0.1, rtol=0.1
    )


def test_frozen_layers_stay(tmp_path: Path) -> None:
    network = small_network()
    before = network.state_dict()["0.weight"].clone()
    network[0].requires_grad_(False)  # type: ignore[index]
    found = fit(
        network, MadeUp(), losses, CONFIG, folder=tmp_path, settings={}, seed=0, resume=False,
        console=Console(quiet=True), device=torch.device("cpu"),
    )  # fmt: skip
    assert torch.equal(found.state_dict()["0.weight"], before)
    assert not torch.equal(found.state_dict()["4.weight"], small_network().state_dict()["4.weight"])


def test_a_loss_that_is_no_number_ends_the_run(run: Run) -> None:
    with pytest.raises(ValueError, match="the loss is nan"):
        run("a", MadeUp(), replace(CONFIG, learning_rate=1e30, steps=40))


@pytest.mark.parametrize(
    "change",
    [
        {"learning_rate": 0.0}, {"learning_rate": math.nan}, {"epochs": math.inf}, {"steps": 0}, {"averaging": 1.0},
        {"momentum": -1.0}, {"momentum": 1.0}, {"weight_decay": -1.0}, {"clip_norm": -1.0}, {"clip_norm": 0.0},
        {"workers": -1}, {"evaluate_every": -1}, {"log_every": 0}, {"checkpoint_every": 0},
    ],
)  # fmt: skip
def test_numbers_out_of_range_are_named(change: dict[str, float]) -> None:
    ((name, value),) = change.items()
    with pytest.raises(ValueError, match=rf"--fit\.{name} is {value}, but must"):
        FitConfig(**change)  # type: ignore[arg-type]


@pytest.mark.parametrize(("steps", "warmup"), [(24, 6), (3, 0), (396, 99), (400, 100), (4000, 100)])
def test_a_warm_up_is_no_longer_than_a_quarter_of_the_run(steps: int, warmup: int) -> None:
    for kind in ("step", "cosine", "constant"):
        schedule = Schedule(kind, warmup_steps=100)
        factors = [schedule.factor_at(step, steps=steps, steps_per_epoch=steps) for step in range(steps)]
        assert factors[:warmup] == [(step + 1) / (warmup + 1) for step in range(warmup)]
        assert factors[warmup] == 1.0


@pytest.mark.parametrize("change", [{"every_epochs": 0}, {"factor": 0}, {"warmup_steps": -1}])
def test_schedules_without_sense_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"fit\.schedule"):
        Schedule(**change)


def test_the_average_of_a_short_run_is_not_where_it_began() -> None:
    average = [torch.zeros(3)]
    for step in range(1, 101):
        _moving_average(0.999, average, [torch.ones(3)], step)
    assert average[0].min() > 0.99
    before = average[0].clone()
    _moving_average(0.999, average, [torch.zeros(3)], 100_000)
    torch.testing.assert_close(average[0], before * 0.999)


def test_what_another_process_cannot_read_is_one_sentence() -> None:
    def loader() -> Iterator[int]:
        yield 1
        try:
            raise OSError("photo.jpg: image file is truncated: 3 bytes")
        except OSError:
            wrapped = ExceptionWrapper(where="in DataLoader worker process 0")
        wrapped.reraise()

    with pytest.raises(OSError, match=r"^photo\.jpg: image file is truncated: 3 bytes$"):
        list(_in_one_sentence(loader()))
