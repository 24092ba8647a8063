"""Figure 3 of the paper: do learning rates forget where they started, and what does the meta-rate do?"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from reports import style
from reports.boxes import summarise
from reports.common import NoData, loss_text, measured, option, require_finite, setting, stamp
from reports.tables import Tables

QUESTION = "Do learning rates forget where they started, and how much does the rate of their own steps matter?"
METHOD = (
    "A: Layer-wise OHO from initial learning rates that are given; the learning rates of the weights of each group of "
    "layers. B: Global and Layer-wise OHO from drawn initial values at several meta-rates; the test loss of the selected "
    "model."
)
NAMES = {"oho-global": "Global OHO", "oho-layerwise": "Layer-wise OHO"}
STARTS = ["#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00"]


@dataclass(frozen=True)
class Estimates:
    """`paths`: a row a run, evaluation and group of layers.  `rates`: a row a method and meta-rate."""

    paths: pd.DataFrame
    rates: pd.DataFrame
    setting: str
    stamp: str

    @property
    def csv(self) -> pd.DataFrame:
        """The data behind the figure: panel A, then panel B."""
        return pd.concat([self.paths, self.rates], ignore_index=True)


def estimate(tables: Tables) -> Estimates:
    """Learning rates over steps, and final test losses by meta-rate."""
    runs = measured(tables.of_figure("convergence"))
    runs = runs.assign(start=option(runs, "lr"), meta_rate=option(runs, "meta_rate"), test_loss=runs["incumbent_test_loss"])
    paths = _paths(runs[runs["start"].notna() & (runs["method"] == "oho-layerwise")], tables.evaluations)
    swept = runs[runs["start"].isna() & runs["meta_rate"].notna()]
    if paths.empty or swept.empty:
        raise NoData("This figure needs Layer-wise OHO from given starts and OHO at several meta-rates; it is not drawn.")
    require_finite(swept["test_loss"])
    rates = summarise(swept, ["method", "meta_rate"])
    return Estimates(paths, rates, setting(runs, tables.environments), stamp(runs))


def _paths(runs: pd.DataFrame, evaluations: pd.DataFrame) -> pd.DataFrame:
    """Weights of each group: sets are ordered weights and biases of group 0, of group 1, and so on."""
    rows = [
        {"run": run.run, "seed": run.seed, "start": run.start, "group": group, "step": record.step, "lr": rate}
        for run in runs.itertuples()
        for record in evaluations[evaluations["run"] == run.run].itertuples()
        for group, rate in enumerate(np.atleast_1d(record.hyper_lr)[::2], start=1)
    ]
    return pd.DataFrame(rows)


def draw(estimates: Estimates) -> Figure:
    """Learning rates over steps (A), test loss over meta-rates (B)."""
    figure, (left, right) = style.panels(1, 2, height=2.8, width_ratios=[1.5, 1])
    starts = sorted(estimates.paths["start"].unique())
    for (start, group, _), path in estimates.paths.groupby(["start", "group", "run"]):
        colour, dashes = STARTS[starts.index(start) % len(STARTS)], style.dashes(group - 1)
        left.plot(path["step"], path["lr"], color=colour, ls=dashes, lw=1)
    for start in starts:
        left.plot([], [], color=STARTS[starts.index(start) % len(STARTS)], label=f"from {start:g}")
    for group in sorted(estimates.paths["group"].unique()):
        left.plot([], [], color="black", ls=style.dashes(group - 1), lw=1, label=f"group {group}")
    style.log_scale(left, "y")
    left.set_xlabel("Steps")
    left.set_ylabel("Learning rate of the weights")
    left.set_title("A", loc="left")
    left.legend(fontsize=6, ncols=2)
    for method, group in estimates.rates.groupby("method"):
        colour, marker = style.colour(method), style.marker(method)
        name = NAMES.get(str(method), str(method))
        right.plot(group["meta_rate"], group["median"], marker=marker, color=colour, lw=1, label=name)
        right.vlines(group["meta_rate"], group["low"], group["high"], color=colour, lw=0.9)
    style.log_scale(right, "x", "y")
    right.set_xlabel("Meta-rate")
    right.set_ylabel("Final test loss\n(nats per example)")
    right.set_title("B", loc="left")
    right.legend(fontsize=6)
    style.stamp(figure, estimates.stamp)
    return figure


def caption(estimates: Estimates) -> str:
    """What the figure shows, with n, budget and device."""
    return (
        f"A: learning rates of the weights of each group of layers over steps, a line a run. B: medians over "
        f"{estimates.rates['n'].min()} runs or more, with 95 % bootstrap intervals. {estimates.setting}"
    )


def findings(estimates: Estimates) -> list[str]:
    """How far apart learning rates are at the start and at the end, and the best meta-rates."""
    starts = estimates.paths["start"]
    last = estimates.paths[estimates.paths["step"] == estimates.paths["step"].max()]
    spreads = last.groupby("group")["lr"].agg(lambda rates: rates.max() / rates.min() if rates.min() > 0 else np.inf)
    sentences = [
        f"Learning rates that start a factor of {starts.max() / starts.min():.3g} apart end within factors of "
        f"{', '.join(f'{spread:.3g}' for spread in spreads)} in groups {', '.join(map(str, spreads.index))}."
    ]
    for method, group in estimates.rates.groupby("method"):
        best = group.loc[group["median"].idxmin()]
        name = NAMES.get(str(method), str(method))
        sentences.append(f"{name}: lowest median {loss_text(best['median'])} at a meta-rate of {best['meta_rate']:g}.")
    return sentences


def published_rows(estimates: Estimates) -> list[list[str]]:
    """The paper says in words that rates of its four layers meet within about 700 steps: no numbers to set beside."""
    return []
