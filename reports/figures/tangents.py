"""Figure 8 of the paper: how long the influence is over training, and how alike gradients of different batches are."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from reports import published, style
from reports.claims import Verdict, decided, too_few
from reports.curves import draw_curve, median_curves
from reports.estimates import About, about
from reports.influence_norms import norms
from reports.looks import Look, look, told_apart
from reports.selection import measured, require_finite
from reports.statistics import median
from reports.tables import Tables
from reports.words import HYPERPARAMETERS, first_few, medians_over, two_digits

QUESTION = "How long is the derivative of the parameters with respect to a hyperparameter, and does it stay bounded?"
METHOD = (
    "A and B show the Frobenius norm of the influence at each evaluation, over all sets. C, where it was recorded, shows "
    "the cosines between the gradients of all pairs of some training batches, their mean against their standard deviation, "
    "from the first evaluation to the last."
)
CORRELATIONS = {"mean": "scalar_gradient_correlation_mean", "deviation": "scalar_gradient_correlation_deviation"}


@dataclass(frozen=True)
class Estimates:
    """`curves` has a row for each method, hyperparameter and evaluation, with median and interval over seeds.

    `correlations` has one for each method and evaluation, with the medians of mean and deviation; none where none were
    recorded.
    """

    curves: pd.DataFrame
    correlations: pd.DataFrame
    about: About

    @property
    def csv(self) -> pd.DataFrame:
        """The data behind the figure: the norms, then the correlations."""
        return pd.concat([self.curves, self.correlations], ignore_index=True)


def estimate(tables: Tables) -> Estimates:
    """Returns medians over seeds of the norms and of the correlations."""
    data = norms(tables)
    require_finite(data["norm"], "norm")
    runs = measured(tables.runs)
    return Estimates(
        median_curves(data, ["label", "method_label", "name"], "norm"), _correlations(runs, tables.evaluations),
        about(runs),
    )  # fmt: skip


def _correlations(runs: pd.DataFrame, evaluations: pd.DataFrame) -> pd.DataFrame:
    if not set(CORRELATIONS.values()) <= set(evaluations):
        return pd.DataFrame(columns=["label", "method_label", "epoch", *CORRELATIONS])
    data = evaluations.merge(runs[["run", "label", "method_label"]], on="run").dropna(subset=list(CORRELATIONS.values()))
    data = data.assign(place=data.groupby("run").cumcount())
    named = {name: (column, lambda values: float(median(values.to_numpy()))) for name, column in CORRELATIONS.items()}
    table = data.groupby(["label", "method_label", "place"], as_index=False).agg(epoch=("epoch", "median"), **named)
    return table.drop(columns="place")


def draw(estimates: Estimates) -> Figure:
    """Draws a panel for each hyperparameter, with one line per method; then the correlations, if there are any."""
    count = len(HYPERPARAMETERS) + (len(estimates.correlations) > 0)
    both = pd.concat([estimates.curves, estimates.correlations])[["label", "method_label"]].drop_duplicates()
    looks = told_apart({label: look(method_label) for label, method_label in both.itertuples(index=False)})
    figure, panels = style.panels(1, count, height=2.6)
    for letter, axes, (name, words) in zip("AB", panels, HYPERPARAMETERS.items(), strict=False):
        of_name = estimates.curves[estimates.curves["name"] == name]
        for label, curve in of_name.groupby("label"):
            own = looks[str(label)]
            draw_curve(axes, curve, colour=own.colour, marker=own.marker, dashes=own.dashes, label=str(label),
                       has_band=False)  # fmt: skip
        style.log_scale(axes, "y")
        axes.set_title(f"{letter}  For the {words}", loc="left")
        axes.set_xlabel("Epochs")
    panels[0].set_ylabel("Norm of the influence")
    if count > len(HYPERPARAMETERS):
        _draw_correlations(panels[-1], estimates.correlations, looks)
    handles = {label: handle for axes in panels for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)}
    style.legend_above(figure, list(handles.values()), list(handles), columns=4, size=6.5)
    style.stamp(figure, estimates.about.stamp)
    return figure


def _draw_correlations(axes: Axes, correlations: pd.DataFrame, looks: dict[str, Look]) -> None:
    """Draws an arrow for each method, from the first evaluation to the last."""
    for label, path in correlations.groupby("label"):
        colour, marker, *_ = looks[str(label)]
        start, end = path.iloc[0], path.iloc[-1]
        arrow = {"arrowstyle": "-|>", "color": colour, "lw": 1, "shrinkA": 0, "shrinkB": 3, "mutation_scale": 7}
        axes.annotate("", (end["mean"], end["deviation"]), (start["mean"], start["deviation"]), arrowprops=arrow)
        axes.plot(start["mean"], start["deviation"], marker=marker, mfc="none", mec=colour, ms=5, ls="none")
        axes.plot(end["mean"], end["deviation"], marker=marker, color=colour, ms=5, ls="none", label=str(label))
    axes.margins(0.15)
    axes.set_title("C  Similarity of gradients", loc="left")
    axes.set_xlabel("Mean of the cosines")
    axes.set_ylabel("Standard deviation")
    axes.grid(visible=True, axis="both")


def caption(estimates: Estimates) -> str:
    """Says what the figure shows, with n, budget and device."""
    n = medians_over(estimates.curves["n"], "seed")
    third = " C: medians over the same seeds, from first to last evaluation." if len(estimates.correlations) else ""
    return (
        f"Norm of the influence over training: {n}; a line ends where the norm is not finite."
        f"{third} {estimates.about.setting}"
    )


def findings(estimates: Estimates) -> list[str]:
    """Gives the range of each norm, and where the correlations go."""
    parts = [f"{_range(estimates, name)} with respect to the {words}" for name, words in HYPERPARAMETERS.items()]
    sentences = [f"Median norms are {' and '.join(parts)}."]
    ends = [
        f"{path['mean'].iloc[0]:.2f} to {path['mean'].iloc[-1]:.2f} ({label})"
        for label, path in estimates.correlations.groupby("label")
    ]
    if ends:
        sentences.append(
            f"From first to last evaluation the mean cosine between gradients goes from {', '.join(first_few(ends))}."
        )
    return sentences


def _range(estimates: Estimates, name: str) -> str:
    medians = estimates.curves.loc[estimates.curves["name"] == name, "median"]
    finite = medians[np.isfinite(medians)]
    return f"{two_digits(finite.min())} to {two_digits(finite.max())}" if len(finite) else "not finite"


def published_rows(estimates: Estimates) -> list[list[str]]:
    """Returns our ranges beside the paper's, which are of both of its tasks; none where the runs are of another task."""
    if not estimates.about.papers_tasks:
        return []
    rows = [[words, _range(estimates, name), published.NORMS[name]] for name, words in HYPERPARAMETERS.items()]
    return [["With respect to the", "Norm", "Published"], *rows]


def verdicts(estimates: Estimates) -> list[Verdict]:
    """Decides whether the norm of each method and hyperparameter grows no more after the first half of training."""
    if few := too_few(estimates.curves["n"]):
        return [few]
    growth = {
        (str(label), str(name)): _growth(curve) for (label, name), curve in estimates.curves.groupby(["label", "name"])
    }
    (label, name), (least, most) = max(growth.items(), key=lambda item: item[1])
    told = f"{two_digits(most)} times as long later, with {label}, for the {HYPERPARAMETERS[name]}"
    return [decided(all(high <= 1 for _, high in growth.values()), least > 1, told)]


def _growth(curve: pd.DataFrame) -> tuple[float, float]:
    """Returns the highest lower end and the highest upper end of an interval in the second half, over that in the first."""
    is_first = curve["epoch"] <= curve["epoch"].max() / 2
    first = curve.loc[is_first, "high"].max()
    if not (np.isfinite(first) and first > 0):
        return np.inf, np.inf
    low, high = curve.loc[~is_first, ["low", "high"]].max() / first
    return float(low), float(high)
