"""A line for each method on an axis of time: when it reaches a target; what misses it stands at the edge."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from reports import style
from reports.looks import GREY, Look, emphasised
from reports.reaching import OTHERS, OWN, REFERENCE, TEXTBOOK, Estimates
from reports.selection import ONLINE
from reports.strips import write_beside

FEW = 4
"""How many methods that reach no target have lines of their own, in the figure and in its table."""
QUICKEST_FIRST = ["untested", "seconds", "misses", "label"]
"""The columns of a summary by which methods are ordered."""


def _is_reference(estimates: Estimates) -> pd.Series:
    """Returns which rows of the main target's summary are of the method that sets it."""
    summary = estimates.of(estimates.main)
    if estimates.main == OWN:
        return summary["method"] == REFERENCE
    return summary["label"] == estimates.targets[TEXTBOOK].label


def lines_of(estimates: Estimates) -> list[str | dict[str, Any]]:
    """Returns what stands from top to bottom: methods, and headings of groups; in a group the quickest first."""
    summary, is_reference = estimates.of(estimates.main), _is_reference(estimates)
    lines: list[str | dict[str, Any]] = [{**row, "bar": row["label"]} for row in summary[is_reference].to_dict("records")]
    lost = lost_methods(estimates)
    rest = summary[~is_reference & ~summary["label"].isin(lost)]
    groups = dict.fromkeys(rest["group"])
    for title in sorted(groups, key=lambda title: title == OTHERS):
        own = rest[rest["group"] == title]
        titles = [] if list(groups) == [OTHERS] else [title]
        lines += [*titles, *own.sort_values(QUICKEST_FIRST).to_dict("records")]
    return [*lines, {"label": lost[0], "bar": f"{len(lost)} other methods", "are_many": True}] if lost else lines


def lost_methods(estimates: Estimates) -> list[str]:
    """Returns the methods that share a line, since none of their runs reaches any target; none where they are few."""
    tested = estimates.summary[~estimates.summary["untested"]]
    is_lost = (tested["misses"] == tested["n"]).groupby(tested["label"], sort=False).all()
    lost = [str(label) for label in is_lost.index[is_lost]]
    return lost if len(lost) > FEW else []


def looks_of_lines(estimates: Estimates) -> dict[str, Look]:
    """Returns each method's look: in colour who sets a target, who is quickest, and OHO; others are grey."""
    summary = estimates.of(estimates.main).sort_values(QUICKEST_FIRST)
    setters = [target.label for target in estimates.targets.values()]
    ours = summary.loc[summary["family"] == ONLINE, "label"]
    first = [*setters, *summary["label"][:1], *ours]
    return emphasised(list(summary["label"]), list(summary["method_label"]), first=first)


def draw_dots(axes: Axes, lines: list[str | dict[str, Any]], looks: Mapping[str, Look]) -> None:
    """Draws medians with their intervals on a logarithmic axis; what is infinite stands at its right edge."""
    rows = {place: line for place, line in enumerate(lines) if not isinstance(line, str)}
    tested = [row for row in rows.values() if not row["untested"]]
    ends = np.array([[row["seconds"], row["seconds_low"], row["seconds_high"]] for row in tested], dtype=float)
    finite = ends[np.isfinite(ends) & (ends > 0)]
    low, high = (finite.min(), finite.max()) if len(finite) else (0.1, 1.0)
    edge = 1.6 * high
    axes.set_xlim(0.7 * low, edge)
    for place, row in rows.items():
        if row["untested"]:
            write_beside(axes, place, "", "not tested", va="center", fontsize=6.5)
            continue
        colour, marker, *_ = looks[row["label"]]
        colour = GREY if row.get("are_many") else colour
        is_missed = np.isinf(row["seconds"])
        if np.isfinite(row["seconds_low"]):
            axes.plot([row["seconds_low"], min(row["seconds_high"], edge)], [place] * 2, color=colour, lw=1.1)
        axes.plot(min(row["seconds"], edge), place, ls="none", marker=">" if is_missed else marker, color=colour, ms=5,
                  mfc="none" if is_missed else colour, clip_on=False)  # fmt: skip
        trials = "–" if np.isinf(row["trials"]) else f"{row['trials']:.3g}"
        write_beside(axes, place, trials, f"{row['n'] - row['misses']}/{row['n']}", va="center", fontsize=6.5)
    write_beside(axes, -0.7, "trials", "runs", va="bottom", fontsize=6, color="#666666")
    style.log_scale(axes, "x")
    axes.grid(visible=True, axis="x")
    axes.grid(visible=False, axis="y")
    axes.tick_params(axis="y", length=0)
