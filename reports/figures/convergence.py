"""Figure 3 of the paper: do learning rates forget where they started, and what does the meta-rate do?"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from reports import style
from reports.boxes import summarise
from reports.claims import Verdict, decided, not_tested
from reports.estimates import About, about, lowest
from reports.looks import DASHES, MARKERS, PALETTES
from reports.selection import NoData, measured, online, option, require_finite
from reports.tables import Tables
from reports.words import listed, loss_text, spread

QUESTION = "Do learning rates forget where they started, and how much does the rate of their own steps matter?"
METHOD = (
    "A shows the learning rates of the weights of each group of layers where OHO starts from given ones. B shows the "
    "test loss of the selected model where OHO starts from drawn values, at several meta-rates."
)
STARTS = ["#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00"]
OF_METHODS = [PALETTES["online"][place] for place in (2, 0, 3)]
"""Colours of methods at several meta-rates, which have a label for each rate."""
TOGETHER = 2.0
"""Within which factor learning rates have ended at the same value."""


@dataclass(frozen=True)
class Estimates:
    """`paths` has a row for each run, evaluation and group of layers, `rates` one for each method and meta-rate."""

    paths: pd.DataFrame
    rates: pd.DataFrame
    about: About

    @property
    def csv(self) -> pd.DataFrame:
        """The data behind the figure: panel A, then panel B."""
        return pd.concat([self.paths, self.rates], ignore_index=True)


def estimate(tables: Tables) -> Estimates:
    """Returns learning rates over steps, and final test losses by meta-rate."""
    runs = measured(tables.runs)
    runs = runs[online(runs)]
    runs = runs.assign(start=option(runs, "lr"), meta_rate=option(runs, "meta_rate"), test_loss=runs["incumbent_test_loss"])
    paths = _paths(runs[runs["start"].notna()], tables.evaluations)
    swept = runs[runs["start"].isna() & runs["meta_rate"].notna()]
    if paths.empty or swept.empty:
        raise NoData("This figure needs OHO from given starts and OHO at several meta-rates, so it is not drawn.")
    require_finite(swept["test_loss"])
    rates = summarise(swept, ["method", "meta_rate"])
    return Estimates(paths, rates, about(tables, runs))


def _paths(runs: pd.DataFrame, evaluations: pd.DataFrame) -> pd.DataFrame:
    """Takes the weights of each group: sets are ordered weights and biases of group 0, of group 1, and so on."""
    rows = [
        {"run": run.run, "seed": run.seed, "start": run.start, "group": group, "step": record.step, "lr": rate}
        for run in runs.itertuples()
        for record in evaluations[evaluations["run"] == run.run].itertuples()
        for group, rate in enumerate(np.atleast_1d(record.hyper_lr)[::2], start=1)
    ]
    return pd.DataFrame(rows)


def draw(estimates: Estimates) -> Figure:
    """Draws learning rates over steps (A), and test loss over meta-rates (B)."""
    figure, (left, right) = style.panels(1, 2, height=2.8, width_ratios=[1.5, 1])
    starts = sorted(estimates.paths["start"].unique())
    for (start, group, _), path in estimates.paths.groupby(["start", "group", "run"]):
        colour, dashes = STARTS[starts.index(start) % len(STARTS)], DASHES[(group - 1) % len(DASHES)]
        left.plot(path["step"], path["lr"], color=colour, ls=dashes, lw=1)
    for start in starts:
        left.plot([], [], color=STARTS[starts.index(start) % len(STARTS)], label=f"from {start:g}")
    for group in sorted(estimates.paths["group"].unique()):
        left.plot([], [], color="black", ls=DASHES[(group - 1) % len(DASHES)], lw=1, label=f"group {group}")
    style.log_scale(left, "y")
    left.set_xlabel("Steps")
    left.set_ylabel("Learning rate of the weights")
    left.set_title("A", loc="left")
    left.legend(fontsize=6, ncols=2)
    for place, (method, group) in enumerate(estimates.rates.groupby("method")):
        colour = OF_METHODS[place % len(OF_METHODS)]
        marker = MARKERS[place % len(MARKERS)]
        right.plot(group["meta_rate"], group["median"], marker=marker, color=colour, lw=1, label=str(method))
        right.vlines(group["meta_rate"], group["low"], group["high"], color=colour, lw=0.9)
    style.log_scale(right, "x", "y")
    right.set_xlabel("Meta-rate")
    right.set_ylabel(estimates.about.units.axis("Final test loss"))
    right.set_title("B", loc="left")
    right.legend(fontsize=6)
    style.stamp(figure, estimates.about.stamp)
    return figure


def caption(estimates: Estimates) -> str:
    """Says what the figure shows, with n, budget and device."""
    runs = estimates.rates["n"]
    return (
        f"A: learning rates of the weights of each group of layers over steps, one line per run. B: medians over "
        f"{runs.min()} runs or more, with {spread(runs.min(), runs.max())}. {estimates.about.setting}"
    )


def findings(estimates: Estimates) -> list[str]:
    """Tells how far apart learning rates are at the start and at the end, and names the best meta-rates."""
    starts = estimates.paths["start"]
    last = estimates.paths[estimates.paths["step"] == estimates.paths["step"].max()]
    spreads = last.groupby("group")["lr"].agg(lambda rates: rates.max() / rates.min() if rates.min() > 0 else np.inf)
    ends = listed([f"{spread:.3g} in group {group}" for group, spread in spreads.items()])
    sentences = [
        f"Learning rates that start a factor of {starts.max() / starts.min():.3g} apart end within a factor of {ends}."
    ]
    for method, group in estimates.rates.groupby("method"):
        best = lowest(group)
        if best is None:
            sentences.append(f"With {method}, no meta-rate gives a trained model within the budget.")
        else:
            found = f"is lowest, {loss_text(best['median'])}, at a meta-rate of {best['meta_rate']:g}"
            sentences.append(f"With {method}, the median test loss {found}.")
    return sentences


def verdicts(estimates: Estimates) -> list[Verdict]:
    """Decides whether learning rates from all starts end together, in each group of layers and for each seed."""
    paths = estimates.paths
    if paths["start"].nunique() < 2:
        return [not_tested("all runs have one start")]
    last = paths.loc[paths.groupby(["run", "group"])["step"].idxmax()]
    ends = last.groupby(["seed", "group"])["lr"].agg(["min", "max"])
    apart = float((ends["max"] / ends["min"].where(ends["min"] > 0, np.nan)).fillna(np.inf).max())
    starts = paths["start"].max() / paths["start"].min()
    told = f"starts a factor of {starts:.3g} apart end within factors of up to {apart:.3g}".replace("inf", "∞")
    return [decided(apart <= TOGETHER, told)]
