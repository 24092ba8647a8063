"""What a run leaves in its folder, as it is read back; `bench.records.run_writer` writes it.  Imports no torch.

A results folder holds

    experiments/NAME.json     the plan: the resolved configuration and its list of run ids
    ID/spec.json              everything that affects the run's result; ID is its hash
    ID/records.jsonl          one JSON object per line, append-only: evaluations, incumbents, ended trials, shocks
    ID/outcome.json           how the run ended; written once, atomically, so a run without it is unfinished
    ID/checkpoint.pt          what an unfinished run needs to continue: see `bench.protocol.checkpoints`

and what trackers keep: `ID/wandb/`, `tensorboard/`, `trackio/`.

Losses and errors are in the units of the spec's task (`Run.units`), times in seconds.  JSON has no NaN, so a non-finite
number is stored as null and read back as None.  Each line carries a sum of all lines before it
(`bench.records.json_files`).  If a run has no result, a damaged line, such as the one it was killed in, is left out
together with all lines after it; if it has one, `RecordError` names file, line and column.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.records.errors import RecordError
from bench.records.files import reason
from bench.records.identity import run_id
from bench.records.json_files import read_lines, read_object
from bench.records.processes import Process, changes
from bench.records.schema import OUTCOME, SPEC, Status, check, problem_of, read_checked

SCHEMA = 3
"""Version of the files' layout."""
READABLE = (2, SCHEMA)
"""Versions that are read.  Outcomes of version 2 know the last of their run's processes alone."""

PROTOCOL = 3
"""Version of the measuring protocol, PROTOCOL.md; figures never mix two versions."""


USUAL_UNITS = {
    "loss": "cross-entropy", "loss_unit": "nats per example", "metric": "classification error", "metric_unit": "fraction",
}  # fmt: skip
"""The units of runs whose spec says nothing of them: older versions had tasks of classification alone."""


@dataclass(frozen=True)
class Outcome:
    """A run's end.  `accounts` maps a ledger account to its seconds; they sum to `wall_seconds`.

    `disturbed_because` says why the run's seconds are void, in whichever of its processes that happened.  If seconds are
    its budget, the run itself is void: `invalid_because` says so, too, and `valid` is false.  `environment` and
    `conditions`, what was measured, are those of the last process; `earlier` has the processes before it, oldest first.
    `final` is the last evaluation with `selected_step`, the step at which the returned model was found: 0 is the untrained
    model.  `record_bytes` is the length of the records, set when they are closed.  It is None in results of older versions,
    and if the process died, in which case the accounts are unknown as well.  `spans_budget` says that the method's schedule
    depends on the budget, so that no smaller one can be read off the records.  `plain_step` is set where the budget is
    in plain steps: the `seconds` of one on the run's device, with their spread (see `bench.run.plain_steps`).  `shared_by`
    is the number of runs that were trained as one batch, if not 1: then the seconds are those of all of them, and are
    nobody's own.  `random_starts` is the number of trials that a search with a model of the space draws before it has one.
    """

    status: Status
    message: str
    steps: int
    trials: int
    counted_seconds: float
    wall_seconds: float
    accounts: Mapping[str, float]
    final: Mapping[str, Any]
    environment: Mapping[str, Any]
    conditions: Mapping[str, Any] = field(default_factory=dict)
    invalid_because: Sequence[str] = ()
    disturbed_because: Sequence[str] = ()
    earlier: Sequence[Process] = ()
    spans_budget: bool = False
    plain_step: Mapping[str, float] | None = None
    shared_by: int = 1
    random_starts: int = 0
    record_bytes: int | None = None
    protocol: int = PROTOCOL
    schema: int = SCHEMA

    @property
    def finished(self) -> str:
        """When the run ended: a date and time in ISO format, UTC."""
        return self.environment["finished"]

    @property
    def valid(self) -> bool:
        """Whether the run is not void: nothing disturbed its clock, or seconds are not its budget."""
        return not self.invalid_because

    @property
    def last_line(self) -> str:
        """The last line of the message, which of a traceback is the error; empty where there is no message."""
        return (self.message.strip().splitlines() or [""])[-1]

    @property
    def environments(self) -> tuple[Mapping[str, Any], ...]:
        """The environment of each process that worked on the run, oldest first."""
        return (*(process["environment"] for process in self.earlier), self.environment)

    @property
    def changes(self) -> list[str]:
        """What differed between the processes that worked on the run, such as the commit; usually nothing."""
        return changes(self.environments)


@dataclass(frozen=True)
class Run:
    """A run as read from disk.  `outcome` is None while it has not ended."""

    id: str
    folder: Path
    spec: Mapping[str, Any]
    records: tuple[Mapping[str, Any], ...]
    outcome: Outcome | None
    torn: bool = field(default=False)

    @property
    def units(self) -> Mapping[str, str]:
        """What `loss` and `error` are and what they are measured in: `loss`, `loss_unit`, `metric`, `metric_unit`."""
        return self.spec["task"].get("units", USUAL_UNITS)

    @property
    def evaluations(self) -> list[Mapping[str, Any]]:
        """The records of kind `evaluation`, oldest first."""
        return [record for record in self.records if record["kind"] == "evaluation"]

    @property
    def trials(self) -> list[Mapping[str, Any]]:
        """The records of kind `trial`: one per ended or cut trial of a search."""
        return [record for record in self.records if record["kind"] == "trial"]

    @property
    def incumbents(self) -> list[Mapping[str, Any]]:
        """The records of kind `incumbent`: one for each better model selected, starting with the untrained one."""
        return [record for record in self.records if record["kind"] == "incumbent"]


ROUNDING = 1e-9
"""Budgets are multiples of a period, so those that differ only by rounding are the same."""


def result_at(run: Run, budget: float) -> Mapping[str, Any] | None:
    """Returns the record of the model that a run of a smaller budget would have returned.

    Returns None if there was no such model yet, or if the method's schedule spans its budget.
    """
    assert run.outcome is not None
    if run.outcome.spans_budget and budget < run.spec["budget"]["amount"]:
        return None
    found = [record for record in run.incumbents if record["used"] <= budget * (1 + ROUNDING)]
    return found[-1] if found else None


def read_runs(root: Path) -> Iterator[Run]:
    """Yields every run in a results folder, finished or not, by id."""
    for path in sorted(root.glob("*/spec.json")):
        yield read_run(path.parent)


def read_run(folder: Path) -> Run:
    """Returns one run's spec, records and outcome.

    Records of a run without a result end before the first damage.

    Raises:
        RecordError: if the files of a run with a result are not as they were written.
    """
    outcome = read_outcome(folder)
    spec = read_checked(folder / "spec.json", SPEC, f"remove {folder} to run it again")
    identity = run_id(spec)
    if identity != folder.name and identity != folder.resolve().name:
        problem = "changed since the run was made: its hash is not the folder's name"
        raise RecordError(f"{folder / 'spec.json'}:1:1: {problem}; remove {folder} to run it again")
    is_ended = outcome is not None and outcome.status.is_result
    path = folder / "records.jsonl"
    records, torn = read_lines(path, problem_of, is_ended=is_ended)
    run = Run(folder.name, folder, spec, records, outcome, torn)
    if is_ended and (not run.evaluations or is_damaged(folder, outcome)):
        raise RecordError(f"{path}:{len(records) + 1}:1: records are missing; remove {folder} to run it again")
    return run


def is_damaged(folder: Path, outcome: Outcome | None) -> bool:
    """Returns whether files of an ended run are missing or cut.  Does so quickly, without reading them."""
    if outcome is None or not outcome.status.is_result:
        return False
    try:
        size = (folder / "records.jsonl").lstat().st_size
    except OSError:
        return True
    return not (folder / "spec.json").exists() or outcome.record_bytes not in (None, size)


def state_of(folder: Path, outcome: Outcome | None) -> str:
    """Returns a run's status, or "not finished" or "damaged"."""
    if is_damaged(folder, outcome):
        return "damaged"
    return str(outcome.status) if outcome else "not finished"


def names_in(root: Path) -> set[str]:
    """Returns the names of what a results folder holds, so that runs that are only planned need no look each.

    A folder that is not there holds nothing.  Raises `RecordError` where it cannot be read.
    """
    try:
        with os.scandir(root) as entries:
            return {entry.name for entry in entries}
    except (FileNotFoundError, NotADirectoryError):
        return set()
    except OSError as error:
        raise RecordError(f"{root}: cannot be read ({reason(error)})") from None


def read_outcome(folder: Path) -> Outcome | None:
    """Returns how a run ended, or None if it has not."""
    path = folder / "outcome.json"
    if not path.exists():
        return None
    remedy = "remove this file to run it again"
    try:
        content = read_object(path, remedy)
    except RecordError:
        if not path.exists():  # another runner has started the run again
            return None
        raise
    if content.get("schema") not in READABLE:
        versions = " and ".join(map(str, READABLE))
        raise RecordError(
            f"{path}:1:1: has schema {content.get('schema')!r}, but this version reads {versions}; use another folder"
        )
    of_older: dict[str, Any] = {
        "disturbed_because": content.get("invalid_because"), "earlier": [], "shared_by": 1, "random_starts": 0,
    }  # fmt: skip
    content = of_older | content
    check(path, content, OUTCOME, remedy)
    try:
        content.pop("valid", None)
        return Outcome(**{**content, "status": Status(content["status"])})
    except TypeError as error:  # a key that outcomes do not have
        raise RecordError(f"{path}:1:1: not an outcome ({error}); {remedy}") from None
