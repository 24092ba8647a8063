"""A schedule that OHO found, on another seed: how much of its worth is the schedule, how much is following the run?"""

from __future__ import annotations

import itertools

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import SymmetricalLogLocator

from reports import style
from reports.estimates import NONE_TRAINED, RunEstimates, about, untrained_sentences
from reports.looks import look
from reports.selection import NoData, comparable, option, require_finite
from reports.statistics import median_of
from reports.strips import THREAD, summarise
from reports.tables import Tables
from reports.words import MOST_LISTED, decimal, each_of, listed, loss_text

QUESTION = "Is what OHO gives the schedule that it finds, or that it follows the very run it is in?"
METHOD = (
    "OHO runs beside the same update rule along the learning rates and L2 coefficients that OHO found on another seed: "
    "step by step as they were, shuffled in time, and replaced by their mean. Donor and run share neither initial network, "
    "order of batches nor initial hyperparameters. Finding the schedule is not counted."
)
FAR = 10
"""From how many times the median size on a difference is far off."""
ORDERS = {"oho": "OHO itself", "kept": "its schedule", "shuffled": "shuffled in time", "mean": "its mean"}
IN_SENTENCES = {
    "oho": "by itself", "kept": "along its schedule", "shuffled": "along that shuffled in time", "mean": "at its mean",
}  # fmt: skip


def estimate(tables: Tables) -> RunEstimates:
    """Returns final test losses by OHO method and what became of its schedule."""
    runs = comparable(tables.runs)
    is_transplant = runs["family"] == "transplant"
    order = option(runs, "order").where(is_transplant, "oho")
    donor = runs["over_label"].where(is_transplant, runs["method_label"])
    data = runs.assign(order=order, donor=donor, test_loss=runs["incumbent_test_loss"])
    data = data[data["order"].isin(list(ORDERS)) & data["donor"].isin(data.loc[data["order"] == "kept", "donor"])]
    if data.empty:
        raise NoData("This figure needs OHO runs and transplants of their schedules, so it is not drawn.")
    places = {method.label: place for place, method in enumerate(tables.methods)}
    data = data.assign(place=data["donor"].map(places).fillna(len(places)), rank=data["order"].map(list(ORDERS).index))
    require_finite(data["test_loss"])
    summary = summarise(data, ["place", "donor", "rank", "order"])
    own = data[data["order"] == "oho"].drop_duplicates(["donor", "seed"]).set_index(["donor", "seed"])["test_loss"]
    keys = pd.MultiIndex.from_frame(data[["donor", "seed"]])
    data = data.assign(difference=data["test_loss"] - own.reindex(keys).to_numpy())
    columns = ["run", "seed", "label", "donor", "order", "test_loss", "difference", "counted_seconds", "selected_step"]
    data = data[columns]
    return RunEstimates(data, summary, about(runs))


def draw(estimates: RunEstimates) -> Figure:
    """Draws a panel for each method: for each seed, how far from OHO itself its schedule ends on another seed."""
    donors = list(dict.fromkeys(estimates.summary["donor"]))
    figure, panels = style.small_panels(len(donors), height=1.5, across=3, sharey=True)
    for axes, donor in zip(panels, donors, strict=True):
        _draw_panel(axes, estimates.runs[estimates.runs["donor"] == donor], look(donor).colour)
        own = estimates.summary.query("donor == @donor and order == 'oho'")["median"]
        beside = f": {loss_text(own.iloc[0])}" if len(own) else ""
        axes.set_title(f"{donor}{beside}", fontsize=7.5, loc="left")
    panels[0].margins(y=0.1)
    _set_scale(panels[0], estimates.runs["difference"])
    panels[0].set_ylabel(estimates.about.units.axis("Test loss above OHO's own"))
    style.stamp(figure, estimates.about.stamp)
    return figure


def _draw_panel(axes: Axes, runs: pd.DataFrame, colour: str) -> None:
    """Joins the runs of each seed and draws the median of each order, with how many runs have no difference."""
    orders = [order for order in list(ORDERS)[1:] if (runs["order"] == order).any()]
    table = runs.pivot_table(index="seed", columns="order", values="difference", dropna=False).reindex(columns=orders)
    axes.axhline(0.0, color="black", lw=0.8, zorder=1)
    for _, row in table.iterrows():
        axes.plot(range(len(orders)), row, color=THREAD, lw=0.7, zorder=2)
    for place, order in enumerate(orders):
        own = runs.loc[runs["order"] == order, "difference"]
        axes.plot([place] * len(own), own, ls="none", marker="o", ms=4.2, color=colour, mec="white", mew=0.4, zorder=3)
        if np.isfinite(middle := median_of(own).value):
            axes.plot([place - 0.25, place + 0.25], [middle] * 2, color="black", lw=1.8, solid_capstyle="butt", zorder=4)
        if lost := int(own.isna().sum()):
            top = (place, 0.99)
            axes.annotate(f"{lost} lost", top, xycoords=("data", "axes fraction"), ha="center", va="top", fontsize=6)
    axes.set_xticks(range(len(orders)), orders)
    axes.set_xlim(-0.5, len(orders) - 0.5)


def _set_scale(axes: Axes, differences: pd.Series) -> None:
    """Makes the axis linear around zero and logarithmic beyond, where a few differences are far larger than most."""
    sizes = differences.abs()
    sizes = sizes[np.isfinite(sizes) & (sizes > 0)]
    if len(sizes) and sizes.max() > FAR * sizes.median():
        threshold = 10.0 ** np.ceil(np.log10(sizes.median()))
        axes.set_yscale("symlog", linthresh=threshold)
        axes.yaxis.set_major_locator(SymmetricalLogLocator(base=10, linthresh=threshold))
        axes.yaxis.set_major_formatter(decimal)


def caption(estimates: RunEstimates) -> str:
    """Says what the figure shows, with n, budget and device."""
    return (
        "Test loss of the update rule along the schedule that OHO found on another seed, less that of OHO itself on "
        f"the same seed, whose median stands above; {each_of(estimates.summary['n'], 'run')} each, bars are medians. "
        f"{estimates.about.setting}"
    )


def findings(estimates: RunEstimates) -> list[str]:
    """Gives the medians by method."""
    if estimates.summary["untrained"].all():
        return [NONE_TRAINED]
    sentences = []
    for donor, group in itertools.islice(estimates.summary.groupby("donor", sort=False), MOST_LISTED):
        own = group.set_index("order")["median"]
        parts = [f"{loss_text(own[order])} {words}" for order, words in IN_SENTENCES.items() if order in own]
        sentences.append(f"The median final test loss of {donor} is {listed(parts)}.")
    bad = estimates.summary[estimates.summary["untrained"]]
    return sentences + untrained_sentences([f"{row.donor} ({ORDERS[row.order]})" for row in bad.itertuples()])
