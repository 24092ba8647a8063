"""Runs experiments one after another in this process: one timed run on a device at a time."""

from __future__ import annotations

import json
import logging
import tempfile
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import torch

from bench.claim import claimed
from bench.conditions import is_answering
from bench.config import Experiment, Spec
from bench.display import Display
from bench.environment import describe_environment
from bench.errors import DeviceLostError
from bench.journal import NEVER, Journal
from bench.json_files import FULL, storing, write_json
from bench.method_registry import METHODS
from bench.online import InitialOptions
from bench.protocol import Task
from bench.records import (
    PROTOCOL,
    Manifest,
    Outcome,
    Status,
    is_damaged,
    read_manifests,
    read_outcome,
    read_run,
    run_id,
    write_manifest,
    write_outcome,
)
from bench.runner import run
from bench.saving import discard_checkpoint, has_checkpoint
from bench.signals import Stopper
from bench.spec import method_of, set_threads, task_of
from bench.supervisor import death_by
from bench.tracking import open_sink
from bench.yaml_file import ConfigError

log = logging.getLogger("oho-bench")


@dataclass(frozen=True)
class Planned:
    """One run that an experiment asks for, and how it had ended.  `is_done` when its folder already holds a result."""

    experiment: Experiment
    spec: Spec
    id: str
    outcome: Outcome | None
    is_done: bool


def plan(experiments: Sequence[Experiment], root: Path, *, again_invalid: bool = False, tried: Collection[str] = ()
         ) -> list[Planned]:  # fmt: skip
    """Every run once, in order; a run that two experiments share belongs to the first.

    With `again_invalid` a run whose clock was disturbed is not done.  What this command has `tried` is, however it ended.
    """
    planned: dict[str, Planned] = {}
    for experiment in experiments:
        for spec in experiment.specs:
            identity = run_id(spec)
            if identity not in planned:
                outcome = read_outcome(root / identity)
                _check_protocol(outcome, root)
                done = outcome is not None and outcome.status.is_result and (outcome.valid or not again_invalid)
                if done and identity not in tried and is_damaged(root / identity, outcome):
                    log.warning("%s: files of this ended run are gone or cut; it runs again", root / identity)
                    done = False
                planned[identity] = Planned(experiment, spec, identity, outcome, done or identity in tried)
    return list(planned.values())


def _check_protocol(outcome: Outcome | None, root: Path) -> None:
    if outcome is not None and outcome.protocol != PROTOCOL:
        raise ConfigError(
            f"--out {root}: holds runs of protocol {outcome.protocol}, and this version measures by protocol {PROTOCOL};"
            " choose another folder"
        )


def launch(experiments: Sequence[Experiment], planned: Sequence[Planned], root: Path, *, data_root: Path | None,
           journal: Journal | None = None) -> Counter[Status]:  # fmt: skip
    """Runs what is planned and not done yet, and returns how many of those runs ended in each status.

    Notes in the journal what it does.

    Raises:
        DeviceLostError: after a run whose end has left the GPU unusable; the run has failed.
    """
    journal = journal or Journal.new()
    with storing(root):
        _prepare(root)
        for item in planned:
            _tidy(root / item.id, item.outcome)
    todo = [item for item in planned if not item.is_done]
    _check_methods(todo, data_root, journal)
    with storing(root), claimed(root / "experiments", wait=True):
        for experiment in experiments:
            _write_plan(experiment, root)
    stopper, before = Stopper(), len(journal.tried)
    with stopper.listening(), Display([item.spec for item in todo], before) as display:
        series = _Series(root, data_root, journal, stopper, display)
        waiting = list(enumerate(todo, start=before + 1))
        while taken := [(number, item) for number, item in waiting if not series.take(number, item)]:
            if len(taken) == len(waiting):  # those who took them are at work
                for number, item in taken:
                    display.skip(number, item.spec)
                break
            waiting = taken
        stopper.check()  # a signal in the last run's end
    return series.counts


@dataclass
class _Series:
    """The runs of one call of `launch`, and how many of them ended in each status."""

    root: Path
    data_root: Path | None
    journal: Journal
    stopper: Stopper
    display: Display
    counts: Counter[Status] = field(default_factory=Counter)

    def take(self, number: int, item: Planned) -> bool:
        """Makes a run, unless another runner has made it meanwhile.  False where one is at it."""
        self.stopper.check()
        with storing(self.root), claimed(self.root / item.id) as is_ours:
            if is_ours and not _has_ended_meanwhile(item, read_outcome(self.root / item.id)):
                self.make(number, item)
        return is_ours

    def make(self, number: int, item: Planned) -> None:
        """The run is ours."""
        tracking = item.experiment.tracking
        sink = partial(open_sink, mode=tracking.mode, project=tracking.project, experiment=item.experiment.name)
        self.display.start(number, item.spec)
        with self.journal.within(item.id, moment_of(item.outcome)):
            outcome = run(
                item.spec, self.root, data_root=self.data_root, open_sink=sink, progress=self.display.progress,
                stopper=self.stopper,
            )  # fmt: skip
        self.journal.note("tried", item.id)
        self.display.end(outcome)
        self.counts[outcome.status] += 1
        if outcome.status is Status.FAILED and not is_answering(torch.device(item.spec["device"])):
            raise DeviceLostError(f"{self.root / item.id}: it left the GPU unusable to its process; a new one can go on")


def _tidy(folder: Path, outcome: Outcome | None) -> None:
    """Removes what a process left that was killed between the outcome and its end."""
    if has_checkpoint(folder) and outcome is not None and outcome.status.is_result:
        with claimed(folder) as is_ours:
            if is_ours and read_outcome(folder) == outcome:
                discard_checkpoint(folder)


def book_killed(planned: Sequence[Planned], root: Path, journal: Journal) -> list[Planned]:
    """A run in which a process died by a signal has failed.  Its records and its checkpoint stay: it can go on.

    Returns what is planned, with these outcomes.
    """
    unsettled = journal.unsettled
    found = []
    for item in planned:
        if item.id in unsettled:
            item = replace(item, outcome=_book(item, root / item.id, unsettled[item.id], journal.since(item.id)))
            journal.note("settled", item.id)
        found.append(item)
    return found


def _book(item: Planned, folder: Path, number: int, since: str) -> Outcome | None:
    with storing(folder), claimed(folder) as is_ours:
        outcome = read_outcome(folder)
        if not is_ours or moment_of(outcome) not in (NEVER, since):  # another runner has taken it over
            return outcome
        write_json(folder / "spec.json", item.spec)
        run = read_run(folder)
        last = {"step": 0, "counted_seconds": 0.0, "wall_seconds": 0.0, **(run.records[-1] if run.records else {})}
        environment = describe_environment(torch.device(item.spec["device"]), set_threads(item.spec), data=None)
        outcome = Outcome(
            Status.FAILED, death_by(number), last["step"], len(run.trials), last["counted_seconds"],
            last["wall_seconds"], accounts={}, final={}, environment=environment,
        )  # fmt: skip
        write_outcome(folder, outcome)
        return outcome


def moment_of(outcome: Outcome | None) -> str:
    """When a run ended."""
    return outcome.environment["finished"] if outcome else NEVER


def _has_ended_meanwhile(item: Planned, outcome: Outcome | None) -> bool:
    """Whether another runner has ended the run since it was planned; one that was only stopped there is free to go on."""
    return outcome is not None and outcome != item.outcome and outcome.status is not Status.INTERRUPTED


def _write_plan(experiment: Experiment, root: Path) -> None:
    """An older plan of the same name that differs in its seeds alone is added to; any other is replaced, which is said."""
    runs, resolved = [run_id(spec) for spec in experiment.specs], dict(experiment.resolved)
    older = next((plan for plan in read_manifests(root) if plan.experiment == experiment.name), None)
    if older is not None:
        if {**older.config, "seeds": resolved["seeds"]} == resolved:
            runs = [*older.runs, *runs]
            resolved["seeds"] = sorted({*older.config["seeds"], *resolved["seeds"]})
        elif left := set(older.runs) - set(runs):
            log.warning(
                "%s: %d of the older plan's runs of experiment %r stay in the folder but are in no figure any more; another"
                " `experiment:` name or --out keeps both", root, len(left), experiment.name,
            )  # fmt: skip
    project = experiment.tracking.project
    write_manifest(root, Manifest(experiment.name, experiment.figures, resolved, tuple(dict.fromkeys(runs)), project))


def _check_methods(todo: Sequence[Planned], data_root: Path | None, journal: Journal) -> None:
    """Makes each online method on each task once, so that sets which do not fit the network are told before anything runs.

    What else methods raise is their runs' affair.
    """
    tasks: dict[str, Task] = {}
    seen: set[str] = set()
    for item in todo:
        spec = item.spec
        key = json.dumps([spec["task"], spec["method"]], sort_keys=True)
        if key in seen or not issubclass(METHODS[spec["method"]["name"]].options, InitialOptions):
            continue
        seen.add(key)
        method = method_of(spec)
        name = json.dumps(spec["task"], sort_keys=True)
        if name not in tasks:
            tasks[name] = task_of(spec, torch.device("cpu"), data_root)[0]
        try:
            with journal.within(item.id, moment_of(item.outcome)):  # what does not fit the memory here would not fit there
                method.init(tasks[name], spec["seed"])
        except ValueError as error:
            raise ConfigError(f"method {spec['method']['label']!r} on {spec['task']['name']}: {error}") from None
        except Exception:
            continue  # no mistake of the user's, such as a network that does not fit the memory: its runs tell it


def _prepare(root: Path) -> None:
    try:
        root.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=root).close()
    except OSError as error:
        if error.errno in FULL:
            raise
        raise ConfigError(f"--out {root}: cannot be written ({error.strerror}); choose another folder") from None
