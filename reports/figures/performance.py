"""Figure 2 of the paper: what a search spends until it is as good as Global OHO."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from reports import published, style
from reports.estimates import About, about, untrained_sentences
from reports.looks import look
from reports.selection import NoData, comparable, option, untrained
from reports.statistics import bootstrap, first_at_most
from reports.tables import Tables
from reports.words import loss_text, plural

QUESTION = (
    "How many trials and how much time does a search, or another method, need to reach the test loss of a single Global "
    "OHO run?"
)
METHOD = (
    "The target is the median final test loss of the Global OHO runs, of an even number of them the upper middle one. A "
    "method reaches it when the model it has selected on validation is at or below the target; a run that never does "
    "counts as infinite, a miss. Trials are trainings begun: of a population, members. The paper's numbers are of its own "
    "data, network and hardware."
)
REFERENCE = "oho-global"
"""The one method that this figure is about."""
QUANTITIES = {"trials": "Trials", "seconds": "Counted seconds"}
OTHERS = "Others"


@dataclass(frozen=True)
class Estimates:
    """`runs` has a row for each run with trials and seconds to target, infinite for a miss, `summary` one for each bar."""

    runs: pd.DataFrame
    summary: pd.DataFrame
    target: float
    budget: float
    unit: str
    about: About

    @property
    def csv(self) -> pd.DataFrame:
        """The data behind the figure."""
        return self.runs.drop(columns=["members"])


def estimate(tables: Tables) -> Estimates:
    """Returns trials and counted seconds to Global OHO's median final test loss, for each method."""
    runs = comparable(tables.runs)
    is_reference = runs["method"] == REFERENCE
    reference = runs[is_reference]
    target = _target(reference["incumbent_test_loss"])
    if not np.isfinite(target) or is_reference.all():
        raise NoData("This figure needs a measured Global OHO run and another method, so it is not drawn.")
    if untrained(reference):
        raise NoData("Most Global OHO runs return the untrained model, and set no target, so it is not drawn.")
    incumbents = dict(iter(tables.incumbents.groupby("run")))
    reached = [_reach(incumbents.get(row.run), target) for row in runs.itertuples()]
    data = runs[["run", "method", "label", "method_label", "over", "over_label", "seed"]].copy()
    data["trials"], data["seconds"] = zip(*reached, strict=True)
    data["members"] = option(runs, "members").astype(float)
    begun = data[["trials", "members"]].min(axis=1)  # a population begins its members once
    data["trials"] = data["trials"].where(np.isinf(data["trials"]), begun)
    summary = pd.DataFrame([_summary_row(str(label), group) for label, group in data.groupby("label", sort=False)])
    summary = summary.merge(_groups(tables, runs), on="label").sort_values("place", kind="stable", ignore_index=True)
    first = runs.iloc[0]
    return Estimates(data, summary, target, first["budget"], first["unit"], about(tables, runs))


def _groups(tables: Tables, runs: pd.DataFrame) -> pd.DataFrame:
    """Returns for each label its bar's name, the group it stands in, and what the paper has of it.

    Searches of one kind over two or more methods are a group; the others stand together.
    """
    first = runs.drop_duplicates("label")
    kinds = {method.label: method.kind for method in tables.methods if method.over_label is not None}
    kind = first["method_label"].map(kinds).astype(object)
    grouped = kind.where(kind.map(kind.value_counts()) > 1)
    values = [_published(run) for _, run in first.iterrows()]
    return pd.DataFrame({
        "label": first["label"], "place": first["place"], "group": grouped.fillna(OTHERS),
        "bar": first["over_label"].where(grouped.notna(), first["label"]),
        "published_trials": [trials for trials, _ in values], "published_hours": [hours for _, hours in values],
        "untrained": first["label"].map({label: untrained(own) for label, own in runs.groupby("label")}),
    })  # fmt: skip


def _published(run: pd.Series) -> tuple[float, float]:
    if not published.has_task(run["task_options"], run["data"]) or not published.has_search(run["options"]):
        return np.nan, np.nan
    return published.PERFORMANCE[run["method"]].get(run["over"], (np.nan, np.nan))


def _target(losses: pd.Series) -> float:
    """Returns the median, of an even number of runs the upper middle one, so that at least half of them reach it."""
    ordered = np.sort(losses.fillna(np.inf).to_numpy(float))
    return float(ordered[len(ordered) // 2]) if len(ordered) else np.inf


def _reach(incumbents: pd.DataFrame | None, target: float) -> tuple[float, float]:
    """Returns trials and seconds; infinite where no model was selected, or none that is as good."""
    if incumbents is None:
        return np.inf, np.inf
    index = first_at_most(incumbents["test_loss"].to_numpy(float), target)
    if index is None:
        return np.inf, np.inf
    row = incumbents.iloc[index]
    return row["trial"] + 1, row["counted_seconds"]


def _summary_row(label: str, group: pd.DataFrame) -> dict[str, Any]:
    trials, seconds = bootstrap(group["trials"]), bootstrap(group["seconds"])
    return {
        "method": group["method"].iloc[0], "method_label": group["method_label"].iloc[0], "label": label,
        "n": len(group), "misses": int(np.isinf(group["seconds"]).sum()),
        "trials": trials.value, "trials_low": trials.low, "trials_high": trials.high,
        "seconds": seconds.value, "seconds_low": seconds.low, "seconds_high": seconds.high,
    }  # fmt: skip


def draw(estimates: Estimates) -> Figure:
    """Draws trials (A) and counted seconds (B): a bar for each method, in groups, Global OHO above them."""
    lines = _lines(estimates.summary)
    figure, panels = style.panels(1, 2, height=0.9 + 0.19 * len(lines), sharey=True)
    for letter, axes, (quantity, name) in zip("AB", panels, QUANTITIES.items(), strict=True):
        _draw_bars(axes, lines, quantity, _ceiling(estimates.summary, quantity))
        axes.set_title(f"{letter}  {name}", loc="left")
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=quantity == "trials"))
    for axes in panels if style.in_column() else panels[:1]:
        axes.set_yticks(range(len(lines)), [line if isinstance(line, str) else line["bar"] for line in lines])
        for label, line in zip(axes.get_yticklabels(), lines, strict=True):
            label.set_fontweight("bold" if isinstance(line, str) else "normal")
        axes.set_ylim(len(lines) - 0.4, -0.6)
    style.stamp(figure, estimates.about.stamp)
    return figure


def _lines(summary: pd.DataFrame) -> list[str | dict[str, Any]]:
    """Returns what stands from top to bottom: bars, and headings of groups; in a group the quickest first."""
    is_reference = summary["method"] == REFERENCE
    lines: list[str | dict[str, Any]] = [*summary[is_reference].to_dict("records")]
    groups = dict.fromkeys(summary.loc[~is_reference, "group"])
    for title in sorted(groups, key=lambda title: title == OTHERS):
        bars = summary[(summary["group"] == title) & ~is_reference]
        lines += [title, *bars.sort_values(["seconds", "misses", "label"]).to_dict("records")]
    return lines


def _ceiling(summary: pd.DataFrame, quantity: str) -> float:
    """Returns where misses end: beyond every finite value."""
    finite = summary[[quantity, f"{quantity}_high"]].to_numpy(float)
    return 1.2 * max(finite[np.isfinite(finite)].max(initial=1.0), 1.0)


def _draw_bars(axes: Axes, lines: list[str | dict[str, Any]], quantity: str, ceiling: float) -> None:
    for position, bar in enumerate(lines):
        if isinstance(bar, str):
            continue
        value, low, high = bar[quantity], bar[f"{quantity}_low"], bar[f"{quantity}_high"]
        colour, hits = look(bar["method_label"]).colour, bar["n"] - bar["misses"]
        if np.isinf(value):
            axes.barh(position, ceiling, color="none", edgecolor=colour, hatch="////", lw=0.8, height=0.7)
            axes.annotate("not reached", (ceiling / 2, position), ha="center", va="center", fontsize=6.5,
                          bbox={"facecolor": "white", "edgecolor": "none", "pad": 1})  # fmt: skip
        else:
            axes.barh(position, value, color=colour, alpha=0.85, height=0.7)
            if np.isfinite(low):
                end = min(high, ceiling)
                axes.plot([low, end], [position] * 2, color="black", lw=1)
                axes.plot(end, position, ">" if np.isinf(high) else "|", color="black", ms=4)
        axes.annotate(f"{hits}/{bar['n']}", (ceiling * 1.03, position), ha="left", va="center", fontsize=6.5)
    axes.set_xlim(0, ceiling * 1.14)
    axes.grid(visible=True, axis="x")
    axes.grid(visible=False, axis="y")
    axes.tick_params(axis="y", length=0)


def caption(estimates: Estimates) -> str:
    """Says what the figure shows, with n, budget and device."""
    runs = estimates.summary["n"]
    return (
        f"Trials (A) and counted seconds (B) until the selected model's test loss is at most "
        f"{loss_text(estimates.target)}, Global OHO's median at the end of its budget. Bars are medians over {runs.min()} "
        f"seeds, lines 95 % bootstrap intervals (a triangle: the interval has no finite end); hatched: more than half of "
        f"the runs missed the target; beside each bar, runs that reached it. {estimates.about.setting}"
    )


def findings(estimates: Estimates) -> list[str]:
    """Compares the quickest other method with Global OHO, and counts those that miss."""
    summary, target = estimates.summary, loss_text(estimates.target)
    others = summary[summary["method"] != REFERENCE].sort_values(["seconds", "label"])
    own = summary[summary["method"] == REFERENCE].iloc[0]
    missed = others[np.isinf(others["seconds"])]
    best = others.iloc[0]
    itself = f"Global OHO itself first reaches {target} after {own['seconds']:.3g} counted seconds (median)."
    if np.isfinite(best["seconds"]):
        order = "before" if best["seconds"] < own["seconds"] else "after"
        trials = "a single trial" if best["trials"] == 1 else f"{best['trials']:.3g} trials"
        quickest = (
            f"The quickest of {plural(len(others), 'other method')}, {best['label']}, reaches {target}, Global OHO's "
            f"median, after {best['seconds']:.3g} counted seconds and {trials}, {order} Global OHO."
        )
    else:
        quickest = f"No other method reaches {target}, Global OHO's median, in half of its runs."
    sentences = [quickest, itself]
    if len(missed):
        sentences.append(f"{len(missed)} of {len(others)} other methods miss it in more than half of their runs.")
    return sentences + untrained_sentences(list(summary.loc[summary["untrained"], "label"]))


def published_rows(estimates: Estimates) -> list[list[str]]:
    """Returns a table's header and rows: ours, and beside it the published values where there are any."""
    columns = {"trials": "Trials", "seconds": "Counted seconds"}
    paper = {"published_trials": "Published trials", "published_hours": "Published hours"}
    paper = paper if estimates.summary[list(paper)].notna().any(axis=None) else {}
    rows = [["Method", *columns.values(), *paper.values()]]
    for bar in estimates.summary.to_dict("records"):
        ours = [f"{bar[name]:.3g}" if np.isfinite(bar[name]) else "not reached" for name in columns]
        theirs = [f"{bar[name]:g}" if np.isfinite(bar[name]) else "—" for name in paper]
        rows.append([bar["label"], *ours, *theirs])
    return rows
