"""Panels -> Plotly charts, which show of our own tables what W&B shows of its runs: medians and ranges by group."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from html import escape
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from matplotlib.colors import to_rgb

from bench.records.wandb_names import MOST_SINGLE_SETS
from reports.curves import held
from reports.dashboard.panels import Bars, Dashboard, Group, Lines, Points, Quantity
from reports.selection import MEASURED
from reports.statistics import median

POINTS = 120
"""How many places along its axis a line is drawn through."""
MARGIN = {"l": 65, "r": 15, "t": 40, "b": 50}
ACCOUNT_COLOURS = ("#4C5FD7", "#D55E00", "#66C266", "#F0A202", "#8C8C8C", "#56B4E9", "#AA4499", "#332288", "#B9C34C")


def drawn(panel: Lines | Bars | Points, dashboard: Dashboard) -> go.Figure:
    """Returns a panel's chart."""
    runs = dashboard.runs[dashboard.runs["status"].isin(MEASURED)]
    if isinstance(panel, Lines):
        return _lines(panel, dashboard.groups, runs, dashboard.evaluations)
    return _bars(panel, dashboard.groups, runs) if isinstance(panel, Bars) else _points(panel, dashboard.groups, runs)


def _chart(title: str, traces: Sequence[go.Scatter | go.Bar], x: str, y: str) -> go.Figure:
    chart = go.Figure(list(traces))
    chart.update_layout(title={"text": escape(title, quote=False), "font": {"size": 14}}, margin=MARGIN, template=None)
    chart.update_xaxes(title=escape(x, quote=False))
    chart.update_yaxes(title=escape(y, quote=False), automargin=True)
    return chart


def _lines(panel: Lines, groups: Sequence[Group], runs: pd.DataFrame, evaluations: pd.DataFrame) -> go.Figure:
    of_run = dict(iter(evaluations.groupby("run")))
    traces: list[go.Scatter] = []
    for group in groups:
        own = [of_run[run] for run in runs.loc[runs["label"] == group.label, "run"] if run in of_run]
        for quantity in panel.y:
            traces += line([curve_of(table, panel.x, quantity) for table in own], quantity, group)
    return lines_chart(panel, traces, log_axis(value for trace in traces for value in trace.y))


def lines_chart(panel: Lines, traces: Sequence[go.Scatter], axis: Mapping[str, Any]) -> go.Figure:
    """Returns the chart of a panel with these traces; `axis` is the vertical one of a panel whose values call for it."""
    chart = _chart(panel.title, traces, panel.x.title, panel.y[0].title if len(panel.y) == 1 else panel.title)
    if panel.is_log:
        chart.update_yaxes(axis)
    return chart


def log_axis(values: Iterable[float | None]) -> dict[str, Any]:
    """Returns a logarithmic axis for these values, with as many ticks as can be read; nothing if none is above 0."""
    positive = [value for value in values if value and value > 0]
    if not positive:
        return {}
    decades = np.log10(max(positive) / min(positive))
    return {"type": "log", "tickformat": "~g", **({"dtick": "D2"} if 0.5 < decades < 3 else {"nticks": 6})}


def line(curves: Sequence[np.ndarray], y: Quantity, group: Group) -> Iterator[go.Scatter]:
    """Yields the ends of a group's range and its median; nothing where no run of the group has the quantity.

    A curve's last value is held to the end; one that is NaN ends the curve there.
    """
    curves = [curve for curve in curves if len(curve)]
    if not curves:
        return
    grid = np.linspace(min(curve[0, 0] for curve in curves), max(curve[-1, 0] for curve in curves), POINTS)
    values = np.array([held(curve[:, 0], curve[:, 1], grid, before=np.nan) for curve in curves])
    known = ~np.isnan(values).all(axis=0)
    grid, values = grid[known], values[:, known]
    middle = np.array([median(column[~np.isnan(column)]) for column in values.T])
    low, high = np.nanmin(values, axis=0), np.nanmax(values, axis=0)
    if len(curves) > 1 and not isinstance(y.part, int):
        edge: dict[str, Any] = {"mode": "lines", "line": {"width": 0}, "showlegend": False, "hoverinfo": "skip"}
        yield go.Scatter(x=_finite(grid), y=_finite(low), **edge)
        yield go.Scatter(x=_finite(grid), y=_finite(high), fill="tonexty", fillcolor=_faint(group.colour), **edge)
    name = f"{group.label}, set {y.part}" if isinstance(y.part, int) else group.label
    yield go.Scatter(
        x=_finite(grid), y=_finite(middle), name=escape(name, quote=False),
        mode="lines" if len(grid) > 1 else "markers",
        line={"color": group.colour, "width": 1 if isinstance(y.part, int) else 2},
        marker={"color": group.colour}, showlegend=False,
    )  # fmt: skip


def curve_of(table: pd.DataFrame | Mapping[str, Sequence[Any]], x: Quantity, y: Quantity) -> np.ndarray:
    """Returns what a run recorded (n, 2), in order of `x` and without what is not finite."""
    values = [_part(value, y.part) for value in table[y.column]]
    pairs = np.stack([np.array(table[x.column], float), np.array(values, float)], axis=1)
    pairs = pairs[np.isfinite(pairs).all(axis=1)]
    return pairs[np.argsort(pairs[:, 0], kind="stable")]


def _part(value: object, part: int | str | None) -> float:
    """Returns one set's value, the median of many sets, or the only one; NaN where W&B has no such metric."""
    if not isinstance(value, list):
        return float(value) if part is None and isinstance(value, int | float) else np.nan
    if part is None or isinstance(part, int) == (len(value) > MOST_SINGLE_SETS):
        return np.nan
    if isinstance(part, str):
        return float(median(np.array(value, float)))
    return float(value[part]) if part < len(value) else np.nan


def _bars(panel: Bars, groups: Sequence[Group], runs: pd.DataFrame) -> go.Figure:
    """Bars stand from top to bottom in the order of the groups."""
    by_label = dict(iter(runs.groupby("label")))
    shown = [group for group in groups if group.label in by_label]
    traces = []
    for place, quantity in enumerate(panel.x):
        columns = [by_label[group.label][quantity.column].dropna().to_numpy(float) for group in shown]
        columns = [column[np.isfinite(column)] for column in columns]
        middles = [float(median(column)) if len(column) else None for column in columns]
        is_one = len(panel.x) == 1
        colours = [group.colour for group in shown] if is_one else ACCOUNT_COLOURS[place % len(ACCOUNT_COLOURS)]
        traces.append(go.Bar(
            x=middles, y=[escape(group.label, quote=False) for group in shown], orientation="h", name=quantity.title,
            marker={"color": colours}, showlegend=not is_one, error_x=_range(columns, middles) if is_one else None,
        ))  # fmt: skip
    chart = _chart(panel.title, traces, panel.axis, "")
    chart.update_yaxes(autorange="reversed")
    chart.update_layout(barmode="stack", height=max(360, 130 + 22 * len(shown)))
    return chart


def _range(columns: Sequence[np.ndarray], middles: Sequence[float | None]) -> dict[str, object]:
    ends = [(column.max() - middle, middle - column.min()) if middle is not None else (0.0, 0.0)
            for column, middle in zip(columns, middles, strict=True)]  # fmt: skip
    return {"type": "data", "symmetric": False, "array": [up for up, _ in ends], "arrayminus": [down for _, down in ends],
            "thickness": 1}  # fmt: skip


def _points(panel: Points, groups: Sequence[Group], runs: pd.DataFrame) -> go.Figure:
    traces = []
    for group in groups:
        own = runs.loc[runs["label"] == group.label, [panel.x.column, panel.y.column]].astype(float)
        own = own[np.isfinite(own).all(axis=1)]
        if len(own):
            x, y = (own[name].tolist() for name in own)
            name = escape(group.label, quote=False)
            traces.append(go.Scatter(x=x, y=y, mode="markers", name=name, marker={"color": group.colour}, showlegend=False))
    chart = _chart(panel.title, traces, panel.x.title, panel.y.title)
    for axis in (chart.update_xaxes, chart.update_yaxes):
        axis(type="log", tickformat="~g", nticks=6)
    return chart


def _finite(values: np.ndarray) -> list[float | None]:
    return [float(value) if np.isfinite(value) else None for value in values]


def _faint(colour: str) -> str:
    return f"rgba({', '.join(f'{255 * part:.0f}' for part in to_rgb(colour))}, 0.12)"
