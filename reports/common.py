"""What the figures share: the words for a budget and a device, and the error for a figure that has no data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

MEASURED = ("budget_reached", "diverged")


class NoData(Exception):  # noqa: N818 (a reason, not an error)
    """The figure cannot be drawn; the message is the sentence that stands in its place."""


@dataclass(frozen=True)
class RunEstimates:
    """Of a figure that shows every run.  `runs`: a row a run.  `summary`: a row a group, in the order drawn."""

    runs: pd.DataFrame
    summary: pd.DataFrame
    setting: str
    stamp: str

    @property
    def csv(self) -> pd.DataFrame:
        """The data behind the figure."""
        return self.runs


def measured(runs: pd.DataFrame) -> pd.DataFrame:
    """The runs that count as results.  Raises `NoData` where there are none."""
    if runs.empty:
        raise NoData("No experiment in this folder names it under `figures:`, so it is not drawn.")
    chosen = runs[runs["status"].isin(MEASURED)]
    if chosen.empty:
        raise NoData("No run that this figure needs has been measured, so it is not drawn.")
    return chosen


def require_finite(values: pd.Series, what: str = "loss") -> None:
    """Raises `NoData` where nothing is finite: an axis would be empty."""
    if not np.isfinite(values.astype(float)).any():
        raise NoData(f"No run of this figure has a finite {what}, so it is not drawn.")


def comparable(runs: pd.DataFrame) -> pd.DataFrame:
    """The measured runs, if all are of one task, budget and space.  Raises `NoData` where they are not."""
    chosen = measured(runs)
    differing = [
        f"{name} ({words(chosen)})"
        for name, words in {"task": task_names, "budget": budgets, "space": spaces}.items()
        if len(chosen[["budget", "unit"] if name == "budget" else [name]].drop_duplicates()) > 1
    ]
    if differing:
        raise NoData(f"Its runs differ in {' and in '.join(differing)}, so that they cannot be compared: it is not drawn.")
    return chosen


def option(runs: pd.DataFrame, name: str) -> pd.Series:
    """A setting of each run's method; None where the method has none of that name."""
    return runs["options"].map(lambda options: options.get(name))


def dashed(runs: pd.DataFrame) -> set[str]:
    """Labels that share a colour with another: of collapsed influence, and the published full variant."""
    second = (option(runs, "influence") == "collapsed") | (option(runs, "variant") == "full")
    return set(runs.loc[second, "label"])


def task_names(runs: pd.DataFrame) -> str:
    """The runs' tasks, each with what its data are called: a re-encoded copy of a data set is told apart."""
    pairs = runs[["task", "data"]].drop_duplicates().values
    return ", ".join(sorted(f"{task} on {data}" if isinstance(data, str) else task for task, data in pairs))


def setting(runs: pd.DataFrame, environments: tuple[Mapping[str, Any], ...]) -> str:
    """Task, budget, search space, device and disturbed runs, for a caption."""
    devices = ", ".join(sorted({str(environment.get("device_name")) for environment in environments}))
    disturbed = runs.loc[runs["invalid_because"] != "", "run"].nunique()
    note = f" In {disturbed} of {runs['run'].nunique()} runs the clock was disturbed (last page)." if disturbed else ""
    start = f"initial values from the space “{spaces(runs)}”"
    return f"Task {task_names(runs)}; {budgets(runs)} a run; {start}; device: {devices}.{note}"


def stamp(runs: pd.DataFrame) -> str:
    """What a figure has to say of itself where it is shown without its caption."""
    return f"{task_names(runs)}; space “{spaces(runs)}”; {budgets(runs)} a run"


def budgets(runs: pd.DataFrame) -> str:
    """The runs' budgets in words: `30, 60 or 80 epochs or 2 counted seconds`."""
    parts = []
    for unit, amounts in runs.groupby("unit")["budget"]:
        *most, last = [f"{amount:g}" for amount in sorted(amounts.unique())]
        listed = f"{', '.join(most)} or {last}" if most else last
        parts.append(f"{listed} {'counted seconds' if unit == 'seconds' else unit}")
    return " or ".join(parts)


def spaces(runs: pd.DataFrame) -> str:
    """Names of the spaces that the runs drew from."""
    return ", ".join(sorted(runs["space"].unique()))


def plural(count: int, noun: str) -> str:
    """`1 run`, `2 runs`."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def loss_text(value: float) -> str:
    """A loss to three digits."""
    return "∞" if value == float("inf") else f"{value:.3g}"
