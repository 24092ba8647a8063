"""Figure 2 of the paper: what a search spends until it is as good as Global OHO, and as the best textbook training."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from reports import style
from reports.claims import Measured, Outcome, Verdict, below, not_tested
from reports.estimates import about, untrained_sentences
from reports.final_values import final_values, outside_sentence
from reports.plain_steps import second_axis, seconds_per_step
from reports.reaching import OWN, REFERENCE, TEXTBOOK, Estimates, grouped, reached, summary_row, targets_of
from reports.reaching_lines import FEW, draw_dots, lines_of, looks_of_lines, lost_methods
from reports.selection import comparable, require_own_seconds
from reports.strips import ROOM
from reports.tables import Tables
from reports.targets import Target
from reports.untested import RULE
from reports.words import each_of, listed, loss_text, plural, spread

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
MISSED = "not reached"
SHORT = 14
"""Letters of a target's name that fit beside the rest of a panel's title."""


def estimate(tables: Tables) -> Estimates:
    """Returns trials and counted seconds of each method to the validation losses of Global OHO and of textbook training."""
    runs = comparable(tables.runs)
    require_own_seconds(runs)
    targets = targets_of(runs)
    per_step = seconds_per_step(runs)
    data = reached(tables, runs, targets, per_step)
    groups = data.groupby(["label", "target"], sort=False)
    summary = pd.DataFrame([summary_row(label, target, group) for (label, target), group in groups])
    summary = summary.merge(grouped(tables, runs), on="label").sort_values("place", kind="stable", ignore_index=True)
    ends = outside_sentence(final_values(tables, runs))
    return Estimates(data, summary, targets, about(runs), ends, per_step)


def draw(estimates: Estimates) -> Figure:
    """Draws counted seconds to each target, a line for each method, with trials and runs that reached it beside it."""
    lines, looks = lines_of(estimates), looks_of_lines(estimates)
    names = list(estimates.targets)
    height = 1.05 + (0.4 if estimates.seconds_per_step else 0.0) + ROOM * max(len(lines), 3)
    figure, panels = style.panels(1, len(names), height=height, sharey=True, squeeze=False)
    letters = ("A  ", "B  ") if len(names) > 1 else ("",)
    for letter, axes, name in zip(letters, panels.flat, names, strict=True):
        own = {row["label"]: row for row in estimates.of(name).to_dict("records")}
        draw_dots(axes, [line if isinstance(line, str) else {**line, **own[line["label"]]} for line in lines], looks)
        second_axis(axes, estimates.seconds_per_step and 1 / estimates.seconds_per_step, "the same in plain steps")
        target = estimates.targets[name].label
        break_or_space = "\n" if len(names) > 1 or len(target) > SHORT else " "  # two panels have little room
        axes.set_title(f"{letter}As good as{break_or_space}{target}", loc="left")
        axes.set_xlabel(f"Counted seconds to a\nvalidation loss of {loss_text(estimates.targets[name].loss)}")
    for axes in panels.flat if style.in_column() else panels.flat[:1]:
        axes.set_yticks(range(len(lines)), [line if isinstance(line, str) else line["bar"] for line in lines])
        for label, line in zip(axes.get_yticklabels(), lines, strict=True):
            label.set_fontweight("bold" if isinstance(line, str) else "normal")
        axes.set_ylim(len(lines) - 0.4, -0.6)
    style.stamp(figure, estimates.about.stamp)
    return figure


def caption(estimates: Estimates) -> str:
    """Says what the figure shows, with n, budget and device."""
    runs = estimates.of(estimates.main)["n"]
    ranges = spread(runs.min(), runs.max())
    points = f"medians over {each_of(runs, 'seed')} and lines {ranges}" if ranges else "single runs"
    what = "the median" if ranges else "that"
    first, *others = (f"{loss_text(target.loss)}, {what} of {_who(name, target)} at the end of its budget"
                      for name, target in estimates.targets.items())  # fmt: skip
    letter, more = ("A: c", f"; B: at most {others[0]}") if others else ("C", "")
    lost = lost_methods(estimates)
    last = f"; the last line stands for {len(lost)} methods none of whose runs reached any target" if lost else ""
    return (
        f"{letter}ounted seconds until the selected model's validation loss is at most {first}{more}. Points are {points}; "
        f"an open triangle at the edge: {'more than half of the runs' if ranges else 'the run'} missed the target; beside "
        f"it, {'median ' if ranges else ''}trials and runs that reached it{last}. In colour, "
        "OHO, the quickest method and those that set a target. "
        f"{estimates.about.setting}"
    )


def _who(name: str, target: Target) -> str:
    """Returns the method that sets a target, in words."""
    return target.label if name == OWN else f"{target.label}, textbook training,"


def findings(estimates: Estimates) -> list[str]:
    """Compares the quickest other method with Global OHO, counts misses, and says who is as good as textbook training."""
    summary = estimates.of(estimates.main)
    most = int(summary["n"].max())
    if estimates.main == OWN:
        sentences = _beside_own(estimates)
    else:
        missed = int((np.isinf(summary["seconds"]) & ~summary["untested"]).sum())
        misses = _missing(missed, plural(len(summary), "method"), most)
        sentences = [*_beside_textbook(estimates), *misses, *_untested(summary)]
    ends = filter(None, [estimates.ends])
    return [*sentences, *untrained_sentences(list(summary.loc[summary["untrained"], "label"]), most=most), *ends]


def _missing(missed: int, of_all: str, most: int) -> list[str]:
    """Says how many methods, of which none has more than `most` runs, miss the target; no sentence where none does."""
    verb, whose = ("misses", "its") if missed == 1 else ("miss", "their")
    often = "" if most == 1 else f" in more than half of {whose} runs"
    return [f"{missed} of {of_all} {verb} it{often}."] if missed else []


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
    sentences = [quickest, itself, *_missing(len(missed), plural(len(others), "other method"), int(summary["n"].max()))]
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
