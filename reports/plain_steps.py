"""Budgets of plain steps on axes: counted seconds and the steps of plain SGD that take as long, beside each other."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes

from reports.style import log_scale

UNIT = "plain_steps"


def seconds_per_step(runs: pd.DataFrame) -> float | None:
    """Returns the median time of a plain step over the runs, whose devices may differ; None for other budgets."""
    if not (runs["unit"] == UNIT).all() or "plain_step_seconds" not in runs:
        return None
    seconds = runs["plain_step_seconds"].dropna()
    return None if seconds.empty else float(seconds.median())


def in_seconds(per_step: float | None) -> str:
    """Returns what follows a unit of plain steps on an axis that has no second one; empty for other budgets."""
    return "" if per_step is None else f"; 1,000 are {1000 * per_step:.3g} counted seconds"


def second_axis(axes: Axes, per_unit: float | None, label: str) -> None:
    """Adds an axis above a logarithmic one: `per_unit` of its units are one of the unit below.  Adds none for None."""
    if per_unit is None:
        return
    above = axes.twiny()
    left, right = axes.get_xlim()
    above.set_xlim(per_unit * left, per_unit * right)
    log_scale(above, "x")
    above.grid(visible=False)
    above.set_xlabel(label, fontsize="small")
    above.tick_params(axis="x", labelsize="small")
    above.spines["top"].set_visible(True)
