"""A world that changes while methods train: loss over time, and its mean over the whole time."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bench.records import ROUNDING
from reports import style
from reports.curves import draw_curve, median_curves
from reports.estimates import About, about
from reports.looks import GREY, Look, emphasised, ink, ours_first
from reports.needs import changes, turns
from reports.selection import ONLINE, NoData, comparable, require_finite
from reports.statistics import median_of
from reports.strips import Strip, by_seed, draw_strips, room
from reports.tables import Tables
from reports.words import loss_text, medians_over, with_ends

LOST = 10.0
"""Above how many times a run's first loss its mean is that of a lost run."""
QUESTION = "Which method follows a world that changes while it trains, without being told?"
METHOD = (
    "Inputs of all splits turn steadily, or labels of all splits shift at once, and training goes on. Shown is the test "
    "loss of the present model in the present world: no model is selected, since an old one is of an old world. The mean "
    "is over the whole time, the area under the curve by its length. A run is lost, and its mean infinite, where it ends "
    f"early or its mean is above {LOST:g} times its first loss."
)
WRAPPED = 38
"""How many characters a line of a panel's title has."""
HIGHEST = 3.0
"""The loss, in those of the first evaluation, at which panels end at the latest."""


@dataclass(frozen=True)
class Estimates:
    """`curves` has a row for each world, method and evaluation, `runs` one for each run with its mean loss, and `summary`
    one for each world and method: medians of the mean and of the last loss with intervals, the lowest mean first."""

    curves: pd.DataFrame
    runs: pd.DataFrame
    summary: pd.DataFrame
    about: About

    @property
    def csv(self) -> pd.DataFrame:
        """The data behind the numbers, a row for each run."""
        return self.runs


def estimate(tables: Tables) -> Estimates:
    """Returns losses over time in each world, and their means."""
    chosen = comparable(tables.runs.assign(shock=""))  # a shock is a world here, which all methods share
    runs = chosen.assign(shock=tables.runs.loc[chosen.index, "shock"])
    runs = runs[runs["task_options"].map(turns) | runs["events"].map(changes)]
    if runs.empty:
        raise NoData("This figure needs runs whose inputs turn or whose labels shift meanwhile, so it is not drawn.")
    runs = runs.assign(world=[_world(run.task_options, run.shock) for run in runs.itertuples()])
    about_run = runs[["run", "world", "method_label", "family", "place", "seed", "status", "budget"]]
    recorded = tables.evaluations[["run", "epoch", "test_loss"]].merge(about_run, on="run")
    require_finite(recorded["test_loss"])
    means = recorded.groupby("run")[["epoch", "test_loss"]].apply(_mean)
    last = recorded.groupby("run")["epoch"].max()
    full = last.groupby(runs.set_index("run")["world"]).transform("max")
    about_run = about_run.assign(
        mean_loss=about_run["run"].map(means.where(last >= full * (1 - ROUNDING), np.inf)),  # one that ended early is lost
        last_loss=about_run["run"].map(recorded.groupby("run")["test_loss"].last()),
    )
    curves = median_curves(recorded, ["world", "method_label"], "test_loss")
    return Estimates(curves, about_run.drop(columns="budget"), _summary(about_run), about(runs))


def _world(task: dict[str, Any], shock: str) -> str:
    drift = task.get("drift")
    turning = f"inputs turn {drift['rotate']:g}° in {drift['over_epochs']:g} epochs" if drift else ""
    return " and ".join(part for part in (turning, shock) if part)


def _mean(losses: pd.DataFrame) -> float:
    """Returns the mean over time of a run's losses, infinite where one is missing or the run is lost."""
    values = losses["test_loss"].astype(float).fillna(np.inf).to_numpy()
    epochs = losses["epoch"].to_numpy(float)
    if not np.isfinite(values).all() or epochs[-1] <= epochs[0]:
        return np.inf
    mean = float(np.trapezoid(values, epochs) / (epochs[-1] - epochs[0]))
    return mean if mean <= LOST * values[0] else np.inf


def _summary(runs: pd.DataFrame) -> pd.DataFrame:
    rows = []
    for (world, label), own in runs.groupby(["world", "method_label"], sort=False):
        mean, last = median_of(own["mean_loss"]), median_of(own["last_loss"])
        first = own.iloc[0]
        rows.append({
            "world": world, "label": label, "family": first["family"], "place": first["place"], "n": len(own),
            "mean": mean.value, "low": mean.low, "high": mean.high, "last": last.value,
        })  # fmt: skip
    table = pd.DataFrame(rows)
    order = {world: place for place, world in enumerate(sorted(table["world"].unique(), key=len))}
    table = table.assign(order=table["world"].map(order)).sort_values(["order", "mean", "place"], kind="stable")
    return table.drop(columns="order").reset_index(drop=True)


def draw(estimates: Estimates) -> Figure:
    """Draws for each world losses over time, and below them each run's mean, methods in the order of the last world."""
    worlds = list(dict.fromkeys(estimates.summary["world"]))
    labels = list(estimates.summary.loc[estimates.summary["world"] == worlds[-1], "label"])
    looks = _looks(estimates)
    low = 0.35 + room(len(labels))
    figure, grid = style.panels(2, len(worlds), height=2.1 + low, squeeze=False, height_ratios=[2.1, low])
    for place, world in enumerate(worlds):
        _draw_curves(grid[0, place], estimates.curves[estimates.curves["world"] == world], looks)
        title = "\n".join(textwrap.wrap(world[0].upper() + world[1:], WRAPPED))
        grid[0, place].set_title(title, fontsize=7.5, loc="left", va="bottom")
        runs = estimates.runs[estimates.runs["world"] == world]
        values = {label: by_seed(runs[runs["method_label"] == label], "mean_loss") for label in labels}
        strips = [Strip(label, values[label], looks[label].colour, looks[label].marker) for label in labels]
        draw_strips(grid[1, place], strips)
        for tick, label in zip(grid[1, place].get_yticklabels(), labels, strict=True):
            tick.set_color(ink(looks[label].colour) if looks[label].colour != GREY else "black")
            tick.set_fontweight("bold" if looks[label].colour != GREY else "normal")
        grid[1, place].set_xlabel(estimates.about.units.axis("Mean test loss over time"))
    if not style.in_column():
        for axes in grid[1, 1:]:
            axes.tick_params(labelleft=False)
    grid[0, 0].set_ylabel(estimates.about.units.axis("Test loss"))
    style.stamp(figure, estimates.about.stamp)
    return figure


def _looks(estimates: Estimates) -> dict[str, Look]:
    """Returns looks of which a few have a colour: methods under test and, by the worst of their means, the others."""
    table = estimates.summary.groupby("label", sort=False).agg(family=("family", "first"), mean=("mean", "max"))
    labels = [str(label) for label in table.index]
    return emphasised(labels, labels, first=ours_first(table, "mean"))


def _draw_curves(axes: Axes, curves: pd.DataFrame, looks: dict[str, Look]) -> None:
    for label in sorted(curves["method_label"].unique(), key=lambda label: looks[label].colour != GREY):
        own = looks[label]
        curve = curves[curves["method_label"] == label]
        is_coloured = own.colour != GREY
        draw_curve(axes, curve, colour=own.colour, marker=own.marker if is_coloured else "", dashes=own.dashes,
                   has_band=False)  # fmt: skip
    style.log_scale(axes, "y")
    first = curves.groupby("method_label")["median"].first().median()
    low, high = axes.get_ylim()
    axes.set_ylim(low, min(high, HIGHEST * first))
    axes.set_xlabel("Epochs")


def caption(estimates: Estimates) -> str:
    """Says what the figure shows, with n, budget and device."""
    return (
        f"Test loss of the present model in a world that changes. Above, {medians_over(estimates.summary['n'], 'run')}; "
        "below, the mean over time of each run, thin lines joining those of a seed, bars medians; markers are the same. "
        f"{estimates.about.setting}"
    )


def findings(estimates: Estimates) -> list[str]:
    """Names for each world the method with the lowest mean loss, the best under test, and the best of the others."""
    sentences = []
    for world, own in estimates.summary.groupby("world", sort=False):
        finite = own[np.isfinite(own["mean"])]
        if finite.empty:
            sentences.append(f"Where {world}, more than half of the runs of every method are lost.")
            continue
        is_ours = finite["family"] == ONLINE
        (_, best), *rest = sorted(
            ((row["mean"], row) for group in (finite[is_ours], finite[~is_ours])
             for _, row in group.sort_values("mean", kind="stable").head(1).iterrows()), key=lambda item: item[0],
        )  # fmt: skip
        what = f"Where {world}, the mean loss over time is lowest with {best['label']}, {_with_ends(best)}"
        side = "the other methods" if best["family"] == ONLINE else "OHO"
        beside = [f"; the best of {side}, {row['label']}, has {_with_ends(row)}" for _, row in rest]
        sentences.append(f"{what}{''.join(beside)}.")
    return sentences


def _with_ends(row: pd.Series) -> str:
    return with_ends(row["mean"], row["low"], row["high"], row["n"])


def published_rows(estimates: Estimates) -> list[list[str]]:
    """Returns the mean over time and the last loss of each method in each world."""
    table = estimates.summary
    rows = [[row["world"], row["label"], _with_ends(row), loss_text(row["last"])] for _, row in table.iterrows()]
    return [["World", "Method", "Mean loss over time", "Last loss"], *rows]
