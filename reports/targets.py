"""Validation losses that methods are timed to: whose median they are, and when a run is as good for good."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pandas as pd

from reports.selection import option
from reports.statistics import at_most_from


class Target(NamedTuple):
    """A validation loss to be reached, and the label of the method whose median it is."""

    loss: float
    label: str


def upper_median(losses: pd.Series) -> float:
    """Returns the median, of an even number of runs the upper middle one, so that at least half of them reach it."""
    ordered = np.sort(losses.fillna(np.inf).to_numpy(float))
    return float(ordered[len(ordered) // 2]) if len(ordered) else np.inf


def lowest_target(runs: pd.DataFrame) -> Target | None:
    """Returns the target of the method whose runs end lowest on validation; None where none selects a model."""
    found = [(upper_median(own["incumbent_validation_loss"]), str(label)) for label, own in runs.groupby("label")]
    able = [Target(*pair) for pair in found if np.isfinite(pair[0])]
    return min(able, default=None)


def textbook(runs: pd.DataFrame) -> pd.DataFrame:
    """Returns the runs of trainings with nothing drawn or searched for."""
    given = (option(runs, "lr").notna() & option(runs, "weight_decay").notna()).to_numpy()
    return runs[(runs["family"] == "training") & given]


def reached_by(incumbents: pd.DataFrame | None, target: float) -> pd.Series | None:
    """Returns the selected model from which on a run is as good as a target for good; None for a miss."""
    if incumbents is None:
        return None
    index = at_most_from(incumbents["validation_loss"].to_numpy(float), target)
    return None if index is None else incumbents.iloc[index]
