"""Who is best at which budget on which task, and what the method under test gets there: the table of the first page.

A budget is one that runs were given or, of counted time, a part of the largest.  A run of a larger budget shows what it
would have returned at a smaller one, since every model it selects is recorded with the moment it was found; a run whose
schedule spans its budget does not.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from bench.records import ROUNDING
from bench.records.schema import TIMED
from reports.clocks import unlike_clocks
from reports.registry import FIGURES
from reports.selection import MEASURED, ONLINE, enough_seeds, void
from reports.statistics import Estimate, median_of
from reports.tables import Tables
from reports.units import Units
from reports.untested import too_few_trials
from reports.words import listed

SAME = ["unit", "task", "data", "task_id", "space"]
"""What runs have in common that are compared; their budgets may differ."""
PARTS = (0.1, 0.3)
"""The parts of the largest budget of counted time at which methods are compared as well."""
UNDER_TEST = ("oho-default", "oho-global", "oho-averaged")


class Place(NamedTuple):
    """A method at a budget: its median loss with its interval or range, its median metric, and its place, from 1."""

    label: str
    loss: Estimate
    error: float
    n: int
    rank: int


class Standing(NamedTuple):
    """One budget on one task.  `best` is None where no method returns a trained model, or none may be compared."""

    task: str
    unit: str
    budget: float
    units: Units
    methods: int
    replayed: int
    """How many of the methods are read off runs of a larger budget."""
    best: Place | None
    won: int
    """On how many of the best method's seeds no other method is as low."""
    ours: tuple[Place, ...]
    """Of OHO: the method under test and Averaged OHO, if they return trained models."""
    is_void: bool
    unlike: str = ""
    """In what its runs differ, so that their seconds are not compared: the predicate of a sentence, usually empty."""
    untested: tuple[str, ...] = ()
    """Searches that have no place, as their model of the space had too few trials by then (`reports.untested`)."""

    @property
    def is_timed(self) -> bool:
        """Whether methods are given equal time, and not an equal number of steps."""
        return self.unit in TIMED


class Records(NamedTuple):
    """Selected models, and trials that have ended, by run."""

    incumbents: Mapping[str, pd.DataFrame]
    trials: Mapping[str, pd.DataFrame]


def under_test(runs: pd.DataFrame) -> str:
    """Returns the label of the method under test: the first of UNDER_TEST that there is; empty where there is none."""
    return next((label for name in UNDER_TEST if (label := _first_label(runs, name))), "")


def _first_label(runs: pd.DataFrame, method: str) -> str:
    """Returns the label of a method, the first if it has several, or an empty text if it has no run."""
    labels = runs.sort_values(["place", "label"], kind="stable").loc[runs["method"] == method, "label"]
    return str(labels.iloc[0]) if len(labels) else ""


def standings(tables: Tables) -> list[Standing]:
    """Returns a row for each budget and task on which a method under test was run beside another: timed budgets first,
    then by task and budget."""
    runs = tables.runs[tables.runs["status"].isin(MEASURED) & (tables.runs["shock"] == "")]
    runs = runs[runs["experiment"].isin(_comparing(tables, runs))]
    is_void = {name: bool(void(own)) for name, own in runs.groupby("experiment")}
    records = Records(*(dict(iter(table.groupby("run"))) for table in (tables.incumbents, tables.trials)))
    found = []
    for _, group in runs.groupby(SAME, sort=True, dropna=False):
        valid = group[~group["experiment"].map(is_void)].drop_duplicates("run")
        unlike = unlike_clocks(valid)
        if unlike:  # seconds of one are not those of another
            valid = valid[:0]
        title = _title(group, runs)
        rows = [_standing(title, budget, group, valid, records) for budget in _budgets(group)]
        found += [row._replace(unlike=unlike.said) if unlike else row for row in rows]
    return sorted(found, key=lambda row: (not row.is_timed, row.task, row.unit, row.budget))


def _comparing(tables: Tables, runs: pd.DataFrame) -> list[str]:
    """Returns the experiments that feed a figure which compares methods, and have a method under test and another one."""
    both = [str(name) for name, own in runs.groupby("experiment") if (own["family"] == ONLINE).nunique() == 2]
    return [
        manifest.experiment
        for manifest in tables.manifests
        if manifest.experiment in both and any(name in FIGURES and FIGURES[name].compares for name in manifest.figures)
    ]


def _title(group: pd.DataFrame, runs: pd.DataFrame) -> str:
    """Returns what the task of a group is called: with its data, if it is not called after them, and its experiments where
    another task has its name."""
    task = group.iloc[0]
    has_other_name = isinstance(task["data"], str) and task["data"].lower() not in task["task"].lower()
    name = f"{task['task']} on {task['data']}" if has_other_name else str(task["task"])
    namesakes = runs.loc[runs["task"] == task["task"], "task_id"].nunique()
    return f"{name} ({listed(sorted(group['experiment'].unique()))})" if namesakes > 1 else name


def _budgets(runs: pd.DataFrame) -> list[float]:
    """Returns the budgets that runs were given and, of counted time, parts of the largest."""
    given = {float(budget) for budget in runs["budget"]}
    parts = PARTS if runs["unit"].iloc[0] in TIMED else ()
    return sorted(given | {float(f"{part * max(given):.3g}") for part in parts})


def _standing(task: str, budget: float, group: pd.DataFrame, runs: pd.DataFrame, records: Records) -> Standing:
    first = group.iloc[0]
    empty = Standing(
        task, first["unit"], budget, first["units"], methods=0, replayed=0, best=None, won=0, ours=(), is_void=runs.empty
    )
    table = _at(budget, runs, records)
    if table.empty:
        return empty
    counts = table.groupby("label")["seed"].nunique()
    table = table[table["label"].isin(enough_seeds(counts))]
    untested = [label for label, own in table.groupby("label") if own["is_untested"].mean() > 0.5]
    table = table[~table["label"].isin(untested)]
    empty = empty._replace(untested=tuple(untested))
    places = _places(table)
    methods = table.groupby("label")["is_replayed"].any()
    known = empty._replace(methods=len(methods), replayed=int(methods.sum()))
    best = next(iter(places.values()), None)
    if best is None:
        return known
    losses = table.pivot(index="seed", columns="label", values="loss")
    own = losses[best.label].dropna()
    won = own < losses.drop(columns=best.label).min(axis=1).fillna(np.inf)[own.index]
    placed = runs[runs["label"].isin(places)]
    ours = dict.fromkeys(label for label in (under_test(placed), _first_label(placed, "oho-averaged")) if label)
    return known._replace(best=best, won=int(won.sum()), ours=tuple(places[label] for label in ours))


def _at(budget: float, runs: pd.DataFrame, records: Records) -> pd.DataFrame:
    """Returns a row for each method and seed: what it returns at this budget.

    Where no method under test, or no other, was given this budget, runs of the largest one tell what theirs are.
    """
    rows: dict[tuple[str, int], dict[str, Any]] = {}
    given = runs[np.isclose(runs["budget"], budget, rtol=ROUNDING)]
    larger = runs[runs["budget"] == runs["budget"].max()]
    is_whole = (given["family"] == ONLINE).nunique() == 2
    for run in (given if is_whole else pd.concat([given, larger])).itertuples():
        is_replayed = run.budget > budget * (1 + ROUNDING)
        key = (run.label, run.seed)
        if key in rows or (is_replayed and run.spans_budget):
            continue
        step, loss, error = run.selected_step, run.incumbent_test_loss, run.incumbent_test_error
        trials = run.trials
        if is_replayed:
            step, loss, error = _selected(_within(records.incumbents.get(run.run), budget))
            trials = len(_within(records.trials.get(run.run), budget))
        rows[key] = {
            "label": run.label, "seed": run.seed, "place": run.place, "loss": np.inf if pd.isna(loss) else float(loss),
            "error": error, "is_untrained": step == 0 or pd.isna(loss), "is_replayed": is_replayed,
            "trials": trials, "random_starts": run.random_starts,
        }  # fmt: skip
    table = pd.DataFrame(list(rows.values()))
    return table if table.empty else table.assign(is_untested=too_few_trials(table["trials"], table["random_starts"]))


def _within(records: pd.DataFrame | None, budget: float) -> pd.DataFrame:
    """Returns a run's records made within a budget."""
    return pd.DataFrame() if records is None else records[records["used"] <= budget * (1 + ROUNDING)]


def _selected(within: pd.DataFrame) -> tuple[float, float, float]:
    """Returns step, test loss and metric of the last of these selected models; NaN where there is none."""
    if within.empty:
        return np.nan, np.nan, np.nan
    last = within.iloc[-1]
    return last["step"], last["test_loss"], last["test_error"]


def _places(table: pd.DataFrame) -> dict[str, Place]:
    """Returns the methods that return a trained model in at least half of their runs, best first."""
    found = []
    for (_, label), own in table.groupby(["place", "label"], sort=True):
        loss = median_of(own["loss"])
        if own["is_untrained"].mean() <= 0.5 and np.isfinite(loss.value):
            found.append(Place(str(label), loss, float(own["error"].median()), len(own), 0))
    ordered = sorted(found, key=lambda place: place.loss.value)
    return {place.label: place._replace(rank=rank) for rank, place in enumerate(ordered, start=1)}
