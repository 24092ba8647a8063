"""Every run as a point on the line of its group, with the group's median; runs of one seed are joined where they are pairs.

Few points say all that there is to say: a box or a violin of six runs would draw a law that nobody has measured.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from reports import style
from reports.looks import GREY, STAR
from reports.selection import untrained
from reports.statistics import median_of
from reports.words import loss_text

MANY = 20
"""From so many runs on, a bar shows where the middle half of them lies, and seeds are not joined."""
THREAD = "#C8C8C8"
"""The colour of the lines that join seeds."""
ROOM, MOST_ROOM = 0.19, 8.2
"""The height of a line, and of all lines of a panel at most, in inches."""


class Strip(NamedTuple):
    """The runs of one group: its name, its values by seed, NaN for a run that is lost, its colour and its marker."""

    name: str
    values: pd.Series
    colour: str = GREY
    marker: str = "o"


def room(count: int) -> float:
    """Returns the height of so many lines, in inches."""
    return min(MOST_ROOM, ROOM * count)


def by_seed(runs: pd.DataFrame, value: str) -> pd.Series:
    """Returns a column of runs by their seed and, where there are several, by their task."""
    keys = ["task", "seed"] if "task" in runs else ["seed"]
    return runs.set_index(keys)[value].astype(float)


def draw_strips(
    axes: Axes, strips: Sequence[Strip], *, scale: str = "", text: Callable[[float], str] = loss_text
) -> None:  # fmt: skip
    """Draws groups from top to bottom, with their names at the left, and medians and lost runs in columns at the right.

    Without a `scale`, the axis is logarithmic where values differ by more than a factor of five.
    """
    drawn = np.concatenate([np.zeros(0), *(_finite(strip).to_numpy() for strip in strips)])
    is_log = not scale and len(drawn) > 0 and bool(drawn.max() > 5 * drawn.min())
    if max(len(strip.values) for strip in strips) < MANY:
        _join(axes, strips, above=0.0 if is_log else -np.inf)
    are_lost = any(len(_finite(strip)) < len(strip.values) for strip in strips)
    for place, strip in enumerate(strips):
        _draw_points(axes, place, strip)
        median = median_of(strip.values).value
        if np.isfinite(median) and (median > 0 or not is_log):
            axes.plot([median] * 2, [place - 0.36, place + 0.36], color="black", lw=1.8, solid_capstyle="butt", zorder=4)
        lost = len(strip.values) - len(_finite(strip))
        columns = (text(median), f"{lost}/{len(strip.values)}" if lost else "–") if are_lost else (text(median),)
        write_beside(axes, place, *columns, va="center", fontsize=6.5)
    heads = ("median", "lost") if are_lost else ("median",)
    write_beside(axes, -0.7, *heads, va="bottom", fontsize=6, color="#666666")
    if is_log:
        style.log_scale(axes, "x")
    name_lines(axes, [strip.name for strip in strips])


def name_lines(axes: Axes, names: Sequence[str]) -> None:
    """Names the lines of a panel, from top to bottom, at its left."""
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.grid(visible=True, axis="x")
    axes.grid(visible=False, axis="y")


def write_beside(axes: Axes, place: float, *columns: str, **text: Any) -> None:
    """Writes columns at the right of a panel, at a line of it."""
    for points, column in zip((28, 54), columns, strict=False):
        axes.annotate(column, (1.0, place), (points, 0), xycoords=("axes fraction", "data"), textcoords="offset points",
                      ha="right", **text)  # fmt: skip


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


def _finite(strip: Strip) -> pd.Series:
    return strip.values[np.isfinite(strip.values)]


def _draw_points(axes: Axes, place: float, strip: Strip) -> None:
    finite = _finite(strip).to_numpy()
    if len(finite) >= MANY:
        quartiles = np.quantile(finite, (0.25, 0.75))
        axes.plot(quartiles, [place] * 2, color="#D9D9D9", lw=8, solid_capstyle="butt", zorder=1.5)
    size = 4.2 * (STAR if strip.marker == "*" else 1)
    axes.plot(finite, [place] * len(finite), ls="none", marker=strip.marker, color=strip.colour, ms=size,
              mec="white", mew=0.4, zorder=3)  # fmt: skip
    if len(finite) < len(strip.values):
        axes.plot(1.0, place, ls="none", marker="x", color=strip.colour, ms=5, mew=1.2, clip_on=False, zorder=5,
                  transform=axes.get_yaxis_transform())  # fmt: skip


def _join(axes: Axes, strips: Sequence[Strip], *, above: float) -> None:
    """Joins the runs of each seed from line to line, with a gap where one is lost, missing or not above a value."""
    if not all(strip.values.index.is_unique for strip in strips):
        return
    table = pd.concat([strip.values for strip in strips], axis=1).to_numpy()
    for row in table:
        shown = np.where(np.isfinite(row) & (row > above), row, np.nan)
        axes.plot(shown, range(len(strips)), color=THREAD, lw=0.6, zorder=1)
