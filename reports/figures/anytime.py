"""What each method would have returned at any budget up to its own: test loss of the selected model."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from reports import style
from reports.curves import held
from reports.estimates import NONE_TRAINED, About, about, untrained_sentences
from reports.looks import SOLID, Look, look
from reports.selection import ONLINE, NoData, comparable
from reports.statistics import medians_of
from reports.tables import Tables
from reports.words import budget_unit, loss_text, spread

QUESTION = "Which method should be used at which budget?"
METHOD = (
    "Every model that a run selects on validation is recorded with the budget used until then, so that its result at any "
    "smaller budget is known without training again. A schedule that spans the budget is known at its own budget only."
)
POINTS = 200
FIRST_FRACTION = 0.01
"""The part of the budget at which the axis begins."""


@dataclass(frozen=True)
class Estimates:
    """`curves` has a row for each method and budget: the median with its interval, and whether more than half of the runs
    had selected nothing but the untrained model by then.  `n` is the number of runs of the method with the fewest.
    """

    curves: pd.DataFrame
    unit: str
    n: int
    most: int
    about: About

    @property
    def csv(self) -> pd.DataFrame:
        """The data behind the figure."""
        return self.curves


def estimate(tables: Tables) -> Estimates:
    """Returns medians over seeds of the selected model's test loss, on a logarithmic grid of budgets."""
    runs = comparable(tables.runs)
    amount = float(runs["budget"].iloc[0])
    grid = np.geomspace(FIRST_FRACTION * amount, amount, POINTS)
    incumbents = dict(iter(tables.incumbents.groupby("run")))
    rows = []
    for label, group in runs.groupby("label"):
        found = [_selected(incumbents.get(run), grid) for run in group["run"]]
        losses, untrained = (np.array(part) for part in zip(*found, strict=True))
        known = grid >= amount if group["spans_budget"].any() else np.full(POINTS, True)
        value, low, high = medians_of(losses)
        first = group.iloc[0]
        rows.append(pd.DataFrame({
            "label": label, "method_label": first["method_label"], "family": first["family"], "used": grid[known],
            "median": value[known], "low": low[known], "high": high[known],
            "untrained": untrained.mean(axis=0)[known] > 0.5,
        }))  # fmt: skip
    curves = pd.concat(rows, ignore_index=True)
    if not np.isfinite(curves["median"]).any():
        raise NoData("In no method did half of the runs select a model with a finite loss, so this figure is not drawn.")
    counts = runs.groupby("label").size()
    return Estimates(curves, runs["unit"].iloc[0], int(counts.min()), int(counts.max()), about(tables, runs))


def _selected(incumbents: pd.DataFrame | None, grid: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the test loss of the last model found at each budget, infinite before the first, and which are untrained."""
    if incumbents is None:
        return np.full(len(grid), np.inf), np.full(len(grid), False)
    used, loss, step = (incumbents[name].to_numpy(float) for name in ("used", "test_loss", "step"))
    return held(used, loss, grid, before=np.inf), held(used, step, grid, before=np.nan) == 0


def draw(estimates: Estimates) -> Figure:
    """Draws a line for each method with its band; names stand beside where the lines end, the best below."""
    count = estimates.curves["label"].nunique()
    figure, axes = style.panels(1, 1, height=3.6 if style.in_column() else max(3.6, 0.125 * count + 0.6))
    ends: list[tuple[float, str, str]] = []
    kinds: dict[str, Any] = {}
    for label, curve in estimates.curves.groupby("label"):
        colour, marker, dashes, kind = _look(curve)
        kinds.setdefault(kind, dashes)
        axes.plot(curve["used"], curve["median"], color=colour, ls=dashes, lw=1.3, drawstyle="steps-post", ms=5,
                  marker=marker if len(curve) == 1 else None)  # fmt: skip
        axes.fill_between(curve["used"], curve["low"], curve["high"], color=colour, alpha=0.1, lw=0, step="post")
        ends.append((curve["median"].iloc[-1], str(label), colour))
    style.log_scale(axes, "x", "y")
    finite = estimates.curves["median"].replace(np.inf, np.nan).dropna()
    axes.set_ylim(0.93 * finite.min(), 1.05 * finite.max())
    budget = estimates.curves["used"].max()
    axes.set_xlim(FIRST_FRACTION * budget, budget)
    axes.set_xlabel(f"Budget used ({budget_unit(estimates.unit)})")
    axes.set_ylabel(estimates.about.units.axis("Test loss of the selected model"))
    axes.grid(visible=True, which="both", axis="both")
    if style.in_column():
        handles = [Line2D([], [], color=colour) for _, _, colour in sorted(ends)]
        style.legend_above(figure, handles, [label for _, label, _ in sorted(ends)], columns=2, size=5)
    else:
        _name_lines(axes, ends)
    if len(kinds) > 1:
        for kind, dashes in sorted(kinds.items()):
            axes.plot([], [], color="black", ls=dashes, lw=1, label=kind)
        axes.legend(loc="lower left", fontsize=6)
    style.stamp(figure, estimates.about.stamp)
    return figure


def _look(curve: pd.DataFrame) -> Look:
    return look(curve["method_label"].iloc[0])


def _name_lines(axes: Axes, ends: list[tuple[float, str, str]]) -> None:
    """Writes names in the order of the lines' ends, apart enough to be read, each tied to its line's end."""
    low, high = np.log(axes.get_ylim())
    ordered = sorted(ends)
    wanted = [(np.log(end) - low) / (high - low) if 0 < end < np.inf else float(end > 0) for end, _, _ in ordered]
    places = _apart(wanted, gap=min(0.062, 1 / max(1, len(ordered) - 1)))
    for (_, label, colour), end, place in zip(ordered, wanted, places, strict=True):
        tie = {"arrowstyle": "-", "color": colour, "lw": 0.5, "shrinkA": 0, "shrinkB": 0, "relpos": (0, 0.5)}
        axes.annotate(
            label, (1, end), (1.04, place), xycoords="axes fraction", textcoords="axes fraction", va="center",
            fontsize=6.5, color=colour, arrowprops=tie,
        )  # fmt: skip


def _apart(wanted: list[float], gap: float) -> list[float]:
    """Returns places in [0, 1] in the same order, at least `gap` apart and otherwise near where they were wanted."""
    places: list[float] = []
    for want in wanted:
        places.append(max(want, places[-1] + gap) if places else max(want, 0.0))
    ceiling = 1.0
    for index in reversed(range(len(places))):
        places[index] = min(places[index], ceiling)
        ceiling = places[index] - gap
    return places


def interactive(estimates: Estimates) -> go.Figure:
    """Draws the same lines, to be zoomed and hidden by a click on their names, which stand best first.

    The axes begin as those of `draw`; where a band ends beyond them, zooming out shows it.
    """
    curves = [(str(label), curve) for label, curve in estimates.curves.groupby("label")]
    curves = sorted(curves, key=lambda item: (item[1]["median"].iloc[-1], item[0]))
    unit = budget_unit(estimates.unit)
    opacity = min(0.12, 1 / len(curves))
    bands = [edge for label, curve in curves for edge in _band(label, curve, opacity)]
    chart = go.Figure([*bands, *(_line(label, curve, unit) for label, curve in curves)])
    finite = estimates.curves["median"].replace(np.inf, np.nan).dropna()
    loss_unit = escape(estimates.about.units.loss_unit, quote=False)
    budget = estimates.curves["used"].max()
    chart.update_xaxes(
        type="log", range=np.log10([FIRST_FRACTION * budget, 1.01 * budget]).tolist(), title=f"Budget used ({unit})",
        nticks=6, tickformat="~g",
    )  # fmt: skip
    chart.update_yaxes(
        type="log", range=np.log10([0.93 * finite.min(), 1.05 * finite.max()]).tolist(),
        title=f"Test loss of the selected model ({loss_unit})", nticks=5, tickformat="~g",
    )  # fmt: skip
    return chart


def _band(label: str, curve: pd.DataFrame, opacity: float) -> list[go.Scatter]:
    """Returns both ends of the interval, where it is finite; the second is filled down to the first."""
    band = curve[np.isfinite(curve["low"]) & np.isfinite(curve["high"])]
    if len(band) < 2:
        return []
    colour = ", ".join(f"{255 * part:.0f}" for part in to_rgb(_look(curve).colour))
    shared = {
        "x": band["used"].tolist(), "mode": "lines", "line": {"width": 0, "shape": "hv"}, "legendgroup": label,
        "showlegend": False, "hoverinfo": "skip",
    }  # fmt: skip
    fill = {"fill": "tonexty", "fillcolor": f"rgba({colour}, {opacity:.3f})"}
    return [go.Scatter(y=band["low"].tolist(), **shared), go.Scatter(y=band["high"].tolist(), **shared, **fill)]


def _line(label: str, curve: pd.DataFrame, unit: str) -> go.Scatter:
    """Returns a method's median from where half of its runs have selected a model; a name alone where there is none."""
    line = curve[np.isfinite(curve["median"])]
    colour, _, dashes, _ = _look(curve)
    dash = "solid" if dashes == SOLID else ", ".join(f"{2 * length:g}px" for length in dashes[1])
    return go.Scatter(
        x=line["used"].tolist() or [None], y=line["median"].tolist() or [None], name=escape(label, quote=False),
        legendgroup=label, mode="lines" if len(curve) > 1 else "markers", marker={"color": colour, "size": 8},
        line={"color": colour, "width": 2, "shape": "hv", "dash": dash},
        text=[f"median {loss_text(row.median)}{_interval(row.low, row.high)}" for row in line.itertuples()],
        hovertemplate=f"<b>%{{fullData.name}}</b><br>%{{x:.3g}} {unit}<br>%{{text}}<extra></extra>",
    )  # fmt: skip


def _interval(low: float, high: float) -> str:
    return "" if np.isnan(low) else f" [{loss_text(low)}, {loss_text(high)}]"


def caption(estimates: Estimates) -> str:
    """Says what the figure shows, with n, budget and device."""
    return (
        f"Test loss of the model each method has selected on validation by then: medians over {estimates.n} seeds or more, "
        f"bands {spread(estimates.n, estimates.most, pointwise=True)}. {estimates.about.setting}"
    )


def findings(estimates: Estimates) -> list[str]:
    """Names the leader at a few budgets, and tells where the best of OHO is ahead of the best of the others."""
    trained = estimates.curves.assign(median=estimates.curves["median"].mask(estimates.curves["untrained"], np.inf))
    table = trained.pivot(index="used", columns="label", values="median")
    families = trained.drop_duplicates("label").set_index("label")["family"]
    ours = [label for label in table if families[label] == ONLINE]
    others = [label for label in table if label not in ours]
    unit, last = budget_unit(estimates.unit), table.index[-1]
    if not np.isfinite(table.loc[last]).any():
        return [NONE_TRAINED]
    sentences = [found for fraction in (1.0, 0.3, 0.1) if (found := _leader(table, fraction * last, unit))]
    at_end = estimates.curves[estimates.curves["used"] == last]
    sentences += untrained_sentences(list(at_end.loc[at_end["untrained"], "label"]))
    if ours and others:
        ahead = table[ours].min(axis=1) < table[others].min(axis=1)
        sentences.append(_ahead(ahead, len(ours), len(others), unit))
    return sentences


def _leader(table: pd.DataFrame, used: float, unit: str) -> str:
    """Names the two methods with the lowest losses of trained models at a budget; empty where one stands alone."""
    row = table.loc[table.index[np.searchsorted(table.index, used * (1 - 1e-9))]]
    ordered = row[np.isfinite(row)].sort_values()
    if ordered.empty:
        return f"At {used:.3g} {unit} no method had selected a trained model."
    if len(ordered) == 1:
        return ""
    (best, least), (second, next_least) = list(ordered.items())[:2]
    after = f"level with {second}" if least == next_least else f"before {second} with {loss_text(next_least)}"
    return f"At {used:.3g} {unit} {best} is lowest with {loss_text(least)}, {after}."


def _ahead(ahead: pd.Series, ours: int, others: int, unit: str) -> str:
    """Tells where the median of the best of OHO is below that of the best of the others."""
    which = f"The best of {ours} OHO methods" if ours > 1 else "OHO"
    against = f"the best of {others} other methods" if others > 1 else "the other method"
    if not ahead.any():
        return f"{which} is ahead of {against} at no budget."
    starts = ahead & ~ahead.shift(fill_value=False)
    ends = ahead & ~ahead.shift(-1, fill_value=False)
    spans = zip(ahead.index[starts], ahead.index[ends], strict=True)
    text = ", ".join(f"{start:.3g} to {end:.3g}" for start, end in spans)
    return f"{which} is ahead of {against} at budgets of {text} {unit}, behind or level at all others."
