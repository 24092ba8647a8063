"""What each method would have returned at any budget up to its own: test loss of the selected model."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from reports import style
from reports.curves import held
from reports.ends import name_ends
from reports.estimates import NONE_TRAINED, About, about, untrained_sentences
from reports.looks import GREY, MOST_COLOURS, SOLID, Look, emphasised, look
from reports.plain_steps import in_seconds, second_axis, seconds_per_step
from reports.selection import ONLINE, NoData, comparable
from reports.statistics import medians_of
from reports.tables import Tables
from reports.words import amount_text, budget_unit, listed, loss_text, plural, spread

QUESTION = "Which method should be used at which budget?"
METHOD = (
    "Every model that a run selects on validation is recorded with the budget used until then, so that its result at any "
    "smaller budget is known without training again. A schedule that spans the budget is known at its own budget only."
)
POINTS = 200
FIRST_FRACTION = 0.01
"""The part of the budget at which the axis begins."""
RANGES_AT = (0.05, 0.1, 0.25, 0.5, 1.0)
"""The parts of the budget at which intervals are drawn, and winners are found."""
BEYOND = 1.08
"""Where the axis ends, in budgets, so that intervals at the end are seen."""
DECADE = 10
"""The highest loss that is drawn over the lowest."""


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
    seconds_per_step: float | None = None
    """Counted seconds of a plain step, where the budget is in such steps."""

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
    return Estimates(curves, runs["unit"].iloc[0], int(counts.min()), int(counts.max()), about(runs),
                     seconds_per_step(runs))  # fmt: skip


def _selected(incumbents: pd.DataFrame | None, grid: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the test loss of the last model found at each budget, infinite before the first, and which are untrained."""
    if incumbents is None:
        return np.full(len(grid), np.inf), np.full(len(grid), False)
    used, loss, step = (incumbents[name].to_numpy(float) for name in ("used", "test_loss", "step"))
    return held(used, loss, grid, before=np.inf), held(used, step, grid, before=np.nan) == 0


def draw(estimates: Estimates) -> Figure:
    """Draws a line for each method within the decade above the lowest loss; OHO and the winners in colour, with ranges at a
    few budgets; names stand beside where the lines end, the best below.
    """
    table = _trained(estimates.curves)
    curves = {str(label): curve for label, curve in estimates.curves.groupby("label")}
    first = _first(table, estimates.curves)
    looks = emphasised(list(curves), [curve["method_label"].iloc[0] for curve in curves.values()], first=first)
    coloured = [label for label in first if looks[label].colour != GREY]
    high = max(3.6, 0.125 * len(curves) + 0.6)
    figure, axes = style.panels(1, 1, height=2.9 if style.in_column() else high)
    for label in sorted(curves, key=coloured.__contains__):
        _draw_line(axes, curves[label], looks[label], is_coloured=label in coloured)
    for place, label in enumerate(coloured):
        _draw_ranges(axes, curves[label], looks[label], shift=1 + 0.03 * (place - (len(coloured) - 1) / 2))
    _set_scales(axes, estimates.curves, table)
    axes.set_xlabel(f"Budget used ({budget_unit(estimates.unit)})")
    second_axis(axes, estimates.seconds_per_step, "the same in counted seconds")
    axes.set_ylabel(estimates.about.units.axis("Test loss of the selected model"))
    axes.grid(visible=True, which="both", axis="both")
    ends = [(curve["median"].iloc[-1], label, looks[label].colour) for label, curve in curves.items()]
    if style.in_column():
        _name_above(figure, [label for _, label, _ in sorted(ends) if label in coloured], looks)
    else:
        name_ends(axes, ends)
    style.stamp(figure, estimates.about.stamp)
    return figure


def _trained(curves: pd.DataFrame) -> pd.DataFrame:
    """Returns medians by budget (rows) and method, infinite where most runs had only the untrained model."""
    trained = curves.assign(median=curves["median"].mask(curves["untrained"], np.inf))
    return trained.pivot(index="used", columns="label", values="median")


def _first(table: pd.DataFrame, curves: pd.DataFrame) -> list[str]:
    """Returns the methods that have a colour first: the winner at the end, the best of OHO, the other winners, all OHO."""
    ended = table.iloc[-1].sort_values(kind="stable")
    families = curves.drop_duplicates("label").set_index("label")["family"]
    ours = [label for label in ended.index if families[label] == ONLINE]
    rows = [_row(table, fraction * table.index[-1]) for fraction in reversed(RANGES_AT)]
    winners = [str(row.idxmin()) for row in rows if np.isfinite(row).any()]
    return list(dict.fromkeys([*winners[:1], *ours[:1], *winners, *ours]))[:MOST_COLOURS]


def _row(table: pd.DataFrame, used: float) -> pd.Series:
    return table.loc[table.index[np.searchsorted(table.index, used * (1 - 1e-9))]]


def _draw_line(axes: Axes, curve: pd.DataFrame, own: Look, *, is_coloured: bool) -> None:
    dashes, width = (own.dashes, 1.6) if is_coloured else (SOLID, 0.7)
    marker = own.marker if len(curve) == 1 else None
    axes.plot(curve["used"], curve["median"], color=own.colour, ls=dashes, lw=width, drawstyle="steps-post", ms=5,
              marker=marker)  # fmt: skip


def _draw_ranges(axes: Axes, curve: pd.DataFrame, own: Look, *, shift: float) -> None:
    """Draws the interval at a few budgets, a little apart from those of other methods."""
    budget = curve["used"].iloc[-1]
    for fraction in RANGES_AT:
        reached = curve[curve["used"] >= fraction * budget * (1 - 1e-9)]
        row = reached.iloc[0]
        if row["used"] > 1.05 * fraction * budget or not np.isfinite(row["median"]):
            continue
        place = fraction * shift * budget
        axes.plot(place, row["median"], marker=own.marker, color=own.colour, ms=4, mec="white", mew=0.4, zorder=4)
        if np.isfinite(row["low"]):
            axes.vlines(place, row["low"], row["high"], color=own.colour, lw=0.9, zorder=3)


def _set_scales(axes: Axes, curves: pd.DataFrame, table: pd.DataFrame) -> None:
    """Shows the whole budget, and losses up to ten times the lowest."""
    style.log_scale(axes, "x", "y")
    finite = curves["median"].replace(np.inf, np.nan).dropna()
    trained = table.to_numpy()[np.isfinite(table.to_numpy())]
    lowest = trained.min() if len(trained) and trained.min() > 0 else finite.min()
    axes.set_ylim(0.85 * min(lowest, finite.min()), min(DECADE * lowest, 1.05 * finite.max()))
    budget = curves["used"].max()
    axes.set_xlim(FIRST_FRACTION * budget, BEYOND * budget)


def _name_above(figure: Figure, labels: list[str], looks: dict[str, Look]) -> None:
    """Names the lines in colour, the best first, and says what the grey ones are."""
    own = [looks[label] for label in labels]
    handles = [Line2D([], [], color=o.colour, ls=o.dashes, lw=1.6, marker=o.marker, ms=4) for o in own]
    if others := len(looks) - len(labels):
        handles.append(Line2D([], [], color=GREY, lw=0.7))
        labels = [*labels, plural(others, "other method")]
    style.legend_above(figure, handles, labels, columns=2, size=6)


def _look(curve: pd.DataFrame) -> Look:
    return look(curve["method_label"].iloc[0])


def interactive(estimates: Estimates) -> go.Figure:
    """Draws the same lines, to be zoomed and hidden by a click on their names, which stand best first.

    The axes begin as those of `draw`; where a band ends beyond them, zooming out shows it.
    """
    curves = [(str(label), curve) for label, curve in estimates.curves.groupby("label")]
    curves = sorted(curves, key=lambda item: (item[1]["median"].iloc[-1], item[0]))
    unit, note = budget_unit(estimates.unit), in_seconds(estimates.seconds_per_step)
    opacity = min(0.12, 1 / len(curves))
    bands = [edge for label, curve in curves for edge in _band(label, curve, opacity)]
    chart = go.Figure([*bands, *(_line(label, curve, unit) for label, curve in curves)])
    finite = estimates.curves["median"].replace(np.inf, np.nan).dropna()
    loss_unit = escape(estimates.about.units.loss_unit, quote=False)
    budget = estimates.curves["used"].max()
    chart.update_xaxes(
        type="log", range=np.log10([FIRST_FRACTION * budget, 1.01 * budget]).tolist(),
        title=f"Budget used ({unit}{note})".replace("; ", ";<br>"),
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
    grey = " Others are grey; a name tied to no line ends above the axis, a decade high."
    others = grey if _has_others(estimates) else ""
    return (
        f"Test loss of the model selected by then, medians over {estimates.n} seeds or more; in colour, OHO and the best "
        f"methods at five budgets, there with {spread(estimates.n, estimates.most)}.{others} {estimates.about.setting}"
    )


def _has_others(estimates: Estimates) -> bool:
    return estimates.curves["label"].nunique() > len(_first(_trained(estimates.curves), estimates.curves))


def findings(estimates: Estimates) -> list[str]:
    """Names the leader at a few budgets, and tells where the best of OHO is ahead of the best of the others."""
    table = _trained(estimates.curves)
    families = estimates.curves.drop_duplicates("label").set_index("label")["family"]
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
    row = _row(table, used)
    ordered = row[np.isfinite(row)].sort_values()
    if ordered.empty:
        return f"At {amount_text(used)} {unit} no method had selected a trained model."
    if len(ordered) == 1:
        return ""
    (best, least), (second, next_least) = list(ordered.items())[:2]
    after = f"level with {second}" if least == next_least else f"before {second} with {loss_text(next_least)}"
    return f"At {amount_text(used)} {unit} {best} is lowest with {loss_text(least)}, {after}."


def _ahead(ahead: pd.Series, ours: int, others: int, unit: str) -> str:
    """Tells where the median of the best of OHO is below that of the best of the others."""
    which = f"The best of {ours} OHO methods" if ours > 1 else "OHO"
    against = f"the best of {others} other methods" if others > 1 else "the other method"
    if not ahead.any():
        return f"{which} is ahead of {against} at no budget."
    starts = ahead & ~ahead.shift(fill_value=False)
    ends = ahead & ~ahead.shift(-1, fill_value=False)
    spans = zip(ahead.index[starts], ahead.index[ends], strict=True)
    text = listed([f"{amount_text(start)} to {amount_text(end)}" for start, end in spans])
    return f"{which} is ahead of {against} at budgets of {text} {unit}, behind or level at all others."
