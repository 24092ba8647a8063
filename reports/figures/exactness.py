"""The published recursion is not the derivative of the update: by how much, and what is that worth?"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from reports import style
from reports.curves import draw_curve, median_curves
from reports.estimates import About, about, untrained_sentences
from reports.looks import DASHES, Look, look, told_apart
from reports.selection import NoData, comparable, require_finite
from reports.strips import Strip, by_seed, draw_strips, room, summarise
from reports.tables import Tables
from reports.words import HYPERPARAMETERS, listed, loss_text, medians_over, percent, two_digits

QUESTION = "How far are published and collapsed hypergradients from the derivative, and does it change the outcome?"
METHOD = (
    "Beside each run an exact influence of its whole past is carried: the derivative of the run's own parameters, with a "
    "tangent for each hyperparameter and set. Errors are norms of the difference over the norm of the exact "
    "hypergradient, medians over the last 100 steps before an evaluation. The twin takes no counted time; it is itself "
    "checked against reverse-mode differentiation. Bias and noise are of the learning rate: β − 1 and |g − βe| / |e| of "
    "hypergradients g and exact ones e, with β by least squares over the same steps; what is not biased has β = 1, however "
    "noisy it is. A dash stands where nothing was compared, as of a hyperparameter that a run does not tune. A bounded "
    "twin has the run's own limit and discount, and shows what the run's savings alone change."
)
PREFIX = "scalar_hypergradient_error_"
WRONG = "scalar_hypergradient_wrong_sign_lr"
PARTS = ("bias", "noise")
ROUNDING = 1e-12
"""Errors of methods that never exceed this are not drawn: they are exact."""


@dataclass(frozen=True)
class Estimates:
    """`curves` has a row for each method, hyperparameter and evaluation, `runs` the final losses, and `summary` one row per
    method.
    """

    curves: pd.DataFrame
    runs: pd.DataFrame
    summary: pd.DataFrame
    about: About

    @property
    def csv(self) -> pd.DataFrame:
        """The data behind the figure: errors over epochs."""
        return self.curves


def estimate(tables: Tables) -> Estimates:
    """Returns median errors over epochs and final test losses."""
    runs = comparable(tables.runs)
    columns = [f"{PREFIX}{name}" for name in HYPERPARAMETERS]
    if missing := [name for name, column in zip(HYPERPARAMETERS, columns, strict=True) if column not in tables.evaluations]:
        what = "" if len(missing) == len(columns) else f" and tunes {listed(missing)}"
        compared = "was compared with an exact one (compare_exact: true)"
        raise NoData(f"No run of this figure {compared}{what}, so it is not drawn.")
    wide = tables.evaluations.merge(runs[["run", "label", "method_label", "place"]], on="run")
    wide = wide[wide["step"] > 0].sort_values("place", kind="stable")
    keys = ["run", "label", "method_label", "epoch"]
    data = wide.melt(id_vars=keys, value_vars=columns, var_name="name", value_name="error")
    data["name"] = data["name"].str.removeprefix(PREFIX)
    require_finite(data["error"], "error of its hypergradients")
    curves = median_curves(data, ["label", "method_label", "name"], "error")
    summary = summarise(runs.assign(test_loss=runs["incumbent_test_loss"]), ["place", "method_label", "label"])
    for name, column in zip(HYPERPARAMETERS, columns, strict=True):
        errors = wide[_are_compared(wide, column, columns)].fillna({column: np.inf}).groupby("label")[column].median()
        summary[f"error_{name}"] = summary["label"].map(errors)
    for part in PARTS:
        column = f"scalar_hypergradient_{part}_lr"
        parts = wide.groupby("label")[column].median() if column in wide else {}
        summary[part] = summary["label"].map(parts)
    kept = runs[["run", "label", "method", "seed", "incumbent_test_loss"]]
    kept = kept.assign(wrong_sign=runs["run"].map(wide.groupby("run")[WRONG].mean()))
    summary["wrong_sign"] = summary["label"].map(kept.groupby("label")["wrong_sign"].median())
    return Estimates(curves, kept, summary, about(runs))


def draw(estimates: Estimates) -> Figure:
    """Draws median errors over epochs by hyperparameter; shares of wrong signs and final losses as points."""
    labels = list(estimates.summary["label"])
    looks = _looks(estimates)
    figure, panels = _panels(len(labels))
    for letter, (name, words) in zip("AB", HYPERPARAMETERS.items(), strict=False):
        _draw_errors(panels[letter], estimates.curves[estimates.curves["name"] == name], looks)
        panels[letter].set_title(f"{letter}  Of the {words}", loc="left")
    panels["A"].set_ylabel("Relative error of\nthe hypergradient")
    runs = dict(iter(estimates.runs.groupby("label")))
    for letter, column in (("C", "wrong_sign"), ("D", "incumbent_test_loss")):
        strips = [Strip(label, by_seed(runs[label], column), looks[label].colour, looks[label].marker) for label in labels]
        if letter == "C":
            draw_strips(panels[letter], strips, scale="linear", text=partial(percent, form=".1f"))
        else:
            draw_strips(panels[letter], strips)
    panels["C"].set_title("C  Wrong signs", loc="left")
    panels["D"].set_title("D  Final test loss", loc="left")
    panels["C"].xaxis.set_major_formatter(lambda share, _: percent(share))
    panels["C"].set_xlabel("Of the learning rate's hypergradients,\nover steps and sets")
    panels["D"].set_xlabel(estimates.about.units.axis("Of the selected model"))
    if not style.in_column():
        panels["D"].set_yticklabels([])
    wrong = set(_wrong(estimates.curves)["label"])
    own = [looks[label]._replace(dashes=looks[label].dashes if label in wrong else "none") for label in labels]
    handles = [Line2D([], [], color=each.colour, ls=each.dashes, marker=each.marker, ms=3.5) for each in own]
    names = [label if label in wrong else f"{label}: no error" for label in labels]
    style.legend_above(figure, handles, names, columns=3, size=6.5)
    style.stamp(figure, estimates.about.stamp)
    return figure


def _looks(estimates: Estimates) -> dict[str, Look]:
    """Returns looks in which variants of one method share its colour and differ in dashes and marker."""
    methods = estimates.runs.drop_duplicates("label").set_index("label")["method"]
    found: dict[str, Look] = {}
    for row in estimates.summary.itertuples():
        before = [own for label, own in found.items() if methods[label] == methods[row.label]]
        own = look(row.method_label)
        if before:
            own = own._replace(colour=before[0].colour, dashes=DASHES[len(before) % len(DASHES)])
        found[row.label] = own
    return told_apart(found)


def _wrong(curves: pd.DataFrame) -> pd.DataFrame:
    """Returns the curves of methods that are not exact."""
    return curves[curves.groupby("label")["median"].transform("max") > ROUNDING]


def _draw_errors(axes: Axes, curves: pd.DataFrame, looks: dict[str, Look]) -> None:
    shown = _wrong(curves)
    for label, curve in shown.groupby("label", sort=False):
        own = looks[str(label)]
        draw_curve(axes, curve, colour=own.colour, marker=own.marker, dashes=own.dashes, has_band=False)
    if shown.empty:
        axes.text(0.5, 0.5, "no error above rounding", transform=axes.transAxes, ha="center", va="center", fontsize=7)
    else:
        style.log_scale(axes, "y")
    axes.set_xlabel("Epochs")


def _panels(count: int) -> tuple[Figure, dict[str, Axes]]:
    """Returns two panels of curves above two with a line for each of so many methods; in a column, all below each other."""
    lines = 0.75 + room(count)
    if style.in_column():
        figure = Figure(figsize=(style.COLUMN_INCHES, 4.4 + 2 * lines))
        return figure, figure.subplot_mosaic([[letter] for letter in "ABCD"], height_ratios=[1.9, 1.9, lines, lines])
    figure = Figure(figsize=(style.PAGE_INCHES, 2.6 + lines))
    return figure, figure.subplot_mosaic([["A", "B"], ["C", "D"]], height_ratios=[2.1, lines])


def caption(estimates: Estimates) -> str:
    """Says what the figure shows, with n, budget and device."""
    n = medians_over(estimates.curves["n"], "seed")
    return (
        f"A, B: relative error of the hypergradient, {n}; methods without error are not on a "
        "logarithmic axis. C: share of steps and sets in which its sign is wrong. D: final test loss. Points are runs, "
        f"thin lines join those of a seed, bars are medians. {estimates.about.setting}"
    )


def findings(estimates: Estimates) -> list[str]:
    """Compares the largest error with exact hypergradients; the table has those of each method."""
    untrained = list(estimates.summary.loc[estimates.summary["untrained"], "label"])
    return [_first(estimates.summary), *untrained_sentences(untrained)]


def published_rows(estimates: Estimates) -> list[list[str]]:
    """Returns the median errors of each method's hypergradients, the share of wrong signs, and the median test loss."""
    header = ["Method", "Error, learning rate", "Bias", "Noise", "Wrong sign", "Error, L2 coefficient", "Test loss"]
    rows = [
        [
            row.label, _error(row.error_lr), _part(row.bias, row.error_lr, "+.1f"), _part(row.noise, row.error_lr, ".1f"),
            percent(row.wrong_sign), _error(row.error_weight_decay), loss_text(row.median),
        ]
        for row in estimates.summary.itertuples()
    ]  # fmt: skip
    return [header, *rows]


def _are_compared(wide: pd.DataFrame, column: str, columns: list[str]) -> pd.Series:
    """Returns at which evaluations a hyperparameter's error is known, or missing because the run or its twin was lost.

    An error is missing as well where a run does not tune the hyperparameter yet: before its first error, while there are
    errors of another one, and in all runs of a method that has no error of it at all.
    """
    begun = wide[column].notna().groupby(wide["run"]).cummax()
    tuned = wide[column].notna().groupby(wide["label"]).transform("any")
    return begun | (tuned & wide[columns].isna().all(axis=1))


def _error(value: float) -> str:
    """Returns a relative error; one of rounding is none, and a dash stands where nothing was compared."""
    if np.isnan(value):
        return "—"
    return "exact" if value <= ROUNDING else two_digits(value)


def _part(value: float, error: float, form: str) -> str:
    """Returns a bias or a noise; a dash where there is no error that has one, or where it was not recorded."""
    if error <= ROUNDING or not np.isfinite(value):
        return "—"
    return percent(value, form).replace("-", "−").replace("−0.0 ", "0.0 ").replace("+0.0 ", "0.0 ")


def _first(summary: pd.DataFrame) -> str:
    """Compares the method with the largest error with the exact ones."""
    worst = summary.loc[summary["error_lr"].idxmax()]
    exact = summary[summary["error_lr"] <= ROUNDING]
    beside = " and ".join(f"{loss_text(row.median)} ({row.label})" for row in exact.itertuples())
    return (
        f"Hypergradients of {worst['label']} with respect to the learning rate are off by {percent(worst['error_lr'])} "
        f"of the exact ones and have the wrong sign in {percent(worst['wrong_sign'])} of cases (medians); its median final "
        f"test loss is {loss_text(worst['median'])}{f', and with exact ones it is {beside}' if beside else ''}."
    )
