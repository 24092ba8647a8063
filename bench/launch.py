"""Runs experiments one after another in this process: one timed run on a device at a time."""

from __future__ import annotations

import json
import logging
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from bench.claim import claimed
from bench.config import ConfigError, Experiment, Spec
from bench.display import Display
from bench.environment import describe_environment
from bench.json_files import FULL, storing
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
from bench.signals import Stopper
from bench.spec import method_of, set_threads, task_of
from bench.supervisor import death_by
from bench.tracking import open_sink

log = logging.getLogger("oho-bench")


@dataclass(frozen=True)
class Planned:
    """One run that an experiment asks for, and how it had ended.  `is_done` when its folder already holds a result."""

    experiment: Experiment
    spec: Spec
    id: str
    outcome: Outcome | None
    is_done: bool


def plan(experiments: Sequence[Experiment], root: Path, *, again_invalid: bool = False, since: str | None = None
         ) -> list[Planned]:  # fmt: skip
    """Every run once, in order; a run that two experiments share belongs to the first.

    With `again_invalid` a run whose clock was disturbed is not done.  `since` is when the command began, in a process of it
    that goes on after another one's death: a date and time in ISO's format, UTC.  What has ended since is done.
    """
    planned: dict[str, Planned] = {}
    for experiment in experiments:
        for spec in experiment.specs:
            identity = run_id(spec)
            if identity not in planned:
                outcome = read_outcome(root / identity)
                _check_protocol(outcome, root)
                done = _is_done(outcome, again_invalid=again_invalid, since=since)
                if done and is_damaged(root / identity, outcome):
                    log.warning("%s: files of this ended run are gone or cut; it runs again", root / identity)
                    done = False
                planned[identity] = Planned(experiment, spec, identity, outcome, done)
    return list(planned.values())


def _is_done(outcome: Outcome | None, *, again_invalid: bool, since: str | None) -> bool:
    if outcome is None:
        return False
    has_ended_since = since is not None and outcome.environment["finished"] >= since
    return has_ended_since or (outcome.status.is_result and (outcome.valid or not again_invalid))


def _check_protocol(outcome: Outcome | None, root: Path) -> None:
    if outcome is not None and outcome.protocol != PROTOCOL:
        raise ConfigError(
            f"--out {root}: holds runs of protocol {outcome.protocol}, and this version measures by protocol {PROTOCOL};"
            " choose another folder"
        )


def launch(experiments: Sequence[Experiment], planned: Sequence[Planned], root: Path, *, data_root: Path | None
           ) -> Counter[Status]:  # fmt: skip
    """Runs what is planned and not done yet, and returns how many of those runs ended in each status."""
    with storing(root):
        _prepare(root)
    todo = [item for item in planned if not item.is_done]
    _check_methods([item.spec for item in todo], data_root)
    with storing(root), claimed(root / "experiments", wait=True):
        for experiment in experiments:
            _write_plan(experiment, root)
    counts: Counter[Status] = Counter()
    stopper = Stopper()
    with stopper.listening(), Display([item.spec for item in todo]) as display:
        waiting = list(enumerate(todo, start=1))
        while waiting:
            taken = []
            for number, item in waiting:
                stopper.check()
                with storing(root), claimed(root / item.id) as is_ours:
                    if not is_ours:
                        taken.append((number, item))
                    elif read_outcome(root / item.id) == item.outcome:  # no other has ended it meanwhile
                        display.start(number, item.spec)
                        outcome = _run(item, root, data_root, stopper, display)
                        display.end(outcome)
                        counts[outcome.status] += 1
            if len(taken) == len(waiting):  # those who took them are at work
                for number, item in taken:
                    display.skip(number, item.spec)
                break
            waiting = taken
    return counts


def book_as_killed(folder: Path, number: int) -> None:
    """A run in which the process died by a signal has failed.  Its records and its checkpoint stay: it can go on."""
    with storing(folder), claimed(folder) as is_ours:
        if is_ours and (folder / "spec.json").exists() and read_outcome(folder) is None:
            run = read_run(folder)
            last = {"step": 0, "counted_seconds": 0.0, "wall_seconds": 0.0, **(run.records[-1] if run.records else {})}
            environment = describe_environment(torch.device(run.spec["device"]), set_threads(dict(run.spec)), data=None)
            outcome = Outcome(
                Status.FAILED, death_by(number), last["step"], len(run.trials), last["counted_seconds"],
                last["wall_seconds"], accounts={}, final={}, environment=environment,
            )  # fmt: skip
            write_outcome(folder, outcome)


def _run(item: Planned, root: Path, data_root: Path | None, stopper: Stopper, display: Display) -> Outcome:
    tracking = item.experiment.tracking
    sink = partial(open_sink, mode=tracking.mode, project=tracking.project, experiment=item.experiment.name)
    return run(
        item.spec, root, data_root=data_root, open_sink=sink, progress=display.progress, stopper=stopper
    )


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


def _check_methods(specs: Sequence[Spec], data_root: Path | None) -> None:
    """Makes each online method on each task once, so that sets which do not fit the network are told before anything runs.

    What else methods raise is their runs' affair.
    """
    tasks: dict[str, Task] = {}
    seen: set[str] = set()
    for spec in specs:
        key = json.dumps([spec["task"], spec["method"]], sort_keys=True)
        if key in seen or not issubclass(METHODS[spec["method"]["name"]].options, InitialOptions):
            continue
        seen.add(key)
        method = method_of(spec)
        name = json.dumps(spec["task"], sort_keys=True)
        if name not in tasks:
            tasks[name] = task_of(spec, torch.device("cpu"), data_root)[0]
        try:
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
