"""Figure 8 of the paper, its first part: how long the influence is over training."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from reports import style
from reports.figures.common import measured, setting, stamp
from reports.figures.influence import NORMS, norms
from reports.statistics import bootstrap_curves
from reports.tables import Tables

QUESTION = "How long is the derivative of the parameters with respect to a hyperparameter, and does it stay bounded?"
METHOD = (
    "The Frobenius norm of the influence at each evaluation, over all sets. The paper's second part, correlations of "
    "gradients of different batches, is not recorded here."
)


@dataclass(frozen=True)
class Estimates:
    """`curves`: a row a method, hyperparameter and evaluation, with median and interval over seeds."""

    curves: pd.DataFrame
    setting: str
    stamp: str

    @property
    def csv(self) -> pd.DataFrame:
        """The data behind the figure."""
        return self.curves


def estimate(tables: Tables) -> Estimates:
    """Medians over seeds of the norms; the k-th evaluations of all seeds stand at their median epoch."""
    data, rows = norms(tables, "tangents"), []
    data["place"] = data.groupby(["run", "name"]).cumcount()
    for (label, method, name), group in data.groupby(["label", "method", "name"]):
        table = group.pivot(index="run", columns="place", values="norm").dropna(axis=1)
        median, low, high = bootstrap_curves(table.to_numpy(float))
        epochs = group.groupby("place")["epoch"].median()[table.columns]
        rows.append(pd.DataFrame({
            "label": label, "method": method, "name": name, "n": len(table), "epoch": epochs.to_numpy(), "median": median,
            "low": low, "high": high,
        }))  # fmt: skip
    runs = measured(tables.of_figure("tangents"))
    return Estimates(pd.concat(rows, ignore_index=True), setting(runs, tables.environments), stamp(runs))


def draw(estimates: Estimates) -> Figure:
    """A panel a hyperparameter, a line a method."""
    figure = Figure(figsize=(style.PAGE_INCHES, 2.6))
    panels = figure.subplots(1, len(NORMS))
    for letter, axes, (name, words) in zip("AB", panels, NORMS.items(), strict=True):
        for label, curve in estimates.curves[estimates.curves["name"] == name].groupby("label"):
            curve, colour = curve.replace(np.inf, np.nan), style.colour(curve["method"].iloc[0])
            axes.plot(curve["epoch"], curve["median"], color=colour, lw=1.2, label=label)
            axes.fill_between(curve["epoch"], curve["low"], curve["high"], color=colour, alpha=0.15, lw=0)
        axes.set_yscale("log")
        axes.set_title(f"{letter}  With respect to the {words}", loc="left")
        axes.set_xlabel("Epochs")
    panels[0].set_ylabel("Norm of the influence")
    panels[0].legend(fontsize=6.5)
    style.stamp(figure, estimates.stamp)
    return figure


def caption(estimates: Estimates) -> str:
    """What the figure shows, with n, budget and device."""
    n = estimates.curves["n"].min()
    return (
        f"Norm of the influence over training: medians over {n} seeds or more, bands 95 % pointwise bootstrap intervals; a "
        f"line ends where the norm is not finite. {estimates.setting}"
    )


def findings(estimates: Estimates) -> list[str]:
    """The range of each norm."""
    parts = [f"{_range(estimates, name)} with respect to the {words}" for name, words in NORMS.items()]
    return [f"Median norms are {' and '.join(parts)}."]


def _range(estimates: Estimates, name: str) -> str:
    medians = estimates.curves.loc[estimates.curves["name"] == name, "median"]
    finite = medians[np.isfinite(medians)]
    return f"{finite.min():.0e} to {finite.max():.0e}" if len(finite) else "not finite"


def published_rows(estimates: Estimates) -> list[list[str]]:
    """The paper's ranges, read by eye, beside ours."""
    published = {"lr": "1e2 to 1e4", "weight_decay": "1e3 to 4e5"}
    rows = [[words, _range(estimates, name), published[name]] for name, words in NORMS.items()]
    return [["With respect to the", "Norm", "Published"], *rows]
