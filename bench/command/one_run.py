"""Makes one run that this process claims: the same code wherever the process is, on this machine or on a node."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from functools import partial
from pathlib import Path
from typing import Any

from bench.command.planning import Planned
from bench.experiment.schema import Tracking
from bench.experiment.spec import Spec
from bench.process.run_lock import claimed
from bench.process.signals import Stopper
from bench.records import Outcome, Status, read_outcome
from bench.records.files import check_in_place, storing
from bench.run.loop import Progress
from bench.run.runner import run
from bench.tracking.sink import Sink
from bench.tracking.sinks import open_sinks


class Turn(Enum):
    """Whose turn it is to make a run."""

    OURS = "ours"
    TAKEN = "another runner is working on it"
    ENDED = "another runner has ended it since it was planned"


@dataclass(frozen=True)
class Assignment:
    """All that a process needs to make a planned run, as plain values.

    `before` describes the outcome that the run had when it was planned; what follows it says how the run is tracked:
    `plan` is the experiment's resolved configuration and its figures.
    """

    id: str
    spec: Spec
    before: str
    experiment: str
    tracking: Mapping[str, Any]
    plan: Mapping[str, Any]

    @classmethod
    def of(cls, item: Planned) -> Assignment:
        """Returns the assignment of a planned run, tracked as this process's environment says."""
        experiment = item.experiment
        tracking = {**experiment.tracking.model_dump(), "mode": experiment.tracking.mode_in(os.environ)}
        plan = {"figures": experiment.figures, "config": experiment.resolved}
        return cls(item.id, item.spec, repr(item.outcome), experiment.name, tracking, plan)


@contextmanager
def turn(root: Path, was: os.stat_result, identity: str, before: str) -> Iterator[Turn]:
    """Claims a run for the block, and yields whose turn it is.

    `was` is the results folder as the process found it, `before` the outcome when the run was planned, as its `repr`.

    Raises:
        StorageError: if the folder cannot be written.
    """
    with storing(root):
        check_in_place(was, root)  # a claim would make a folder that was moved away anew
    with storing(root), claimed(root / identity) as is_ours:
        if not is_ours:
            yield Turn.TAKEN
        else:
            yield Turn.ENDED if ended_meanwhile(before, read_outcome(root / identity)) else Turn.OURS


def ended_meanwhile(before: str, outcome: Outcome | None) -> bool:
    """Returns whether another runner has ended the run since it was planned; one that was only stopped may continue."""
    return outcome is not None and repr(outcome) != before and outcome.status is not Status.INTERRUPTED


def make(
    given: Assignment, root: Path, *, data_root: Path | None, stopper: Stopper, progress: Progress
) -> Outcome:
    """Makes a run that this process has claimed.  Raises as `bench.run.runner.run` does."""
    return run(given.spec, root, data_root=data_root, open_sink=opener(given), progress=progress, stopper=stopper)


def opener(given: Assignment) -> Callable[[str, Spec, Path], Sink]:
    """Returns what opens the trackers of a run of the experiment."""
    tracking = Tracking.model_validate(given.tracking)
    return partial(open_sinks, experiment=given.experiment, tracking=tracking, plan=given.plan)
