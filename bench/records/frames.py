"""A results folder as pandas tables.  Importing this module takes pandas; `bench.records` itself does without."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from bench.records.archive import results_folder
from bench.records.labels import PlanLabels
from bench.records.plans import Manifest, experiments_in
from bench.records.record_rows import RecordRows
from bench.records.run_columns import label_columns, run_row
from bench.records.run_folder import Outcome, read_run
from bench.records.schema import KINDS, RESERVED

IDENTITY = ("experiment", "task", "method", "family", "label", "method_label", "shock", "seed", "budget", "unit")
"""Columns of a run that its records have, too."""


@dataclass(frozen=True)
class Frames:
    """All of a results folder.

    `runs` has a row for each planned run of each experiment: the columns that `results` documents, `options`,
    `task_options` and `events`, which are the method, the task and the shock of the spec, and `last_line`, that of the
    message.  The other tables have a row for each record of their kind, keyed by `run`; hyperparameters are `hyper_NAME`,
    one value or a list with a value for each set, and what a method reports besides them is `scalar_NAME`.
    """

    runs: pd.DataFrame
    evaluations: pd.DataFrame
    incumbents: pd.DataFrame
    trials: pd.DataFrame
    shocks: pd.DataFrame
    manifests: tuple[Manifest, ...]
    specs: Mapping[str, Mapping[str, Any]]
    outcomes: Mapping[str, Outcome]


def results(folder: str | Path, *, records: bool = False) -> pd.DataFrame:
    """Returns a results folder as a tidy table: a row for each planned run or, with `records`, for each record.

    The folder may also be an archive that `oho-bench pack` has written, or hold one.

    A run that two experiments share has a row in each of them.  NaN or None stands where a run has no such value.  The
    columns of a run are

        experiment, run         the experiment's name, and the run's identity, which is also its folder's name
        task, seed, device      the task's name, the seed, cpu or cuda
        task_id                 a hash of the task, its data and all its options
        method, family          the method's name, and the family that figures group it by
        label, method_label     what figures call the run, its shock included, and what they call its method
        over, over_family, over_label     of a search, a population or a transplant: the method that it repeats
        shock                   the label of the run's shock; empty where it has none
        budget, unit, space     the budget and its unit (seconds, plain_steps, steps or epochs), the space of initial values
        plain_step_seconds      of a budget of plain steps: the seconds of one on the run's device
        status, message         how the run ended; "not finished" or "missing" where it has not
        invalid_because         why the run is void: what disturbed its clock, if seconds are its budget; usually empty
        disturbed_because       why its seconds are void, whatever its budget; empty where nothing disturbed its clock
        resumed_with            what changed when the run was resumed, such as another commit; usually empty
        spans_budget            whether the method's schedule knows the budget
        data                    what the data are called
        node, device_name, driver       the machine, its device and the device's driver, if it has one
        engine, numerics        how steps were made, and PyTorch's settings of precision as one text
        calibration_seconds     the time of a fixed piece of work when the device was quickest, before or after the run
        steps, trials           parameter updates, and trials begun
        random_starts           of a search with a model of the space: the trials that it draws before it has one; else 0
        counted_seconds, wall_seconds, seconds_ACCOUNT     times, in all and by account of the ledger
        shared_by               the number of runs that were trained as one batch, whose common times these are; usually 1
        test_loss, test_error   of the last model
        incumbent_validation_loss, incumbent_test_loss, incumbent_test_error     of the model selected on validation
        selected_step           the step at which that model was found; 0 is the untrained one
        loss, loss_unit, metric, metric_unit     what losses and errors are, and in which unit
        option_NAME             each option of the method that is a number, a text or true or false

    The columns of a record are `kind` (evaluation, incumbent, trial or shock), `run`, the first columns of its run
    (experiment, task, method, family, label, method_label, shock, seed, budget, unit), `used` (of the budget, in its unit),
    `step`, `epoch`, `trial`, `counted_seconds`, `wall_seconds`, the losses and errors of its kind, `hyper_NAME` (one
    value, or a list with one a set) and `scalar_NAME`.

    Raises:
        RecordError: where the folder holds no experiment, or a file in it is damaged.
    """
    frames = read_frames(Path(folder))
    return _records(frames) if records else _with_options(frames.runs)


def read_frames(root: Path) -> Frames:
    """Reads a results folder, or an archive in its place, every run once.  Raises `RecordError`."""
    with results_folder(root) as folder:
        return _read_frames(folder)


def _read_frames(root: Path) -> Frames:
    with _collector_paused():
        manifests = tuple(experiments_in(root))
        tables = {kind: RecordRows(kind) for kind in KINDS}
        specs: dict[str, Mapping[str, Any]] = {}
        outcomes: dict[str, Outcome] = {}
        read: dict[str, dict[str, Any]] = {}
        rows = []
        for manifest in manifests:
            labels = PlanLabels(manifest.config)
            for identity in manifest.runs:
                if identity not in read and (root / identity / "spec.json").exists():
                    run = read_run(root / identity)
                    read[identity], specs[identity] = run_row(run), run.spec
                    if run.outcome:
                        outcomes[identity] = run.outcome
                    for kind, table in tables.items():
                        table.add(identity, [record for record in run.records if record["kind"] == kind])
                known = read.get(identity, {"status": "missing"})
                if identity in specs and (called := labels.given_to(specs[identity])) is not specs[identity]:
                    known = known | label_columns(called)
                rows.append({"experiment": manifest.experiment, "run": identity, **known})
        evaluations, incumbents, trials, shocks = (
            tables[kind].table() for kind in ("evaluation", "incumbent", "trial", "shock")
        )
        return Frames(pd.DataFrame(rows), evaluations, incumbents, trials, shocks, manifests, specs, outcomes)


def _with_options(runs: pd.DataFrame) -> pd.DataFrame:
    if "options" not in runs:
        return runs
    about = (*RESERVED, "over")
    options = [
        {f"option_{name}": _plain(value) for name, value in own.items() if name not in about and _is_plain(value)}
        if isinstance(own, dict) else {}
        for own in runs["options"]
    ]  # fmt: skip
    kept = runs.drop(columns=["options", "task_options", "events", "last_line"], errors="ignore")
    return pd.concat([kept, pd.DataFrame(options, index=runs.index)], axis=1)


def _is_plain(value: Any) -> bool:
    return not isinstance(_plain(value), dict | list)


def _plain(value: Any) -> Any:
    """Returns the value or, of an optimizer, which has options of its own, its name."""
    return value["name"] if isinstance(value, dict) and "name" in value else value


def _records(frames: Frames) -> pd.DataFrame:
    kept = [table for table in (frames.evaluations, frames.incumbents, frames.trials, frames.shocks) if len(table)]
    names = [name for name in IDENTITY if name in frames.runs]
    if not kept:
        return pd.DataFrame(columns=["kind", "run", *names])
    records = pd.concat(kept, ignore_index=True)
    merged = frames.runs[["run", *names]].reset_index(names="place").merge(records, on="run")
    merged = merged.sort_values(["place", "used"], kind="stable", ignore_index=True).drop(columns="place")
    return merged[["kind", "run", *names, *(name for name in merged if name not in ("kind", "run", *names))]]


@contextlib.contextmanager
def _collector_paused() -> Iterator[None]:
    """Pauses the search for cycles: nothing that is read has any, and looking takes a tenth of the time."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
