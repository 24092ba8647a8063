"""Figure 4 of the paper: how many sets of layers should have hyperparameters of their own?"""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from reports import published, style
from reports.boxes import Box, draw_boxes, summarise
from reports.claims import Measured, Verdict, below
from reports.estimates import NONE_TRAINED, RunEstimates, about, lowest
from reports.looks import OURS, OURS_BESIDE
from reports.selection import NoData, measured, online, option, require_finite
from reports.tables import Tables
from reports.words import loss_text, plural

QUESTION = "Does it pay to give every layer, or every tensor, hyperparameters of its own, and what does it cost?"
METHOD = (
    "The runs differ in the number of sets that share a learning rate and an L2 coefficient; all take the same number "
    "of steps. Exact influence carries a tangent for each value; collapsed influence, the paper's, carries one for all, "
    "which is cheap and biased. Boxes show losses, and the lines show counted seconds a run, on the right axis."
)
INFLUENCES = {"exact": (OURS, -0.17, "o"), "collapsed": (OURS_BESIDE, 0.17, "s")}
"""Colour, place beside the tick, and marker."""


def estimate(tables: Tables) -> RunEstimates:
    """Returns final test losses and counted seconds by number of sets and kind of influence."""
    runs = measured(tables.runs)
    sets = tables.evaluations.drop_duplicates("run", keep="last").set_index("run")["hyper_lr"].map(np.size)
    influence = option(runs, "influence").fillna("exact")
    data = runs.assign(sets=runs["run"].map(sets), influence=influence, test_loss=runs["incumbent_test_loss"])
    data = data[online(data)]
    if data["sets"].nunique() < 2:
        raise NoData("This figure needs OHO runs with two or more numbers of sets, so it is not drawn.")
    require_finite(data["test_loss"])
    data = data[["run", "task", "seed", "label", "sets", "influence", "test_loss", "counted_seconds", "selected_step"]]
    return RunEstimates(data, summarise(data, ["sets", "influence"]), about(tables, runs))


def draw(estimates: RunEstimates) -> Figure:
    """Draws two boxes for each number of sets, and two lines of counted time."""
    figure, axes = style.panels(1, 1, height=2.9)
    clock = axes.twinx()
    counts = sorted(estimates.runs["sets"].unique())
    for influence, (colour, offset, marker) in INFLUENCES.items():
        own = estimates.runs[estimates.runs["influence"] == influence]
        places = {count: counts.index(count) + offset for count in sorted(own["sets"].unique())}
        losses = {count: own.loc[own["sets"] == count, "test_loss"].to_numpy(float) for count in places}
        draw_boxes(axes, [Box(places[count], losses[count], colour, marker) for count in places], width=0.28)
        seconds = estimates.summary[estimates.summary["influence"] == influence].set_index("sets")["seconds"]
        clock.plot(list(places.values()), [seconds[count] for count in places], "--", color=colour, lw=0.9)
        axes.plot([], [], marker, color=colour, label=f"{influence} influence")
    axes.plot([], [], "--", color="black", lw=0.9, label="counted seconds (right)")
    clock.set_ylim(bottom=0)
    clock.set_ylabel("Counted seconds a run")
    clock.grid(visible=False)
    clock.spines["right"].set_visible(True)
    axes.set_xticks(range(len(counts)), [f"{count}" for count in counts])
    axes.set_xlabel("Number of sets")
    axes.set_ylabel(estimates.about.units.axis("Final test loss"))
    style.legend_above(figure, *axes.get_legend_handles_labels(), columns=3)
    style.stamp(figure, estimates.about.stamp)
    return figure


def caption(estimates: RunEstimates) -> str:
    """Says what the figure shows, with n, budget and device."""
    n = estimates.summary["n"].min()
    return (
        f"Final test loss by number of sets, {n} runs or more each: quartiles, median, and every run; dashed, median "
        f"counted seconds a run. With one set both kinds of influence are the same. {estimates.about.setting}"
    )


def findings(estimates: RunEstimates) -> list[str]:
    """Names the best number of sets for each kind of influence, and what it costs beside one set."""
    sentences = []
    for influence, group in estimates.summary.groupby("influence", sort=False):
        best, one = lowest(group), group.loc[group["sets"].idxmin()]
        if best is None:
            continue
        at = plural(best["sets"], "set")
        sentence = f"With {influence} influence the median loss is lowest, {loss_text(best['median'])}, with {at}"
        if best["sets"] != one["sets"]:
            times = best["seconds"] / one["seconds"]
            beside = f"{plural(one['sets'], 'set')}, whose median is {loss_text(one['median'])}"
            sentence += f", which take {times:.2g} times the time of {beside}"
        sentences.append(f"{sentence}.")
    return sentences or [NONE_TRAINED]


def published_rows(estimates: RunEstimates) -> list[list[str]]:
    """Returns ours beside the paper's median losses, where both have the task and the number of sets."""
    known = published.of_task(published.SETS, estimates.about.papers_tasks)
    rows = [
        [f"{row.sets}, {row.influence}", loss_text(row.median), f"{row.seconds / 3600:.2g}", f"{known[row.sets]:g}"]
        for row in estimates.summary.itertuples()
        if row.sets in known
    ]
    return [["Sets", "Median test loss", "Counted hours", "Published median"], *rows] if rows else []


def verdicts(estimates: RunEstimates) -> list[Verdict]:
    """Decides whether the most sets end lower than the fewest, with the paper's influence."""
    summary = estimates.summary
    rows = summary[summary["influence"] == "collapsed"].sort_values("sets")
    one = summary[summary["sets"] == summary["sets"].min()]  # with one set, both kinds of influence are the same
    if rows["sets"].nunique() == 0 or rows["sets"].iloc[-1] == one["sets"].iloc[0]:
        return [below(None, [], missing="collapsed influence with several sets was")]
    most = rows.iloc[-1]
    fewest = Measured.of(plural(one["sets"].iloc[0], "set"), one.iloc[0])
    return [below(Measured.of(plural(most["sets"], "set"), most), [fewest], missing="")]
