"""Where methods ended: learning rate and weight decay at the end of a run, beside the laws that searches draw from.

Of a search these are the values of the trial that it returns.  Trainings with a schedule are left out: they end where it
ends, whatever was chosen.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from reports.selection import MEASURED
from reports.tables import Tables
from reports.words import hyperparameter, two_digits

NAMES = ("lr", "weight_decay")
SCHEDULED = ("training", "population", "transplant")
"""Families whose values follow a schedule that somebody chose."""


class Law(NamedTuple):
    """The interval of the values that a space gives a hyperparameter."""

    low: float
    high: float


def final_values(tables: Tables, runs: pd.DataFrame) -> pd.DataFrame:
    """Returns a row for each method and hyperparameter: `median`, `lowest` and `highest` over runs and sets, the law's
    `low` and `high`, and of `n` runs how many end `below` and `above` it, with one set or more."""
    measured = runs[runs["status"].isin(MEASURED) & ~runs["family"].isin(SCHEDULED) & (runs["shock"] == "")]
    last = tables.evaluations.drop_duplicates("run", keep="last").set_index("run")
    rows = []
    for (place, label), own in measured.drop_duplicates("run").groupby(["place", "label"], sort=True):
        for name in NAMES:
            law = law_of(tables.specs[own["run"].iloc[0]], name)
            found = [value for run in own["run"] if (value := _value(tables, last, run, name)) is not None]
            if law is not None and found:
                rows.append({"place": place, "label": label, "name": name, **_row(found, law)})
    return pd.DataFrame(rows)


def law_of(spec: Mapping[str, Any], name: str) -> Law | None:
    """Returns the law that a method's space has for a hyperparameter, or None if it has none."""
    space, method = spec["space"], spec["method"].get("over") or spec["method"]
    optimizer = (method.get("optimizer") or {"name": method["name"]})["name"]
    own = (space.get("optimizers") or {}).get(optimizer) or {}
    law = own.get(name) or (space.get("hyperparameters") or {}).get(name)
    if law is None:
        return None
    ends = (1 - law["high"], 1 - law["low"]) if law.get("complement") else (law["low"], law["high"])
    return Law(*(end + law.get("offset", 0.0) for end in ends))


def _value(tables: Tables, last: pd.DataFrame, run: str, name: str) -> np.ndarray | None:
    """Returns the values of a run's sets at its end, or that of the trial whose model it returns."""
    column = f"hyper_{name}"
    if tables.specs[run]["method"].get("over") is None:
        found = last.at[run, column] if column in last and run in last.index else np.nan
    else:
        selected = tables.incumbents.loc[tables.incumbents["run"] == run, "trial"]
        trials = tables.trials[tables.trials["run"] == run]
        if column not in trials or selected.empty:
            return None
        found = trials.loc[trials["trial"] == selected.iloc[-1], column]
    values = np.atleast_1d(np.asarray(found, dtype=float))
    return values[np.isfinite(values)] if np.isfinite(values).any() else None


def _row(found: list[np.ndarray], law: Law) -> dict[str, Any]:
    every = np.concatenate(found)
    tolerance = 1e-6  # values at an end of the law are recorded with rounding
    return {
        "median": float(np.median([np.median(values) for values in found])), "lowest": every.min(), "highest": every.max(),
        "n": len(found), "low": law.low, "high": law.high,
        "below": sum(values.min() < law.low * (1 - tolerance) for values in found),
        "above": sum(values.max() > law.high * (1 + tolerance) for values in found),
    }  # fmt: skip


def in_words(row: Mapping[str, Any]) -> list[str]:
    """Returns a table's cells: method, hyperparameter, median, range, the law, and how many runs end outside of it.

    A single value has no range.
    """
    sides = [f"{row[side]} of {row['n']} {side}" for side in ("below", "above") if row[side]]
    pairs = (("lowest", "highest"), ("low", "high"))
    ends = [f"{two_digits(row[first])} to {two_digits(row[second])}" for first, second in pairs]
    if row["n"] == 1 and row["lowest"] == row["highest"]:
        ends[0] = "—"
    return [row["label"], hyperparameter(row["name"]), two_digits(row["median"]), *ends, ", ".join(sides) or "within"]


def outside_sentence(values: pd.DataFrame) -> str:
    """Names the methods of which most runs end outside of the laws that searches draw from; empty where there is none."""
    if values.empty:
        return ""
    outside = values[values[["below", "above"]].sum(axis=1) > values["n"] / 2]
    parts = [
        f"{row['label']} (a {hyperparameter(row['name'])} of {row['median']:.3g}, where the space has "
        f"{two_digits(row['low'])} to {two_digits(row['high'])})"
        for row in outside.to_dict("records")
    ]
    return f"Most runs of these end outside of the space that searches draw from: {'; '.join(parts)}." if parts else ""
