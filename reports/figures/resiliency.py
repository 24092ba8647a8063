"""Figure 7 of the paper: hyperparameters and data are changed in the middle of training; who recovers?"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator

from reports import published, style
from reports.claims import Measured, Verdict, below, not_tested, worst
from reports.curves import draw_curve, median_curves
from reports.estimates import About, about
from reports.looks import Look, emphasised, look
from reports.recovery import FOR_GOOD, WITHIN, recovery
from reports.selection import NoData, online, require_finite, with_shocks
from reports.statistics import median_of
from reports.tables import Tables
from reports.words import first_few, loss_text, plural, spread

QUESTION = "When a hyperparameter is kicked or the data change during training, which method recovers, and how fast?"
METHOD = (
    "Every run has a twin: the same method and seed without the shock. Shown is the validation loss of the present model "
    f"over the twin's. A run has recovered when it is within {WITHIN:.0%} of its twin for good, which takes {FOR_GOOD} "
    "evaluations or more; one that ends outside never has, whenever it had come back before. Its excess is what its "
    "validation loss has over the twin's, integrated from the shock to the end. Shifted labels and rotated inputs change "
    "all splits, corrupted labels those of training alone."
)
PLOTLY_DASHES = ("solid", "dash", "dot", "dashdot", "longdash")
HIGHEST, LOWEST = 100.0, 0.5
"""The ratios at which panels end at the latest: a loss that explodes leaves them."""
CLOSE = 4
"""Up to which ratio of its ends an axis has ticks between 1 and 2."""
WRAPPED = 24
"""How many characters a line of a panel's title has."""
MEASURES = ("epochs", "excess")


@dataclass(frozen=True)
class Estimates:
    """`curves` has a row for each shock, method and evaluation from the shock on: epochs since then, and the median of the
    loss over the twin's.  `runs` has one for each shocked run, and `summary` one for each shock and method: medians of
    epochs to recover and of excess, with intervals, and how many runs came back.
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
    """Returns losses over those of twins, and how every run recovers that has one."""
    runs = with_shocks(tables.runs)
    require_finite(runs["test_loss"])
    runs = runs.assign(epoch=runs["events"].map(lambda events: events[0]["epoch"] if events else np.nan))
    rows, ratios = _recoveries(runs, dict(iter(tables.evaluations.groupby("run"))))
    if not rows:
        raise NoData("This figure needs shocked runs beside the same runs without the shock, so it is not drawn.")
    found = pd.DataFrame(rows)
    shocks = list(dict.fromkeys(found["shock"]))
    found = found.assign(which=found["shock"].map(shocks.index))
    found = found.sort_values(["which", "place", "seed"], kind="stable", ignore_index=True)
    groups = found.groupby(["shock", "method_label"], sort=False)
    summary = pd.DataFrame([_summary_row(key, group) for key, group in groups])
    found = found.drop(columns=["which", "place", "is_ours", "task", "sets_rate", "is_papers_shock"])
    return Estimates(_curves(ratios), found, summary, about(runs))


def _recoveries(
    runs: pd.DataFrame, evaluations: dict[str, pd.DataFrame]
) -> tuple[list[dict[str, Any]], list[pd.DataFrame]]:  # fmt: skip
    """Returns a row for each run that has a twin, and its losses over the twin's."""
    runs = runs.assign(is_ours=online(runs))
    twins = {_identity(run): run.run for run in runs[runs["shock"] == ""].itertuples()}
    rows, ratios = [], []
    for run in runs[runs["shock"] != ""].itertuples():
        twin = twins.get(_identity(run))
        if twin is None:
            continue
        epochs, losses, spared = _beside(evaluations[run.run], evaluations[twin], run.epoch)
        found = recovery(epochs, losses, spared, run.epoch)
        ratios.append(pd.DataFrame({
            "run": run.run, "shock": run.shock, "method_label": run.method_label, "epoch": epochs - run.epoch,
            "ratio": losses / spared,
        }))  # fmt: skip
        rows.append({
            "run": run.run, "twin": twin, "method": run.method, "method_label": run.method_label, "seed": run.seed,
            "shock": run.shock, "epoch": run.epoch, "status": run.status, "epochs": found.epochs, "excess": found.excess,
            "place": run.place, "is_ours": run.is_ours, "task": run.task,
            "sets_rate": _sets_only(run.events, "lr"), "is_papers_shock": published.has_shock(run.events),
        })  # fmt: skip
    return rows, ratios


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


def _curves(ratios: list[pd.DataFrame]) -> pd.DataFrame:
    return median_curves(pd.concat(ratios, ignore_index=True), ["shock", "method_label"], "ratio")


def _sets_only(events: Sequence[dict[str, Any]], name: str) -> bool:
    return len(events) == 1 and set(events[0]) == {"epoch", "set"} and set(events[0]["set"]) == {name}


def draw(estimates: Estimates) -> Figure:
    """Draws a small panel for each shock, with how many runs of each method have recovered."""
    shocks = list(dict.fromkeys(estimates.summary["shock"]))
    methods = estimates.summary.sort_values("place", kind="stable").drop_duplicates("label")
    labels = list(methods["label"])
    first = [*methods.loc[methods["is_ours"], "label"], *methods.loc[~methods["is_ours"], "label"]]
    looks = emphasised(labels, labels, first=first)
    figure, panels = style.small_panels(len(shocks), height=1.55, sharex=True)
    for axes, shock in zip(panels, shocks, strict=True):
        _draw_panel(axes, estimates, shock, looks)
        if axes.xaxis.get_tick_params()["labelbottom"]:
            axes.set_xlabel("Epochs since the shock")
    figure.supylabel("Loss over the twin's", fontsize=8)
    handles = [Line2D([], [], color=own.colour, marker=own.marker, ls=own.dashes, ms=4) for own in looks.values()]
    style.legend_above(figure, handles, labels, columns=len(labels))
    style.stamp(figure, estimates.about.stamp)
    return figure


def _draw_panel(axes: Axes, estimates: Estimates, shock: str, looks: dict[str, Look]) -> None:
    axes.axhspan(1 - WITHIN, 1 + WITHIN, color="#CFCFCF", lw=0, zorder=0)
    axes.set_title("\n".join(textwrap.wrap(_words(shock), WRAPPED)), fontsize=6.5, loc="left", fontweight="normal")
    curves = dict(iter(estimates.curves[estimates.curves["shock"] == shock].groupby("method_label")))
    summary = estimates.summary[estimates.summary["shock"] == shock].set_index("label")
    shown = [label for label in looks if label in curves]
    for place, label in enumerate(shown):
        own = looks[label]
        draw_curve(axes, curves[label], colour=own.colour, marker=own.marker, dashes=own.dashes)
        axes.annotate(f"{summary.loc[label, 'recovered']}/{summary.loc[label, 'n']}", (1.0, 1.0), (2, -7.5 * place),
                      xycoords="axes fraction", textcoords="offset points", ha="left", va="top", fontsize=6,
                      color=own.colour)  # fmt: skip
    style.log_scale(axes, "y")
    low, high = _limits(estimates.curves[estimates.curves["shock"] == shock])
    axes.set_ylim(low, high)
    if high < CLOSE * low:
        axes.yaxis.set_major_locator(FixedLocator([0.5, 0.7, 1.0, 1.4, 2.0]))


def _limits(curves: pd.DataFrame) -> tuple[float, float]:
    """Returns where the axis of these ratios ends."""
    medians = curves["median"].to_numpy()
    found = medians[np.isfinite(medians) & (medians > 0)]
    low, high = (found.min(), found.max()) if len(found) else (1.0, 1.0)
    return 0.9 * max(LOWEST, min(low, 0.9)), 1.1 * min(HIGHEST, max(high, 1.3))


def _words(shock: str) -> str:
    return shock.replace("weight_decay", "L2").replace("lr ", "learning rate ")


def interactive(estimates: Estimates) -> go.Figure:
    """Draws the same lines in one panel, each to be hidden by a click on its name."""
    traces, shocks = [], list(dict.fromkeys(estimates.curves["shock"]))
    for (shock, label), curve in estimates.curves.groupby(["shock", "method_label"], sort=False):
        line = curve[np.isfinite(curve["median"])]
        dash = PLOTLY_DASHES[shocks.index(shock) % len(PLOTLY_DASHES)]
        traces.append(go.Scatter(
            x=line["epoch"].tolist(), y=line["median"].tolist(), name=escape(f"{label}; {_words(shock)}", quote=False),
            mode="lines", line={"color": look(label).colour, "width": 2, "dash": dash},
            hovertemplate="<b>%{fullData.name}</b><br>%{x:.3g} epochs later<br>%{y:.3g} times the twin's<extra></extra>",
        ))  # fmt: skip
    chart = go.Figure(traces)
    chart.update_xaxes(title="Epochs since the shock")
    chart.update_yaxes(
        type="log", range=np.log10(_limits(estimates.curves)).tolist(), tickformat="~g",
        title="Validation loss over the twin's",
    )  # fmt: skip
    return chart


def caption(estimates: Estimates) -> str:
    """Says what the figure shows, with n, budget and device."""
    n, most = estimates.summary["n"].min(), estimates.summary["n"].max()
    return (
        f"Validation loss after a shock over that of the twin that was spared it: medians over {n} seeds or more, bands "
        f"{spread(n, most, pointwise=True)}. Grey, within {WITHIN:.0%} of the twin; beside the panels, how many runs end "
        f"there for good. {estimates.about.setting}"
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
