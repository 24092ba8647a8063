"""The page's chart of what each method would have returned at any budget."""

from __future__ import annotations

from html import escape

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from matplotlib.colors import to_rgb

from reports.any_budget import FIRST_FRACTION, Estimates
from reports.looks import SOLID, Look, look
from reports.plain_steps import in_seconds
from reports.words import budget_unit, with_ends


def chart_of(estimates: Estimates) -> go.Figure:
    """Draws the same lines, to be zoomed and hidden by a click on their names, which stand best first.

    The axes begin as those of the figure; where a band ends beyond them, zooming out shows it.
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
        text=[f"median {with_ends(row.median, row.low, row.high, row.n)}" for row in line.itertuples()],
        hovertemplate=f"<b>%{{fullData.name}}</b><br>%{{x:.3g}} {unit}<br>%{{text}}<extra></extra>",
    )  # fmt: skip


def _look(curve: pd.DataFrame) -> Look:
    return look(curve["method_label"].iloc[0])
