"""Faults made for real where this machine permits it: docs/reliability.md has a row for each.

What a user reads is asserted word for word, so that the table cannot drift.
"""

import contextlib
import errno
import gc
import gzip
import json
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
import weakref
from collections import Counter
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
import wandb
from helpers import ROOT, StoppedAfter, Ticks, experiment, oho_bench, run_one, within_a_run, write_config
from typer.testing import CliRunner

from baselines.training import Training
from bench import launch as launching
from bench import runner
from bench.cli import app
from bench.config import load_experiment
from bench.data import DataError, load
from bench.launch import launch, plan
from bench.protocol import Split, Task
from bench.records import Status, StorageError, read_outcome, read_run, run_id
from bench.runner import run
from bench.signals import Interrupted
from bench.status import describe
from bench.tracking import NoSink, open_sink, read_back, unreachable
from reports.api import build_report
from reports.registry import FIGURES

PLACES = ("counted_seconds", "wall_seconds")
KEY = "s3cret" + "0" * 34


def mounted(*arguments):
    return subprocess.run(["mount", *map(str, arguments)], capture_output=True).returncode == 0


@contextlib.contextmanager
def small_disk(place, size):
    """A file system of its own, so that a full one is full for everybody, root included."""
    place.mkdir(parents=True, exist_ok=True)
    if not mounted("-t", "tmpfs", "-o", f"size={size}", "tmpfs", place):
        pytest.skip("mounting a small file system is not permitted here")
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", place], check=True)


@pytest.fixture
def disk(tmp_path):
    with small_disk(tmp_path / "disk", "256k") as place:
        yield place


def fill(disk, leave=0):
    """Takes all room but `leave` bytes, a multiple of a page."""
    with open(disk / "filler", "wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4096))
    os.truncate(disk / "filler", (disk / "filler").stat().st_size - leave)


def make_room(disk):
    (disk / "filler").unlink()


def timeless(folder):
    """The records of a run, clocks apart."""
    return [{k: v for k, v in record.items() if k not in PLACES} for record in read_run(folder).records]


def outcome_of(experiments, root, **options):
    return launch(experiments, plan(experiments, root), root, data_root=None, **options)


def command(*arguments, **options):
    """The command line in this process, which has imported all it needs."""
    words = [*map(str, arguments), *(["--in-process"] if arguments[0] == "run" else [])]
    return CliRunner().invoke(app, words, **options)


def the_line(answer, code):
    """What a command said: one line, and the exit code."""
    assert answer.exit_code == code, answer.stderr
    (line,) = [line for line in answer.stderr.splitlines() if line.startswith("oho-bench: ")]
    assert "Traceback" not in answer.stderr
    return line


def told(caplog):
    """Our own warnings: W&B logs things, too."""
    return [entry.message for entry in caplog.records if entry.name == "oho-bench"]


class Filling(NoSink):
    """A tracker in whose place something else happens at a record."""

    def __init__(self, act, at):
        self.act, self.at = act, at

    def record(self, record):
        if record["kind"] == "evaluation" and record["step"] == self.at:
            self.act()


# Disk full


def test_disk_full_among_the_records(tmp_path):
    config = write_config(tmp_path, "oho-global")
    words = ["run", config, "--set", "evaluations=200", "--set", "budget.steps=400", "--out"]
    with small_disk(tmp_path / "disk", "64k") as disk:
        line = the_line(command(*words, disk), 1)
        (folder,) = (path.parent for path in disk.glob("*/records.jsonl"))
        assert line.startswith(
            f"oho-bench: {folder}: cannot be written (No space left on device); what is recorded is kept"
        )
        kept = timeless(folder)
        assert len(kept) > 20
        assert "1 not finished" in describe(disk)
        assert mounted("-o", "remount,size=4m", disk)
        assert command(*words, disk).exit_code == 0
        assert command(*words, tmp_path / "whole").exit_code == 0
        again = timeless(folder)
        assert again == timeless(tmp_path / "whole" / folder.name)
        assert again[: len(kept)] == kept


def test_a_stop_whose_checkpoint_finds_the_disk_full_says_what_is_lost(tmp_path, disk, caplog):
    spec = experiment(tmp_path, "fixed").specs[0]
    fill(disk, leave=40_960)
    with pytest.raises(Interrupted):
        run_one(spec, disk, stopper=StoppedAfter(3))
    lost = "no checkpoint (No space left on device); what was done since the last one is made again"
    assert told(caplog) == [f"{disk / run_id(spec)}: {lost}"]


def test_a_disk_that_refuses_the_last_records_leaves_the_run_open(tmp_path, monkeypatch):
    spec = experiment(tmp_path, "fixed").specs[0]

    real = os.fsync

    def refuse(descriptor):
        if os.path.samestat(os.fstat(descriptor), records.stat()):
            raise OSError(errno.EDQUOT, "Disk quota exceeded")
        real(descriptor)

    records = tmp_path / run_id(spec) / "records.jsonl"
    records.parent.mkdir()
    records.touch()
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", refuse)
        with pytest.raises(StorageError, match=r"cannot be written \(Disk quota exceeded\)"):
            run_one(spec, tmp_path)
    assert read_run(tmp_path / run_id(spec)).outcome is None
    assert run_one(spec, tmp_path).status is Status.BUDGET_REACHED


def test_disk_full_at_a_checkpoint(tmp_path, disk, caplog):
    spec = experiment(tmp_path, "fixed").specs[0]
    fill(disk, leave=40_960)
    outcome = run_one(spec, disk, checkpoint_seconds=0.0)
    assert outcome.status is Status.BUDGET_REACHED
    assert told(caplog) == [f"{disk / run_id(spec)}: no checkpoint (No space left on device); the run goes on"]
    run_one(spec, tmp_path / "whole")
    assert timeless(disk / run_id(spec)) == timeless(tmp_path / "whole" / run_id(spec))
    assert {path.name for path in (disk / run_id(spec)).iterdir()} == {"spec.json", "records.jsonl", "outcome.json"}


def test_disk_full_at_the_outcome(tmp_path, disk):
    spec = experiment(tmp_path, "fixed").specs[0]
    with pytest.raises(StorageError, match="No space left on device"):
        run_one(spec, disk, sink=Filling(partial(fill, disk), at=60))
    kept = timeless(disk / run_id(spec))
    assert kept[-1]["step"] == 60
    assert read_outcome(disk / run_id(spec)) is None
    make_room(disk)
    assert run_one(spec, disk).status is Status.BUDGET_REACHED
    assert timeless(disk / run_id(spec)) == kept


def test_disk_full_at_the_plan(tmp_path, disk):
    config = write_config(tmp_path, "fixed")
    fill(disk)
    line = the_line(command("run", config, "--out", disk), 1)
    assert line.startswith(f"oho-bench: {disk}: cannot be written (No space left on device)")
    make_room(disk)
    assert command("run", config, "--out", disk).exit_code == 0
    assert "1 budget reached" in describe(disk)


def test_disk_full_under_the_files_of_the_tracker(tmp_path, caplog):
    spec = experiment(tmp_path, "fixed").specs[0]
    sink = partial(open_sink, mode="offline", project="test", experiment="small")
    with small_disk(tmp_path / "runs" / run_id(spec) / "wandb", "16k"):
        began = time.monotonic()
        outcome = run(spec, tmp_path / "runs", data_root=None, open_sink=sink)
        assert time.monotonic() - began < 30
        (file,) = (tmp_path / "runs").glob("*/wandb/offline-run-*/*.wandb")
        assert read_back(file) is None  # so that `oho-bench sync` writes it anew
    assert told(caplog) == []
    run_one(spec, tmp_path / "whole")
    assert outcome.status is Status.BUDGET_REACHED
    assert timeless(tmp_path / "runs" / run_id(spec)) == timeless(tmp_path / "whole" / run_id(spec))


# A folder that cannot be written


def test_a_folder_that_is_read_only_is_told_before_anything_runs(tmp_path, disk):
    config = write_config(tmp_path, "fixed")
    assert command("run", config, "--out", disk).exit_code == 0
    assert mounted("-o", "remount,ro", disk)
    line = the_line(command("run", config, "--out", disk, "--seeds", "0-1"), 2)
    assert line == f"oho-bench: --out {disk}: cannot be written (Read-only file system); choose another folder"
    assert "1 budget reached" in command("status", disk).stdout
    assert command("report", disk, "-o", tmp_path / "report.pdf").exit_code == 0
    assert mounted("-o", "remount,rw", disk)
    assert command("run", config, "--out", disk, "--seeds", "0-1").exit_code == 0


def test_a_folder_that_becomes_read_only_between_two_runs(tmp_path, disk, monkeypatch):
    """While a file is open for writing the system refuses the change, so that it falls between two runs."""
    claims, plain = [], launching.claimed

    def claimed(folder, **options):
        claims.append(folder)
        if len(claims) == 3:
            assert mounted("-o", "remount,ro", disk)
        return plain(folder, **options)

    monkeypatch.setattr(launching, "claimed", claimed)
    both = experiment(tmp_path, "fixed", seeds=[0, 1])
    kept = "what is recorded is kept; the same command goes on once it can be"
    with pytest.raises(StorageError, match=rf"cannot be written \(Read-only file system\); {kept}$"):
        outcome_of([both], disk)
    assert [folder.name for folder in claims] == ["experiments", *map(run_id, both.specs)]
    assert read_run(claims[1]).outcome.status is Status.BUDGET_REACHED
    assert mounted("-o", "remount,rw", disk)
    assert outcome_of([both], disk) == {Status.BUDGET_REACHED: 1}


def test_a_folder_that_is_removed_while_a_run_is_in_it(tmp_path):
    config, out = write_config(tmp_path, "fixed"), tmp_path / "runs"
    spec = experiment(tmp_path, "fixed").specs[0]
    with pytest.MonkeyPatch.context() as patch:
        plain = Training.advance

        def removes(method, state, **options):
            if state.step >= 30:
                shutil.rmtree(out, ignore_errors=True)
            return plain(method, state, **options)

        patch.setattr(Training, "advance", removes)
        line = the_line(command("run", config, "--out", out), 1)
    assert line == f"oho-bench: {out / run_id(spec)}: moved or removed while in use; the same command begins anew"
    assert command("run", config, "--out", out).exit_code == 0
    assert "1 budget reached" in describe(out)


# Data


def idx(array):
    """The format of MNIST's files."""
    head = bytes([0, 0, 8, array.ndim]) + b"".join(size.to_bytes(4, "big") for size in array.shape)
    return head + array.astype(np.uint8).tobytes()


def write_mnist(root, train=30, test=10):
    raw, random_numbers = root / "MNIST" / "raw", np.random.default_rng(0)
    raw.mkdir(parents=True)
    for part, count in (("train", train), ("t10k", test)):
        (raw / f"{part}-images-idx3-ubyte").write_bytes(idx(random_numbers.integers(0, 256, (count, 28, 28))))
        (raw / f"{part}-labels-idx1-ubyte").write_bytes(idx(np.arange(count) % 10))
    return raw


def cut(name, size):
    return lambda raw: os.truncate(raw / name, size)


def flip_a_byte(raw):
    path = raw / "train-images-idx3-ubyte"
    path.with_suffix(".gz").write_bytes(gzip.compress(path.read_bytes()))
    content = bytearray(path.read_bytes())
    content[5_000] ^= 255
    path.write_bytes(content)


def other_labels(raw):
    (raw / "t10k-labels-idx1-ubyte").write_bytes(idx(np.arange(10) + 3))


def fewer_labels(raw):
    (raw / "train-labels-idx1-ubyte").write_bytes(idx(np.arange(29) % 10))


DAMAGED = {
    "images cut": (cut("train-images-idx3-ubyte", 9_000), "training split: RuntimeError: shape "),
    "labels cut": (cut("t10k-labels-idx1-ubyte", 12), "test split: RuntimeError: shape "),
    "header cut": (cut("train-images-idx3-ubyte", 3), "training split: "),
    "empty file": (cut("train-labels-idx1-ubyte", 0), "training split: "),
    "a label too few": (fewer_labels, "training split: 30 images and 29 labels"),
    "labels out of range": (other_labels, "test split: a label is not one of 0 to 9"),
    "a flipped byte": (flip_a_byte, "it is not what train-images-idx3-ubyte.gz holds"),
}


@pytest.mark.parametrize("damage", DAMAGED)
def test_damaged_data_are_one_line_that_names_them(damage, tmp_path):
    act, words = DAMAGED[damage]
    raw = write_mnist(tmp_path)
    act(raw)
    with pytest.raises(DataError) as error:
        load("mnist", tmp_path)
    assert "\n" not in str(error.value)
    assert re.match(rf"{raw}[^:]*: damaged \({re.escape(words)}", str(error.value))
    assert str(error.value).endswith("; remove it, and the same command fetches it again")


def test_whole_data_in_small_files_are_read(tmp_path):
    raw = write_mnist(tmp_path)
    for path in sorted(raw.iterdir()):
        (raw / f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes()))
    train, test = load("mnist", tmp_path)
    assert (len(train.targets), len(test.targets)) == (30, 10)


OFFLINE = {"https_proxy": "http://127.0.0.1:9", "http_proxy": "http://127.0.0.1:9"}


def test_a_wrong_hash_is_told_apart_from_missing_data(tmp_path):
    """torchvision knows the hashes of CIFAR-10's files, looks at them each time, and would fetch them again."""
    words = ["data", "fetch", "cifar10", "--root", tmp_path]
    missing = the_line(command(*words, env=OFFLINE), 2)
    (tmp_path / "cifar-10-batches-py").mkdir()
    (tmp_path / "cifar-10-batches-py" / "data_batch_1").write_bytes(b"not what it was")
    damaged = the_line(command(*words, env=OFFLINE), 2)
    for _ in range(2):
        line = the_line(command("data", "fetch", "mnist", "--root", tmp_path, env=OFFLINE), 2)
        assert f"MNIST is not in {tmp_path} and cannot be downloaded (" in line
    assert not (tmp_path / "MNIST").exists()
    assert f"CIFAR10 is not in {tmp_path} and cannot be downloaded (" in missing
    assert f"CIFAR10 is incomplete or damaged in {tmp_path} and cannot be downloaded (" in damaged


# Memory


def write_too_large(folder, *methods, width=60_000):
    """A network of which one layer takes 14 GB."""
    folder.mkdir()
    path = write_config(folder, *methods)
    text = path.read_text().replace("experiment: small", "experiment: large")
    path.write_text(text.replace("selection_epochs: 1", f"selection_epochs: 1, width: {width}"))
    return path


def test_a_network_that_does_not_fit_fails_and_the_other_runs_go_on(tmp_path):
    def cap():
        resource.setrlimit(resource.RLIMIT_AS, (12 << 30, 12 << 30))

    configs = [write_too_large(tmp_path / "large", "fixed", "oho-full"), write_config(tmp_path, "fixed")]
    answer = oho_bench("run", *configs, "--out", tmp_path / "runs", preexec_fn=cap)
    assert answer.returncode == 1
    assert answer.stderr.splitlines()[-1] == f"oho-bench: 2 runs failed; `oho-bench status {tmp_path / 'runs'}` lists them"
    lines = describe(tmp_path / "runs").splitlines()
    assert lines[:2] == ["large: 2 runs: 2 failed", "small: 1 runs: 1 budget reached"]
    for line in lines[2:]:
        assert re.match(r"failed .+: RuntimeError: .*can't allocate memory: you tried to allocate 14400000000 bytes", line)


class Hoard:
    """Raises what CUDA's allocator does, after some steps, in runs of one seed; keeps an eye on what the run holds."""

    def __init__(self, seed, steps=20):
        self.seed, self.steps, self.seen, self.plain = seed, steps, [], Training.advance

    def advance(self, method, state, **options):
        if state.seed == self.seed and state.step >= self.steps:
            self.seen.append(weakref.ref(state.model))
            raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.\nGPU 0 is full.")
        return self.plain(method, state, **options)


def test_cuda_out_of_memory_is_a_failed_run_whose_memory_is_free_again(tmp_path, monkeypatch):
    hoard = Hoard(seed=1)
    monkeypatch.setattr(Training, "advance", lambda method, state, **options: hoard.advance(method, state, **options))
    held = []
    monkeypatch.setattr("bench.display.Display.start", lambda *arguments: held.append([seen() for seen in hoard.seen]))
    monkeypatch.setattr("bench.display.Display.end", lambda *arguments: None)
    gc.disable()  # what only a search for cycles would free is not free when the next run begins
    try:
        counts = outcome_of([experiment(tmp_path, "adam", seeds=[0, 1, 2])], tmp_path / "runs")
    finally:
        gc.enable()
    assert counts == {Status.BUDGET_REACHED: 2, Status.FAILED: 1}
    assert held[2] == [None]
    (line,) = [line for line in describe(tmp_path / "runs").splitlines() if line.startswith("failed")]
    assert line.endswith(": torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 20.00 GiB. GPU 0 is full.")


# Numbers that are not finite

TRAINED = [
    "fixed", "oho-global", "oho-layerwise", "oho-full", "oho-default", "oho-published", "random-search", "bayesian-search",
    "tpe-search", "gp-search", "cma-search", "population",
]  # fmt: skip


def break_data(number):
    """One number of one training example."""

    def act(monkeypatch):
        def broken(spec, device, root):
            task, test = plain(spec, device, root)
            inputs = task.train.inputs.clone()
            inputs[7, 20] = number
            return replace(task, train=Split(inputs, task.train.targets)), test

        plain = runner.task_of
        monkeypatch.setattr(runner, "task_of", broken)

    return act


def break_loss(monkeypatch):
    """The value of the training loss."""
    plain = Task.training_loss
    monkeypatch.setattr(Task, "training_loss", lambda *arguments: plain(*arguments) * float("nan"))


def without_slope(model):
    """Zero, with a gradient that is not finite."""
    return torch.sqrt(0 * next(model.parameters()).sum())


def break_gradient(monkeypatch):
    """The gradient of a training loss whose value is finite."""
    plain = Task.training_loss
    monkeypatch.setattr(Task, "training_loss", lambda self, model, batch: plain(self, model, batch) + without_slope(model))


def break_hypergradient(monkeypatch):
    """The gradient of a validation loss whose value is finite; training and selection go by losses of their own."""
    plain = Task.validation_loss
    monkeypatch.setattr(Task, "training_loss", plain)
    monkeypatch.setattr(
        Task, "validation_loss", lambda self, model, batch: plain(self, model, batch) + without_slope(model)
    )


BREAKS = {
    "NaN in the data": break_data(float("nan")), "infinity in the data": break_data(float("inf")),
    "loss": break_loss, "gradient": break_gradient, "hypergradient": break_hypergradient,
}  # fmt: skip


def is_search(name):
    return name.endswith("search") or name == "population"


@pytest.mark.parametrize("broken", BREAKS)
@pytest.mark.parametrize("name", TRAINED)
def test_what_is_not_finite_is_a_result(name, broken, tmp_path, monkeypatch):
    BREAKS[broken](monkeypatch)
    spec = experiment(tmp_path, name).specs[0]
    outcome = run_one(spec, tmp_path)
    found = read_run(tmp_path / run_id(spec))
    goes_on = is_search(name) or (broken == "hypergradient" and name != "oho-published")
    assert outcome.status is (Status.BUDGET_REACHED if goes_on else Status.DIVERGED), outcome.message
    assert found.incumbents[-1]["validation_loss"] < 3  # the untrained model, at the worst
    if is_search(name) and broken != "hypergradient":
        assert {trial["status"] for trial in found.trials} <= {"diverged", "cut"}
    if broken == "hypergradient" and name.startswith("oho") and name != "oho-published":
        assert found.evaluations[-1]["scalars"]["skipped_hypergradient"] == 60


# Methods that raise


@pytest.mark.parametrize("part", ["init", "advance", "incumbent", "scalars"])
@pytest.mark.parametrize(("calls", "error"), [(0, ZeroDivisionError), (1, ZeroDivisionError), (1, SystemExit)])
def test_a_method_that_raises_is_one_failed_run(part, calls, error, tmp_path, monkeypatch):
    plain, count = getattr(Training, part), Counter()

    def broken(self, *arguments, **options):
        count[part] += self.options.lr == 0.125
        if self.options.lr == 0.125 and count[part] > calls:
            raise error(f"{part} is broken")
        return plain(self, *arguments, **options)

    monkeypatch.setattr(Training, part, broken)
    path = write_config(tmp_path, "fixed", "adam", "step")
    path.write_text(path.read_text().replace("{name: adam}", "{name: adam, lr: 0.125}"))
    counts = outcome_of([load_experiment(path, figures=FIGURES)], tmp_path / "runs")
    assert counts == {Status.BUDGET_REACHED: 2, Status.FAILED: 1}
    (line,) = [line for line in describe(tmp_path / "runs").splitlines() if line.startswith("failed")]
    assert line.endswith(f": {error.__name__}: {part} is broken")


# Trackers


@pytest.fixture
def unreachable_server(tmp_path):
    """Real W&B, and an address of the block that is kept free for documentation."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WANDB_BASE_URL", "http://192.0.2.1")
        patch.setenv("NETRC", str(tmp_path / "none"))
        patch.setattr("bench.tracking.TIMEOUT_SECONDS", 5)
        wandb.teardown()  # it remembers the server
        yield patch
    wandb.teardown()
    unreachable.clear()


def tracked(spec, folder, mode="offline"):
    began = time.monotonic()
    sink = partial(open_sink, mode=mode, project="test", experiment="small")
    outcome = run(spec, folder, data_root=None, open_sink=sink)
    return outcome, time.monotonic() - began


def raises(*arguments, **options):
    raise ConnectionError("the tracker\nis broken")


def hangs(*arguments, **options):
    time.sleep(3600)


def exits(*arguments, **options):
    sys.exit(3)


@pytest.mark.parametrize("part", ["_open", "_log_evaluation", "_finish"])
@pytest.mark.parametrize(
    ("act", "words"),
    [
        (raises, "ConnectionError: the tracker is broken"), (hangs, "no answer in 2 s"), (exits, "SystemExit: 3"),
    ],
)  # fmt: skip
def test_a_broken_tracker_costs_one_warning_and_one_time_out(part, act, words, tmp_path, monkeypatch, caplog):
    if act is hangs:
        monkeypatch.setattr("bench.tracking.TIMEOUT_SECONDS", 2)
    monkeypatch.setattr(f"bench.tracking.WandbSink.{part}", act)
    spec = experiment(tmp_path, "fixed").specs[0]
    outcome, _ = tracked(spec, tmp_path / "runs")
    run_one(spec, tmp_path / "whole")
    assert outcome.status is Status.BUDGET_REACHED
    assert timeless(tmp_path / "runs" / run_id(spec)) == timeless(tmp_path / "whole" / run_id(spec))
    assert told(caplog) == [f"run {run_id(spec)} is no longer tracked by W&B ({words}); its records are complete"]
    assert sum(outcome.accounts.values()) == pytest.approx(outcome.wall_seconds)
    assert outcome.accounts["tracking"] >= (2 if act is hangs and part != "_finish" else 0)


def test_a_slow_tracker_is_on_its_own_account(tmp_path, monkeypatch):
    monkeypatch.setattr("bench.tracking.WandbSink._log_evaluation", lambda *arguments: time.sleep(0.05))
    outcome, _ = tracked(experiment(tmp_path, "fixed").specs[0], tmp_path)
    assert outcome.accounts["tracking"] > 7 * 0.05
    assert outcome.counted_seconds < 0.5 * outcome.accounts["tracking"]


def children(process):
    path = Path(f"/proc/{process}/task/{process}/children")
    return [int(child) for child in path.read_text().split()]


def test_a_tracker_whose_process_is_stopped(tmp_path, monkeypatch, caplog):
    """The process that W&B writes its files in no longer answers."""
    monkeypatch.setattr("bench.tracking.TIMEOUT_SECONDS", 1)
    spec = experiment(tmp_path, "fixed").specs[0]
    tracked({**spec, "seed": 7}, tmp_path)
    helpers = [child for child in children(os.getpid()) if "wandb" in Path(f"/proc/{child}/cmdline").read_text()]
    for helper in helpers:
        os.kill(helper, signal.SIGSTOP)
    try:
        outcome, seconds = tracked(spec, tmp_path)
    finally:
        for helper in helpers:
            os.kill(helper, signal.SIGCONT)
    assert helpers
    assert outcome.status is Status.BUDGET_REACHED
    assert len(told(caplog)) == 1
    assert seconds < 5


@pytest.mark.parametrize(("key", "words"), [("", "UsageError: "), (KEY, "no answer in 5 s")])
def test_without_network_tracking_falls_back_to_files_once(key, words, tmp_path, caplog, unreachable_server):
    specs = experiment(tmp_path, "fixed", seeds=[0, 1, 2]).specs
    with unreachable_server.context() as patch:
        patch.setenv("WANDB_API_KEY", key)
        outcomes = [tracked(spec, tmp_path / "runs", "online") for spec in specs]
    assert [outcome.status for outcome, _ in outcomes] == [Status.BUDGET_REACHED] * 3
    (warning,) = told(caplog)
    assert warning.startswith(f"W&B cannot be reached ({words}")
    assert warning.endswith("); runs are kept offline, for `oho-bench sync`")
    assert outcomes[0][0].accounts["tracking"] < 8
    assert max(outcome.accounts["tracking"] for outcome, _ in outcomes[1:]) < 2
    assert len(list((tmp_path / "runs").glob("*/wandb/offline-run-*/*.wandb"))) == 3


# Clocks and signals


def test_a_system_clock_that_is_set_moves_no_second_of_the_ledger(tmp_path, monkeypatch):
    spec = {**experiment(tmp_path, "random-search").specs[0], "budget": {"unit": "seconds", "amount": 0.5}}
    steady = run_one(spec, tmp_path / "steady", now=Ticks())
    jumps = random.Random(0)
    monkeypatch.setattr("time.time", lambda: jumps.uniform(0, 4e9))
    jumping = run_one(spec, tmp_path / "jumping", now=Ticks())
    assert jumping.accounts == steady.accounts
    assert read_run(tmp_path / "jumping" / run_id(spec)).records == read_run(tmp_path / "steady" / run_id(spec)).records
    assert any(re.fullmatch(r"the clock jumped by -?\S+ s", reason) for reason in jumping.invalid_because)


LONG_STEP = """\
import torch
from bench.signals import Stopper
torch.set_num_threads(1)
square = torch.zeros(5_000, 5_000)
stopper = Stopper()
with stopper.listening(), stopper.patience():
    print("working", flush=True)
    square @ square
    stopper.check()
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_second_signal_leaves_at_once_within_a_long_step(number, tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-c", LONG_STEP], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, cwd=ROOT
    )
    process.stdout.readline()
    for _ in range(2):
        time.sleep(0.5)
        process.send_signal(number)
    asked = time.monotonic()
    assert process.wait(60) == 128 + number
    assert time.monotonic() - asked < 2


def test_two_signals_leave_at_once_and_the_same_command_goes_on(tmp_path):
    config, out = write_config(tmp_path, "oho-full"), tmp_path / "runs"
    words = ["run", config, "--out", out, "--set", "budget.steps=800"]
    process = subprocess.Popen([sys.executable, "-m", "bench.cli", *map(str, words)], stderr=subprocess.PIPE, cwd=ROOT)
    within_a_run(out, records=3)
    process.send_signal(signal.SIGTERM)
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    asked = time.monotonic()
    assert process.wait(60) in (130, 143)
    assert time.monotonic() - asked < 2
    process.stderr.close()
    assert command(*words).exit_code == 0
    assert "1 budget reached" in describe(out)


# Folders of other versions


def rewritten(root, **changes):
    for path in root.glob("*/outcome.json"):
        path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


ASKING = {
    "status": ["status", "OUT"], "report": ["report", "OUT", "-o", "OUT.pdf"],
    "replay": ["replay", "OUT", "--budget", "30"],
    "run": ["run", "CONFIG", "--out", "OUT"],
}  # fmt: skip


@pytest.mark.parametrize("asked", ASKING)
def test_a_folder_of_another_schema_is_one_line(asked, tmp_path):
    config, out = write_config(tmp_path, "fixed"), tmp_path / "runs"
    assert command("run", config, "--out", out).exit_code == 0
    rewritten(out, schema=99)
    words = [word.replace("CONFIG", str(config)).replace("OUT", str(out)) for word in ASKING[asked]]
    (path,) = out.glob("*/outcome.json")
    line = the_line(command(*words), 2)
    assert line == f"oho-bench: {path}:1:1: schema 99, this version reads 2; run it again into another folder"


def test_a_folder_of_another_protocol_takes_no_run_of_this_one(tmp_path):
    config, out = write_config(tmp_path, "fixed"), tmp_path / "runs"
    assert command("run", config, "--out", out).exit_code == 0
    rewritten(out, protocol=1)
    line = the_line(command("run", config, "--out", out, "--seeds", "0-1"), 2)
    assert line == (
        f"oho-bench: --out {out}: holds runs of protocol 1, and this version measures by protocol 2; choose another folder"
    )
    assert command("run", config, "--out", out, "--seeds", "1").exit_code == 0
    mixed = "runs of protocols [1, 2] cannot be compared"
    assert the_line(command("report", out, "-o", tmp_path / "a.pdf"), 2).startswith(f"oho-bench: {out}: {mixed}")
    assert the_line(command("replay", out, "--budget", "30"), 2) == f"oho-bench: {out}: {mixed}"
    assert command("status", out).stdout.splitlines()[-1] == f"{mixed}; use one folder for each"


# Privacy


def everything_in(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_neither_secrets_nor_the_home_folder_are_recorded(tmp_path):
    """A run that succeeds and one whose traceback goes through files below the home folder, tracked, and their report."""
    secrets = {"WANDB_API_KEY": KEY, "DATABASE_PASSWORD": "hunter2hunter2", "HOME": str(ROOT)}
    out = tmp_path / "runs"
    with pytest.MonkeyPatch.context() as patch:
        for name, value in secrets.items():
            patch.setenv(name, value)
        spec = experiment(tmp_path, "fixed").specs[0]
        tracked(spec, out)
        hoard = Hoard(seed=1)
        patch.setattr(Training, "advance", lambda method, state, **options: hoard.advance(method, state, **options))
        failing = experiment(tmp_path, "fixed", seeds=[0, 1])
        assert outcome_of([failing], out) == {Status.FAILED: 1}
        build_report(out, tmp_path / "report.pdf")
    message = read_outcome(out / run_id({**spec, "seed": 1})).message
    assert 'File "~/bench/runner.py", line' in message
    if shutil.which("pdftotext"):  # of poppler
        subprocess.run(["pdftotext", tmp_path / "report.pdf", out / "report.txt"], check=True)
    shutil.copy(tmp_path / "report.html", out)
    found = everything_in(out)
    assert len(found) > 10
    for path, content in found.items():
        assert KEY.encode() not in content, path
        assert b"hunter2" not in content, path
        assert f"{ROOT}/".encode() not in content, path


# Many runs


def resident():
    """Bytes of this process that are in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_two_thousand_runs_leave_nothing_behind(tmp_path, monkeypatch, capsys):
    overrides = ["budget.steps=3", "evaluations=1"]
    many = experiment(tmp_path, "fixed", "oho-global", "random-search", "population", overrides=overrides, seeds=range(500))
    seen = []
    plain = launching.run

    def watched(*arguments, **options):
        outcome = plain(*arguments, **options)
        seen.append((resident(), len(list(Path("/proc/self/fd").iterdir()))))
        return outcome

    monkeypatch.setattr(launching, "run", watched)
    assert outcome_of([many], tmp_path / "runs").total() == 2_000
    began = time.monotonic()
    assert "2000 runs: 2000 budget reached" in describe(tmp_path / "runs")
    seconds = time.monotonic() - began
    memory, files = zip(*seen, strict=True)
    with capsys.disabled():
        print(f"\nresident after 200, 1,000, 2,000 runs: {[memory[n - 1] >> 20 for n in (200, 1_000, 2_000)]} MiB;"
              f" open files {files[199]}, {files[-1]}; status {seconds:.2f} s")  # fmt: skip
    assert max(memory[200:]) < 1.05 * memory[199]
    assert files[-1] == files[199]
    assert seconds < 1
