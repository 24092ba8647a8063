"""The published recursion is not the derivative of the update: by how much, and what is that worth?"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from reports import style
from reports.boxes import Box, draw_boxes, summarise
from reports.common import NoData, comparable, dashed, loss_text, require_finite, setting, stamp
from reports.curves import draw_curve, median_curves
from reports.tables import Tables

QUESTION = "How far are published and collapsed hypergradients from the derivative, and does it change the outcome?"
METHOD = (
    "Beside each run an exact influence of its whole past is carried: the derivative of the run's own parameters, with a "
    "tangent for each hyperparameter and set. Errors are norms of the difference over the norm of the exact "
    "hypergradient, medians over the last 100 steps before an evaluation. The twin takes no counted time; it is itself "
    "checked against reverse-mode differentiation."
)
NAMES = {"lr": "learning rate", "weight_decay": "L2 coefficient"}
PREFIX = "scalar_hypergradient_error_"
ROUNDING = 1e-12
"""Errors of methods that never exceed this are not drawn: they are exact."""


@dataclass(frozen=True)
class Estimates:
    """`curves`: a row a method, hyperparameter and evaluation.  `runs`: final losses.  `summary`: a row a method.

    `dashed` are the labels drawn so.
    """

    curves: pd.DataFrame
    runs: pd.DataFrame
    summary: pd.DataFrame
    dashed: set[str]
    setting: str
    stamp: str

    @property
    def csv(self) -> pd.DataFrame:
        """The data behind the figure: errors over epochs."""
        return self.curves


def estimate(tables: Tables) -> Estimates:
    """Median errors over epochs and final test losses."""
    runs = comparable(tables.of_figure("exactness"))
    columns = [f"{PREFIX}{name}" for name in NAMES]
    if not set(columns) <= set(tables.evaluations):
        raise NoData("No run of this figure was compared with an exact one (compare_exact: true), so it is not drawn.")
    wide = tables.evaluations.merge(runs[["run", "label", "method"]], on="run")
    wide = wide[wide["step"] > 0]
    data = wide.melt(id_vars=["run", "label", "method", "epoch"], value_vars=columns, var_name="name", value_name="error")
    data["name"] = data["name"].str.removeprefix(PREFIX)
    require_finite(data["error"], "error of its hypergradients")
    curves = median_curves(data, ["label", "method", "name"], "error")
    wrong = wide.groupby("label")["scalar_hypergradient_wrong_sign_lr"].mean()
    summary = summarise(runs.assign(test_loss=runs["incumbent_test_loss"]), ["method", "label"])
    summary["wrong_sign"] = summary["label"].map(wrong)
    for name in NAMES:
        errors = data[data["name"] == name].fillna({"error": np.inf}).groupby("label")["error"].median()
        summary[f"error_{name}"] = summary["label"].map(errors)
    summary = summary.sort_values(["method", "label"], key=_places, ignore_index=True)
    kept = runs[["run", "label", "method", "seed", "incumbent_test_loss"]]
    return Estimates(curves, kept, summary, dashed(runs), setting(runs, tables.environments), stamp(runs))


def _places(column: pd.Series) -> pd.Series:
    return column.map(lambda name: f"{style.rank(name):03d} {name}")


def draw(estimates: Estimates) -> Figure:
    """Errors over epochs by hyperparameter, and boxes of final losses."""
    figure, panels = style.panels(1, 3, height=2.7, width_ratios=[1, 1, 1])
    for letter, axes, (name, words) in zip("AB", panels, NAMES.items(), strict=False):
        for (label, method), curve in estimates.curves[estimates.curves["name"] == name].groupby(["label", "method"]):
            if curve["median"].max() > ROUNDING:
                look = {"colour": style.colour(method), "marker": style.marker(method)}
                dashes = style.dashes(int(label in estimates.dashed))
                draw_curve(axes, curve, dashes=dashes, label=str(label), **look)
        style.log_scale(axes, "y")
        axes.set_title(f"{letter}  Of the {words}", loc="left")
        axes.set_xlabel("Epochs")
    panels[0].set_ylabel("Relative error of the hypergradient")
    labels = list(estimates.summary["label"])
    boxes = []
    for place, row in enumerate(estimates.summary.itertuples()):
        losses = estimates.runs.loc[estimates.runs["label"] == row.label, "incumbent_test_loss"].to_numpy(float)
        boxes.append(Box(place, losses, style.colour(row.method), style.marker(row.method)))
    draw_boxes(panels[2], boxes)
    panels[2].set_xticks(range(len(labels)), labels, rotation=30, ha="right", rotation_mode="anchor", fontsize=6)
    panels[2].set_ylabel("Final test loss\n(nats per example)")
    panels[2].set_title("C", loc="left")
    handles, names = panels[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside upper center", ncols=style.legend_columns(3), fontsize=6.5)
    style.stamp(figure, estimates.stamp)
    return figure


def caption(estimates: Estimates) -> str:
    """What the figure shows, with n, budget and device."""
    return (
        f"A, B: relative error of the hypergradient over epochs, medians over {estimates.curves['n'].min()} seeds or more "
        "with 95 % pointwise bootstrap intervals; methods without error are not on a logarithmic axis. C: final test "
        f"loss: quartiles, median, and every run. {estimates.setting}"
    )


def findings(estimates: Estimates) -> list[str]:
    """Errors, wrong signs and losses of each method."""
    sentences = [_first(estimates.summary)]
    for row in estimates.summary.itertuples():
        if row.error_lr <= ROUNDING:
            continue
        sentences.append(
            f"{row.label}: median error {row.error_lr:.2g} of the learning rate's hypergradient (wrong sign in "
            f"{row.wrong_sign:.0%} of steps and sets) and {row.error_weight_decay:.2g} of the L2 coefficient's; median "
            f"test loss {loss_text(row.median)}."
        )
    return sentences


def _first(summary: pd.DataFrame) -> str:
    """The method with the largest error beside the exact ones."""
    worst = summary.loc[summary["error_lr"].idxmax()]
    exact = summary[summary["error_lr"] <= ROUNDING]
    beside = " and ".join(f"{loss_text(row.median)} ({row.label})" for row in exact.itertuples())
    return (
        f"Hypergradients of {worst['label']} with respect to the learning rate are off by {worst['error_lr']:.0%} of the "
        f"exact ones (median) and have the wrong sign in {worst['wrong_sign']:.0%} of cases; its median final test loss is "
        f"{loss_text(worst['median'])}{f', of exact ones {beside}' if beside else ''}."
    )


def published_rows(estimates: Estimates) -> list[list[str]]:
    """The paper has no such figure."""
    return []
