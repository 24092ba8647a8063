"""Runs of several experiments as problems on which the same methods were tried."""

from __future__ import annotations

import pandas as pd

from bench.records.schema import TIMED
from reports.selection import NoData, measured
from reports.words import plural

PROBLEM = ["experiment", "task", "seed"]
"""What makes a problem: an experiment, which has one task and one budget, with one seed."""


def pooled(runs: pd.DataFrame) -> pd.DataFrame:
    """Returns the measured runs of the methods that every experiment has, on the problems that all of these were tried on.

    Where some experiments have budgets of time, they alone are pooled: equal steps are no equal budgets.  Raises `NoData`
    where fewer than two methods are left.
    """
    runs = measured(runs)
    if runs["unit"].isin(TIMED).any():
        runs = runs[runs["unit"].isin(TIMED)]
    runs = runs.drop_duplicates([*PROBLEM, "label"])
    of_each = [set(own["label"]) for _, own in runs.groupby("experiment")]
    runs = runs[runs["label"].isin(set.intersection(*of_each))]
    count = runs["label"].nunique()
    whole = runs.groupby(PROBLEM)["label"].transform("nunique") == count
    if count < 2:
        raise NoData(f"Its {plural(len(of_each), 'experiment')} have no two methods in common, so it is not drawn.")
    return runs[whole]
