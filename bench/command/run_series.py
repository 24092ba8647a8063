"""Makes runs one after another in this process, so that a device has one timed run at a time."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import torch

from bench.command.batches import Together
from bench.command.handover import Journal
from bench.command.one_run import Assignment, Turn, make
from bench.command.planning import Planned, check_methods, write_plan
from bench.command.progress import Display
from bench.command.work import Work
from bench.experiment.expansion import Experiment
from bench.experiment.yaml_file import ConfigError
from bench.process.run_lock import claimed
from bench.process.signals import Stopper
from bench.protocol.checkpoints import discard_checkpoint, has_checkpoint
from bench.records import Status, read_outcome
from bench.records.errors import DeviceLostError
from bench.records.files import FULL, storing
from bench.run.disturbances import is_answering


def launch(experiments: Sequence[Experiment], planned: Sequence[Planned], root: Path, *, data_root: Path | None,
           journal: Journal | None = None) -> Counter[Status]:  # fmt: skip
    """Makes the planned runs that are not done yet, and returns how many of them ended in each status.

    The journal notes what has been done.

    Raises:
        DeviceLostError: after a run that failed and left the GPU unusable.
    """
    journal = journal or Journal.new()
    todo = prepare_runs(experiments, planned, root, data_root=data_root, journal=journal)
    return make_in_turn(todo, root, data_root=data_root, journal=journal)


def make_in_turn(todo: Sequence[Planned], root: Path, *, data_root: Path | None, journal: Journal) -> Counter[Status]:
    """Makes runs whose folder is prepared, one after another, and returns how many of them ended in each status."""
    parent = journal.last("parent")
    stopper, before = Stopper(int(parent) if parent else None), len(journal.tried)
    with stopper.listening(), Display([item.spec for item in todo], before) as display:
        work = Work(root, root.stat(), data_root, journal, stopper, display)
        waiting, series = Together(work).make(list(enumerate(todo, start=before + 1))), _Series(work)
        while taken := [(number, item) for number, item in waiting if not series.take(number, item)]:
            if len(taken) == len(waiting):  # the runners that took them are working on them
                for number, item in taken:
                    display.skip(number, item.spec)
                break
            waiting = taken
        stopper.check()  # a signal may have come at the end of the last run
    return work.counts


def prepare_runs(experiments: Sequence[Experiment], planned: Sequence[Planned], root: Path, *, data_root: Path | None,
                 journal: Journal) -> list[Planned]:  # fmt: skip
    """Prepares the results folder, checks the methods, writes the plans, and returns the runs that are not done yet."""
    with storing(root):
        prepare(root)
        for item in planned:
            _tidy(root / item.id, item)
    todo = [item for item in planned if not item.is_done]
    check_methods(todo, data_root, journal)
    with storing(root), claimed(root / "experiments", wait=True):
        for experiment in experiments:
            write_plan(experiment, root)
    return todo


class _Series:
    """Makes runs one after another."""

    def __init__(self, work: Work):
        self.work = work

    def take(self, number: int, item: Planned) -> bool:
        """Makes a run unless another runner has made it meanwhile.  Returns False if one is working on it."""
        self.work.pause()
        with self.work.turn(item) as whose:
            if whose is Turn.OURS:
                self.make(number, item)
        return whose is not Turn.TAKEN

    def make(self, number: int, item: Planned) -> None:
        """Makes a run that this process has claimed."""
        work = self.work
        work.display.start(number, item.spec)
        with work.journal.within(item.id, item.since):
            outcome = make(
                Assignment.of(item), work.root, data_root=work.data_root, stopper=work.stopper,
                progress=work.display.progress,
            )  # fmt: skip
        work.journal.note("tried", item.id)
        work.display.end(outcome)
        work.counts[outcome.status] += 1
        if outcome.status is Status.FAILED and not is_answering(torch.device(item.spec["device"])):
            what = "it left the GPU unusable to its process; a new process can continue"
            raise DeviceLostError(f"{work.root / item.id}: {what}")


def _tidy(folder: Path, item: Planned) -> None:
    """Removes a checkpoint that is not to be continued: a process was killed just after it wrote an outcome, or the run is
    void and starts over."""
    outcome = item.outcome
    if outcome is not None and (outcome.status.is_result or item.starts_over) and has_checkpoint(folder):
        with claimed(folder) as is_ours:
            if is_ours and read_outcome(folder) == outcome:
                discard_checkpoint(folder)


def prepare(root: Path) -> None:
    """Makes a results folder; raises `ConfigError` if it cannot be one."""
    for folder in (root, root / "experiments"):
        if folder.exists() and not folder.is_dir():
            raise ConfigError(f"--out {root}: {folder} is not a folder; choose another one")
    try:
        root.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=root).close()
    except OSError as error:
        if error.errno in FULL:
            raise
        raise ConfigError(f"--out {root}: cannot be written ({error.strerror}); choose another folder") from None
