"""The tables of a dashboard: which method to use at which budget, and which runs ended badly."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd

from bench.records import Status
from bench.records.run_folder import ROUNDING
from reports.curves import held
from reports.dashboard.panels import Table, Text
from reports.estimates import NONE_TRAINED, untrained_sentences
from reports.selection import MEASURED, untrained
from reports.statistics import median
from reports.words import budget_unit, loss_text, plural

FRACTIONS = (0.1, 0.3, 1.0)
"""The parts of the budget at which the best method is named."""
LISTED = 50
"""How many runs the table of failed and disturbed ones names."""
LONGEST_REASON = 200
NOTHING = "–"


def recommendation(runs: pd.DataFrame, labels: Sequence[str]) -> Text:
    """Returns the table of methods, that with the lowest median first; those that return untrained models stand last."""
    measured = runs[runs["status"].isin(MEASURED)]
    entries = []
    for label in labels:
        own = measured[measured["label"] == label]
        losses = own["incumbent_test_loss"].astype(float).fillna(np.inf).to_numpy()
        if len(losses):
            entries.append((untrained(own), float(median(losses)), label, own["family"].iloc[0], losses))
    entries.sort(key=lambda entry: entry[:2])
    rows = [
        (label, family, str(len(losses)), loss_text(middle), f"{loss_text(losses.min())} to {loss_text(losses.max())}")
        for _, middle, label, family, losses in entries
    ]
    last = [label for is_untrained, _, label, *_ in entries if is_untrained]
    if len(last) == len(entries):
        sentence = NONE_TRAINED
    else:
        sentence = " ".join((
            "The method with the lowest median test loss of the selected model stands first.", *untrained_sentences(last),
        ))  # fmt: skip
    return Text("Recommendation", sentence, Table(("Method", "Family", "Runs", "Median test loss", "Range"), tuple(rows)))


def best_by_budget(runs: pd.DataFrame, incumbents: pd.DataFrame) -> Text:
    """Returns the table of the method with the lowest median test loss after a part of the budget, and after all of it."""
    unit = budget_unit(str(runs["unit"].iloc[0]))
    known = dict(iter(incumbents.groupby("run")))
    rows = []
    for fraction in FRACTIONS:
        medians = dict(_medians(runs, known, fraction))
        finite = {label: value for label, value in medians.items() if np.isfinite(value)}
        budget = f"{fraction * float(runs['budget'].max()):.3g} {unit}"
        best = min(finite, key=lambda label: finite[label]) if finite else NOTHING
        rows.append((budget, best, loss_text(finite[best]) if finite else NOTHING))
    sentence = "What each method would have returned at a smaller budget is read off its records."
    return Text("Best by budget", sentence, Table(("Budget", "Method", "Median test loss"), tuple(rows)))


def _medians(runs: pd.DataFrame, known: dict[str, pd.DataFrame], fraction: float) -> Iterator[tuple[str, float]]:
    """Yields each method's median; a schedule that spans the budget is known at its own budget alone."""
    for label, own in runs[runs["status"].isin(MEASURED)].groupby("label", sort=False):
        if fraction == 1 or not own["spans_budget"].any():
            losses = [_selected(known.get(run), fraction * budget) for run, budget in own[["run", "budget"]].to_numpy()]
            yield str(label), float(median(np.array(losses)))


def _selected(incumbents: pd.DataFrame | None, used: float) -> float:
    """Returns the test loss of the last model selected by then; infinite if there is none or none that was trained."""
    if incumbents is None:
        return np.inf
    moments, loss, step = (incumbents[name].to_numpy(float) for name in ("used", "test_loss", "step"))
    budget = np.array([used * (1 + ROUNDING)])
    last = held(moments, loss, budget, before=np.inf).item()
    return np.inf if held(moments, step, budget, before=np.nan).item() == 0 or np.isnan(last) else last


def troubles(runs: pd.DataFrame) -> Text | None:
    """Returns the table of runs that failed, diverged or were disturbed; None where there are none."""
    rows = [
        (row.label, f"{row.seed:g}", str(row.status).replace("_", " "), reason, row.run)
        for row in runs.itertuples()
        if (reason := _reason(row))
    ]
    if not rows:
        return None
    more = f" The first {LISTED} are listed." if len(rows) > LISTED else ""
    sentence = f"{plural(len(rows), 'run')} of {len(runs)} failed, diverged or had a disturbed clock.{more}"
    header = ("Method", "Seed", "Status", "What happened", "Run")
    return Text("Runs that failed or were disturbed", sentence, Table(header, tuple(rows[:LISTED])))


def _reason(row: object) -> str:
    """Returns what happened to a run; empty where nothing did."""
    status, said, disturbed = (getattr(row, name) for name in ("status", "last_line", "disturbed_because"))
    if status in (Status.FAILED, Status.DIVERGED):
        return str(said)[:LONGEST_REASON] or str(status)
    return str(disturbed)[:LONGEST_REASON] if isinstance(disturbed, str) and disturbed else ""
