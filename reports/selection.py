"""Which runs a figure takes, and the sentence that stands in its place where there are none."""

from __future__ import annotations

import numpy as np
import pandas as pd

from bench.records import Status
from bench.records.schema import TIMED, option_fits
from reports import words

MEASURED = tuple(str(status) for status in Status if status.is_result)
COLUMNS = {"task": ["task", "data", "task_id"], "budget": ["budget", "unit"], "space": ["space"]}
"""What runs must have in common to be compared."""
MOST_VOID = 0.1
"""The largest share of an experiment's timed runs whose clock may have been disturbed."""
FEWEST_SEEDS = 0.5
"""A method is not ranked among others if it has fewer than this share of the seeds of the method with the most."""
ONLINE = "online"
"""The family of the methods under test."""


class NoData(Exception):  # noqa: N818 (a reason, not an error)
    """The figure cannot be drawn; the message is the sentence that stands in its place."""


class Incomparable(NoData):
    """Runs differ in what they must have in common, as those of several experiments may."""


def measured(runs: pd.DataFrame) -> pd.DataFrame:
    """Returns the runs that count as results and have no shock, which would make another method of theirs.

    A run that several experiments share is there once under each label.  Raises `NoData` where there are none.
    """
    chosen = with_shocks(runs)
    spared = chosen[chosen["shock"] == ""].drop_duplicates(["run", "label"])
    if spared.empty:
        raise NoData("All measured runs of this figure have a shock, and it compares runs without one, so it is not drawn.")
    return spared


def with_shocks(runs: pd.DataFrame) -> pd.DataFrame:
    """Returns the runs that count as results, those with a shock included.  Raises `NoData` where there are none."""
    if runs.empty:
        raise NoData("No experiment in this folder names it under `figures:`, so it is not drawn.")
    chosen = runs[runs["status"].isin(MEASURED)]
    if chosen.empty:
        raise NoData("No run that this figure needs has been measured, so it is not drawn.")
    return chosen


def enough_seeds(counts: pd.Series) -> pd.Index:
    """Returns the methods that have enough seeds to be ranked among the others, given each one's number of seeds."""
    return counts.index[counts >= FEWEST_SEEDS * counts.max()]


def comparable(runs: pd.DataFrame) -> pd.DataFrame:
    """Returns the measured runs, if task, the task's options, budget and space are the same for all.

    Raises `Incomparable` where they are not.
    """
    chosen = measured(runs)
    differing = [
        f"{name} ({in_words(chosen)})"
        for name, in_words in {"task": words.differing_tasks, "budget": words.budgets, "space": words.spaces}.items()
        if len(chosen[COLUMNS[name]].drop_duplicates()) > 1
    ]
    if differing:
        raise Incomparable(f"Its runs differ in {' and in '.join(differing)}, and cannot be compared, so it is not drawn.")
    return chosen


def void(runs: pd.DataFrame) -> list[str]:
    """Returns a sentence for each experiment under budgets of time in which too many runs had their clock disturbed.

    Its runs were not given equal budgets: no ranking is written of it.
    """
    timed = runs[runs["status"].isin(MEASURED) & runs["unit"].isin(TIMED)].drop_duplicates(["experiment", "run"])
    sentences = []
    for experiment, group in timed.groupby("experiment", sort=True):
        disturbed = int((group["disturbed_because"] != "").sum())
        if disturbed > MOST_VOID * len(group):
            sentences.append(
                f"Experiment {experiment} is not valid: in {disturbed} of {words.plural(len(group), 'run')} the clock was "
                f"disturbed, more than {words.percent(MOST_VOID)}, so that no ranking is written of it."
            )
    return sentences


def require_finite(values: pd.Series, what: str = "loss") -> None:
    """Raises `NoData` where nothing is finite: an axis would be empty."""
    if not np.isfinite(values.astype(float)).any():
        raise NoData(f"No run of this figure has a finite {what}, so it is not drawn.")


def require_own_seconds(runs: pd.DataFrame) -> None:
    """Raises `NoData` where seconds are not each run's own."""
    shared = int((runs["shared_by"] > 1).sum())
    if shared:
        raise NoData(
            f"{shared} of its {len(runs)} runs were trained together with others, and their seconds cannot be compared, so "
            "it is not drawn; `population: off` in the experiment makes each run alone."
        )


def online(runs: pd.DataFrame) -> pd.Series:
    """Returns which runs are of a method under test."""
    return runs["family"] == ONLINE


def option(runs: pd.DataFrame, name: str) -> pd.Series:
    """Returns a setting of each run's method; None where the method has none of that name or, if it is a user's own, one of
    another type."""
    return runs["options"].map(lambda options: value if option_fits(name, value := options.get(name)) else None)


def untrained(runs: pd.DataFrame) -> bool:
    """Returns whether more than half of these runs return the untrained model."""
    return bool((runs["selected_step"] == 0).mean() > 0.5)
