"""What the estimates of all figures have in common."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import pandas as pd

from reports import published, words
from reports.units import Units, units_of

NONE_TRAINED = "No method selected a trained model within the budget."


class About(NamedTuple):
    """What a figure says of its runs: for its caption, below it where it stands alone, and on its axes."""

    setting: str
    stamp: str
    units: Units
    papers_tasks: frozenset[str]
    """The runs' tasks, if all are the paper's own."""


def about(runs: pd.DataFrame) -> About:
    """Describes the runs of a figure.  Raises `NoData` where they measure different things, which share no axis."""
    units = units_of(runs)
    return About(words.setting(runs), words.stamp(runs), units, published.own_tasks(runs))


@dataclass(frozen=True)
class RunEstimates:
    """The estimates of a figure that shows every run: `runs` has a row for each, `summary` one for each group drawn."""

    runs: pd.DataFrame
    summary: pd.DataFrame
    about: About

    @property
    def csv(self) -> pd.DataFrame:
        """The data behind the figure."""
        return self.runs


def lowest(summary: pd.DataFrame) -> pd.Series | None:
    """Returns the group with the lowest median among those that return a trained model; None where there is none."""
    trained = summary[~summary["untrained"] & summary["median"].notna()]
    return None if trained.empty else trained.loc[trained["median"].idxmin()]


def untrained_sentences(names: Sequence[str], *, most: int = 2) -> list[str]:
    """Returns a sentence that names methods most of whose runs return the untrained model; none if there are no names.

    `most` is the largest number of runs that one of them has.
    """
    if not names:
        return []
    if most == 1:
        return [f"{words.listed(names)} {'returns' if len(names) == 1 else 'return'} the untrained model."]
    return [f"With {words.listed(names)} more than half of the runs return the untrained model."]
