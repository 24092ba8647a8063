"""What is recorded along a training: its value at any moment, and medians over seeds."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from reports.statistics import medians_of


def median_curves(data: pd.DataFrame, keys: list[str], value: str) -> pd.DataFrame:
    """Returns a row for each group of `keys` and evaluation: n, epoch, median of `value` and its interval.

    `data` has a row for each run and evaluation, with its epoch; the k-th evaluations of all runs of a group stand at their
    median epoch.  Where not all runs of a group have a k-th one, the curve ends; a missing value counts as infinite.
    """
    data = data.assign(place=data.groupby(["run", *keys], sort=False).cumcount())
    rows = []
    for names, group in data.groupby(keys, sort=False):
        table = group.fillna({value: np.inf}).pivot(index="run", columns="place", values=value).dropna(axis=1)
        median, low, high = medians_of(table.to_numpy(float))
        epochs = group.groupby("place")["epoch"].median()[table.columns]
        rows.append(pd.DataFrame({
            **dict(zip(keys, names, strict=True)), "n": len(table), "epoch": epochs.to_numpy(), "median": median,
            "low": low, "high": high,
        }))  # fmt: skip
    return pd.concat(rows, ignore_index=True)


def held(moments: np.ndarray, values: np.ndarray, grid: np.ndarray, *, before: float) -> np.ndarray:
    """Returns the last value at or before each place of the grid, and `before` where there is none.

    `moments`, in order, and `values` have the shape (n,), and `grid` and the result (m,).
    """
    last = np.searchsorted(moments, grid, side="right") - 1
    return np.where(last >= 0, values[np.maximum(last, 0)], before)


def draw_curve(
    axes: Axes, curve: pd.DataFrame, *, colour: str, marker: str = "", dashes: Any = "-", label: str | None = None,
    has_band: bool = True,
) -> None:  # fmt: skip
    """Draws one line, its band and a few marks, which tell lines apart in print; it has gaps where not finite."""
    curve = curve.replace(np.inf, np.nan)
    marks = (0.07, 0.23) if curve["median"].notna().any() else None  # of a line without points, matplotlib marks none
    axes.plot(curve["epoch"], curve["median"], color=colour, ls=dashes, lw=1.2, marker=marker, ms=3.5, mew=0.6,
              markevery=marks, label=label)  # fmt: skip
    if has_band:
        axes.fill_between(curve["epoch"], curve["low"], curve["high"], color=colour, alpha=0.12, lw=0)
