"""A schedule that OHO found, on another seed: how much of its worth is the schedule, how much is following the run?"""

from __future__ import annotations

from matplotlib.figure import Figure

from reports import style
from reports.boxes import Box, draw_boxes, summarise
from reports.common import NoData, RunEstimates, comparable, loss_text, option, require_finite, setting, stamp
from reports.tables import Tables

QUESTION = "Is what OHO gives the schedule that it finds, or that it follows the very run it is in?"
METHOD = (
    "OHO runs beside SGD along the learning rates and L2 coefficients that OHO found on another seed: step by step as "
    "they were, shuffled in time, and replaced by their mean. Donor and run share neither initial network, order of "
    "batches nor initial hyperparameters. Finding the schedule is not counted."
)
ORDERS = {"oho": "OHO itself", "kept": "its schedule", "shuffled": "shuffled in time", "mean": "its mean"}


def estimate(tables: Tables) -> RunEstimates:
    """Final test losses by OHO method and what became of its schedule."""
    runs = comparable(tables.of_figure("transplant"))
    is_transplant = runs["method"] == "transplant"
    order = option(runs, "order").where(is_transplant, "oho")
    donor = runs["over_label"].where(is_transplant, runs["label"])
    source = runs["over"].where(is_transplant, runs["method"])
    data = runs.assign(order=order, donor=donor, source=source, test_loss=runs["incumbent_test_loss"])
    data = data[data["donor"].isin(data.loc[data["order"] == "kept", "donor"])]
    if data.empty:
        raise NoData("This figure needs OHO runs and transplants of their schedules; there are not both: it is not drawn.")
    data = data[["run", "seed", "label", "donor", "source", "order", "test_loss", "counted_seconds"]]
    require_finite(data["test_loss"])
    summary = summarise(data, ["donor", "source", "order"])
    places = {name: place for place, name in enumerate(ORDERS)}
    summary = summary.sort_values(["source", "order"], key=lambda c: c.map(lambda n: places.get(n, style.rank(n))))
    return RunEstimates(data, summary.reset_index(drop=True), setting(runs, tables.environments), stamp(runs))


def draw(estimates: RunEstimates) -> Figure:
    """Four boxes a method."""
    figure, axes = style.panels(1, 1, height=2.6)
    boxes, names, places, place = [], [], [], 0.0
    for (_, source), group in estimates.summary.groupby(["donor", "source"], sort=False):
        for row in group.itertuples():
            chosen = (estimates.runs["donor"] == row.donor) & (estimates.runs["order"] == row.order)
            losses = estimates.runs.loc[chosen, "test_loss"].to_numpy(float)
            boxes.append(Box(place, losses, style.colour(source), style.marker(source)))
            names.append(row.donor if row.order == "oho" else ORDERS[row.order])
            places.append(place)
            place += 1
        place += 0.6
    draw_boxes(axes, boxes)
    axes.set_xticks(places, names, rotation=20, ha="right", rotation_mode="anchor")
    axes.set_ylabel("Final test loss\n(nats per example)")
    style.stamp(figure, estimates.stamp)
    return figure


def caption(estimates: RunEstimates) -> str:
    """What the figure shows, with n, budget and device."""
    return (
        "Final test loss of OHO and of SGD along the schedule that OHO found on another seed, "
        f"{estimates.summary['n'].min()} runs "
        f"or more each: quartiles, median, and every run. {estimates.setting}"
    )


def findings(estimates: RunEstimates) -> list[str]:
    """Medians by method."""
    sentences = []
    for donor, group in estimates.summary.groupby("donor", sort=False):
        own = group.set_index("order")["median"]
        parts = [f"{loss_text(own[order])} ({words})" for order, words in ORDERS.items() if order in own]
        sentences.append(f"{donor}: median final test losses {', '.join(parts)}.")
    return sentences


def published_rows(estimates: RunEstimates) -> list[list[str]]:
    """The paper has no such figure."""
    return []
