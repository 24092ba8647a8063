"""Runs of several tasks as problems on which the same methods were tried, each task with a budget of its own."""

from __future__ import annotations

import pandas as pd

from bench.records.schema import TIMED
from reports import words
from reports.selection import NoData, measured

TASK = ["task", "task_id", "space"]
"""What makes a task: its name, a hash of it with its data and options, and the space that its methods draw from."""
PROBLEM = [*TASK, "seed"]
"""What makes a problem: a task, which has one budget, with one seed."""


def pooled(runs: pd.DataFrame) -> pd.DataFrame:
    """Returns the measured runs of the methods that all tasks have, on the problems that all of these were tried on.

    A task has one budget: the largest of those that it was run with.  Where some tasks have budgets of time, they alone are
    pooled: equal steps are no equal budgets.  Raises `NoData` where fewer than two methods are left.
    """
    runs = measured(runs)
    if runs["unit"].isin(TIMED).any():
        runs = runs[runs["unit"].isin(TIMED)]
    runs = runs[_has_largest_budget(runs)].drop_duplicates([*PROBLEM, "label"])
    of_each = [set(own["label"]) for _, own in runs.groupby(TASK)]
    runs = runs[runs["label"].isin(set.intersection(*of_each))]
    count = runs["label"].nunique()
    whole = runs.groupby(PROBLEM)["label"].transform("nunique") == count
    if count < 2:
        raise NoData(f"Its {words.plural(len(of_each), 'task')} have no two methods in common, so it is not drawn.")
    return runs[whole]


def _has_largest_budget(runs: pd.DataFrame) -> pd.Series:
    """Returns which runs have the largest budget of their task, plain steps taken as the seconds that they last."""
    seconds = runs["plain_step_seconds"].astype(float).where(runs["unit"] == "plain_steps").fillna(1.0)
    sizes = (runs["budget"] * seconds).groupby([runs[name] for name in (*TASK, "unit", "budget")]).transform("median")
    return sizes == sizes.groupby([runs[name] for name in TASK]).transform("max")


def own_budgets(runs: pd.DataFrame) -> str:
    """Returns each task with its budget and, where these differ, its number of seeds."""
    groups = [own for _, own in runs.groupby(TASK)]
    seeds = [own["seed"].nunique() for own in groups]
    parts = []
    for own, count in zip(groups, seeds, strict=True):
        more = "" if len(set(seeds)) == 1 else f", {words.plural(count, 'seed')}"
        parts.append(f"{words.task_names(own)}: {words.budgets(own)}{more}")
    return "; ".join(sorted(parts))


def setting(runs: pd.DataFrame) -> str:
    """Returns the end of a caption: the budget of each task, and disturbed runs."""
    return words.setting(runs, f"Budgets of a run: {own_budgets(runs)}.")


def stamp(runs: pd.DataFrame) -> str:
    """Returns what a figure of several tasks has to say of itself where it is shown without its caption."""
    return words.stamp(runs, own_budgets(runs))
