"""How often each method is within a factor of the best: performance profiles over tasks and seeds."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from reports import style
from reports.estimates import NONE_TRAINED, untrained_sentences
from reports.looks import look
from reports.pooling import PROBLEM, pooled
from reports.selection import NoData, untrained
from reports.statistics import performance_profile
from reports.tables import Tables
from reports.words import listed, plural, setting, stamp

QUESTION = "Over all problems, how often is each method within a given factor of the best one?"
METHOD = (
    "A problem is a task with one seed, on which every method was run under the same budget. The ratio is a method's "
    "final test loss over the lowest of any method on that problem; a run without a finite loss has an infinite one. All "
    "experiments that feed the figure are pooled, those with budgets of time alone where there are any, and the methods "
    "are those that each of them has. The profile at a factor is the share of problems with a ratio up to it (Dolan and "
    "Moré, 2002), so that at 1 it says how often the method is best. Bands, from six problems on, are 95 % bootstrap "
    "intervals over seeds, stratified by task."
)
POINTS = 200
LARGEST = 32.0
"""Factor at which the axis ends at the latest."""
TICKS = {4.0: (1, 1.1, 1.25, 1.5, 2, 3, 4), math.inf: (1, 1.5, 2, 3, 4, 6, 8, 12, 16, 24, 32)}
"""Ticks of axes that end below a factor."""
SHARES = (1.0, 1.1, 2.0)


@dataclass(frozen=True)
class Estimates:
    """`ratios` has a row for each problem and method, `curves` one for each method and factor, with the share and its
    interval; `untrained` are the methods most of whose runs return the untrained model.

    Ratios have no unit, so that problems of different units may stand together.
    """

    ratios: pd.DataFrame
    curves: pd.DataFrame
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
    strata = [(experiment, task) for experiment, task, _ in ratios.index]
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
    return Estimates(tidy, curves, bad, setting(runs), stamp(runs))


def draw(estimates: Estimates) -> Figure:
    """Draws a step line for each method; their names stand at the right, in the order of methods."""
    count = estimates.curves["label"].nunique()
    figure, axes = style.panels(1, 1, height=max(3.2, 0.16 * count + 0.5))  # as high as the names beside it
    for label, curve in estimates.curves.groupby("label", sort=False):
        own = look(curve["method_label"].iloc[0])
        axes.plot(curve["factor"], curve["share"], color=own.colour, ls=own.dashes, lw=1.3, drawstyle="steps-post",
                  marker=own.marker, markevery=(0.02, 0.2), ms=4, label=label)  # fmt: skip
        axes.fill_between(curve["factor"], curve["low"], curve["high"], color=own.colour, alpha=0.06, lw=0, step="post")
    largest = estimates.curves["factor"].max()
    axes.set_xscale("log", base=2)
    axes.set_xlim(1, largest)
    ticks = next(ticks for end, ticks in TICKS.items() if largest <= end)
    axes.set_xticks([tick for tick in ticks if tick <= largest])
    axes.xaxis.set_major_formatter(style.decimal)
    axes.set_ylim(0, 1.02)
    axes.set_xlabel("Factor of the lowest test loss on the problem")
    axes.set_ylabel("Share of problems")
    handles, names = axes.get_legend_handles_labels()
    if style.in_column() and style.widest(names, 6.5) > 0.4 * 72 * figure.get_figwidth():
        style.legend_above(figure, handles, names, columns=2, size=6.5)
    else:
        figure.legend(loc="outside right center", fontsize=6.5)
    style.stamp(figure, estimates.stamp)
    return figure


def caption(estimates: Estimates) -> str:
    """Says what the figure shows, with n, budget and device."""
    return (
        f"Share of {plural(estimates.problems, 'problem')} on which each method's test loss is within a factor of the "
        f"lowest; higher is better. Bands: 95 % bootstrap intervals over seeds. {estimates.setting}"
    )


def findings(estimates: Estimates) -> list[str]:
    """Names the methods in front at a few factors."""
    if set(estimates.ratios["label"]) <= set(estimates.untrained):
        return [NONE_TRAINED]
    sentences = []
    trained = estimates.ratios[~estimates.ratios["label"].isin(estimates.untrained)]
    for factor in SHARES:
        within = trained.assign(within=trained["ratio"] <= factor)
        shares = within.groupby("label", sort=False)["within"].mean().to_dict()
        most = max(shares.values())
        leaders = [str(label) for label, share in shares.items() if share == most]
        where = "best" if factor == 1 else f"within a factor of {factor:g} of the best"
        who = f"{listed(leaders)} {'is' if len(leaders) == 1 else 'are'} most often {where}"
        sentences.append(f"{who}, on {most:.0%} of {plural(estimates.problems, 'problem')}.")
    return sentences + untrained_sentences(estimates.untrained)
