"""Figure 2 of the paper: what a search spends until it is as good as Global OHO, and as the best textbook training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from reports import style
from reports.claims import Measured, Outcome, Verdict, below, not_tested
from reports.ends import DARK
from reports.estimates import About, about, untrained_sentences
from reports.final_values import final_values, outside_sentence
from reports.looks import look
from reports.plain_steps import second_axis, seconds_per_step
from reports.reaching import OTHERS, grouped, reached, summary_row
from reports.selection import NoData, comparable, require_own_seconds, untrained
from reports.strips import ROOM, write_beside
from reports.tables import Tables
from reports.targets import Target, lowest_target, textbook, upper_median
from reports.untested import RULE
from reports.words import listed, loss_text, plural, spread

QUESTION = (
    "How much time and how many trials does a search, or another method, need to be as good as a single Global OHO run, "
    "and as the best textbook training?"
)
METHOD = (
    "A target is a validation loss, the median of the models that the runs of one method have selected at the end of "
    "their budget, of an even number of runs the upper middle one: A, of Global OHO; B, of the textbook training that "
    "has the lowest, with nothing drawn or searched for. Without Global OHO the latter is the only target. A method "
    "reaches it when its selected model is at or below it for good; a run that never is counts as infinite, a miss. The "
    "test split has no part in it. Trials are trainings begun: of a population, members. A search with a model of the "
    f"space that made {RULE} shows what random search does, and is not tested. The paper's numbers are of test losses on "
    "its own data, network and hardware."
)
REFERENCE = "oho-global"
"""The method that the paper's figure is about."""
OWN, TEXTBOOK = "own", "textbook"
MISSED = "not reached"
FEW = 4
"""How many methods that reach no target have lines of their own, in the figure and in its table."""


@dataclass(frozen=True)
class Estimates:
    """`runs` has a row for each run and target, with trials and seconds, infinite for a miss; `summary` one for each label
    and target.
    """

    runs: pd.DataFrame
    summary: pd.DataFrame
    targets: dict[str, Target]
    about: About
    ends: str = ""
    """Who ends outside of the space that searches draw from."""
    seconds_per_step: float | None = None
    """Counted seconds of a plain step, where the budget is in such steps: `seconds` are then those of that many steps."""

    @property
    def csv(self) -> pd.DataFrame:
        """The data behind the figure."""
        return self.runs.drop(columns=["members"])

    @property
    def main(self) -> str:
        """The target that texts and order are about: that of Global OHO or, where it was not run, of textbook training."""
        return next(iter(self.targets))

    def of(self, target: str) -> pd.DataFrame:
        """Returns the rows of the summary that are of one target."""
        return self.summary[self.summary["target"] == target]


def estimate(tables: Tables) -> Estimates:
    """Returns trials and counted seconds of each method to the validation losses of Global OHO and of textbook training."""
    runs = comparable(tables.runs)
    require_own_seconds(runs)
    targets = _targets(runs)
    per_step = seconds_per_step(runs)
    data = reached(tables, runs, targets, per_step)
    groups = data.groupby(["label", "target"], sort=False)
    summary = pd.DataFrame([summary_row(label, target, group) for (label, target), group in groups])
    summary = summary.merge(grouped(tables, runs), on="label").sort_values("place", kind="stable", ignore_index=True)
    ends = outside_sentence(final_values(tables, runs))
    return Estimates(data, summary, targets, about(runs), ends, per_step)


def _targets(runs: pd.DataFrame) -> dict[str, Target]:
    """Returns what the runs are timed to, Global OHO's loss first.  Raises `NoData` where there is nothing to reach."""
    targets = {}
    reference = runs[runs["method"] == REFERENCE]
    own = upper_median(reference["incumbent_validation_loss"])
    if np.isfinite(own) and not untrained(reference):
        targets[OWN] = Target(own, str(reference["label"].iloc[0]))
    if best := lowest_target(textbook(runs).groupby("label").filter(lambda own: not untrained(own))):
        targets[TEXTBOOK] = best
    if not targets and len(reference) and untrained(reference):
        raise NoData("Most Global OHO runs return the untrained model, and set no target, so it is not drawn.")
    if not targets or runs["label"].nunique() < 2:
        raise NoData(
            "This figure needs a measured Global OHO run, or one of a training with nothing drawn or searched for, and "
            "another method, so it is not drawn."
        )
    return targets


def draw(estimates: Estimates) -> Figure:
    """Draws counted seconds to each target, a line for each method, with trials and runs that reached it beside it."""
    lines = _lines(estimates)
    names = list(estimates.targets)
    height = 1.05 + (0.4 if estimates.seconds_per_step else 0.0) + ROOM * max(len(lines), 3)
    figure, panels = style.panels(1, len(names), height=height, sharey=True, squeeze=False)
    letters = ("A  ", "B  ") if len(names) > 1 else ("",)
    for letter, axes, name in zip(letters, panels.flat, names, strict=True):
        own = {row["label"]: row for row in estimates.of(name).to_dict("records")}
        _draw_dots(axes, [line if isinstance(line, str) else {**line, **own[line["label"]]} for line in lines])
        second_axis(axes, estimates.seconds_per_step and 1 / estimates.seconds_per_step, "the same in plain steps")
        axes.set_title(f"{letter}As good as {estimates.targets[name].label}", loc="left")
        axes.set_xlabel(f"Counted seconds to a\nvalidation loss of {loss_text(estimates.targets[name].loss)}")
    for axes in panels.flat if style.in_column() else panels.flat[:1]:
        axes.set_yticks(range(len(lines)), [line if isinstance(line, str) else line["bar"] for line in lines])
        for label, line in zip(axes.get_yticklabels(), lines, strict=True):
            label.set_fontweight("bold" if isinstance(line, str) else "normal")
        axes.set_ylim(len(lines) - 0.4, -0.6)
    style.stamp(figure, estimates.about.stamp)
    return figure


def _is_reference(estimates: Estimates) -> pd.Series:
    """Returns which rows of the main target's summary are of the method that sets it."""
    summary = estimates.of(estimates.main)
    if estimates.main == OWN:
        return summary["method"] == REFERENCE
    return summary["label"] == estimates.targets[TEXTBOOK].label


def _lines(estimates: Estimates) -> list[str | dict[str, Any]]:
    """Returns what stands from top to bottom: methods, and headings of groups; in a group the quickest first."""
    summary, is_reference = estimates.of(estimates.main), _is_reference(estimates)
    lines: list[str | dict[str, Any]] = [{**row, "bar": row["label"]} for row in summary[is_reference].to_dict("records")]
    lost = _lost(estimates)
    rest = summary[~is_reference & ~summary["label"].isin(lost)]
    groups = dict.fromkeys(rest["group"])
    for title in sorted(groups, key=lambda title: title == OTHERS):
        own = rest[rest["group"] == title]
        titles = [] if list(groups) == [OTHERS] else [title]
        lines += [*titles, *own.sort_values(["untested", "seconds", "misses", "label"]).to_dict("records")]
    return [*lines, {"label": lost[0], "bar": f"{len(lost)} other methods", "are_many": True}] if lost else lines


def _lost(estimates: Estimates) -> list[str]:
    """Returns the methods that share a line, since none of their runs reaches any target; none where they are few."""
    tested = estimates.summary[~estimates.summary["untested"]]
    is_lost = (tested["misses"] == tested["n"]).groupby(tested["label"], sort=False).all()
    lost = [str(label) for label in is_lost.index[is_lost]]
    return lost if len(lost) > FEW else []


def _draw_dots(axes: Axes, lines: list[str | dict[str, Any]]) -> None:
    """Draws medians with their intervals on a logarithmic axis; what is infinite stands at its right edge."""
    rows = {place: line for place, line in enumerate(lines) if not isinstance(line, str)}
    tested = [row for row in rows.values() if not row["untested"]]
    ends = np.array([[row["seconds"], row["seconds_low"], row["seconds_high"]] for row in tested], dtype=float)
    finite = ends[np.isfinite(ends) & (ends > 0)]
    low, high = (finite.min(), finite.max()) if len(finite) else (0.1, 1.0)
    edge = 1.6 * high
    axes.set_xlim(0.7 * low, edge)
    for place, row in rows.items():
        if row["untested"]:
            write_beside(axes, place, "", "not tested", va="center", fontsize=6.5)
            continue
        colour, marker, *_ = look(row["method_label"])
        colour = DARK if row.get("are_many") else colour
        is_missed = np.isinf(row["seconds"])
        if np.isfinite(row["seconds_low"]):
            axes.plot([row["seconds_low"], min(row["seconds_high"], edge)], [place] * 2, color=colour, lw=1.1)
        axes.plot(min(row["seconds"], edge), place, ls="none", marker=">" if is_missed else marker, color=colour, ms=5,
                  mfc="none" if is_missed else colour, clip_on=False)  # fmt: skip
        trials = "–" if np.isinf(row["trials"]) else f"{row['trials']:.3g}"
        write_beside(axes, place, trials, f"{row['n'] - row['misses']}/{row['n']}", va="center", fontsize=6.5)
    write_beside(axes, -0.7, "trials", "runs", va="bottom", fontsize=6, color="#666666")
    style.log_scale(axes, "x")
    axes.grid(visible=True, axis="x")
    axes.grid(visible=False, axis="y")
    axes.tick_params(axis="y", length=0)


def caption(estimates: Estimates) -> str:
    """Says what the figure shows, with n, budget and device."""
    runs = estimates.of(estimates.main)["n"]
    first, *others = (f"{loss_text(target.loss)}, the median of {_who(name, target)} at the end of its budget"
                      for name, target in estimates.targets.items())  # fmt: skip
    letter, more = ("A: c", f"; B: at most {others[0]}") if others else ("C", "")
    lost = _lost(estimates)
    last = f"; the last line stands for {len(lost)} methods none of whose runs reached any target" if lost else ""
    return (
        f"{letter}ounted seconds until the selected model's validation loss is at most {first}{more}. Points are medians "
        f"over {runs.min()} seeds or more, lines {spread(runs.min(), runs.max())}; an open triangle at the edge: more than "
        f"half of the runs missed the target; beside it, median trials and runs that reached it{last}. "
        f"{estimates.about.setting}"
    )


def _who(name: str, target: Target) -> str:
    """Returns the method that sets a target, in words."""
    return target.label if name == OWN else f"{target.label}, textbook training,"


def findings(estimates: Estimates) -> list[str]:
    """Compares the quickest other method with Global OHO, counts misses, and says who is as good as textbook training."""
    summary = estimates.of(estimates.main)
    if estimates.main == OWN:
        sentences = _beside_own(estimates)
    else:
        missed = int((np.isinf(summary["seconds"]) & ~summary["untested"]).sum())
        others = f"{missed} of {plural(len(summary), 'method')} miss it in more than half of their runs."
        sentences = [*_beside_textbook(estimates), *([others] if missed else []), *_untested(summary)]
    ends = filter(None, [estimates.ends])
    return [*sentences, *untrained_sentences(list(summary.loc[summary["untrained"], "label"])), *ends]


def _beside_own(estimates: Estimates) -> list[str]:
    """Compares the others with Global OHO, and with textbook training."""
    summary, target = estimates.of(OWN), loss_text(estimates.targets[OWN].loss)
    others = summary[(summary["method"] != REFERENCE) & ~summary["untested"]].sort_values(["seconds", "label"])
    if others.empty:
        return _untested(summary)
    own = summary[summary["method"] == REFERENCE].iloc[0]
    missed = others[np.isinf(others["seconds"])]
    best = others.iloc[0]
    itself = f"Global OHO itself is at {target} for good after {own['seconds']:.3g} counted seconds (median)."
    if np.isfinite(best["seconds"]):
        order = "before" if best["seconds"] < own["seconds"] else "after"
        trials = "a single trial" if best["trials"] == 1 else f"{best['trials']:.3g} trials"
        quickest = (
            f"The quickest of {plural(len(others), 'other method')}, {best['label']}, reaches a validation loss of "
            f"{target}, Global OHO's median, after {best['seconds']:.3g} counted seconds and {trials}, {order} Global OHO."
        )
    else:
        quickest = f"No other method reaches a validation loss of {target}, Global OHO's median, in half of its runs."
    sentences = [quickest, itself]
    if len(missed):
        sentences.append(f"{len(missed)} of {len(others)} other methods miss it in more than half of their runs.")
    return [*sentences, *_untested(summary), *_beside_textbook(estimates)]


def _untested(summary: pd.DataFrame) -> list[str]:
    """Names searches of which nothing can be said."""
    labels = list(summary.loc[summary["untested"], "label"])
    return [f"Not tested, as they made {RULE}: {listed(labels)}."] if labels else []


def _beside_textbook(estimates: Estimates) -> list[str]:
    """Says which other methods reach the best textbook training before it does itself."""
    if TEXTBOOK not in estimates.targets:
        return ["No training with nothing drawn or searched for was run beside them."]
    target, rows = estimates.targets[TEXTBOOK], estimates.of(TEXTBOOK)
    own = rows.loc[rows["label"] == target.label, "seconds"].iloc[0]
    others = rows[(rows["label"] != target.label) & ~rows["untested"]]
    sooner = others[others["seconds"] < own].sort_values(["seconds", "label"])
    what = f"{target.label}, the best textbook training, which ends at {loss_text(target.loss)} ({own:.3g} counted seconds)"
    if sooner.empty:
        return [f"No method is sooner as good as {what}."]
    verb = "is" if len(sooner) == 1 else "are"
    return [f"{listed(list(sooner['label']))} {verb} sooner as good as {what}."]


def published_rows(estimates: Estimates) -> list[list[str]]:
    """Returns a table's header and rows: ours, and beside it the published values where there are any."""
    summary = estimates.of(estimates.main)
    columns = {"trials": "Trials", "seconds": "Counted seconds"}
    paper = {"published_trials": "Published trials", "published_hours": "Published hours"}
    paper = paper if summary[list(paper)].notna().any(axis=None) else {}
    to_textbook = estimates.of(TEXTBOOK).set_index("label")["seconds"]
    more = [] if to_textbook.empty or estimates.main == TEXTBOOK else ["Seconds to textbook"]
    rows = [["Method", *columns.values(), *more, *paper.values()]]
    for row in summary.to_dict("records"):
        ours = [_number(row[name]) for name in columns] + [_number(to_textbook[row["label"]]) for _ in more]
        ours = ["not tested"] * len(ours) if row["untested"] else ours
        theirs = [f"{row[name]:g}" if np.isfinite(row[name]) else "—" for name in paper]
        rows.append([row["label"], *ours, *theirs])
    return _shortened(rows)


def _shortened(rows: list[list[str]]) -> list[list[str]]:
    """Returns the rows with those of methods that reach nothing, where they are many, put together in a last one."""
    missed = [row for row in rows if all(cell in (MISSED, "—") for cell in row[1:])]
    if len(missed) <= FEW:
        return rows
    return [*(row for row in rows if row not in missed), [plural(len(missed), "other method"), *missed[0][1:]]]


def _number(value: float) -> str:
    return f"{value:.3g}" if np.isfinite(value) else MISSED


def verdicts(estimates: Estimates) -> list[Verdict]:
    """Decides whether each search over a training of the paper's needs longer than Global OHO."""
    if OWN not in estimates.targets:
        return [not_tested("Global OHO was not run, or returns the untrained model")]
    summary = estimates.of(OWN)
    own = summary[summary["method"] == REFERENCE].iloc[0]
    searches = summary[summary["is_papers_search"]]
    tested, untested = searches[~searches["untested"]], searches.loc[searches["untested"], "label"]
    theirs = [Measured.of(row["label"], row, "seconds", "seconds_") for _, row in tested.iterrows()]
    ours = Measured.of(own["label"], own, "seconds", "seconds_")
    verdict = below(ours, theirs, missing="no search over a training of the paper's, with enough trials, was")
    if verdict.outcome is Outcome.REPRODUCED and len(untested):
        return [not_tested(f"{listed(list(untested))} made {RULE}")]
    return [verdict]
