"""Final test loss against one setting: a box for each value of the setting, every run a point."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from reports import style
from reports.selection import untrained
from reports.statistics import median_of


class Box(NamedTuple):
    """Runs of one setting: where they are drawn, and their losses (n,), NaN for a run without one."""

    position: float
    losses: np.ndarray
    colour: str
    marker: str


def draw_boxes(axes: Axes, boxes: Sequence[Box], *, width: float = 0.6) -> None:
    """Draws quartiles and median of each box; whiskers reach the lowest and highest run."""
    for box in boxes:
        finite = box.losses[np.isfinite(box.losses)]
        if not len(finite):
            axes.annotate("no loss", (box.position, 0.5), xycoords=("data", "axes fraction"), ha="center", fontsize=6.5)
            continue
        look = {"color": box.colour, "linewidth": 0.9}
        axes.boxplot(
            finite, positions=[box.position], widths=width, whis=(0, 100), manage_ticks=False, boxprops=look,
            whiskerprops=look, capprops=look, medianprops={"color": "black", "linewidth": 1.6},
        )  # fmt: skip
        offsets = np.linspace(-0.25, 0.25, len(finite)) * width if len(finite) > 1 else np.zeros(1)
        axes.plot(box.position + offsets, finite, box.marker, color=box.colour, ms=3.5, alpha=0.6, mew=0)
    losses = np.concatenate([np.zeros(0), *(box.losses[np.isfinite(box.losses)] for box in boxes)])
    if len(losses) and losses.min() > 0 and losses.max() > 5 * losses.min():
        style.log_scale(axes, "y")


def summarise(runs: pd.DataFrame, keys: list[str]) -> pd.DataFrame:
    """Returns a row for each value of `keys`: n, median test loss with its interval, median counted seconds, and whether
    more than half of the runs return the untrained model."""
    rows = []
    for values, group in runs.groupby(keys, sort=True):
        loss = median_of(group["test_loss"])
        rows.append({
            **dict(zip(keys, values, strict=True)), "n": len(group), "median": loss.value, "low": loss.low,
            "high": loss.high, "seconds": group["counted_seconds"].median(), "untrained": untrained(group),
        })  # fmt: skip
    return pd.DataFrame(rows)
