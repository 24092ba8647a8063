"""The page's table of runs: a row for each of them, and what opens below it."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from bench.records.durations import unit_name
from reports.selection import MEASURED
from reports.tables import Tables
from reports.units import Units
from reports.words import hyperparameter, listed

DIGITS = 4
LOG_ROWS, FEWEST_LOG_ROWS = 200, 12
"""How many evaluations of a run are shown at most, evenly spaced; of very many runs, fewer."""
ALL_LOG_ROWS = 20_000
"""How many rows the logs of all runs have together, about."""

COLUMNS = {
    "experiment": "Experiment", "task": "Task", "label": "Method", "seed": "Seed", "status": "Status", "budget": "Budget",
    "incumbent_test_loss": "Test loss", "incumbent_validation_loss": "Validation loss",
    "incumbent_test_error": "Test metric", "counted_seconds": "Counted seconds", "steps": "Steps", "trials": "Trials",
    "run": "Run",
}  # fmt: skip
"""The columns of the table of runs; losses and metric are those of the selected model, the identity comes last."""
METRIC = "incumbent_test_error"
MEASURES = frozenset({"incumbent_test_loss", "incumbent_validation_loss", METRIC, "counted_seconds"})
COUNTS = frozenset({"seed", "budget", "steps", "trials"})

LOG = {
    "used": "used ({unit})", "counted_seconds": "counted seconds", "step": "step", "epoch": "epoch", "trial": "trial",
    "train_loss": "training loss", "validation_loss": "validation loss", "test_loss": "test loss",
    "test_error": "test {metric}", "incumbent_validation_loss": "validation loss, selected model",
    "incumbent_test_loss": "test loss, selected model",
}  # fmt: skip
"""The columns of a run's log that stand before its hyperparameters."""


def rows(runs: pd.DataFrame) -> list[list[Any]]:
    """Returns a row for each planned run, in the order of `COLUMNS`; None is what is not known.

    A budget is a pair, what to sort by and what to show, and so are the seconds of a disturbed clock.
    """
    return [[_cell(name, row) for name in COLUMNS] for row in runs.to_dict("records")]


def _cell(name: str, row: Mapping[str, Any]) -> Any:
    value = row[name]
    if pd.isna(value):
        return None
    if name == "status":
        return _status(row)
    if name == "budget":
        return [rounded(value), f"{value:g} {unit_name(row['unit'])}"]
    if name in COUNTS:
        return int(value)
    if name not in MEASURES:
        return value
    units: Units = row["units"]
    shown = rounded(units.shown(value) if name == METRIC else float(value))
    if name == "counted_seconds" and row["disturbed_because"] != "":
        return [shown, f"{shown:g} (disturbed)"]
    return shown


def _status(row: Mapping[str, Any]) -> str:
    """Returns a run's status, with what a reader of its losses has to know."""
    notes = []
    if row["status"] in MEASURED:
        notes += ["clock disturbed"] if row["disturbed_because"] != "" else []
        notes += ["seconds shared"] if row["shared_by"] > 1 else []
        notes += ["changed when resumed"] if row["resumed_with"] != "" else []
        notes += ["untrained model"] if row["selected_step"] == 0 else []
    return row["status"].replace("_", " ") + "".join(f" ({note})" for note in notes)


def columns(runs: pd.DataFrame) -> list[dict[str, str]]:
    """Returns name, title and kind of each column; the metric's title is its own, where all runs have one."""
    kinds = {**dict.fromkeys(COUNTS, "count"), **dict.fromkeys(MEASURES, "measure")}
    units = _one_unit(runs)
    titles = COLUMNS | ({METRIC: f"Test {units.metric_title}"} if units else {})
    return [{"name": name, "title": title, "kind": kinds.get(name, "text")} for name, title in titles.items()]


def _one_unit(runs: pd.DataFrame) -> Units | None:
    """Returns what all runs measure; None where they differ."""
    found = set(runs.loc[runs["status"] != "missing", "units"])
    return found.pop() if len(found) == 1 else None


def losses(runs: pd.DataFrame) -> str:
    """Returns what losses and metric are, on each task where they differ, for the sentence above the table."""
    known = runs[runs["status"] != "missing"]
    tasks = {units: sorted(own["task"].unique()) for units, own in known.groupby("units", sort=True)}
    told = [f"{units.loss} in {units.loss_unit}, {units.metric_title}" for units in tasks]
    if len(told) == 1:
        return f"Losses and metric ({told[0]})"
    parts = [f"on {listed(names)} {what}" for what, names in zip(told, tasks.values(), strict=True)]
    return f"Losses and metrics ({'; '.join(parts)})"


def details(tables: Tables) -> dict[str, Any]:
    """Returns what opens below a row, by run; a run that was not started has nothing."""
    evaluations = _Evaluations(tables.evaluations)
    units = dict(zip(tables.runs["run"], tables.runs["units"], strict=True))
    return {
        identity: _detail(identity, tables, evaluations.of(identity), units[identity]) for identity in sorted(tables.specs)
    }


def _detail(identity: str, tables: Tables, evaluations: Mapping[str, list[Any]], units: Units) -> dict[str, Any]:
    outcome, spec = tables.outcomes.get(identity), tables.specs[identity]
    ended = {} if outcome is None else {
        "message": outcome.message.strip(), "disturbed": list(outcome.disturbed_because), "changes": outcome.changes,
        "accounts": rounded(outcome.accounts) if outcome.shared_by == 1 else {},
        "wall_seconds": rounded(outcome.wall_seconds),
    }  # fmt: skip
    count = len(evaluations.get("step", ()))
    most = max(FEWEST_LOG_ROWS, min(LOG_ROWS, ALL_LOG_ROWS // len(tables.specs)))
    return {"spec": spec, "evaluations": count, "log": log(evaluations, spec["budget"]["unit"], units, most), **ended}


class _Evaluations:
    """The table of evaluations as lists, of which each run has a part: slicing tables takes many times as long."""

    def __init__(self, table: pd.DataFrame):
        self._values = {str(name): table[name].tolist() for name in table}
        starts = table["run"].ne(table["run"].shift()).to_numpy().nonzero()[0].tolist()
        bounds = itertools.pairwise([*starts, len(table)])
        self._parts = {table["run"].iat[start]: slice(start, end) for start, end in bounds}

    def of(self, run: str) -> dict[str, list[Any]]:
        """Returns a run's columns; none where it has no evaluations."""
        part = self._parts.get(run)
        return {} if part is None else {name: values[part] for name, values in self._values.items()}


def log(evaluations: Mapping[str, list[Any]], unit: str, units: Units, most: int) -> dict[str, list[Any]]:
    """Returns at most so many of a run's evaluations, a column a title; columns that say nothing are left out."""
    kept = _thinned(len(evaluations.get("step", ())), most)
    found = {name: [values[index] for index in kept] for name, values in evaluations.items()}
    shown = {name: found[name] for name in LOG if name in found}
    if shown.get("counted_seconds") == shown.get("used"):
        shown.pop("counted_seconds", None)
    if not any(shown.get("trial", ())):
        shown.pop("trial", None)
    if "test_error" in shown:
        shown["test_error"] = [None if value is None else units.shown(value) for value in shown["test_error"]]
    titled = {LOG[name].format(unit=unit_name(unit), metric=units.metric_title): values for name, values in shown.items()}
    for name, values in found.items():
        if name.startswith("hyper_"):
            titled[hyperparameter(name.removeprefix("hyper_"))] = [_setting(value) for value in values]
    known = {title: rounded(values) for title, values in titled.items()}
    return {title: values for title, values in known.items() if any(value is not None for value in values)}


def _thinned(count: int, most: int) -> list[int]:
    """Returns which of so many evaluations are shown."""
    if count <= most:
        return list(range(count))
    return np.linspace(0, count - 1, most).round().astype(int).tolist()


def _setting(value: Any) -> Any:
    """Returns a hyperparameter that has one value; of several, between which values they lie."""
    if not isinstance(value, list):
        return value
    known = [number for number in value if not math.isnan(number)]
    return f"{min(known):.{DIGITS}g} to {max(known):.{DIGITS}g} ({len(value)} sets)" if known else None


def rounded(value: Any) -> Any:
    """Returns `value` with every float in it to 4 significant digits; None for what is not finite."""
    if isinstance(value, float):
        return float(f"{value:.{DIGITS}g}") if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: rounded(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(item) for item in value]
    return value
