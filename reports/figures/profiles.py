"""How often each method is within a factor of the best: performance profiles over tasks and seeds."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from reports import style
from reports.estimates import NONE_TRAINED, untrained_sentences
from reports.looks import MOST_COLOURS, Look, emphasised
from reports.pooling import PROBLEM, pooled, setting, stamp
from reports.selection import ONLINE, NoData, untrained
from reports.statistics import performance_profile
from reports.tables import Tables
from reports.words import decimal, listed, percent, plural

QUESTION = "Over all problems, how often is each method within a given factor of the best one?"
METHOD = (
    "A problem is a task with one seed, on which every method was run under the same budget, the largest of those that "
    "the task was run with; tasks may have different ones. The ratio is a method's final test loss over the lowest of "
    "any method on that problem; a run without a finite loss has an infinite one. All tasks that feed the figure are "
    "pooled, those with budgets of time alone where there are any, and the methods are those that each of them has. The "
    "profile at a factor is the share of problems with a ratio up to it (Dolan and Moré, 2002), so that at 1 it says "
    "how often the method is best. Methods are in the order of the area below it, over the factor's logarithm. Bands, "
    "from six problems on, are 95 % bootstrap intervals over seeds, stratified by task."
)
POINTS = 200
LARGEST = 32.0
"""Factor at which the axis ends at the latest."""
TICKS = {4.0: (1, 1.1, 1.25, 1.5, 2, 3, 4), math.inf: (1, 1.5, 2, 3, 4, 6, 8, 12, 16, 24, 32)}
"""Ticks of axes that end below a factor."""
SHARES = (1.0, 1.1, 2.0)
"""The factors at which leaders are named."""
LIGHT = "#BDBDBD"
"""The lines of methods that have no colour."""


@dataclass(frozen=True)
class Estimates:
    """`ratios` has a row for each problem and method, `curves` one for each method and factor, with the share and its
    interval; `areas` has the mean share of each method over the logarithm of the factor, `families` its family; `untrained`
    are the methods most of whose runs return the untrained model.

    Ratios have no unit, so that problems of different units may stand together.
    """

    ratios: pd.DataFrame
    curves: pd.DataFrame
    areas: pd.Series
    families: pd.Series
    untrained: list[str]
    setting: str
    stamp: str

    @property
    def csv(self) -> pd.DataFrame:
        """The data behind the figure."""
        return self.ratios

    @property
    def problems(self) -> int:
        """How many problems there are."""
        return self.ratios[PROBLEM].drop_duplicates().shape[0]


def estimate(tables: Tables) -> Estimates:
    """Returns ratios on the problems that all methods were run on, and their profiles."""
    runs = pooled(tables.runs)
    losses = runs.fillna({"incumbent_test_loss": np.inf}).pivot(
        index=PROBLEM, columns="label", values="incumbent_test_loss"
    )  # fmt: skip
    if len(losses) < 2:
        raise NoData("This figure needs two or more problems on which two or more methods were run, so it is not drawn.")
    best = losses.min(axis=1)
    if not np.isfinite(best).all() or (best <= 0).any():
        raise NoData("On some problem no method has a finite loss above 0, which leaves no ratio, so it is not drawn.")
    ratios = losses.div(best, axis=0)
    factors = np.geomspace(1, min(LARGEST, max(1.1, ratios.replace(np.inf, np.nan).max(axis=None))), POINTS)
    methods = runs.drop_duplicates("label").set_index("label")
    strata = [problem[:-1] for problem in ratios.index]
    rows = []
    for label in sorted(ratios.columns, key=lambda label: (methods.loc[label, "place"], label)):
        share, low, high = performance_profile(ratios[label].to_numpy(float), factors, strata)
        rows.append(pd.DataFrame({
            "label": label, "method_label": methods.loc[label, "method_label"], "factor": factors, "share": share,
            "low": low, "high": high,
        }))  # fmt: skip
    tidy = ratios.stack().rename("ratio").reset_index()
    curves = pd.concat(rows, ignore_index=True)
    bad = [str(label) for label, group in runs.groupby("label", sort=False) if untrained(group)]
    areas = curves.groupby("label", sort=False)["share"].mean()
    return Estimates(tidy, curves, areas, methods["family"], bad, setting(runs), stamp(runs))


def draw(estimates: Estimates) -> Figure:
    """Draws a step line for each method, a few in colour; names stand at the right, by the area below their lines."""
    curves = dict(iter(estimates.curves.groupby("label", sort=False)))
    first = _first(estimates)
    labels = sorted(curves, key=lambda label: -estimates.areas[label])
    looks = emphasised(labels, [curves[label]["method_label"].iloc[0] for label in labels], first=first)
    is_narrow = style.in_column()
    figure, axes = style.panels(1, 1, height=3.0 if is_narrow else 3.2)
    coloured = [label for label in labels if label in first]
    for label in [*(label for label in labels if label not in first), *reversed(coloured)]:
        _draw_line(axes, curves[label], looks[label], is_coloured=label in first)
    axes.set_xscale("log", base=2)
    _set_factors(axes, estimates.curves["factor"].max())
    axes.set_ylim(0, 1.02)
    axes.set_xlabel("Factor of the lowest test loss on the problem")
    axes.set_ylabel("Share of problems")
    handles, names = [_handle(looks[label]) for label in coloured], list(coloured)
    if others := [label for label in labels if label not in coloured]:
        handles.append(Line2D([], [], color=LIGHT, lw=0.6))
        names.append(others[0] if len(others) == 1 else plural(len(others), "other method"))
    if is_narrow:
        style.legend_above(figure, handles, names, columns=2, size=6)
    else:
        style.legend_beside(figure, handles, names, bold=[name in coloured for name in names])
    style.stamp(figure, estimates.stamp)
    return figure


def _first(estimates: Estimates) -> list[str]:
    """Returns the methods in colour: those with the largest areas, the best of OHO and, for each of SHARES, the one most
    often within that factor.
    """
    areas = estimates.areas.drop(index=estimates.untrained, errors="ignore").sort_values(ascending=False, kind="stable")
    ordered = [str(label) for label in areas.index]
    ours = [label for label in ordered if estimates.families[label] == ONLINE]
    leaders = [str(_within(estimates, factor)[ordered].idxmax()) for factor in SHARES if ordered]
    return list(dict.fromkeys([*ordered[:1], *ours[:1], *leaders, *ordered]))[:MOST_COLOURS]


def _within(estimates: Estimates, factor: float) -> pd.Series:
    """Returns the share of problems on which each method is within a factor of the best; untrained ones are left out."""
    return _shares(estimates.ratios[~estimates.ratios["label"].isin(estimates.untrained)], factor)


def _shares(ratios: pd.DataFrame, factor: float) -> pd.Series:
    """Returns the share of problems on which each method is within a factor of the best."""
    return ratios.assign(within=ratios["ratio"] <= factor).groupby("label", sort=False)["within"].mean()


def _draw_line(axes: Axes, curve: pd.DataFrame, own: Look, *, is_coloured: bool) -> None:
    if not is_coloured:
        axes.plot(curve["factor"], curve["share"], color=LIGHT, lw=0.6, drawstyle="steps-post", zorder=1)
        return
    axes.plot(curve["factor"], curve["share"], color=own.colour, ls=own.dashes, lw=1.6, drawstyle="steps-post",
              marker=own.marker, markevery=(0.02, 0.2), ms=4, zorder=3)  # fmt: skip
    axes.fill_between(curve["factor"], curve["low"], curve["high"], color=own.colour, alpha=0.06, lw=0, step="post")


def _set_factors(axes: Axes, largest: float) -> None:
    """Ends the axis at the largest factor, with ticks that can be read."""
    axes.set_xlim(1, largest)
    ticks = next(places for end, places in TICKS.items() if largest <= end)
    axes.set_xticks([tick for tick in ticks if tick <= largest])
    axes.xaxis.set_major_formatter(decimal)


def _handle(own: Look) -> Line2D:
    return Line2D([], [], color=own.colour, ls=own.dashes, lw=1.6, marker=own.marker, ms=4)


def caption(estimates: Estimates) -> str:
    """Says what the figure shows, with n, budget and device."""
    count = plural(estimates.problems, "problem")
    bands = "" if estimates.curves["low"].isna().all() else " Bands: 95 % bootstrap intervals over seeds."
    has_others = len(estimates.areas) > len(_first(estimates))
    others = " In colour, the best methods and OHO, by the area below their lines; the table has all." if has_others else ""
    return (
        f"How often each method is near the best: its share of {count}; higher is better.{others}{bands} "
        f"{estimates.setting}"
    )


def findings(estimates: Estimates) -> list[str]:
    """Names the methods in front at a few factors."""
    if set(estimates.ratios["label"]) <= set(estimates.untrained):
        return [NONE_TRAINED]
    sentences, count = [], plural(estimates.problems, "problem")
    for factor in SHARES:
        shares = _within(estimates, factor)
        most = shares.max()
        leaders = [str(label) for label in shares.index[shares == most]]
        where = "best" if factor == 1 else f"within a factor of {factor:g} of the best"
        who = listed(leaders) if len(leaders) <= MOST_COLOURS else f"{len(leaders)} of {plural(len(shares), 'method')}"
        verb = "is" if len(leaders) == 1 else "are"
        sentences.append(f"{who} {verb} most often {where}, on {percent(most)} of {count}.")
    ours = [label for label in _first(estimates) if estimates.families[label] == ONLINE][:1]
    if ours and len(estimates.areas) > MOST_COLOURS:
        best, *near = [percent(_within(estimates, factor)[ours[0]]) for factor in SHARES]
        parts = [f"of {factor:g} on {share}" for factor, share in zip(SHARES[1:], near, strict=True)]
        sentences.append(f"The best of OHO, {ours[0]}, is best on {best}, and within a factor {listed(parts)}.")
    return sentences + untrained_sentences(estimates.untrained)


def published_rows(estimates: Estimates) -> list[list[str]]:
    """Returns on which share of the problems each method is within each of SHARES, and its mean share."""
    within = [_shares(estimates.ratios, factor) for factor in SHARES]
    rows = [
        [str(label), *(percent(shares[label]) for shares in within), percent(area)]
        for label, area in estimates.areas.sort_values(ascending=False, kind="stable").items()
    ]
    heads = ["Best" if factor == 1 else f"Within {factor:g} times" for factor in SHARES]
    return [["Method", *heads, "Mean share"], *rows]
