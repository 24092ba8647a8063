"""Figure 10 of the paper: what it costs to forget the influence."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from reports import published, style
from reports.claims import Measured, Verdict, below
from reports.estimates import NONE_TRAINED, RunEstimates, about, lowest
from reports.looks import GREY, OURS
from reports.selection import NoData, measured, option, require_finite
from reports.strips import Strip, by_seed, draw_strips, room, summarise
from reports.tables import Tables
from reports.words import each_of, listed, loss_text

QUESTION = "Does it matter that the influence is carried through the whole of training?"
METHOD = (
    "The runs differ in one setting: after how many steps the influence is set to zero. After 1, hypergradients see one "
    "step ahead, as those of greedy methods do; with “never”, the method is OHO."
)
NEVER = "never"


def estimate(tables: Tables) -> RunEstimates:
    """Returns final test losses by reset period."""
    runs = measured(tables.runs)
    every = option(runs, "reset_every")
    data = runs.assign(every=every, test_loss=runs["incumbent_test_loss"])[every.notna()]
    if data["every"].nunique() < 2:
        raise NoData("This figure needs OHO runs with two or more values of reset_every, so it is not drawn.")
    require_finite(data["test_loss"])
    data = data[["run", "task", "seed", "label", "every", "test_loss", "counted_seconds", "selected_step"]]
    summary = summarise(data, ["every"])
    order = summary["every"].replace(0, np.inf).sort_values().index
    return RunEstimates(data, summary.loc[order].reset_index(drop=True), about(runs))


def _name(every: float) -> str:
    return NEVER if every == 0 else f"{every:,.0f}"


def draw(estimates: RunEstimates) -> Figure:
    """Draws a line of points for each number of steps, the longest below."""
    best = lowest(estimates.summary)
    runs = dict(iter(estimates.runs.groupby("every")))
    strips = [
        Strip(_name(every), by_seed(runs[every], "test_loss"), GREY if best is None or every != best["every"] else OURS)
        for every in estimates.summary["every"]
    ]
    figure, axes = style.panels(1, 1, height=1.0 + 1.3 * room(len(strips)))
    draw_strips(axes, strips)
    axes.set_xlabel(estimates.about.units.axis("Final test loss"))
    axes.set_ylabel("Steps between resets")
    style.stamp(figure, estimates.about.stamp)
    return figure


def caption(estimates: RunEstimates) -> str:
    """Says what the figure shows, with n, budget and device."""
    n = each_of(estimates.summary["n"], "run")
    return (
        f"Final test loss by the number of steps after which the influence is forgotten, {n} each; thin lines "
        f"join the runs of a seed, bars are medians, the lowest in colour. {estimates.about.setting}"
    )


def findings(estimates: RunEstimates) -> list[str]:
    """Gives the medians, from forgetting most often to never."""
    parts = [f"{loss_text(row.median)} ({_name(row.every)})" for row in estimates.summary.itertuples()]
    best = lowest(estimates.summary)
    if best is None:
        return [NONE_TRAINED]
    medians = f"By the number of steps between two resets, the median test loss is {listed(parts)}"
    return [f"{medians}. It is lowest at {_name(best['every'])}."]


def published_rows(estimates: RunEstimates) -> list[list[str]]:
    """Returns ours beside the paper's, where both have the task and the number of steps."""
    known = published.of_task(published.RESET, estimates.about.papers_tasks)
    rows = [
        [_name(row.every), loss_text(row.median), f"{known[int(row.every)]:g}"]
        for row in estimates.summary.itertuples()
        if int(row.every) in known
    ]
    return [["Steps", "Median test loss", "Published median"], *rows] if rows else []


def verdicts(estimates: RunEstimates) -> list[Verdict]:
    """Decides whether runs that never forget end lower than those that forget most often."""
    rows = {row["every"]: row for row in estimates.summary.to_dict("records")}
    often = min((every for every in rows if every > 0), default=0)
    never = Measured.of("never", rows[0]) if 0 in rows else None
    others = [Measured.of(f"every {often:g}", rows[often])] if often else []
    return [below(never, others, missing="runs without resets, or with, were")]
