"""Runs that stop, by themselves or killed, and go on; runs of several processes."""

import io
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console
from run_logs import column
from safetensors.torch import load_file

from detector.safetensors_file import write_weights_file
from detector.taxonomy import DET200
from detector.training.finetune import finetune
from detector.training.finetuning import Finetuning
from detector.weights import load_network

QUIET = Console(quiet=True)


ROOT = Path(__file__).resolve().parents[3]


ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


LOSING = """
import os, sys, torch
from detector.command_line import run
from detector.training.processes import processes
def work():
    with processes(torch.device("cpu")) as here:
        here.barrier()
        if here.rank == 1:
            os._exit(9)
        while True:
            here.sum(torch.ones(1))
sys.exit(run(work))
"""


def test_resuming_needs_the_same_regions(config: Finetuning, scenes: Path, tmp_path: Path) -> None:
    finetune(config, QUIET)
    annotated = json.loads((scenes / "instances.json").read_text())
    annotated["annotations"].pop()
    changed = tmp_path / "changed.json"
    changed.write_text(json.dumps(annotated))
    data = replace(config.data, annotations=[str(changed)])
    told = r'other settings \(data.annotations \[".*instances.json"\], now \[".*changed.json"\]; labels; regions\)'
    with pytest.raises(ValueError, match=told):
        finetune(replace(config, data=data, resume=True), QUIET)


def test_resuming_does_not_need_what_cannot_change_the_result(
    config: Finetuning, scenes: Path, start: Path, tmp_path: Path
) -> None:
    finetune(config, QUIET)
    shutil.copytree(scenes, tmp_path / "copy")
    shutil.copy(start, tmp_path / "copy.safetensors")
    data = replace(
        config.data,
        annotations=[str(tmp_path / "copy" / "instances.json")],
        images=[str(tmp_path / "copy" / "images")],
    )
    told = replace(config.fit, log_every=3, checkpoint_every=7, evaluate_every=1, workers=1)
    other = replace(config, data=data, fit=told, weights=str(tmp_path / "copy.safetensors"), resume=True)
    assert finetune(other, QUIET) is not None
    with pytest.raises(
        ValueError, match=r"other settings \(fit\.learning_rate 0\.01, now 0\.02; quality true, now false\)"
    ):
        finetune(
            replace(config, fit=replace(config.fit, learning_rate=0.02), quality=False, resume=True), QUIET
        )


def test_a_run_stopped_before_its_first_checkpoint_starts_again(config: Finetuning) -> None:
    again = replace(config, resume=True)
    with pytest.raises(FileNotFoundError, match="no checkpoint to resume from"):
        finetune(again, QUIET)
    assert not Path(config.output).exists()
    finetune(replace(config, dry_run=True), QUIET)
    told = Console(file=io.StringIO())
    assert finetune(again, told) is not None
    assert "stopped before its first checkpoint; starting from step 0" in told.file.getvalue()  # type: ignore[attr-defined]
    assert len(column(config.output, "loss")) == 4
    (Path(config.output) / "checkpoint.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match="no checkpoint to resume from"):
        finetune(again, QUIET)


def test_resuming_needs_the_same_labels_and_first_weights(
    config: Finetuning, scenes: Path, tmp_path: Path
) -> None:
    annotations, weights = tmp_path / "mine.json", tmp_path / "first.safetensors"
    annotated = json.loads((scenes / "instances.json").read_text())
    annotations.write_text(json.dumps(annotated))
    shutil.copy(config.weights or "", weights)
    own = replace(config, data=replace(config.data, annotations=[str(annotations)]), weights=str(weights))
    finetune(own, QUIET)
    for row in annotated["annotations"]:
        row["category_id"] = 3 - row["category_id"]
    annotations.write_text(json.dumps(annotated))
    with pytest.raises(ValueError, match=r"other settings \(labels\)"):
        finetune(replace(own, resume=True), QUIET)
    finetune(own, QUIET)
    shutil.copy(Path(own.output) / "model.safetensors", weights)
    with pytest.raises(ValueError, match=r"other settings \(first\.weights\)"):
        finetune(replace(own, resume=True), QUIET)


def test_resuming_needs_the_same_teacher_wherever_its_file_lies(
    config: Finetuning, scenes: Path, tmp_path: Path
) -> None:
    annotated = json.loads((scenes / "instances.json").read_text())
    annotated["categories"] = [{"id": kind.id, "name": kind.name, "wnid": kind.wnid} for kind in DET200]
    (tmp_path / "det.json").write_text(json.dumps(annotated))
    teacher = Path(shutil.copy(config.weights or "", tmp_path / "teacher.safetensors"))
    data = replace(config.data, annotations=[str(tmp_path / "det.json")])
    taught = replace(config, data=data, teacher_weight=1.0, teacher=str(teacher))
    finetune(taught, QUIET)
    elsewhere = teacher.rename(tmp_path / "elsewhere.safetensors")
    assert finetune(replace(taught, teacher=str(elsewhere), resume=True), QUIET) is not None
    network, card = load_network(elsewhere)
    torch.nn.init.ones_(network.classifier.bias)
    write_weights_file(teacher, network.state_dict(), card)
    with pytest.raises(ValueError, match=r"other settings \(opinions\.weights\)"):
        finetune(replace(taught, resume=True), QUIET)


def command(config: Finetuning, output: Path, *more: str) -> list[str]:
    """The command line of `config`, so that it runs in processes of its own."""
    path = output.parent / "config.yaml"
    settings = asdict(replace(config, output=str(output)))
    path.write_text(json.dumps(settings))  # JSON is YAML
    return [str(ROOT / "tools" / "train.py"), "finetune", "--config", str(path), *more]


def wait_for_log(folder: Path, lines: int) -> None:
    """Until the run has logged so many lines."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        log = folder / "log.csv"
        if log.exists() and log.read_text().count("\n") > lines:
            return
        time.sleep(0.005)
    raise AssertionError(f"{folder}: no {lines} lines of log in two minutes")


def test_killed_and_resumed_ends_with_the_same_bits(
    config: Finetuning, tmp_path: Path, one_thread: None
) -> None:
    config = replace(config, fit=replace(config.fit, steps=30, checkpoint_every=3))
    finetune(replace(config, output=str(tmp_path / "whole")), QUIET)
    killed = subprocess.Popen([sys.executable, *command(config, tmp_path / "killed")], env=ENVIRONMENT)
    wait_for_log(tmp_path / "killed", 8)
    killed.send_signal(signal.SIGKILL)
    assert killed.wait() == -signal.SIGKILL and not (tmp_path / "killed" / "model.safetensors").exists()
    finetune(replace(config, output=str(tmp_path / "killed"), resume=True), QUIET)
    expected, found = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "killed"))
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())
    assert column(tmp_path / "killed", "loss") == column(tmp_path / "whole", "loss")


def test_two_processes_one_of_which_dies_give_the_curve_of_one(
    config: Finetuning, tmp_path: Path, one_thread: None
) -> None:
    config = replace(config, dropout=0.0, fit=replace(config.fit, steps=50, checkpoint_every=10))
    finetune(replace(config, output=str(tmp_path / "one")), QUIET)
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "--max-restarts", "1"]
    run = subprocess.Popen(
        [sys.executable, *torchrun, *command(config, tmp_path / "two")],
        env=ENVIRONMENT,
        stderr=subprocess.PIPE,
    )
    wait_for_log(tmp_path / "two", 15)
    workers = Path(f"/proc/{run.pid}/task/{run.pid}/children")
    if not workers.exists():
        pytest.skip("needs /proc to find the worker processes")
    os.kill(int(workers.read_text().split()[-1]), signal.SIGKILL)
    _, messages = run.communicate(timeout=240)
    assert run.returncode == 0, messages.decode()[-3000:]
    assert b"resumed after step" in messages
    one, two = column(tmp_path / "one", "loss"), column(tmp_path / "two", "loss")
    assert len(one) == len(two) == 50
    assert np.abs(np.array(one) - two).max() < 1e-3


def test_a_process_that_dies_is_named_by_the_others() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    started = [
        subprocess.Popen(
            [sys.executable, "-c", LOSING], stderr=subprocess.PIPE, text=True,
            env=ENVIRONMENT | {"RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port},
        )
        for rank in range(2)
    ]  # fmt: skip
    _, message = started[0].communicate(timeout=120)
    started[1].communicate()
    assert started[0].returncode == 2 and "error: process 0 of 2 lost another one" in message
    assert "the last checkpoint is intact" in message and "Traceback" not in message
