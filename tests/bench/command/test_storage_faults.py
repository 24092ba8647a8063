"""A disk that is full, a folder that cannot be written, one of another version: docs/reliability.md, word for word."""

import contextlib
import errno
import json
import os
import shutil
import subprocess
import time
from functools import partial

import pytest
from faults import command, outcome_of, the_line, timeless, told
from helpers import StoppedAfter, Ticks, experiment, run_one, write_config

from baselines.training import Training
from bench.command import one_run as launching
from bench.command import run_series
from bench.command.status import describe
from bench.process.signals import Interrupted
from bench.records import Status, StorageError, read_outcome, read_run, run_id
from bench.run.runner import run
from bench.tracking.transcripts import read_back
from bench.tracking.wandb_sink import NoSink, open_sink


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


class Filling(NoSink):
    """A tracker in whose place something else happens at a record."""

    def __init__(self, act, at):
        self.act, self.at = act, at

    def record(self, record):
        if record["kind"] == "evaluation" and record["step"] == self.at:
            self.act()


def test_disk_full_among_the_records(tmp_path):
    config = write_config(tmp_path, "fixed")
    words = ["run", config, "--set", "evaluations=100", "--set", "budget.steps=200", "--out"]
    with small_disk(tmp_path / "disk", "48k") as disk:
        line = the_line(command(*words, disk), 1)
        (folder,) = (path.parent for path in disk.glob("*/records.jsonl"))
        assert line.startswith(
            f"oho-bench: {folder}: cannot be written (No space left on device); all records are kept"
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
    lost = "no checkpoint (No space left on device); the work since the last one will be repeated"
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
    assert told(caplog) == [f"{disk / run_id(spec)}: no checkpoint (No space left on device); the run continues"]
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
    assert command("figure", "distribution", disk, "-o", tmp_path / "figure.pdf").exit_code == 0
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

    for module in (run_series, launching):
        monkeypatch.setattr(module, "claimed", claimed)
    both = experiment(tmp_path, "fixed", overrides=["population=off"], seeds=[0, 1])
    kept = "all records are kept; repeat the command once the folder is writable"
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
    assert line == (
        f"oho-bench: {out / run_id(spec)}: moved or removed while in use; put it back and repeat the command to continue,"
        " or repeat it to start again"
    )
    assert command("run", config, "--out", out).exit_code == 0
    assert "1 budget reached" in describe(out)


@pytest.mark.parametrize("again", [False, True], ids=["moved", "moved and made again"])
def test_a_folder_that_is_moved_away_stops_its_run_at_once(again, tmp_path):
    """Long before the next record; what is made at the old place is not taken for it."""
    spec = experiment(tmp_path, "fixed", overrides=["evaluations=1"]).specs[0]
    out, steps, plain = tmp_path / "runs", [], Training.advance

    def moves(method, state, **options):
        steps.append(state.step)
        if state.step >= 10 and out.exists() and not (tmp_path / "moved").exists():
            out.rename(tmp_path / "moved")
            if again:
                shutil.copytree(tmp_path / "moved", out)
        return plain(method, state, **{**options, "steps": 1})

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Training, "advance", moves)
        with pytest.raises(StorageError, match="moved or removed while in use; put it back and repeat the"):
            run_one(spec, out, now=Ticks(0.02))
    assert max(steps) < 20
    assert out.exists() == again
    if again:
        shutil.rmtree(out)
    (tmp_path / "moved").rename(out)
    assert run_one(spec, out).status is Status.BUDGET_REACHED


def test_a_folder_that_is_moved_away_between_two_runs_is_not_made_again(tmp_path, monkeypatch):
    overrides = ["budget.steps=10", "population=off"]
    both, out = experiment(tmp_path, "fixed", overrides=overrides, seeds=[0, 1]), tmp_path / "runs"
    plain = launching.run

    def moves(*arguments, **options):
        outcome = plain(*arguments, **options)
        out.rename(tmp_path / "moved")
        return outcome

    monkeypatch.setattr(launching, "run", moves)
    with pytest.raises(StorageError, match=rf"{out}: moved or removed while in use"):
        outcome_of([both], out)
    assert not out.exists()
    assert "1 budget reached, 1 not finished" in describe(tmp_path / "moved")


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
    assert line == f"oho-bench: {path}:1:1: has schema 99, but this version reads 2 and 3; use another folder"


def test_a_folder_of_another_protocol_takes_no_run_of_this_one(tmp_path):
    config, out = write_config(tmp_path, "fixed"), tmp_path / "runs"
    assert command("run", config, "--out", out).exit_code == 0
    rewritten(out, protocol=1)
    line = the_line(command("run", config, "--out", out, "--seeds", "0-1"), 2)
    assert line == (
        f"oho-bench: --out {out}: holds runs of protocol 1, and this version measures by protocol 3; choose another folder"
    )
    assert command("run", config, "--out", out, "--seeds", "1").exit_code == 0
    mixed = "runs of protocols [1, 3] cannot be compared"
    assert the_line(command("report", out, "-o", tmp_path / "a.pdf"), 2).startswith(f"oho-bench: {out}: {mixed}")
    assert the_line(command("replay", out, "--budget", "30"), 2) == f"oho-bench: {out}: {mixed}"
    assert command("status", out).stdout.splitlines()[-1] == f"{mixed}; use one folder for each"
