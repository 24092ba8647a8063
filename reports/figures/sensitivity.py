"""How much the first learning rate matters: test loss at a fixed budget against it, over many decades."""

from __future__ import annotations

import itertools
import json
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from reports import style
from reports.estimates import NONE_TRAINED, About, about
from reports.looks import GREY, MARKERS, MOST_COLOURS, Look, Method, assigned, ours_first
from reports.selection import NoData, comparable, option, require_finite
from reports.strips import summarise
from reports.tables import Tables
from reports.words import decimal, listed, loss_text, medians_over

NEAR = 1.5
"""Within which factor of the lowest median of all a median is near it."""
QUESTION = "How far off may the first learning rate be before the result suffers?"
METHOD = (
    "Runs that differ in their first learning rate alone are one method, called what their labels begin with. All have the "
    "same budget; in one of steps a step of OHO, which takes several times as long, counts like any other. Beside each "
    f"name stands from how many of its first rates the median is within a factor of {NEAR:g} of the lowest of all."
)
ABOUT_LABELS = ("lr", "label")
"""Options in which the runs of one method differ."""
JOINTS = " ,:;=–-("
"""What is left at the end of what labels begin with, and is no part of a name."""
SHIFT = 0.05
"""How far, in decades, the points of neighbouring methods stand apart."""


@dataclass(frozen=True)
class Estimates:
    """`runs` has a row for each run, `summary` one for each method and first learning rate; a method that has none has one
    row, with a start of NaN.  `near` maps each method to how many of its starts are near the lowest median, and to all.
    """

    runs: pd.DataFrame
    summary: pd.DataFrame
    near: dict[str, tuple[int, int]]
    about: About

    @property
    def csv(self) -> pd.DataFrame:
        """The data behind the figure, a row for each run."""
        return self.runs


def estimate(tables: Tables) -> Estimates:
    """Returns final test losses by method and first learning rate."""
    runs = comparable(tables.runs)
    has_rate = runs["options"].map(lambda options: "lr" in options)
    runs = runs.assign(start=option(runs, "lr").astype(float), test_loss=runs["incumbent_test_loss"])
    runs = runs[runs["start"].notna() | ~has_rate]  # one that is drawn is another for each seed
    runs = runs.assign(group=_groups(runs))
    starts = runs.groupby("group")["start"].nunique()
    runs = runs[runs["group"].map(starts).ne(1)]
    if runs["start"].nunique() < 2:
        raise NoData("This figure needs a method with two or more given learning rates, so it is not drawn.")
    require_finite(runs["test_loss"])
    first = runs.groupby("group")["place"].transform("min")
    runs = runs.assign(first=first, start_order=runs["start"].fillna(0.0))
    summary = summarise(runs, ["first", "group", "family", "start_order"])
    summary["start"] = summary["start_order"].where(summary["start_order"] > 0)
    data = runs[["run", "task", "seed", "group", "family", "label", "start", "test_loss", "selected_step", "status"]]
    return Estimates(data, summary.drop(columns=["first", "start_order"]), _near(summary), about(runs))


def _groups(runs: pd.DataFrame) -> pd.Series:
    """Returns the name of each run's method: what the labels of all its first learning rates begin with."""
    keys = runs["options"].map(_but_rate) + runs["experiment"]
    return runs["method_label"].groupby(keys).transform(_beginning)


def _but_rate(options: dict[str, Any]) -> str:
    return json.dumps({name: value for name, value in options.items() if name not in ABOUT_LABELS}, sort_keys=True)


def _beginning(labels: pd.Series) -> str:
    """Returns `SGD` for `SGD from 1e-3` and `SGD from 1e-2`; of a single label, all of it."""
    found = sorted(set(labels))
    if len(found) == 1:
        return found[0]
    words = zip(*(label.split() for label in found), strict=False)
    alike = itertools.takewhile(lambda each: len(set(each)) == 1, words)
    name = " ".join(each[0] for each in alike).removesuffix(" from").rstrip(JOINTS)
    return name or found[0]


def _near(summary: pd.DataFrame) -> dict[str, tuple[int, int]]:
    trained = summary.loc[~summary["untrained"], "median"]
    lowest = trained.min() if len(trained) else np.nan
    is_near = (summary["median"] <= NEAR * lowest) & ~summary["untrained"]
    return {
        str(name): (int(is_near[own.index].sum()), len(own)) for name, own in summary.groupby("group", sort=False)
    }


def draw(estimates: Estimates) -> Figure:
    """Draws medians over first learning rates, a line for each method, over every run as a point."""
    figure, axes = style.panels(1, 1, height=3.1 if style.in_column() else 3.4)
    looks = _looks(estimates)
    groups = dict(iter(estimates.summary.groupby("group", sort=False)))
    runs = dict(iter(estimates.runs.groupby("group", sort=False)))
    swept = [name for name in groups if groups[name]["start"].notna().any()]
    starts = estimates.summary["start"].dropna()
    for place, name in enumerate(sorted(swept, key=lambda name: looks[name].colour != GREY)):
        shift = 10 ** (SHIFT * (place - (len(swept) - 1) / 2))
        _draw_points(axes, runs[name], looks[name], shift=shift)
    for name in sorted(groups, key=lambda name: looks[name].colour != GREY):
        own, line = looks[name], groups[name].replace(np.inf, np.nan)
        if name in swept:
            axes.plot(line["start"], line["median"], color=own.colour, ls=own.dashes, marker=own.marker, ms=5,
                      lw=1.5 if own.colour != GREY else 0.9, mec="white", mew=0.5, zorder=3)  # fmt: skip
        else:
            axes.axhline(line["median"].iloc[0], color=own.colour, lw=0.9, ls=own.dashes, zorder=1)
    style.log_scale(axes, "x", "y")
    axes.set_xlim(starts.min() / 1.8, starts.max() * 1.8)
    axes.set_xlabel("First learning rate")
    axes.set_ylabel(estimates.about.units.axis("Final test loss"))
    axes.grid(visible=True, axis="both")
    _name(figure, estimates, looks, swept)
    style.stamp(figure, estimates.about.stamp)
    return figure


def _looks(estimates: Estimates) -> dict[str, Look]:
    """Returns looks of which a few have a colour: the method that is lowest, those under test, and the best others."""
    lowest = estimates.summary.loc[estimates.summary["median"].idxmin(), "group"]
    summary = estimates.summary.assign(size=np.log(estimates.summary["median"].clip(1e-12, 1e12)))
    table = summary.groupby("group", sort=False).agg(family=("family", "first"), size=("size", "mean"))
    first = list(dict.fromkeys([lowest, *ours_first(table, "size")]))[:MOST_COLOURS]
    known = assigned(Method(str(name), family) for name, family in table["family"].items())
    looks = {}
    for place, (name, own) in enumerate(known.items()):
        marker = MARKERS[place % len(MARKERS)]  # in print, families that share a marker could not be told apart
        looks[name] = own._replace(marker=marker, colour=own.colour if name in first else GREY)
    return looks


def _draw_points(axes: Axes, runs: pd.DataFrame, own: Look, *, shift: float) -> None:
    """Draws every run; those that have no finite loss stand as crosses at the upper edge."""
    is_lost = ~np.isfinite(runs["test_loss"].astype(float))
    axes.plot(shift * runs["start"][~is_lost], runs["test_loss"][~is_lost], ls="none", marker="o", ms=2.6, mew=0,
              color=own.colour, alpha=0.55, zorder=2)  # fmt: skip
    if is_lost.any():
        axes.plot(shift * runs["start"][is_lost], [1.0] * int(is_lost.sum()), ls="none", marker="x", ms=5, mew=1.1,
                  color=own.colour, clip_on=False, transform=axes.get_xaxis_transform(), zorder=5)  # fmt: skip


def _name(figure: Figure, estimates: Estimates, looks: dict[str, Look], swept: list[str]) -> None:
    """Names the methods with how many of their starts are near: at the right, the lowest first, or above in a column."""
    ordered = estimates.summary.groupby("group", sort=False)["median"].median().sort_values(kind="stable").index
    handles, texts = [], []
    for name in ordered:
        has_rate, own = name in swept, looks[name]
        handles.append(Line2D([], [], color=own.colour, ls=own.dashes, marker=own.marker if has_rate else None, ms=4))
        near, count = estimates.near[name]
        texts.append(f"{name}, {near} of {count}" if has_rate else name)
    if style.in_column():
        style.legend_above(figure, handles, texts, columns=2, size=6)
    else:
        bold, title = [looks[name].colour != GREY for name in ordered], f"First rates within {NEAR:g} × the lowest loss"
        style.legend_beside(figure, handles, texts, bold=bold, title=title)


def caption(estimates: Estimates) -> str:
    """Says what the figure shows, with n, budget and device."""
    return (
        f"The cost of a first learning rate that is far off: {medians_over(estimates.summary['n'], 'run')}, "
        "with runs as points and lost ones as crosses; beside the names, how many first rates give a median within "
        f"{NEAR:g} times the lowest. {estimates.about.setting}"
    )


def findings(estimates: Estimates) -> list[str]:
    """Tells for each method how many first rates are near the best, and between which ends its medians lie."""
    if estimates.summary["untrained"].all():
        return [NONE_TRAINED]
    swept = estimates.summary[estimates.summary["start"].notna()]
    starts = swept["start"]
    decades = np.log10(starts.max() / starts.min())
    counts = [(name, *estimates.near[str(name)]) for name in swept["group"].unique()]
    counts.sort(key=lambda item: -item[1] / item[2])
    parts = [f"{name} from {near} of {count}" for name, near, count in counts]
    near = f"Over {decades:.3g} decades of the first learning rate, medians are within {NEAR:g} times the lowest with"
    return [f"{near} {listed(parts)}.", *_widest(swept)]


def _widest(swept: pd.DataFrame) -> list[str]:
    """Says which method depends most on its first rate, and which least; nothing of a method alone."""
    ends = swept.groupby("group", sort=False)["median"].agg(["min", "max"])
    ordered = (ends["max"] / ends["min"]).sort_values(kind="stable").index
    least, most = (
        f"with {name} ({loss_text(ends.loc[name, 'min'])} to {loss_text(ends.loc[name, 'max'])})"
        for name in ordered[[0, -1]]
    )
    return [f"Medians depend least on the first rate {least}, and most {most}."] if len(ordered) > 1 else []


def published_rows(estimates: Estimates) -> list[list[str]]:
    """Returns the median of each method at each first learning rate."""
    swept = estimates.summary[estimates.summary["start"].notna()]
    starts = sorted(swept["start"].unique())
    rows = []
    for name, own in swept.groupby("group", sort=False):
        medians = own.set_index("start")["median"]
        rows.append([str(name), *(loss_text(medians[start]) if start in medians else "—" for start in starts)])
    return [["Median from", *map(decimal, starts)], *rows]
