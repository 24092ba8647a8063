"""A results folder as pandas tables.  Importing this module takes pandas; `bench.records` itself does without."""

from __future__ import annotations

import contextlib
import gc
import io
import itertools
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from bench.records.archive import results_folder
from bench.records.errors import ReportError
from bench.records.files import write_output
from bench.records.identity import run_id, title_of
from bench.records.labels import PlanLabels
from bench.records.plans import Manifest, experiments_in
from bench.records.processes import calibration
from bench.records.run_folder import Outcome, Run, read_run
from bench.records.schema import KINDS, RESERVED, Status
from bench.records.spreadsheets import for_spreadsheets

OTHER_FAMILY = "other"
"""The family of methods whose specs, of an older version, have none."""
OLDEST_ENGINE = "eager"
"""The engine of runs whose outcomes, of an older version, name none."""
FINAL = ("test_loss", "test_error", "incumbent_validation_loss", "incumbent_test_loss", "incumbent_test_error")
IDENTITY = ("experiment", "task", "method", "family", "label", "method_label", "shock", "seed", "budget", "unit")
"""Columns of a run that its records have, too."""


@dataclass(frozen=True)
class Frames:
    """All of a results folder.

    `runs` has a row for each planned run of each experiment: the columns that `results` documents, and
    `options`, `task_options` and `events`, what the specs say of the method, the task and the shock, and `last_line`, that
    of the message.  The other tables have
    a row for each record of their kind, keyed by `run`; hyperparameters are `hyper_NAME`, one value or a list with one a
    set, and what a method finds worth plotting is `scalar_NAME`.
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
        invalid_because         why the run is void: what disturbed its clock, if seconds are its budget; mostly empty
        disturbed_because       why its seconds are void, whatever its budget; empty where nothing disturbed its clock
        resumed_with            what changed when the run was resumed, such as another commit; mostly empty
        spans_budget            whether the method's schedule knows the budget
        data                    what the data are called
        node, device_name, driver       the machine, its device and the device's driver, if it has one
        engine, numerics        how steps were made, and PyTorch's settings of precision as one text
        calibration_seconds     the time of a fixed piece of work when the device was quickest, before or after the run
        steps, trials           parameter updates, and trials begun
        random_starts           of a search with a model of the space: the trials that it draws before it has one; else 0
        counted_seconds, wall_seconds, seconds_ACCOUNT     times, in all and by account of the ledger
        shared_by               the number of runs that were trained as one batch, whose common times these are; mostly 1
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
        tables = {kind: _Rows(kind) for kind in KINDS}
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


def write_table(table: pd.DataFrame, output: Path) -> None:
    """Writes a table as CSV or, where the name ends in .parquet, as Parquet.  Raises `ReportError`."""
    content = io.BytesIO()
    try:
        if output.suffix == ".csv":
            for_spreadsheets(table).to_csv(content, index=False)
        else:
            _uniform(table).to_parquet(content, index=False)
    except ImportError:
        raise ReportError(f"{output}: Parquet needs the package pyarrow; install it with: pip install pyarrow") from None
    write_output(output, content.getbuffer())


def _uniform(table: pd.DataFrame) -> pd.DataFrame:
    """A column with lists in it, of several sets, has nothing but lists: Parquet gives a column one type."""
    mixed = [name for name in table if table[name].map(lambda value: isinstance(value, list)).any()]
    as_list = {name: table[name].map(lambda value: value if isinstance(value, list) else [value]) for name in mixed}
    return table.assign(**as_list)


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
    """An optimizer, which has options of its own, by its name."""
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


class _Rows:
    """Records of one kind as tuples, by the names they have: with a dict a row, a large folder needs twice the memory."""

    def __init__(self, kind: str) -> None:
        self._least = KINDS[kind]
        self._rows: defaultdict[tuple[tuple[str, ...], ...], list[tuple]] = defaultdict(list)
        self._count = itertools.count()

    def add(self, run: str, records: Sequence[Mapping[str, Any]]) -> None:
        """Appends the records of a run."""
        for record in records:
            own = dict(record)
            hyper, scalars = own.pop("hyper", {}), own.pop("scalars", {})
            single = [item[0] if isinstance(item, list) and len(item) == 1 else _known(item) for item in hyper.values()]
            names = tuple(own), tuple(hyper), tuple(scalars)
            self._rows[names].append((next(self._count), run, *own.values(), *single, *scalars.values()))

    def table(self) -> pd.DataFrame:
        """Returns a row for each record, in the order they were added; NaN where one lacks a name that others have."""
        tables = []
        for (own, hyper, scalars), rows in self._rows.items():
            names = [*own, *(f"hyper_{name}" for name in hyper), *(f"scalar_{name}" for name in scalars)]
            table = pd.DataFrame(rows, columns=["place", "run", *names])
            if not table.columns.is_unique:  # a damaged record may have any names
                table = table.loc[:, ~table.columns.duplicated()]
            tables.append(table.set_index("place"))
        if not tables:
            return pd.DataFrame(columns=["run", *self._least])
        return pd.concat(tables).sort_index(ignore_index=True).infer_objects()


def _known(value: Any) -> Any:
    """Replaces null by NaN in a list of several."""
    if not isinstance(value, list) or None not in value:
        return value
    return [float("nan") if number is None else number for number in value]


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


def label_columns(spec: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the columns that only figures use: what a method and a shock are called, and how they are grouped."""
    method, shock = spec["method"], spec.get("shock") or {}
    over = method.get("over") or {}
    return {
        "family": method.get("family") or OTHER_FAMILY,
        "label": title_of(spec),
        "method_label": method["label"],
        "over_family": (over.get("family") or OTHER_FAMILY) if over else None,
        "over_label": over.get("label"),
        "shock": shock.get("label", ""),
    }


def run_row(run: Run) -> dict[str, Any]:
    """Returns the columns of a run, except for its experiment and its identity."""
    task, method, budget = run.spec["task"], run.spec["method"], run.spec["budget"]
    over = method.get("over") or {}
    row = {
        "task": task["name"],
        "task_id": run_id(task),
        "task_options": task,
        "method": method["name"],
        "over": over.get("name"),
        **label_columns(run.spec),
        "events": (run.spec.get("shock") or {}).get("events", []),
        "options": dict(method),
        "seed": run.spec["seed"],
        "budget": budget["amount"],
        "unit": budget["unit"],
        "space": run.spec["space"]["name"],
        "device": run.spec["device"],
        **run.units,
    }
    return row | (_outcome_columns(run.outcome, run.incumbents) if run.outcome else {"status": "not finished"})


def _outcome_columns(outcome: Outcome, incumbents: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    final = outcome.final if outcome.status is not Status.FAILED else {}
    found = incumbents[-1]["step"] if incumbents and final else None  # older versions leave the step to the records
    return {
        "status": str(outcome.status),
        "message": outcome.message,
        "last_line": outcome.last_line,
        "spans_budget": outcome.spans_budget,
        "plain_step_seconds": _number((outcome.plain_step or {}).get("seconds")),
        "shared_by": outcome.shared_by,
        "invalid_because": "; ".join(outcome.invalid_because),
        "disturbed_because": "; ".join(outcome.disturbed_because),
        "resumed_with": ", ".join(outcome.changes),
        "data": outcome.environment.get("data"),
        **{name: _text(outcome.environment.get(name)) for name in ("node", "device_name", "driver")},
        "engine": _text(outcome.environment.get("engine")) or OLDEST_ENGINE,
        "numerics": _settings(outcome.environment.get("numerics")),
        "calibration_seconds": _number(calibration(outcome.conditions)),
        "steps": outcome.steps,
        "trials": outcome.trials,
        "random_starts": outcome.random_starts,
        "counted_seconds": outcome.counted_seconds,
        "wall_seconds": outcome.wall_seconds,
        **{name: _number(final.get(name)) for name in FINAL},
        "selected_step": _number(final.get("selected_step", found)),
        **{f"seconds_{name}": seconds for name, seconds in outcome.accounts.items()},
    }


def _settings(value: Any) -> str | None:
    return ", ".join(f"{name} {setting}" for name, setting in sorted(value.items())) if isinstance(value, dict) else None


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _number(value: Any) -> float:
    return float("nan") if value is None else float(value)
