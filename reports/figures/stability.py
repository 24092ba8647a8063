"""Figure 9 of the paper: the rates at which the influence explodes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from reports import style
from reports.claims import Measured, Verdict, below, not_tested
from reports.estimates import About, about
from reports.influence_norms import norms
from reports.selection import NoData, measured, require_finite
from reports.statistics import median_of
from reports.tables import Tables
from reports.words import HYPERPARAMETERS, decimal, medians_over, two_digits

QUESTION = "At which learning rates and meta-rates does the influence explode?"
METHOD = (
    "Shown is the largest norm of the influence at any evaluation of a run, by initial learning rate and meta-rate. At a "
    "meta-rate of 0 learning rates are constant: the influence is carried, and nothing follows it."
)
SHADES = "YlOrBr"
"""A colour map that is as well read in grey: the larger, the darker."""
DECADES = 8
"""How many decades the shades cover at most, from the lowest norm on."""
DARK = 0.55
"""From which shade on a number is white."""
FAR_LONGER = 10.0
"""How many times as long an influence is that has exploded."""


@dataclass(frozen=True)
class Estimates:
    """`cells` has a row for each learning rate, meta-rate and hyperparameter: the median of the largest norms, and how many
    were not finite.  `summary` has the same for each constant learning rate (A) and for each meta-rate above 0 (B)."""

    cells: pd.DataFrame
    summary: pd.DataFrame
    about: About

    @property
    def csv(self) -> pd.DataFrame:
        """The data behind the figure."""
        return self.cells


def estimate(tables: Tables) -> Estimates:
    """Returns largest norms by learning rate (A) and by meta-rate (B)."""
    data = norms(tables)
    largest = data.groupby(["run", "name"], as_index=False).agg({"start": "first", "meta_rate": "first", "norm": "max"})
    given = largest[largest["start"].notna()]
    cells = [
        {"learning_rate": start, "meta_rate": rate, "name": name, **_largest(group)}
        for (start, rate, name), group in given.groupby(["start", "meta_rate", "name"])
    ]
    summary = pd.DataFrame([
        {"panel": panel, "rate": value, "name": name, **_largest(group)}
        for panel, runs, rate in (("A", given[given["meta_rate"] == 0], "start"),
                                  ("B", given[given["meta_rate"] > 0], "meta_rate"))
        for (value, name), group in runs.groupby([rate, "name"])
    ])  # fmt: skip
    if summary.empty or set(summary["panel"]) != {"A", "B"}:
        raise NoData("This figure needs OHO runs at given learning rates, at meta-rate 0 and above, so it is not drawn.")
    require_finite(summary["median"], "norm")
    runs = measured(tables.runs)
    return Estimates(pd.DataFrame(cells), summary, about(runs))


def _largest(group: pd.DataFrame) -> dict[str, float]:
    found = median_of(group["norm"])
    exploded = int(np.isinf(group["norm"]).sum())
    return {"n": len(group), "median": found.value, "low": found.low, "high": found.high, "exploded": exploded}


def draw(estimates: Estimates) -> Figure:
    """Draws a heat map for each hyperparameter: the darker, the larger the norm; cells with runs that exploded are crossed.
    """
    meta_rates = estimates.cells["meta_rate"].nunique()
    figure, panels = style.panels(1, len(HYPERPARAMETERS), height=1.0 + 0.3 * meta_rates)
    for letter, axes, (name, words) in zip("AB", panels, HYPERPARAMETERS.items(), strict=True):
        _draw_cells(axes, estimates.cells[estimates.cells["name"] == name])
        axes.set_title(f"{letter}  With respect to the {words}", loc="left")
        axes.set_xlabel("Initial learning rate")
    for axes in panels if style.in_column() else panels[:1]:
        axes.set_ylabel("Meta-rate")
    style.stamp(figure, estimates.about.stamp)
    return figure


def _draw_cells(axes: Axes, cells: pd.DataFrame) -> None:
    rates, meta_rates = (sorted(cells[name].unique()) for name in ("learning_rate", "meta_rate"))
    colours = colormaps[SHADES]
    shades = np.full((len(meta_rates), len(rates)), np.nan)
    for shade, row in zip(_shades(cells["median"].to_numpy(float)), cells.itertuples(), strict=True):
        across, up = rates.index(row.learning_rate), meta_rates.index(row.meta_rate)
        shades[up, across] = shade
        text = f"{row.exploded}/{row.n}" if row.exploded else two_digits(row.median)
        colour = "white" if shade > DARK else "black"
        box = {"facecolor": colours((shade + 0.1) / 1.2), "lw": 0, "pad": 0.6}
        axes.text(across, up, text, ha="center", va="center", fontsize=6, color=colour, bbox=box, zorder=4)
        if row.exploded:
            for ends in ([up - 0.45, up + 0.45], [up + 0.45, up - 0.45]):
                axes.plot([across - 0.45, across + 0.45], ends, color=colour, lw=0.6, zorder=3)
    edges = [np.arange(len(values) + 1) - 0.5 for values in (rates, meta_rates)]
    axes.pcolormesh(*edges, np.ma.masked_invalid(shades), cmap=colours, vmin=-0.1, vmax=1.1, edgecolors="white", lw=1.5)
    axes.set_xticks(range(len(rates)), [decimal(rate) for rate in rates])
    axes.set_yticks(range(len(meta_rates)), [decimal(rate) for rate in meta_rates])
    axes.tick_params(length=0)
    axes.grid(visible=False)


def _shades(medians: np.ndarray) -> np.ndarray:
    """Returns how dark each norm is drawn, from 0 to 1, by its logarithm; what is not finite is darkest."""
    finite = medians[np.isfinite(medians) & (medians > 0)]
    low, high = (finite.min(), finite.max()) if len(finite) else (1.0, 1.0)
    decades = min(DECADES, max(1.0, np.log10(high / low)))
    return np.clip(np.log10(np.maximum(medians, low) / low) / decades, 0.0, 1.0)


def caption(estimates: Estimates) -> str:
    """Says what the figure shows, with n, budget and device."""
    return (
        f"Largest norm of the influence in a run, {medians_over(estimates.cells['n'], 'run')}; the larger, the "
        f"darker. A crossed cell says in how many runs it was not finite; empty cells were not run. "
        f"{estimates.about.setting}"
    )


def findings(estimates: Estimates) -> list[str]:
    """Tells how much the norm grows over each panel, and where it was not finite."""
    sentences = []
    for panel, words in (("A", "learning rate"), ("B", "meta-rate")):
        line = estimates.summary[(estimates.summary["panel"] == panel) & (estimates.summary["name"] == "lr")]
        first, last = line.iloc[0], line.iloc[-1]
        exploded = line.loc[line["exploded"] > 0, "rate"]
        where = f"from {exploded.min():g} on" if exploded.max() == last["rate"] else f"at {exploded.max():g}"
        end = f"; it is not finite in some runs {where}" if len(exploded) else ""
        sentences.append(
            f"From a {words} of {first['rate']:g} to {last['rate']:g} the norm with respect to the learning rate goes from "
            f"{two_digits(first['median'])} to {two_digits(last['median'])}{end}."
        )
    return sentences


def verdicts(estimates: Estimates) -> list[Verdict]:
    """Decides whether the influence of the learning rate is far longer at the largest meta-rate than at the smallest."""
    rows = estimates.summary[(estimates.summary["panel"] == "B") & (estimates.summary["name"] == "lr")]
    if rows["rate"].nunique() < 2:
        return [not_tested("there is one meta-rate")]
    ordered = rows.sort_values("rate")
    small, large = (Measured.of(f"meta-rate {row['rate']:g}", row) for _, row in ordered.iloc[[0, -1]].iterrows())
    return [below(small, [large], missing="", factor=FAR_LONGER)]
