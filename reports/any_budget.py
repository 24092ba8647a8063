"""What each method would have returned at any budget up to its own: medians over seeds, and who is lowest when."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from bench.records import ROUNDING
from reports.curves import held
from reports.estimates import About
from reports.looks import MOST_COLOURS
from reports.selection import ONLINE, enough_seeds
from reports.statistics import medians_of
from reports.tables import Tables

POINTS = 200
FIRST_FRACTION = 0.01
"""The part of the budget at which the axis begins."""
RANGES_AT = (0.05, 0.1, 0.25, 0.5, 1.0)
"""The parts of the budget at which intervals are drawn, and winners are found."""


@dataclass(frozen=True)
class Estimates:
    """`curves` has a row for each method and budget: the median with its interval or range, the number of runs, and whether
    more than half of these had selected nothing but the untrained model by then.  `n` is the number of runs of the method
    with the fewest.
    """

    curves: pd.DataFrame
    unit: str
    n: int
    most: int
    about: About
    seconds_per_step: float | None = None
    """Counted seconds of a plain step, where the budget is in such steps."""

    @property
    def csv(self) -> pd.DataFrame:
        """The data behind the figure."""
        return self.curves


def medians_by_budget(tables: Tables, runs: pd.DataFrame) -> pd.DataFrame:
    """Returns medians over seeds of the selected model's test loss, on a logarithmic grid of budgets."""
    amount = float(runs["budget"].iloc[0])
    grid = np.geomspace(FIRST_FRACTION * amount, amount, POINTS)
    incumbents = dict(iter(tables.incumbents.groupby("run")))
    rows = []
    for label, group in runs.groupby("label"):
        found = [_selected(incumbents.get(run), grid) for run in group["run"]]
        losses, untrained = (np.array(part) for part in zip(*found, strict=True))
        known = grid >= amount if group["spans_budget"].any() else np.full(POINTS, True)
        value, low, high = medians_of(losses)
        first = group.iloc[0]
        rows.append(pd.DataFrame({
            "label": label, "method_label": first["method_label"], "family": first["family"], "used": grid[known],
            "median": value[known], "low": low[known], "high": high[known], "n": len(group),
            "untrained": untrained.mean(axis=0)[known] > 0.5,
        }))  # fmt: skip
    return pd.concat(rows, ignore_index=True)


def _selected(incumbents: pd.DataFrame | None, grid: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the test loss of the last model found at each budget, infinite before the first, and which are untrained."""
    if incumbents is None:
        return np.full(len(grid), np.inf), np.full(len(grid), False)
    used, loss, step = (incumbents[name].to_numpy(float) for name in ("used", "test_loss", "step"))
    return held(used, loss, grid, before=np.inf), held(used, step, grid, before=np.nan) == 0


def trained_medians(curves: pd.DataFrame) -> pd.DataFrame:
    """Returns medians by budget (rows) and method, infinite where most runs had only the untrained model.

    A method with too few seeds to be ranked has none.
    """
    ranked = curves[curves["label"].isin(enough_seeds(curves.groupby("label")["n"].first()))]
    trained = ranked.assign(median=ranked["median"].mask(ranked["untrained"], np.inf))
    return trained.pivot(index="used", columns="label", values="median")


def row_at(table: pd.DataFrame, used: float) -> pd.Series:
    """Returns the medians at a budget, or at the next that is known."""
    return table.loc[table.index[np.searchsorted(table.index, used * (1 - ROUNDING))]]


def coloured_first(table: pd.DataFrame, curves: pd.DataFrame) -> list[str]:
    """Returns the methods that have a colour first: the winner at the end, the best of OHO, the other winners, all OHO."""
    ended = table.iloc[-1].sort_values(kind="stable")
    families = curves.drop_duplicates("label").set_index("label")["family"]
    ours = [label for label in ended.index if families[label] == ONLINE]
    rows = [row_at(table, fraction * table.index[-1]) for fraction in reversed(RANGES_AT)]
    winners = [str(row.idxmin()) for row in rows if np.isfinite(row).any()]
    return list(dict.fromkeys([*winners[:1], *ours[:1], *winners, *ours]))[:MOST_COLOURS]
