"""Figure 9 of the paper: the rates at which the influence explodes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from reports import style
from reports.claims import Measured, Verdict, below, not_tested
from reports.estimates import About, about
from reports.influence_norms import norms
from reports.looks import DASHES, OURS
from reports.selection import NoData, measured, require_finite
from reports.statistics import median_of
from reports.tables import Tables
from reports.words import HYPERPARAMETERS, spread

QUESTION = "At which learning rates and meta-rates does the influence explode?"
METHOD = (
    "Shown is the largest norm of the influence at any evaluation of a run. In A learning rates are constant: the "
    "influence is carried, and nothing follows it. In B runs have one initial learning rate and several meta-rates."
)
LINES = {"lr": (OURS, "o", DASHES[0]), "weight_decay": ("#0072B2", "s", DASHES[1])}
"""Colour, marker and dashes by hyperparameter."""
FAR_LONGER = 10.0
"""How many times as long an influence is that has exploded."""


@dataclass(frozen=True)
class Estimates:
    """`summary` has a row for each panel, rate and hyperparameter: the median of the largest norms, and how many were not
    finite."""

    summary: pd.DataFrame
    about: About

    @property
    def csv(self) -> pd.DataFrame:
        """The data behind the figure."""
        return self.summary


def estimate(tables: Tables) -> Estimates:
    """Returns largest norms by learning rate (A) and by meta-rate (B)."""
    data = norms(tables)
    largest = data.groupby(["run", "name"], as_index=False).agg({"start": "first", "meta_rate": "first", "norm": "max"})
    given = largest[largest["start"].notna()]
    rows = []
    for panel, runs, rate in (
        ("A", given[given["meta_rate"] == 0], "start"), ("B", given[given["meta_rate"] > 0], "meta_rate"),
    ):  # fmt: skip
        for (value, name), group in runs.groupby([rate, "name"]):
            found = median_of(group["norm"])
            rows.append({
                "panel": panel, "rate": value, "name": name, "n": len(group), "median": found.value, "low": found.low,
                "high": found.high, "exploded": int(np.isinf(group["norm"]).sum()),
            })  # fmt: skip
    summary = pd.DataFrame(rows)
    if summary.empty or set(summary["panel"]) != {"A", "B"}:
        raise NoData("This figure needs OHO runs at given learning rates, at meta-rate 0 and above, so it is not drawn.")
    require_finite(summary["median"], "norm")
    runs = measured(tables.runs)
    return Estimates(summary, about(tables, runs))


def draw(estimates: Estimates) -> Figure:
    """Draws largest norms against learning rate (A) and meta-rate (B); runs that exploded are counted above."""
    figure, panels = style.panels(1, 2, height=2.6, sharey=True)
    for letter, axes, words in zip("AB", panels, ("Constant learning rate", "Meta-rate"), strict=True):
        _draw_panel(axes, estimates.summary[estimates.summary["panel"] == letter])
        axes.set_title(letter, loc="left")
        axes.set_xlabel(words)
    panels[0].set_ylabel("Largest norm of the influence")
    panels[0].legend(fontsize=6.5)
    style.stamp(figure, estimates.about.stamp)
    return figure


def _draw_panel(axes: Axes, summary: pd.DataFrame) -> None:
    style.log_scale(axes, "x", "y")
    axes.set_xlim(0.6 * summary["rate"].min(), 1.7 * summary["rate"].max())
    for name, words in HYPERPARAMETERS.items():
        colour, marker, dashes = LINES[name]
        line = summary[summary["name"] == name].replace(np.inf, np.nan)
        axes.plot(line["rate"], line["median"], marker=marker, ls=dashes, color=colour, lw=1, label=f"{words}")
        axes.vlines(line["rate"], line["low"], line["high"], color=colour, lw=0.9)
    for rate, group in summary.groupby("rate"):
        if exploded := group["exploded"].max():
            text = f"{exploded}/{group['n'].max()}\nexploded"
            axes.annotate(text, (rate, 1.0), xycoords=("data", "axes fraction"), ha="center", va="top", fontsize=6)


def caption(estimates: Estimates) -> str:
    """Says what the figure shows, with n, budget and device."""
    n, most = estimates.summary["n"].min(), estimates.summary["n"].max()
    return (
        f"Largest norm of the influence in a run: medians over {n} runs or more with {spread(n, most)}; where some "
        f"were not finite, how many. {estimates.about.setting}"
    )


def findings(estimates: Estimates) -> list[str]:
    """Tells how much the norm grows over each panel, and where it was not finite."""
    sentences = []
    for panel, words in (("A", "learning rate"), ("B", "meta-rate")):
        line = estimates.summary[(estimates.summary["panel"] == panel) & (estimates.summary["name"] == "lr")]
        first, last = line.iloc[0], line.iloc[-1]
        exploded = line.loc[line["exploded"] > 0, "rate"]
        end = f"; it is not finite in some runs from {exploded.min():g} on" if len(exploded) else ""
        sentences.append(
            f"From a {words} of {first['rate']:g} to {last['rate']:g} the norm with respect to the learning rate goes from "
            f"{first['median']:.2g} to {last['median']:.2g}{end}.".replace(" inf", " ∞")
        )
    return sentences


def verdicts(estimates: Estimates) -> list[Verdict]:
    """Decides whether the influence of the learning rate is far longer at the largest meta-rate than at the smallest."""
    rows = estimates.summary[(estimates.summary["panel"] == "B") & (estimates.summary["name"] == "lr")]
    if rows["rate"].nunique() < 2:
        return [not_tested("there is one meta-rate")]
    ordered = rows.sort_values("rate")
    small, large = (Measured.of(f"meta-rate {row['rate']:g}", row) for _, row in ordered.iloc[[0, -1]].iterrows())
    return [below(small, [large], missing="", factor=FAR_LONGER)]
