"""Figure 7 of the paper: hyperparameters and data are changed in the middle of training; who recovers?"""

from __future__ import annotations

import textwrap
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
from matplotlib.transforms import ScaledTranslation

from reports import published, style
from reports.claims import Measured, Outcome, Verdict, below, not_tested, worst
from reports.curves import draw_curve, median_curves
from reports.ends import DARK
from reports.estimates import About, about
from reports.looks import Look, emphasised, ink, look
from reports.recovery import FOR_GOOD, WITHIN
from reports.selection import NoData, require_finite, with_shocks
from reports.statistics import median_of
from reports.tables import Tables
from reports.twins import beside_twins
from reports.words import first_few, listed, loss_text, medians_over, percent, plural

QUESTION = "When a hyperparameter is kicked or the data change during training, which method recovers, and how fast?"
METHOD = (
    "Every run has a twin: the same method and seed without the shock. Shown is the validation loss of the present model "
    "over the twin's. A run has recovered when it is no higher than a band around its twin for good, which takes "
    f"{FOR_GOOD} evaluations or more; one that ends outside never has, whenever it had come back before. The band is "
    f"{percent(WITHIN)} of the twin's loss or, if that is more, what nine of ten pairs of unshocked runs of different "
    "seeds differ by at most, for the method in the middle: within it a run cannot be told from an unshocked one. The "
    "excess is what a run's validation loss has over the twin's, integrated from the shock to the end. Shifted labels and "
    "rotated inputs change all splits, corrupted labels those of training alone."
)
PLOTLY_DASHES = ("solid", "dash", "dot", "dashdot", "longdash")
HIGHEST, LOWEST = 100.0, 0.5
"""The ratios at which panels end at the latest: a loss that explodes leaves them."""
CLOSE = 4
"""Up to which ratio of its ends an axis has ticks between 1 and 2."""
WRAPPED = 24
"""How many characters a line of a panel's title has."""
BESIDE: dict[str, Any] = {
    "xycoords": "axes fraction", "textcoords": "offset points", "ha": "left", "va": "center", "fontsize": 6,
}  # fmt: skip
"""How texts at the right of a panel are written."""
MEASURES = ("epochs", "excess")


@dataclass(frozen=True)
class Estimates:
    """`curves` has a row for each shock, method and evaluation from the shock on: epochs since then, and the median of the
    loss over the twin's; `widths` one for each shock and evaluation: the band's half-width.  `runs` has one for each
    shocked run, and `summary` one for each shock and method: medians of epochs to recover and of excess, with intervals,
    and how many runs came back.  `pairs` has one for each pair of unshocked runs of a method, judged by the same rule.
    """

    curves: pd.DataFrame
    widths: pd.DataFrame
    runs: pd.DataFrame
    summary: pd.DataFrame
    pairs: pd.DataFrame
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
    found, ratios, pairs = beside_twins(runs, tables.evaluations)
    if found.empty:
        raise NoData("This figure needs shocked runs beside the same runs without the shock, so it is not drawn.")
    shocks = list(dict.fromkeys(found["shock"]))
    found = found.assign(which=found["shock"].map(shocks.index))
    found = found.sort_values(["which", "place", "seed"], kind="stable", ignore_index=True)
    groups = found.groupby(["shock", "method_label"], sort=False)
    summary = pd.DataFrame([_summary_row(key, group) for key, group in groups])
    found = found.drop(columns=["which", "place", "is_ours", "task", "sets_rate", "is_papers_shock"])
    widths = ratios.groupby(["shock", "epoch"], sort=False)["width"].median().reset_index()
    curves = median_curves(ratios, ["shock", "method_label"], "ratio")
    return Estimates(curves, widths, found, summary, pairs, about(runs))


def _summary_row(key: tuple[str, str], group: pd.DataFrame) -> dict[str, Any]:
    first = group.iloc[0]
    row: dict[str, Any] = {"shock": key[0], "label": key[1], "n": len(group)}
    row |= {name: first[name] for name in ("place", "method", "is_ours", "task", "sets_rate", "is_papers_shock")}
    for name in MEASURES:
        row |= dict(zip((name, f"{name}_low", f"{name}_high"), median_of(group[name]), strict=True))
    return row | {"recovered": int(np.isfinite(group["epochs"]).sum())}


def draw(estimates: Estimates) -> Figure:
    """Draws a small panel for each shock, with how many runs of each method have recovered."""
    shocks = list(dict.fromkeys(estimates.summary["shock"]))
    methods = estimates.summary.sort_values("place", kind="stable").drop_duplicates("label")
    labels = list(methods["label"])
    first = [*methods.loc[methods["is_ours"], "label"], *methods.loc[~methods["is_ours"], "label"]]
    looks = emphasised(labels, labels, first=first)
    figure, panels = style.small_panels(len(shocks), height=1.55, across=3, sharex=True)
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
    band = estimates.widths[estimates.widths["shock"] == shock].sort_values("epoch")
    axes.fill_between(band["epoch"], 1 / (1 + band["width"]), 1 + band["width"], color="#DEDEDE", lw=0, zorder=0)
    title = "\n".join(textwrap.wrap(_words(shock)[:1].upper() + _words(shock)[1:], WRAPPED))
    axes.set_title(title, fontsize=6.5, loc="left", fontweight="normal")
    curves = dict(iter(estimates.curves[estimates.curves["shock"] == shock].groupby("method_label")))
    summary = estimates.summary[estimates.summary["shock"] == shock].set_index("label")
    shown = [label for label in looks if label in curves]
    for place, label in enumerate(shown):
        own = looks[label]
        draw_curve(axes, curves[label], colour=own.colour, marker=own.marker, dashes=own.dashes, has_band=False)
        _write_recovered(axes, place, own, f"{summary.loc[label, 'recovered']}/{summary.loc[label, 'n']}")
    axes.annotate("back", (1.0, 1.0), (11, 2), color=DARK, **BESIDE)
    style.log_scale(axes, "y")
    low, high = _limits(estimates.curves[estimates.curves["shock"] == shock])
    axes.set_ylim(low, high)
    if high < CLOSE * low:
        axes.yaxis.set_major_locator(FixedLocator([0.5, 0.7, 1.0, 1.4, 2.0]))


def _write_recovered(axes: Axes, place: int, own: Look, text: str) -> None:
    """Writes how many runs recovered at the right of a panel, after the method's marker."""
    offset = ScaledTranslation(6 / 72, -7.5 * (place + 1) / 72, axes.figure.dpi_scale_trans)
    axes.plot(1, 1, color=own.colour, marker=own.marker, ms=3, ls="none", clip_on=False, transform=axes.transAxes + offset)
    axes.annotate(text, (1.0, 1.0), (11, -7.5 * (place + 1)), color=ink(own.colour), **BESIDE)


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
        type="log", range=np.log10(_limits(estimates.curves)).tolist(), tickformat="~g", dtick="D2",
        title="Validation loss over the twin's",
    )  # fmt: skip
    return chart


def caption(estimates: Estimates) -> str:
    """Says what the figure shows, with n, budget and device."""
    n = medians_over(estimates.summary["n"], "seed")
    return (
        f"How runs recover from shocks: validation loss over the unshocked twin's, {n}; grey, "
        "the band of recovery; at the right, how many runs are back there for good; above "
        f"{HIGHEST:g} times, lines leave the axis. {estimates.about.setting}"
    )


def findings(estimates: Estimates) -> list[str]:
    """Tells for each method from how many shocks the median run recovers, and how soon; how often a run does that had no
    shock; and which method has the lowest excess.
    """
    count = estimates.summary["shock"].nunique()
    parts = [f"of {label} from {_recovered(group)}" for label, group in estimates.summary.groupby("label", sort=False)]
    sentences = [f"Of {plural(count, 'shock')}, the median run recovers: that {'; that '.join(first_few(parts))}."]
    if len(estimates.pairs):
        shares = np.isfinite(estimates.pairs["epochs"]).groupby(estimates.pairs["method_label"], sort=False).mean()
        said = listed([f"{percent(share)} of pairs of {label}" for label, share in shares.items()])
        sentences.append(f"By the same rule, a run without a shock has recovered beside that of another seed in {said}.")
    table = estimates.summary.pivot(index="shock", columns="label", values="excess")
    if table.shape[1] > 1:
        wins = table.idxmin(axis=1)[np.isfinite(table.min(axis=1))].value_counts()
        parts = [f"with {label} after {times} of {plural(count, 'shock')}" for label, times in wins.items()]
        sentences += [f"The median excess is lowest {listed(parts)}."] if parts else []
    return sentences


def _recovered(group: pd.DataFrame) -> str:
    """Says from how many shocks a method's median run recovers, and how soon."""
    back = group.loc[np.isfinite(group["epochs"]), "epochs"]
    if back.empty:
        return "none"
    if back.max() == 0:
        return f"{len(back)}, without ever leaving the band"
    return f"{len(back)}, the slowest after {back.max():.3g} epochs"


def published_rows(estimates: Estimates) -> list[list[str]]:
    """Returns all medians, and where task and shock are the paper's, what it says of OHO after that kick."""
    rows = []
    for row in estimates.summary.itertuples():
        is_papers = row.task in estimates.about.papers_tasks and row.is_ours and row.is_papers_shock
        said = published.RECOVERY.get(row.task, "—") if is_papers else "—"
        epochs = f"{row.epochs:.3g}" if np.isfinite(row.epochs) else "never"
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
        evidence = verdict.evidence
        if verdict.outcome is not Outcome.NOT_TESTED:
            shown = [*rows["oho-global"], *rows["fixed"]]
            counts = [f"{row['recovered']} of {row['n']} runs of {row['label']}" for row in shown]
            evidence = f"{listed(counts)} recover"
        found.append(verdict._replace(evidence=f"{_words(str(shock))}: {evidence}"))
    return [worst(found)]
