"""Figure 6 of the paper: hypergradients of which loss, on batches of which size?"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from reports import published, style
from reports.claims import Measured, Verdict, below
from reports.curves import draw_curve, median_curves
from reports.estimates import About, about
from reports.looks import DASHES, MARKERS
from reports.selection import NoData, comparable, online, option, require_finite
from reports.strips import summarise
from reports.tables import Tables
from reports.words import each_of, listed, loss_text

QUESTION = "Does it matter that the hypergradient is of the validation loss, and how large must the validation batch be?"
METHOD = (
    "A compares hypergradients of the loss on the step's own training batch with those on validation batches of the "
    "smallest size. B compares validation batches of several sizes, and SGD with fixed settings. The test loss is that "
    "of the present model, not of the selected one: what is shown is where the training itself goes."
)
SHADES = ["#F4A582", "#D6604D", "#B2182B", "#67001F"]
"""The larger the validation batch, the darker."""
OVERFITS, LAST = 1.1, 3
"""A training overfits whose median loss is so many times its lowest at each of its last evaluations."""
FIXED = ["#0072B2", "#56B4E9"]
TRAINING = "#000000"


@dataclass(frozen=True)
class Estimates:
    """`lines` has a row for each run and evaluation, `curves` one for each setting and evaluation, with the median, and
    `summary` one for each setting with its final test loss.

    Size 0 is a fixed setting, and NaN the training batch.
    """

    lines: pd.DataFrame
    curves: pd.DataFrame
    summary: pd.DataFrame
    about: About

    @property
    def csv(self) -> pd.DataFrame:
        """The data behind the figure."""
        return self.curves


def estimate(tables: Tables) -> Estimates:
    """Returns the test loss of the present model over epochs, medians over seeds."""
    runs = comparable(tables.runs)
    usual = runs["task_options"].map(lambda task: task.get("validation_batch_size")).astype(float)
    size = option(runs, "validation_batch_size").astype(float).fillna(usual).where(online(runs), 0.0)
    runs = runs.assign(size=size.mask(option(runs, "source") == "training"))
    if not (runs["size"].isna().any() and (runs["size"] > 0).any()):
        raise NoData("This figure needs OHO runs of both sources of hypergradients, with batch sizes, so it is not drawn.")
    require_finite(runs["test_loss"])
    data = tables.evaluations.merge(runs[["run", "label", "size"]], on="run")
    curves = median_curves(data, ["label"], "test_loss")
    sizes = runs.drop_duplicates("label").set_index("label")["size"]
    summary = summarise(runs, ["label"]).assign(size=lambda rows: rows["label"].map(sizes))
    summary = summary.sort_values(["size", "label"], ignore_index=True)
    return Estimates(data[["run", "label", "epoch", "test_loss"]], curves, summary, about(runs))


def draw(estimates: Estimates) -> Figure:
    """Draws two panels over epochs."""
    figure, (left, right) = style.panels(1, 2, height=3.0)
    summary = estimates.summary
    sizes = summary.loc[summary["size"] > 0, "label"]
    shades = dict(zip(sizes, itertools.cycle(SHADES[-len(sizes) :]), strict=False))
    fixed = dict(zip(summary.loc[summary["size"] == 0, "label"], itertools.cycle(FIXED), strict=False))
    training = dict.fromkeys(summary.loc[summary["size"].isna(), "label"], TRAINING)
    markers = dict(zip([*shades, *training, *fixed], itertools.cycle(MARKERS), strict=False))
    _draw_panel(left, estimates, dict(list(shades.items())[:1]), markers, "-")
    _draw_panel(left, estimates, training, markers, DASHES[1])
    _draw_panel(right, estimates, shades, markers, "-")
    _draw_panel(right, estimates, fixed, markers, DASHES[2])
    titles = ("A  Batch of the hypergradient", "B  Size of the validation batch")
    for title, axes in zip(titles, (left, right), strict=True):
        axes.set_title(title, loc="left")
        axes.set_xlabel("Epochs")
        style.log_scale(axes, "y")
        _end_above_medians(axes, estimates)
    named = [pair for axes in (left, right) for pair in zip(*axes.get_legend_handles_labels(), strict=True)]
    handles = {name: handle for handle, name in named}
    style.legend_above(figure, list(handles.values()), list(handles), columns=3, size=6.5)
    left.set_ylabel(estimates.about.units.axis("Test loss of the present model"))
    style.stamp(figure, estimates.about.stamp)
    return figure


def _draw_panel(axes: Axes, estimates: Estimates, colours: dict[str, str], markers: dict[str, str], dashes: Any) -> None:
    """Draws every run as a thin line, and medians as thick ones."""
    for label, colour in colours.items():
        for _, line in estimates.lines[estimates.lines["label"] == label].groupby("run"):
            axes.plot(line["epoch"], line["test_loss"], color=colour, ls=dashes, lw=0.5, alpha=0.45)
        curve = estimates.curves[estimates.curves["label"] == label]
        draw_curve(axes, curve, colour=colour, marker=markers[label], dashes=dashes, label=label, has_band=False)


def _end_above_medians(axes: Axes, estimates: Estimates) -> None:
    """Ends the axis above the highest median, so that a run that diverges leaves it."""
    medians, runs = estimates.curves["median"], estimates.lines["test_loss"].astype(float)
    medians, runs = medians[np.isfinite(medians) & (medians > 0)], runs[np.isfinite(runs) & (runs > 0)]
    if len(medians):
        axes.set_ylim(0.9 * runs.min(), 1.6 * medians.max())


def caption(estimates: Estimates) -> str:
    """Says what the figure shows, with n, budget and device."""
    n = each_of(estimates.curves["n"], "seed")
    return (
        f"Test loss of the present model: thin lines are runs, of which some leave the axis, thick ones medians over {n}. "
        f"{estimates.about.setting}"
    )


def findings(estimates: Estimates) -> list[str]:
    """Compares final medians: the training batch with validation batches, then batches by size."""
    summary = estimates.summary
    training, sizes = summary[summary["size"].isna()].iloc[0], summary[summary["size"] > 0]
    smallest = sizes.iloc[0]
    order = "above" if training["median"] > smallest["median"] else "not above"
    sentences = [
        "Following the training batch, the median final test loss of the present model is "
        f"{loss_text(training['median'])}, {order} that of following validation batches of {smallest['size']:.0f}, "
        f"{loss_text(smallest['median'])}."
    ]
    if len(sizes) > 1:
        parts = [f"{loss_text(row.median)} ({row.size:.0f})" for row in sizes.itertuples(index=False)]
        steady = "falls" if (np.diff(sizes["median"]) < 0).all() else "does not fall"
        sentences.append(f"By size of the validation batch it is {listed(parts)}: it {steady} throughout.")
    return sentences + _not_tested(estimates.curves)


def _not_tested(curves: pd.DataFrame) -> list[str]:
    """Says so where no training is long enough to overfit, which a hypergradient of the validation loss might prevent."""
    lowest = curves.groupby("label")["median"].transform("min")
    is_above = (curves["median"] > OVERFITS * lowest).groupby(curves["label"]).agg(lambda above: above.tail(LAST).all())
    if is_above.any():
        return []
    return ["No training here overfits, so that whether a validation batch prevents it is not tested."]


def published_rows(estimates: Estimates) -> list[list[str]]:
    """Returns what can be read off the paper's figure, an order and no number; none where the task is another."""
    return [["Comparison", "Published"], *map(list, published.SOURCES)] if estimates.about.papers_tasks else []


def verdicts(estimates: Estimates) -> list[Verdict]:
    """Decides whether validation batches end lower than the training batch, and large ones lower than small ones."""
    summary = estimates.summary
    training = [Measured.of("training batch", row) for _, row in summary[summary["size"].isna()].iterrows()]
    sizes = [Measured.of(f"batch of {row['size']:.0f}", row) for _, row in summary[summary["size"] > 0].iterrows()]
    return [
        below(sizes[0] if sizes else None, training, missing="one of the two was"),
        below(sizes[-1] if sizes else None, sizes[:1] if len(sizes) > 1 else [], missing="a second size was"),
    ]
