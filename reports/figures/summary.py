"""All tasks together: how low each method ends, what its rank is, and how soon it is as good as the best of the others."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from reports import style
from reports.estimates import NONE_TRAINED
from reports.looks import GREY, emphasised
from reports.pooling import PROBLEM, TASK, pooled, setting, stamp
from reports.selection import ONLINE, NoData
from reports.statistics import Estimate, bootstrapped, interquartile_mean
from reports.strips import name_lines, room
from reports.tables import Tables
from reports.targets import lowest_target, reached_by
from reports.words import plural, spread, with_ends

FEWEST_TASKS = 5
"""With fewer tasks nothing is said across tasks."""
LONGEST = 4.0
"""Up to how many times the shortest time on a problem a method is credited for reaching the target (AlgoPerf)."""
QUESTION = "Over all tasks, which method ends lowest, and which is there first?"
METHOD = (
    "A problem is a task with one seed, on which all methods have the same time: the largest budget that the task was "
    "run with. Tasks may have different ones, since each problem is measured by itself. Methods are those that every "
    "task has, and every problem has the same weight. A: the final test loss over the lowest median on that task of a "
    "method that is not under test, its interquartile mean over all problems, on the logarithm. B: the mean of its "
    "ranks. C: the time to the validation loss of the best of the other methods, over the shortest of any; the profile, "
    f"the share of problems within a factor, integrated from 1 to {LONGEST:g} (Dahl et al., 2023): 1 is always first, 0 "
    "never within that factor. A run that returns the untrained model, or none, counts as infinitely bad. Intervals are "
    "from a bootstrap over seeds, stratified by task: they say nothing of other tasks."
)
COLUMNS = {"loss": "A  Loss over\nbest other's", "rank": "B  Mean\nrank", "score": "C  Score of\ntime to target"}


@dataclass(frozen=True)
class Estimates:
    """`problems` has a row for each problem and method: ratio, rank, time to the target in the budget's unit, score.

    `summary` has one for each method, the lowest loss first: of each measure its value, with `_low` and `_high`.
    """

    problems: pd.DataFrame
    summary: pd.DataFrame
    setting: str
    stamp: str

    @property
    def csv(self) -> pd.DataFrame:
        """The data behind the figure, a row for each problem and method."""
        return self.problems

    @property
    def tasks(self) -> int:
        """How many tasks there are."""
        return self.problems[["task", "data"]].drop_duplicates().shape[0]

    @property
    def count(self) -> int:
        """How many problems there are."""
        return self.problems[PROBLEM].drop_duplicates().shape[0]


def estimate(tables: Tables) -> Estimates:
    """Returns ratios, ranks and times on the problems that all methods were tried on."""
    runs = pooled(tables.runs)
    is_lost = (runs["selected_step"] == 0) | runs["incumbent_test_loss"].isna()
    runs = runs.assign(test_loss=runs["incumbent_test_loss"].mask(is_lost, np.inf))
    incumbents = dict(iter(tables.incumbents.groupby("run")))
    parts = [_of_task(own, incumbents) for _, own in runs.groupby(TASK, sort=False)]
    problems = pd.concat(parts, ignore_index=True)
    by_problem = problems.groupby(PROBLEM)
    problems = problems.assign(rank=by_problem["test_loss"].rank(method="average"))
    ratio = problems["used"] / by_problem["used"].transform("min")
    score = ((LONGEST - ratio) / (LONGEST - 1)).clip(lower=0.0).fillna(0.0)  # where none reaches it, none is credited
    problems = problems.assign(score=score.where(np.isfinite(problems["used"]), 0.0))
    rows = [_row(str(label), own) for label, own in problems.groupby("label", sort=False)]
    summary = pd.DataFrame(rows).sort_values(["loss", "rank", "label"], ignore_index=True)
    return Estimates(problems, summary, setting(runs), stamp(runs))


def _of_task(runs: pd.DataFrame, incumbents: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """Returns a task's runs with their losses over the best other's, and their times to its validation loss."""
    others = runs[runs["family"] != ONLINE]
    lowest = others.groupby("label")["test_loss"].median().min() if len(others) else np.nan
    ended = others["incumbent_validation_loss"].where(np.isfinite(others["test_loss"]))  # a lost run counts as infinite
    target = lowest_target(others.assign(incumbent_validation_loss=ended))
    if target is None or not np.isfinite(lowest) or lowest <= 0:
        name = runs["task"].iloc[0]
        raise NoData(f"On {name} no method other than those under test ends at a finite loss, so it is not drawn.")
    places = [reached_by(incumbents.get(run), target.loss) for run in runs["run"]]
    names = [*PROBLEM, "data", "experiment", "label", "method_label", "family", "run", "unit", "budget", "test_loss"]
    return runs[names].assign(
        ratio=runs["test_loss"] / lowest, used=[np.inf if place is None else float(place["used"]) for place in places]
    )


def _row(label: str, own: pd.DataFrame) -> dict[str, object]:
    strata = list(own[TASK].itertuples(index=False, name=None))
    logs = bootstrapped(np.log(own["ratio"].clip(lower=1e-12)), interquartile_mean, strata=strata)
    found = {
        "loss": Estimate(*np.exp(logs)),
        **{name: bootstrapped(own[name], lambda values: values.mean(-1), strata=strata) for name in ("rank", "score")},
    }
    row: dict[str, object] = {
        "label": label, "method_label": own["method_label"].iloc[0], "family": own["family"].iloc[0], "n": len(own),
        "reached": int(np.isfinite(own["used"]).sum()),
    }  # fmt: skip
    for name, estimate_ in found.items():
        row |= {name: estimate_.value, f"{name}_low": estimate_.low, f"{name}_high": estimate_.high}
    return row


def draw(estimates: Estimates) -> Figure:
    """Draws the three measures beside each other, a line for each method, the lowest loss on top."""
    summary = estimates.summary
    is_ours = summary["family"] == ONLINE
    first = [*summary.loc[is_ours, "label"], *summary.loc[~is_ours, "label"]]
    looks = emphasised(list(summary["label"]), list(summary["method_label"]), first=first)
    width = style.COLUMN_INCHES if style.in_column() else style.PAGE_INCHES
    figure = Figure(figsize=(width, 0.95 + room(len(summary))))
    panels = figure.subplots(1, len(COLUMNS), sharey=True)
    for axes, (name, title) in zip(panels, COLUMNS.items(), strict=True):
        for place, row in enumerate(summary.to_dict("records")):
            _draw_line(axes, place, row, name, looks[row["label"]].colour)
        axes.set_title(title, loc="left", fontsize=7 if style.in_column() else 8)
        axes.tick_params(axis="y", length=0)
    style.log_scale(panels[0], "x")
    panels[0].axvline(1.0, color="black", lw=0.7, zorder=1)
    panels[2].set_xlim(-0.03, 1.03)
    panels[2].set_xticks([0.0, 0.5, 1.0], ["0", "0.5", "1"])
    name_lines(panels[0], list(summary["label"]))
    for axes in panels:
        axes.grid(visible=True, axis="x")
        axes.grid(visible=False, axis="y")
    for label, is_own in zip(panels[0].get_yticklabels(), is_ours, strict=True):
        label.set_fontweight("bold" if is_own else "normal")
        label.set_fontsize(6 if style.in_column() else 7)
    if estimates.tasks < FEWEST_TASKS:
        figure.suptitle(_too_few(estimates), fontsize=7.5, color="#B00020", fontweight="bold")
    style.stamp(figure, estimates.stamp)
    return figure


def _too_few(estimates: Estimates) -> str:
    return f"{plural(estimates.tasks, 'task')}: fewer than {FEWEST_TASKS} say nothing across tasks"


def _draw_line(axes: Axes, place: int, row: dict, name: str, colour: str) -> None:
    """Draws a value with its interval; an infinite one stands as an open triangle at the right edge."""
    low, high = row[f"{name}_low"], row[f"{name}_high"]
    if np.isfinite([low, high]).all():
        axes.plot([low, high], [place] * 2, color=colour, lw=1.3, zorder=2)
    if np.isfinite(row[name]):
        axes.plot(row[name], place, ls="none", marker="o", ms=4.5, color=colour, mec="white", mew=0.5, zorder=3)
    else:
        axes.plot(1.0, place, ls="none", marker=">", mfc="none", mec=colour if colour != GREY else "#666666", ms=5,
                  clip_on=False, transform=axes.get_yaxis_transform())  # fmt: skip


def caption(estimates: Estimates) -> str:
    """Says what the figure shows, with n, budget and device."""
    n = estimates.summary["n"].min()
    ends = spread(n, n, "problem")
    lines = f" Lines: {ends}." if ends else ""
    note = "" if estimates.tasks >= FEWEST_TASKS else f" {_too_few(estimates)}."
    return (
        f"{plural(estimates.count, 'problem')} of {plural(estimates.tasks, 'task')}. A: lower is better, 1 is the best of "
        f"the other methods; B: lower; C: higher.{lines} In bold, OHO.{note} {estimates.setting}"
    )


def findings(estimates: Estimates) -> list[str]:
    """Names the best method by each measure, and the best under test."""
    summary = estimates.summary
    if not np.isfinite(summary["loss"]).any():
        return [NONE_TRAINED]
    found = [f"{_too_few(estimates)}."] if estimates.tasks < FEWEST_TASKS else []
    for name, what, is_lower in (
        ("loss", "The interquartile mean of the loss is lowest", True), ("rank", "The mean rank is lowest", True),
        ("score", "The score of times to the target is highest", False),
    ):  # fmt: skip
        ordered = summary.sort_values(name, ascending=is_lower, kind="stable")
        best, ours = ordered.iloc[0], ordered[ordered["family"] == ONLINE].head(1)
        beside = "" if ours.empty or ours.index[0] == best.name else f"; {_told(ours.iloc[0], name)} is the best under test"
        found.append(f"{what} with {_told(best, name)}{beside}.")
    return found


def _told(row: pd.Series, name: str) -> str:
    return f"{row['label']}, {_with_ends(row, name)}"


def _with_ends(row: pd.Series, name: str) -> str:
    return with_ends(row[name], row[f"{name}_low"], row[f"{name}_high"], row["n"])


def published_rows(estimates: Estimates) -> list[list[str]]:
    """Returns each method's measures, with on how many problems it reaches the target."""
    rows = [
        [row["label"], *(_with_ends(row, name) for name in COLUMNS), f"{row['reached']} of {row['n']}"]
        for _, row in estimates.summary.iterrows()
    ]
    return [["Method", "Loss over the best other's", "Mean rank", "Score of times", "Reaches the target"], *rows]
