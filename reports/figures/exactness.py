"""The published recursion is not the derivative of the update: by how much, and what is that worth?"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from reports import style
from reports.boxes import Box, draw_boxes, summarise
from reports.curves import draw_curve, median_curves
from reports.estimates import About, about, untrained_sentences
from reports.looks import look
from reports.selection import NoData, comparable, require_finite
from reports.tables import Tables
from reports.words import HYPERPARAMETERS, MOST_LISTED, loss_text, spread

QUESTION = "How far are published and collapsed hypergradients from the derivative, and does it change the outcome?"
METHOD = (
    "Beside each run an exact influence of its whole past is carried: the derivative of the run's own parameters, with a "
    "tangent for each hyperparameter and set. Errors are norms of the difference over the norm of the exact "
    "hypergradient, medians over the last 100 steps before an evaluation. The twin takes no counted time; it is itself "
    "checked against reverse-mode differentiation."
)
PREFIX = "scalar_hypergradient_error_"
NAME = 6.0
"""The size of names below boxes."""
BESIDE_CURVES = 8
"""How many boxes stand beside the panels of curves at most."""
ROUNDING = 1e-12
"""Errors of methods that never exceed this are not drawn: they are exact."""


@dataclass(frozen=True)
class Estimates:
    """`curves` has a row for each method, hyperparameter and evaluation, `runs` the final losses, and `summary` one row per
    method.
    """

    curves: pd.DataFrame
    runs: pd.DataFrame
    summary: pd.DataFrame
    about: About

    @property
    def csv(self) -> pd.DataFrame:
        """The data behind the figure: errors over epochs."""
        return self.curves


def estimate(tables: Tables) -> Estimates:
    """Returns median errors over epochs and final test losses."""
    runs = comparable(tables.runs)
    columns = [f"{PREFIX}{name}" for name in HYPERPARAMETERS]
    if not set(columns) <= set(tables.evaluations):
        raise NoData("No run of this figure was compared with an exact one (compare_exact: true), so it is not drawn.")
    wide = tables.evaluations.merge(runs[["run", "label", "method_label", "place"]], on="run")
    wide = wide[wide["step"] > 0].sort_values("place", kind="stable")
    keys = ["run", "label", "method_label", "epoch"]
    data = wide.melt(id_vars=keys, value_vars=columns, var_name="name", value_name="error")
    data["name"] = data["name"].str.removeprefix(PREFIX)
    require_finite(data["error"], "error of its hypergradients")
    curves = median_curves(data, ["label", "method_label", "name"], "error")
    wrong = wide.groupby("label")["scalar_hypergradient_wrong_sign_lr"].mean()
    summary = summarise(runs.assign(test_loss=runs["incumbent_test_loss"]), ["place", "method_label", "label"])
    summary["wrong_sign"] = summary["label"].map(wrong)
    for name in HYPERPARAMETERS:
        errors = data[data["name"] == name].fillna({"error": np.inf}).groupby("label")["error"].median()
        summary[f"error_{name}"] = summary["label"].map(errors)
    kept = runs[["run", "label", "method", "seed", "incumbent_test_loss"]]
    return Estimates(curves, kept, summary, about(tables, runs))


def draw(estimates: Estimates) -> Figure:
    """Draws errors over epochs by hyperparameter, and boxes of final losses."""
    labels = list(estimates.summary["label"])
    is_wide = len(labels) > BESIDE_CURVES and not style.in_column()
    angle, more = style.below_boxes(labels, size=NAME)
    size = NAME if len(labels) <= style.PAGE_BOXES else 4.0
    if is_wide:
        angle, more = 90, style.widest(labels, size) / 72
    height = 2.7 + more
    figure, panels = _wide_panels(height) if is_wide else style.panels(1, 3, height=height, width_ratios=[1, 1, 1])
    for letter, axes, (name, words) in zip("AB", panels, HYPERPARAMETERS.items(), strict=False):
        of_name = estimates.curves[estimates.curves["name"] == name]
        for (label, method_label), curve in of_name.groupby(["label", "method_label"], sort=False):
            if curve["median"].max() > ROUNDING:
                own = look(method_label)
                draw_curve(axes, curve, colour=own.colour, marker=own.marker, dashes=own.dashes, label=str(label))
        style.log_scale(axes, "y")
        axes.set_title(f"{letter}  Of the {words}", loc="left")
        axes.set_xlabel("Epochs")
    panels[0].set_ylabel("Relative error of the hypergradient")
    boxes = []
    for place, row in enumerate(estimates.summary.itertuples()):
        losses = estimates.runs.loc[estimates.runs["label"] == row.label, "incumbent_test_loss"].to_numpy(float)
        own = look(row.method_label)
        boxes.append(Box(place, losses, own.colour, own.marker))
    draw_boxes(panels[2], boxes)
    panels[2].set_xticks(range(len(labels)), labels, rotation=angle, ha="right", rotation_mode="anchor", fontsize=size)
    panels[2].set_ylabel(estimates.about.units.axis("Final test loss"))
    panels[2].set_title("C", loc="left")
    style.legend_above(figure, *panels[0].get_legend_handles_labels(), columns=3, size=6.5)
    style.stamp(figure, estimates.about.stamp)
    return figure


def _wide_panels(height: float) -> tuple[Figure, list[Axes]]:
    """Returns panels of which the third, with many boxes, has a row of its own of that height."""
    figure = Figure(figsize=(style.PAGE_INCHES, 2.7 + height))
    panels = figure.subplot_mosaic([["A", "B"], ["C", "C"]], height_ratios=[2.7, height])
    return figure, [panels[letter] for letter in "ABC"]


def caption(estimates: Estimates) -> str:
    """Says what the figure shows, with n, budget and device."""
    n, most = estimates.curves["n"].min(), estimates.curves["n"].max()
    return (
        f"A, B: relative error of the hypergradient over epochs, medians over {n} seeds or more "
        f"with {spread(n, most, pointwise=True)}; methods without error are not on a logarithmic axis. C: final test "
        f"loss: quartiles, median, and every run. {estimates.about.setting}"
    )


def findings(estimates: Estimates) -> list[str]:
    """Gives errors, wrong signs and losses of each method."""
    sentences = [_first(estimates.summary)]
    wrong = estimates.summary[estimates.summary["error_lr"] > ROUNDING]
    for row in wrong.head(MOST_LISTED).itertuples():
        sentences.append(
            f"With {row.label} the median error of the learning rate's hypergradient is {row.error_lr:.2g}, with a wrong "
            f"sign in {row.wrong_sign:.0%} of steps and sets, and that of the L2 coefficient's "
            f"{row.error_weight_decay:.2g}; the median test loss is {loss_text(row.median)}."
        )
    return sentences + untrained_sentences(list(estimates.summary.loc[estimates.summary["untrained"], "label"]))


def _first(summary: pd.DataFrame) -> str:
    """Compares the method with the largest error with the exact ones."""
    worst = summary.loc[summary["error_lr"].idxmax()]
    exact = summary[summary["error_lr"] <= ROUNDING]
    beside = " and ".join(f"{loss_text(row.median)} ({row.label})" for row in exact.itertuples())
    return (
        f"Hypergradients of {worst['label']} with respect to the learning rate are off by {worst['error_lr']:.0%} of the "
        f"exact ones (median) and have the wrong sign in {worst['wrong_sign']:.0%} of cases; its median final test loss is "
        f"{loss_text(worst['median'])}{f', and with exact ones it is {beside}' if beside else ''}."
    )
