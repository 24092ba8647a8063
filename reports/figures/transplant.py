"""A schedule that OHO found, on another seed: how much of its worth is the schedule, how much is following the run?"""

from __future__ import annotations

import itertools

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from reports import style
from reports.boxes import Box, draw_boxes, summarise
from reports.estimates import NONE_TRAINED, RunEstimates, about, untrained_sentences
from reports.looks import look
from reports.selection import NoData, comparable, option, require_finite
from reports.tables import Tables
from reports.words import MOST_LISTED, listed, loss_text

QUESTION = "Is what OHO gives the schedule that it finds, or that it follows the very run it is in?"
METHOD = (
    "OHO runs beside the same update rule along the learning rates and L2 coefficients that OHO found on another seed: "
    "step by step as they were, shuffled in time, and replaced by their mean. Donor and run share neither initial network, "
    "order of batches nor initial hyperparameters. Finding the schedule is not counted."
)
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
    data = data[["run", "seed", "label", "donor", "order", "test_loss", "counted_seconds", "selected_step"]]
    return RunEstimates(data, summary, about(tables, runs))


def draw(estimates: RunEstimates) -> Figure:
    """Draws four boxes for each method."""
    donors = list(dict.fromkeys(estimates.summary["donor"]))
    angle, more = style.below_boxes(donors)
    rows = style.rows_of(len(ORDERS) * len(donors))
    figure, panels = style.panels(len(rows), 1, height=(2.6 + more) * len(rows), sharey=True, squeeze=False)
    bounds = [round(len(donors) * row / len(rows)) for row in range(len(rows) + 1)]
    for axes, (start, end) in zip(panels.flat, itertools.pairwise(bounds), strict=True):
        _draw_row(axes, donors[start:end], estimates, 20 if angle < 90 else angle)
    style.stamp(figure, estimates.about.stamp)
    return figure


def _draw_row(axes: Axes, donors: list[str], estimates: RunEstimates, angle: int) -> None:
    boxes, names, places, place = [], [], [], 0.0
    summary = estimates.summary[estimates.summary["donor"].isin(donors)]
    for donor, group in summary.groupby("donor", sort=False):
        own = look(str(donor))
        for row in group.itertuples():
            chosen = (estimates.runs["donor"] == row.donor) & (estimates.runs["order"] == row.order)
            losses = estimates.runs.loc[chosen, "test_loss"].to_numpy(float)
            boxes.append(Box(place, losses, own.colour, own.marker))
            names.append(row.donor if row.order == "oho" else ORDERS[row.order])
            places.append(place)
            place += 1
        place += 0.6
    draw_boxes(axes, boxes)
    axes.set_xticks(places, names, rotation=angle, ha="right", rotation_mode="anchor")
    axes.set_ylabel(estimates.about.units.axis("Final test loss"))


def caption(estimates: RunEstimates) -> str:
    """Says what the figure shows, with n, budget and device."""
    return (
        "Final test loss of OHO and of its update rule along the schedule that OHO found on another seed, "
        f"{estimates.summary['n'].min()} runs "
        f"or more each: quartiles, median, and every run. {estimates.about.setting}"
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
