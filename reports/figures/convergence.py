"""Figure 3 of the paper: do learning rates forget where they started, and what does the meta-rate do?"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import chain, takewhile
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from reports import style
from reports.claims import Measured, Verdict, decided, not_tested, too_few
from reports.curves import draw_curve, median_curves
from reports.estimates import About, about, lowest
from reports.looks import DASHES
from reports.selection import NoData, measured, online, option, require_finite
from reports.statistics import median_of
from reports.strips import summarise
from reports.tables import Tables
from reports.words import decimal, listed, loss_text, medians_over

QUESTION = "Do learning rates forget where they started, and how much does the rate of their own steps matter?"
METHOD = (
    "The upper panels show the learning rates of the weights of each group of layers where OHO starts from given ones; the "
    "lower ones the test loss of the present model where OHO starts from drawn values, at several meta-rates. The best "
    "meta-rate is the one whose runs select the models with the lowest median test loss."
)
SHADES = ("#000000", "#0072B2", "#D55E00", "#E69F00", "#56B4E9")
"""From the lowest to the highest start or meta-rate; of more than five, the inner ones share colours."""
TOGETHER = 2.0
"""Within which factor learning rates have ended at the same value."""


@dataclass(frozen=True)
class Estimates:
    """`paths` has a row for each run, evaluation and group of layers, `losses` one for each method, meta-rate and
    evaluation, and `rates` one for each method and meta-rate."""

    paths: pd.DataFrame
    losses: pd.DataFrame
    rates: pd.DataFrame
    about: About

    @property
    def csv(self) -> pd.DataFrame:
        """The data behind the figure: learning rates, loss curves, then final losses by meta-rate."""
        return pd.concat([self.paths, self.losses, self.rates], ignore_index=True)


def estimate(tables: Tables) -> Estimates:
    """Returns learning rates over steps, and final test losses by meta-rate."""
    runs = measured(tables.runs)
    runs = runs[online(runs)]
    runs = runs.assign(start=option(runs, "lr"), meta_rate=option(runs, "meta_rate"), test_loss=runs["incumbent_test_loss"])
    paths = _paths(runs[runs["start"].notna()], tables.evaluations)
    swept = runs[runs["start"].isna() & runs["meta_rate"].notna()]
    if paths.empty or swept.empty:
        raise NoData("This figure needs OHO from given starts and OHO at several meta-rates, so it is not drawn.")
    require_finite(swept["test_loss"])
    swept = swept.assign(method=swept["method"].map(_called(swept)))
    rates = summarise(swept, ["method", "meta_rate"])
    recorded = tables.evaluations[["run", "epoch", "test_loss"]].merge(swept[["run", "method", "meta_rate"]], on="run")
    losses = median_curves(recorded, ["method", "meta_rate"], "test_loss")
    return Estimates(paths, losses, rates, about(runs))


def _called(runs: pd.DataFrame) -> dict[str, str]:
    """Returns what each method is called: the parts, between commas, with which all its labels begin."""
    called = {}
    for name, labels in runs.groupby("method")["method_label"].unique().items():
        parts = zip(*(label.split(", ") for label in labels), strict=False)
        common = [part[0] for part in takewhile(lambda part: len(set(part)) == 1, parts)]
        called[str(name)] = ", ".join(common) or str(name)
    return called


def _paths(runs: pd.DataFrame, evaluations: pd.DataFrame) -> pd.DataFrame:
    """Takes the weights of each group: sets are ordered weights and biases of group 0, of group 1, and so on.

    Before its first step, a run may have recorded one rate, which is that of all its sets.
    """
    rows = []
    for run in runs.itertuples():
        own = evaluations[evaluations["run"] == run.run]
        rates = [np.atleast_1d(rate) for rate in own["hyper_lr"]]
        sets = max(map(len, rates), default=0)
        for step, found in zip(own["step"], rates, strict=True):
            of_groups = (np.repeat(found, sets) if len(found) == 1 else found)[::2]
            rows += [
                {"run": run.run, "seed": run.seed, "start": run.start, "group": group, "step": step, "lr": rate}
                for group, rate in enumerate(of_groups, start=1)
            ]
    return pd.DataFrame(rows)


def draw(estimates: Estimates) -> Figure:
    """Draws learning rates over steps, a panel for each group of layers, above losses, a panel for each method."""
    groups = sorted(estimates.paths["group"].unique())
    methods = list(dict.fromkeys(estimates.rates["method"]))
    figure, (above, below) = _panels(len(groups), len(methods))
    starts, rates = (_looks(values) for values in (estimates.paths["start"], estimates.rates["meta_rate"]))
    _draw_groups(above, estimates.paths, groups, starts)
    _draw_methods(below, estimates, methods, rates)
    _add_legend(figure, {f"from {start:g}": own for start, own in starts.items()},
                {f"meta-rate {decimal(rate)}": own for rate, own in rates.items()})  # fmt: skip
    style.stamp(figure, estimates.about.stamp)
    return figure


def _add_legend(figure: Figure, *rows: dict[str, tuple[str, Any]]) -> None:
    """Writes a legend of a row for each block of panels; in a column of text, one of two columns."""
    columns = max(map(len, rows))
    padded = [[*row.items(), *[("", ("none", ""))] * (columns - len(row))] for row in rows]
    is_in_rows = not style.in_column()  # a legend is filled column by column
    entries = list(chain(*zip(*padded, strict=True)) if is_in_rows else chain(*(row.items() for row in rows)))
    handles = [Line2D([], [], color=colour, ls=dashes) for _, (colour, dashes) in entries]
    style.legend_above(figure, handles, [name for name, _ in entries], columns=columns, size=6.5)


def _panels(*counts: int) -> tuple[Figure, list[list[Axes]]]:
    """Returns two blocks of small panels, which share their axes within a block."""
    across = min(max(counts), 2 if style.in_column() else 4)
    rows = [math.ceil(count / across) for count in counts]
    figure = Figure(figsize=(style.COLUMN_INCHES if style.in_column() else style.PAGE_INCHES, 1.65 * sum(rows) + 0.2))
    grid = figure.subplots(sum(rows), across, squeeze=False)
    blocks, start = [], 0
    for count, height in zip(counts, rows, strict=True):
        block = list(grid[start : start + height].flat)
        for axes in block[count:]:
            axes.remove()
        for axes in block[1:count]:
            axes.sharey(block[0])
        blocks.append(block[:count])
        start += height
    return figure, blocks


def _looks(values: pd.Series) -> dict[float, tuple[str, Any]]:
    """Returns colour and dashes for each value, solid and black for the lowest."""
    found = sorted(values.unique())
    places = np.linspace(0, len(SHADES) - 1, len(found)) if len(found) > 1 else [0]
    looks = enumerate(zip(found, places, strict=True))
    return {value: (SHADES[round(place)], DASHES[number % len(DASHES)]) for number, (value, place) in looks}


def _draw_groups(panels: list[Axes], paths: pd.DataFrame, groups: list[int], looks: dict[float, tuple[str, Any]]) -> None:
    """Draws a thin line for each run."""
    for axes, group in zip(panels, groups, strict=True):
        for (start, _), path in paths[paths["group"] == group].groupby(["start", "run"]):
            colour, dashes = looks[start]
            axes.plot(path["step"], path["lr"], color=colour, ls=dashes, lw=0.9)
        axes.set_title(f"Group {group}", fontsize=7.5, loc="left")
        axes.set_xlabel("Steps")
        style.log_scale(axes, "y")
    panels[0].set_ylabel("Learning rate\nof the weights")


def _draw_methods(
    panels: list[Axes], estimates: Estimates, methods: list[str], looks: dict[float, tuple[str, Any]]
) -> None:  # fmt: skip
    """Draws medians over seeds."""
    for axes, method in zip(panels, methods, strict=True):
        for rate, curve in estimates.losses[estimates.losses["method"] == method].groupby("meta_rate"):
            colour, dashes = looks[rate]
            draw_curve(axes, curve, colour=colour, dashes=dashes, has_band=False)
        axes.set_title(method, fontsize=7.5, loc="left")
        axes.set_xlabel("Epochs")
        style.log_scale(axes, "y")
    panels[0].set_ylabel(estimates.about.units.axis("Test loss"))


def caption(estimates: Estimates) -> str:
    """Says what the figure shows, with n, budget and device."""
    return (
        "Above: learning rates of the weights of each group of layers, one line a run. Below: test loss of the present "
        f"model, {medians_over(estimates.rates['n'], 'run')}. {estimates.about.setting}"
    )


def findings(estimates: Estimates) -> list[str]:
    """Tells how far apart learning rates are at the start and at the end, and names the best meta-rates."""
    starts = estimates.paths["start"]
    rates = _ends(estimates.paths).groupby("group")["lr"]
    spreads = rates.agg(lambda ends: ends.max() / ends.min() if ends.min() > 0 else np.inf)
    ends = listed([f"{spread:.3g} in group {group}" for group, spread in spreads.items()])
    sentences = [
        f"Learning rates that start a factor of {starts.max() / starts.min():.3g} apart end within a factor of {ends}."
    ]
    for method, group in estimates.rates.groupby("method"):
        best = lowest(group)
        if best is None:
            sentences.append(f"With {method}, no meta-rate gives a trained model within the budget.")
        else:
            found = f"is lowest, {loss_text(best['median'])}, at a meta-rate of {best['meta_rate']:g}"
            sentences.append(f"With {method}, the median test loss {found}.")
    return sentences


def _ends(paths: pd.DataFrame) -> pd.DataFrame:
    """Returns the last row of each run and group."""
    return paths.loc[paths.groupby(["run", "group"])["step"].idxmax()]


def verdicts(estimates: Estimates) -> list[Verdict]:
    """Decides whether learning rates from all starts end together, in each group of layers and for each seed."""
    paths = estimates.paths
    if paths["start"].nunique() < 2:
        return [not_tested("all runs have one start")]
    ends = _ends(paths).groupby(["seed", "group"])["lr"].agg(["min", "max"])
    apart = (ends["max"] / ends["min"].where(ends["min"] > 0, np.nan)).fillna(np.inf).groupby("seed").max()
    if few := too_few([len(apart)]):
        return [few]
    starts = paths["start"].max() / paths["start"].min()
    factor = Measured(f"starts are a factor of {starts:.3g} apart, and ends", len(apart), *median_of(apart))
    return [decided(factor.high < TOGETHER, factor.low > TOGETHER, str(factor))]
