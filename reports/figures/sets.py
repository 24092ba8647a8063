"""Figure 4 of the paper: how many sets of layers should have hyperparameters of their own?"""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from reports import published, style
from reports.claims import Measured, Verdict, below
from reports.estimates import NONE_TRAINED, RunEstimates, about, lowest
from reports.looks import DASHES, OURS
from reports.selection import NoData, measured, online, option, require_finite, require_own_seconds
from reports.strips import summarise
from reports.tables import Tables
from reports.words import loss_text, medians_over, plural

QUESTION = "Does it pay to give every layer, or every tensor, hyperparameters of its own, and what does it cost?"
METHOD = (
    "The runs differ in the number of sets that share a learning rate and an L2 coefficient; all take the same number "
    "of steps. Exact influence carries a tangent for each value; collapsed influence, the paper's, carries one for all, "
    "which is cheap and biased."
)
INFLUENCES = {"exact": (OURS, "o", DASHES[0]), "collapsed": ("#666666", "s", DASHES[1])}
"""Colour, marker and dashes."""

BEYOND = 1.6
"""Where the axis of losses ends at the latest, over the highest median."""


def estimate(tables: Tables) -> RunEstimates:
    """Returns final test losses and counted seconds by number of sets and kind of influence."""
    runs = measured(tables.runs)
    require_own_seconds(runs)
    sets = tables.evaluations.drop_duplicates("run", keep="last").set_index("run")["hyper_lr"].map(np.size)
    influence = option(runs, "influence").fillna("exact")
    data = runs.assign(sets=runs["run"].map(sets), influence=influence, test_loss=runs["incumbent_test_loss"])
    data = data[online(data)]
    if data["sets"].nunique() < 2:
        raise NoData("This figure needs OHO runs with two or more numbers of sets, so it is not drawn.")
    require_finite(data["test_loss"])
    data = data[["run", "task", "seed", "label", "sets", "influence", "test_loss", "counted_seconds", "selected_step"]]
    return RunEstimates(data, summarise(data, ["sets", "influence"]), about(runs))


def draw(estimates: RunEstimates) -> Figure:
    """Draws medians of loss against counted seconds, a line for each kind of influence, over every run as a small point."""
    figure, axes = style.panels(1, 1, height=2.7)
    for influence, (colour, marker, dashes) in INFLUENCES.items():
        runs = estimates.runs[estimates.runs["influence"] == influence]
        summary = estimates.summary[estimates.summary["influence"] == influence].sort_values("sets")
        axes.plot(runs["counted_seconds"], runs["test_loss"], ls="none", marker=marker, color=colour, ms=3, alpha=0.45,
                  mew=0)  # fmt: skip
        shown = summary[np.isfinite(summary["median"])]
        axes.plot(shown["seconds"], shown["median"], marker=marker, ls=dashes, color=colour, lw=1, ms=9, mec="white",
                  mew=0.6, label=f"{influence} influence", zorder=3)  # fmt: skip
        for row in shown.itertuples():
            axes.annotate(f"{row.sets}", (row.seconds, row.median), va="center_baseline", ha="center", fontsize=6.5,
                          color="white", fontweight="bold", zorder=4)  # fmt: skip
    _set_scale(axes, estimates)
    axes.margins(x=0.08)
    axes.set_xlabel("Counted seconds a run")
    axes.set_ylabel(estimates.about.units.axis("Final test loss"))
    style.legend_above(figure, *axes.get_legend_handles_labels(), columns=2)
    style.stamp(figure, estimates.about.stamp)
    return figure


def _set_scale(axes: Axes, estimates: RunEstimates) -> None:
    """Ends the axis above the medians; runs beyond stand at its edge."""
    runs = estimates.runs[np.isfinite(estimates.runs["test_loss"])]
    medians = estimates.summary["median"][np.isfinite(estimates.summary["median"])]
    low, high = runs["test_loss"].min(), runs["test_loss"].max()
    top = BEYOND * medians.max() if len(medians) and low > 0 else high
    if low > 0 and min(top, high) > 5 * low:
        style.log_scale(axes, "y")
    if top >= high:
        return
    axes.set_ylim(0.9 * low, top)
    for influence, far in runs[runs["test_loss"] > top].groupby("influence"):
        axes.plot(far["counted_seconds"], [1.0] * len(far), ls="none", marker="^", mfc="none", ms=5, clip_on=False,
                  mec=INFLUENCES[str(influence)][0], transform=axes.get_xaxis_transform())  # fmt: skip


def caption(estimates: RunEstimates) -> str:
    """Says what the figure shows, with n, budget and device."""
    n = medians_over(estimates.summary["n"], "run")
    return (
        f"Final test loss against counted seconds; large points, {n} with their number of sets, "
        "small ones, runs, with triangles beyond the axis. With one set both kinds of influence are the same. "
        f"{estimates.about.setting}"
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
