"""Figure 7 of the paper: hyperparameters and data are changed in the middle of training; who recovers?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import SymmetricalLogLocator

from reports import published, style
from reports.claims import Measured, Verdict, below, not_tested, worst
from reports.curves import draw_curve, median_curves
from reports.estimates import About, about
from reports.looks import DASHES, look
from reports.recovery import FOR_GOOD, WITHIN, recovery
from reports.selection import NoData, online, require_finite, with_shocks
from reports.statistics import median_of
from reports.tables import Tables
from reports.words import HYPERPARAMETERS, first_few, loss_text, plural, spread

QUESTION = "When a hyperparameter is kicked or the data change during training, which method recovers, and how fast?"
METHOD = (
    "Every run has a twin: the same method and seed without the shock. A, B: learning rate and test loss where the "
    "learning rate is set; C, D: L2 coefficient and test loss where that is set. E: epochs until the validation loss of "
    f"the present model is within {WITHIN:.0%} of the twin's for good, which takes {FOR_GOOD} evaluations or more; a run "
    "that never leaves that band has 0, one that ends outside it is infinite, whenever it had come back before. F: excess "
    "of the validation loss over the twin's, integrated from the shock to the end. Shifted labels and rotated inputs "
    "change all splits, corrupted labels those of training alone."
)
PLOTLY_DASHES = ("solid", "dash", "dot", "dashdot", "longdash")
HEIGHT, DEPTH = 100, 10_000
"""The highest over the lowest value of a panel: a loss that explodes leaves it, and so does a hyperparameter that dies."""
MEASURES = ("epochs", "excess")


@dataclass(frozen=True)
class Estimates:
    """`curves` has a row for each shock that sets a hyperparameter, method, quantity and evaluation, `runs` one for each
    shocked run, and `summary` one for each shock and method: medians of epochs to recover and of excess, with intervals,
    and how many runs came back.
    """

    curves: pd.DataFrame
    runs: pd.DataFrame
    summary: pd.DataFrame
    about: About

    @property
    def csv(self) -> pd.DataFrame:
        """The data behind the numbers, a row for each run."""
        return self.runs


def estimate(tables: Tables) -> Estimates:
    """Returns curves of the kicks, and how every run recovers that has a twin."""
    runs = with_shocks(tables.runs)
    require_finite(runs["test_loss"])
    runs = runs.assign(epoch=runs["events"].map(lambda events: events[0]["epoch"] if events else np.nan))
    rows = _recoveries(runs, dict(iter(tables.evaluations.groupby("run"))))
    if not rows:
        raise NoData("This figure needs shocked runs beside the same runs without the shock, so it is not drawn.")
    found = pd.DataFrame(rows)
    shocks = list(dict.fromkeys(found["shock"]))
    found = found.assign(which=found["shock"].map(shocks.index))
    found = found.sort_values(["which", "place", "seed"], kind="stable", ignore_index=True)
    groups = found.groupby(["shock", "method_label"], sort=False)
    summary = pd.DataFrame([_summary_row(key, group) for key, group in groups])
    found = found.drop(columns=["which", "place", "is_ours", "task", "sets_rate", "is_papers_shock"])
    return Estimates(_curves(runs, tables.evaluations), found, summary, about(tables, runs))


def _recoveries(runs: pd.DataFrame, evaluations: dict[str, pd.DataFrame]) -> list[dict[str, Any]]:
    runs = runs.assign(is_ours=online(runs))
    twins = {_identity(run): run.run for run in runs[runs["shock"] == ""].itertuples()}
    rows = []
    for run in runs[runs["shock"] != ""].itertuples():
        twin = twins.get(_identity(run))
        if twin is None:
            continue
        found = recovery(*_beside(evaluations[run.run], evaluations[twin], run.epoch), run.epoch)
        rows.append({
            "run": run.run, "twin": twin, "method": run.method, "method_label": run.method_label, "seed": run.seed,
            "shock": run.shock, "epoch": run.epoch, "status": run.status, "epochs": found.epochs, "excess": found.excess,
            "place": run.place, "is_ours": run.is_ours, "task": run.task,
            "sets_rate": _sets_only(run.events, "lr"), "is_papers_shock": published.has_shock(run.events),
        })  # fmt: skip
    return rows


def _identity(run: Any) -> tuple:
    return run.experiment, run.task, run.method_label, run.seed, run.budget, run.unit


def _beside(run: pd.DataFrame, twin: pd.DataFrame, shock: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns the epochs of the twin's evaluations from the shock on, with both losses; NaN where the run had ended."""
    epochs = twin.loc[twin["epoch"] >= shock, "epoch"].drop_duplicates().to_numpy(float)
    columns = []
    for own in (run, twin):
        own = own.drop_duplicates("epoch", keep="last")  # of the two at a shock, the one after it
        columns.append(np.interp(epochs, own["epoch"], own["validation_loss"].astype(float), left=np.nan, right=np.nan))
    return epochs, columns[0], columns[1]


def _summary_row(key: tuple[str, str], group: pd.DataFrame) -> dict[str, Any]:
    first = group.iloc[0]
    row: dict[str, Any] = {"shock": key[0], "label": key[1], "n": len(group)}
    row |= {name: first[name] for name in ("place", "method", "is_ours", "task", "sets_rate", "is_papers_shock")}
    for name in MEASURES:
        row |= dict(zip((name, f"{name}_low", f"{name}_high"), median_of(group[name]), strict=True))
    return row | {"recovered": int(np.isfinite(group["epochs"]).sum())}


def _curves(runs: pd.DataFrame, evaluations: pd.DataFrame) -> pd.DataFrame:
    """Returns medians by method of the hyperparameter that a shock sets, if it does no more, and of the test loss."""
    parts = []
    for name in HYPERPARAMETERS:
        kicked = runs[runs["events"].map(lambda events, name=name: _sets_only(events, name))]
        if kicked.empty or f"hyper_{name}" not in evaluations:
            continue
        columns = kicked[["run", "method_label", "shock", "epoch"]]
        data = evaluations.merge(columns, on="run", suffixes=("", "_shock"))
        data = data.assign(hyper=data[f"hyper_{name}"].map(np.mean))
        for quantity in ("hyper", "test_loss"):
            curves = median_curves(data, ["shock", "method_label", "epoch_shock"], quantity)
            parts.append(curves.assign(kick=name, quantity=quantity))
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=["kick", "quantity"])


def _sets_only(events: Sequence[dict[str, Any]], name: str) -> bool:
    return len(events) == 1 and set(events[0]) == {"epoch", "set"} and set(events[0]["set"]) == {name}


def draw(estimates: Estimates) -> Figure:
    """Draws four panels of curves, where there are kicks, above two of numbers."""
    kicks = [name for name in HYPERPARAMETERS if (estimates.curves["kick"] == name).any()]
    shocks = list(dict.fromkeys(estimates.summary["shock"]))
    numbers = 0.7 + 0.12 * len(estimates.summary)
    heights = [2.0] * len(kicks) + [numbers]
    figure, panels = style.panels(len(heights), 2, height=sum(heights) + 0.4, height_ratios=heights, squeeze=False)
    letters = "".join("AB" if name == "lr" else "CD" for name in kicks) + "EF"
    for letter, axes in zip(letters, panels.flat, strict=True):
        axes.set_title(letter, loc="left")
    for row, name in zip(panels, kicks, strict=False):
        _draw_kicks(row, estimates.curves[estimates.curves["kick"] == name], shocks)
        row[0].set_ylabel(HYPERPARAMETERS[name].capitalize())
        row[1].set_ylabel(estimates.about.units.axis("Test loss"))
    for axes, measure in zip(panels[-1], MEASURES, strict=True):
        _draw_numbers(axes, estimates.summary, shocks, measure)
    panels[-1, 0].set_xlabel("Epochs to recover")
    panels[-1, 1].set_xlabel(f"Excess validation loss\n({estimates.about.units.loss_unit} · epochs)")
    if not style.in_column():
        panels[-1, 1].set_yticklabels([])
    looks = {label: look(label) for label in estimates.summary.sort_values("place", kind="stable")["label"].unique()}
    handles = [panels[0, 0].plot([], [], color=own.colour, marker=own.marker)[0] for own in looks.values()]
    style.legend_above(figure, handles, list(looks), columns=len(looks))
    style.stamp(figure, estimates.about.stamp)
    return figure


def _draw_kicks(row: Sequence[Axes], curves: pd.DataFrame, shocks: Sequence[str]) -> None:
    shocks = [shock for shock in shocks if (curves["shock"] == shock).any()]
    for axes, quantity in zip(row, ("hyper", "test_loss"), strict=True):
        shown = curves[curves["quantity"] == quantity]
        for (shock, label), curve in shown.groupby(["shock", "method_label"]):
            own, dashes = look(label), DASHES[shocks.index(shock) % len(DASHES)]
            draw_curve(axes, curve, dashes=dashes, colour=own.colour, marker=own.marker)
        for epoch in sorted(curves["epoch_shock"].unique()):
            axes.axvline(epoch, color="#999999", lw=0.7, ls=(0, (3, 3)), zorder=0)
        axes.set_xlabel("Epochs")
        values = shown["median"]
        values = values[np.isfinite(values) & (values > 0)]
        style.log_scale(axes, "y")  # a value of 0 is a gap
        highest = values.max() if quantity == "hyper" else min(values.max(), HEIGHT * values.min())
        axes.set_ylim(0.7 * max(values.min(), highest / DEPTH), 1.4 * highest)
    for index, shock in enumerate(shocks):
        row[1].plot([], [], color="black", ls=DASHES[index % len(DASHES)], lw=1, label=_words(shock))
    row[1].legend(fontsize=5.5, loc="upper right")


def _words(shock: str) -> str:
    return shock.replace("weight_decay", "L2").replace("lr ", "learning rate ")


def _draw_numbers(axes: Axes, summary: pd.DataFrame, shocks: list[str], measure: str) -> None:
    methods = list(dict.fromkeys(summary.sort_values("place", kind="stable")["label"]))
    finite = summary[measure].to_numpy(float)
    ceiling = 2 * finite[np.isfinite(finite)].max(initial=1.0)
    for row in summary.itertuples():
        offset = (methods.index(row.label) - (len(methods) - 1) / 2) * 0.6 / len(methods)
        place = shocks.index(row.shock) + offset
        value, low, high = (min(getattr(row, name), ceiling) for name in (measure, f"{measure}_low", f"{measure}_high"))
        (colour, marker, *_), infinite = look(row.label), np.isinf(getattr(row, measure))
        axes.plot(value, place, marker=">" if infinite else marker, color=colour, ms=4.5, clip_on=False)
        if np.isfinite(low):
            axes.plot([low, high], [place, place], color=colour, lw=0.9)
        if measure == "epochs":
            text = f"{row.recovered}/{row.n}"
            axes.annotate(text, (1.02, place), xycoords=("axes fraction", "data"), va="center", fontsize=5.5, color=colour)
    axes.set_yticks(range(len(shocks)), [_words(shock) for shock in shocks], fontsize=6)
    axes.set_ylim(len(shocks) - 0.5, -0.5)
    threshold = 1.0 if measure == "epochs" else 0.1
    axes.set_xscale("symlog", linthresh=threshold)
    ticks = SymmetricalLogLocator(base=10, linthresh=threshold)
    ticks.set_params(numticks=4)  # of many decades, one label in two or three
    axes.xaxis.set_major_locator(ticks)
    axes.xaxis.set_major_formatter(style.decimal)
    axes.set_xlim(left=0, right=ceiling)
    axes.grid(visible=True, axis="x")


def interactive(estimates: Estimates) -> go.Figure | None:
    """Draws the test loss around each kick that sets a hyperparameter; None where there is no such kick."""
    curves = estimates.curves[estimates.curves["quantity"] == "test_loss"]
    traces = []
    for (shock, label), curve in curves.groupby(["shock", "method_label"], sort=False):
        line = curve[np.isfinite(curve["median"])]
        dash = PLOTLY_DASHES[list(dict.fromkeys(curves["shock"])).index(shock) % len(PLOTLY_DASHES)]
        traces.append(go.Scatter(
            x=line["epoch"].tolist(), y=line["median"].tolist(), name=escape(f"{label}; {_words(shock)}", quote=False),
            mode="lines", line={"color": look(label).colour, "width": 2, "dash": dash},
            hovertemplate="<b>%{fullData.name}</b><br>epoch %{x:.3g}<br>median test loss %{y:.3g}<extra></extra>",
        ))  # fmt: skip
    if not traces:
        return None
    chart = go.Figure(traces)
    values = curves["median"].replace(np.inf, np.nan).dropna()
    top = min(values.max(), HEIGHT * values.min())
    chart.update_xaxes(title="Epochs")
    chart.update_yaxes(
        type="log", range=np.log10([0.8 * values.min(), 1.2 * top]).tolist(), tickformat="~g",
        title=f"Test loss of the present model ({escape(estimates.about.units.loss_unit, quote=False)})",
    )  # fmt: skip
    return chart


def caption(estimates: Estimates) -> str:
    """Says what the figure shows, with n, budget and device."""
    n, most = estimates.summary["n"].min(), estimates.summary["n"].max()
    return (
        "A to D: medians over seeds of hyperparameter (mean over sets) and test loss of the present model, bands "
        f"{spread(n, most, pointwise=True)}; vertical lines, kicks. E, F: medians over {n} seeds or more with "
        f"{spread(n, most)}; a triangle at the edge is infinite; beside E, how many runs came back. "
        f"{estimates.about.setting}"
    )


def findings(estimates: Estimates) -> list[str]:
    """Tells for each method from how many shocks the median run recovers, and how soon, and which has the lowest excess."""
    parts = [f"{label} from {_recovered(group)}" for label, group in estimates.summary.groupby("label", sort=False)]
    shocks = plural(estimates.summary["shock"].nunique(), "shock")
    sentences = [f"Of {shocks}, the median run recovers with {', with '.join(first_few(parts))}."]
    table = estimates.summary.pivot(index="shock", columns="label", values="excess")
    if table.shape[1] > 1:
        wins = table.idxmin(axis=1)[np.isfinite(table.min(axis=1))].value_counts()
        parts = [f"{label} in {count}" for label, count in wins.items()]
        sentences.append(
            f"The median excess is lowest with {', '.join(first_few(parts))} of {plural(len(table), 'shock')}."
        )
    return sentences


def _recovered(group: pd.DataFrame) -> str:
    """Says from how many shocks a method's median run recovers, and how soon."""
    back = group.loc[np.isfinite(group["epochs"]), "epochs"]
    if back.empty:
        return "none"
    if back.max() == 0:
        return f"{len(back)}, whose loss never leaves the band"
    return f"{len(back)}, the slowest after {back.max():.3g} epochs"


def published_rows(estimates: Estimates) -> list[list[str]]:
    """Returns all medians, and where task and shock are the paper's, what it says of OHO after that kick."""
    rows = []
    for row in estimates.summary.itertuples():
        is_papers = row.task in estimates.about.papers_tasks and row.is_ours and row.is_papers_shock
        said = published.RECOVERY.get(row.task, "—") if is_papers else "—"
        epochs = f"{row.epochs:.3g}" if np.isfinite(row.epochs) else "∞"
        rows.append([_words(row.shock), row.label, f"{row.recovered} of {row.n}", epochs, loss_text(row.excess), said])
    header = ["Shock", "Method", "Recovered", "Epochs", "Excess", "Published"]
    if all(row[-1] == "—" for row in rows):
        return [row[:-1] for row in (header, *rows)]
    return [header, *rows]


def verdicts(estimates: Estimates) -> list[Verdict]:
    """Decides whether Global OHO recovers sooner than fixed settings from each kick of the learning rate."""
    kicks = estimates.summary[estimates.summary["sets_rate"]]
    if kicks.empty:
        return [not_tested("no kick of the learning rate was run")]
    found = []
    for shock, group in kicks.groupby("shock", sort=False):
        rows = {method: group[group["method"] == method].to_dict("records") for method in ("oho-global", "fixed")}
        ours, theirs = ([Measured.of(row["label"], row, "epochs", "epochs_") for row in rows[method]] for method in rows)
        verdict = below(ours[0] if ours else None, theirs, missing="Global OHO or Fixed was")
        found.append(verdict._replace(evidence=f"{_words(str(shock))}: {verdict.evidence}"))
    return [worst(found)]
