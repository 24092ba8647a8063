"""What each method would have returned at any budget up to its own: test loss of the selected model."""

from __future__ import annotations

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from bench.records import ROUNDING
from reports import style
from reports.any_budget import (
    FIRST_FRACTION,
    RANGES_AT,
    Estimates,
    coloured_first,
    medians_by_budget,
    row_at,
    trained_medians,
)
from reports.any_budget_chart import chart_of
from reports.ends import name_ends
from reports.estimates import NONE_TRAINED, about, untrained_sentences
from reports.looks import GREY, SOLID, Look, emphasised
from reports.plain_steps import second_axis, seconds_per_step
from reports.selection import ONLINE, NoData, comparable
from reports.tables import Tables
from reports.words import amount_text, budget_unit, listed, loss_text, medians_over, plural, spread

QUESTION = "Which method should be used at which budget?"
METHOD = (
    "Every model that a run selects on validation is recorded with the budget used until then, so that its result at any "
    "smaller budget is known without training again. A schedule that spans the budget is known at its own budget only."
)
BEFORE, BEYOND = 0.85, 1.05
"""Where the axis begins, in budgets at which a model was first selected, and where it ends, in whole budgets."""
RANGE_WIDTH, RANGE_GAP = 3.2, 0.04
"""How broad intervals are, in points, and how far apart those of two methods stand, in budgets."""
DECADE = 10
"""The highest loss that is drawn over the lowest."""


def estimate(tables: Tables) -> Estimates:
    """Returns medians over seeds of the selected model's test loss, on a logarithmic grid of budgets."""
    runs = comparable(tables.runs)
    curves = medians_by_budget(tables, runs)
    if not np.isfinite(curves["median"]).any():
        raise NoData("In no method did half of the runs select a model with a finite loss, so this figure is not drawn.")
    counts = runs.groupby("label").size()
    return Estimates(curves, runs["unit"].iloc[0], int(counts.min()), int(counts.max()), about(runs),
                     seconds_per_step(runs))  # fmt: skip


def draw(estimates: Estimates) -> Figure:
    """Draws a line for each method within the decade above the lowest loss; OHO and the winners in colour, with ranges at a
    few budgets; names stand beside where the lines end, the best below.
    """
    table = trained_medians(estimates.curves)
    curves = {str(label): curve for label, curve in estimates.curves.groupby("label")}
    first = coloured_first(table, estimates.curves)
    looks = emphasised(list(curves), [curve["method_label"].iloc[0] for curve in curves.values()], first=first)
    coloured = [label for label in first if looks[label].colour != GREY]
    high = max(3.6, 0.125 * len(curves) + 0.6)
    figure, axes = style.panels(1, 1, height=2.9 if style.in_column() else high)
    for label in sorted(curves, key=coloured.__contains__):
        _draw_line(axes, curves[label], looks[label], is_coloured=label in coloured)
    for place, label in enumerate(coloured):
        _draw_ranges(axes, curves[label], looks[label], shift=1 - RANGE_GAP * place)
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


def _draw_line(axes: Axes, curve: pd.DataFrame, own: Look, *, is_coloured: bool) -> None:
    dashes, width = (own.dashes, 1.6) if is_coloured else (SOLID, 0.7)
    marker = own.marker if len(curve) == 1 else None
    axes.plot(curve["used"], curve["median"], color=own.colour, ls=dashes, lw=width, drawstyle="steps-post",
              ms=own.size(5), marker=marker)  # fmt: skip


def _draw_ranges(axes: Axes, curve: pd.DataFrame, own: Look, *, shift: float) -> None:
    """Draws the interval near a few budgets, pale and broad, unlike a step of a line; `shift` keeps it apart
    from those of other methods."""
    budget = curve["used"].iloc[-1]
    is_point = len(curve) == 1  # which has its marker already
    for fraction in RANGES_AT:
        wanted = fraction * budget * (1.0 if is_point else shift)
        row = curve.iloc[max(0, np.searchsorted(curve["used"], wanted * (1 + ROUNDING)) - 1)]
        if (is_point and fraction < 1) or not np.isfinite(row["median"]):
            continue
        if not is_point:
            axes.plot(wanted, row["median"], marker=own.marker, color=own.colour, ms=own.size(5), mec="white", mew=0.4,
                      zorder=4)  # fmt: skip
        if np.isfinite(row["low"]):
            axes.vlines(wanted, row["low"], row["high"], color=own.colour, lw=RANGE_WIDTH, alpha=0.35, zorder=1.5)


def _set_scales(axes: Axes, curves: pd.DataFrame, table: pd.DataFrame) -> None:
    """Shows budgets from the first at which a trained model was selected, and losses up to ten times the lowest."""
    style.log_scale(axes, "x", "y")
    finite = curves["median"].replace(np.inf, np.nan).dropna()
    trained = table.to_numpy()[np.isfinite(table.to_numpy())]
    lowest = trained.min() if len(trained) and trained.min() > 0 else finite.min()
    axes.set_ylim(0.85 * min(lowest, finite.min()), min(DECADE * lowest, 1.05 * finite.max()))
    budget = curves["used"].max()
    selected = table.index[np.isfinite(table).any(axis=1)]
    axes.set_xlim(BEFORE * min(selected, default=FIRST_FRACTION * budget), BEYOND * budget)


def _name_above(figure: Figure, labels: list[str], looks: dict[str, Look]) -> None:
    """Names the lines in colour, the best first, and says what the grey ones are."""
    own = [looks[label] for label in labels]
    handles = [Line2D([], [], color=o.colour, ls=o.dashes, lw=1.6, marker=o.marker, ms=4) for o in own]
    if others := len(looks) - len(labels):
        handles.append(Line2D([], [], color=GREY, lw=0.7))
        labels = [*labels, plural(others, "other method")]
    style.legend_above(figure, handles, labels, columns=2, size=6)


def interactive(estimates: Estimates) -> go.Figure:
    """Draws the same lines, to be zoomed and hidden."""
    return chart_of(estimates)


def caption(estimates: Estimates) -> str:
    """Says what the figure shows, with n, budget and device."""
    grey = " Others are grey; a name tied to no line ends above the axis, a decade high."
    others = grey if _has_others(estimates) else ""
    ranges = spread(estimates.n, estimates.most)
    bars = f" Pale upright bars are no part of the lines: they are {ranges}, near five budgets." if ranges else ""
    return (
        f"Test loss of the model selected by then, {medians_over(pd.Series([estimates.n, estimates.most]), 'seed')}; in "
        f"colour, OHO and the best methods at five budgets.{bars}{others} {estimates.about.setting}"
    )


def _has_others(estimates: Estimates) -> bool:
    return estimates.curves["label"].nunique() > len(coloured_first(trained_medians(estimates.curves), estimates.curves))


def findings(estimates: Estimates) -> list[str]:
    """Names the leader at a few budgets, and tells where the best of OHO is ahead of the best of the others."""
    table = trained_medians(estimates.curves)
    families = estimates.curves.drop_duplicates("label").set_index("label")["family"]
    ours = [label for label in table if families[label] == ONLINE]
    others = [label for label in table if label not in ours]
    unit, last = budget_unit(estimates.unit), table.index[-1]
    if not np.isfinite(table.loc[last]).any():
        return [NONE_TRAINED]
    sentences = [found for fraction in (1.0, 0.3, 0.1) if (found := _leader(table, fraction * last, unit))]
    at_end = estimates.curves[estimates.curves["used"] == last]
    sentences += untrained_sentences(list(at_end.loc[at_end["untrained"], "label"]), most=estimates.most)
    if ours and others:
        ahead = table[ours].min(axis=1) < table[others].min(axis=1)
        sentences.append(_ahead(ahead, len(ours), len(others), unit))
    return sentences


def _leader(table: pd.DataFrame, used: float, unit: str) -> str:
    """Names the two methods with the lowest losses of trained models at a budget; empty where one stands alone."""
    row = row_at(table, used)
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
