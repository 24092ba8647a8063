"""What each method would have returned at a smaller budget, read off the records of a larger one.

A method does not know when its budget ends (but where a schedule spans the budget), and every model it selects is recorded
with the moment it was found and its losses.  So the last one found within a smaller budget is what a run of that budget
would have returned.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from bench.records import ReportError, Run, experiments_in, read_run, result_at
from bench.records.archive import results_folder
from bench.records.durations import amount_of
from bench.records.labels import PlanLabels
from bench.records.names import shown
from reports.selection import untrained
from reports.statistics import median_of
from reports.words import budget_unit, within

MOMENTS = 1_000
UNKNOWN, UNTRAINED = "unknown", "untrained"
COLUMNS = [
    "experiment", "label", "seed", "budget", "unit", "invalid_because", "replayed", "trial", "selected_step",
    "validation_loss", "test_loss", "test_error",
]  # fmt: skip


def at_budgets(results: Path, budget: float, period: float | None = None, *, experiment: str | None = None) -> pd.DataFrame:
    """Returns a row for each run and each multiple of `period` below `budget`, and for the budget.

    `experiment` names one of those in the folder, whose runs alone are meant.  Losses are NaN where a run cannot be
    replayed, since its schedule spans its budget.  Raises `ReportError` where no run has so large a budget.
    """
    if not budget > 0:
        raise ReportError(f"--budget {budget:g}: a number above 0 is expected, in the runs' own unit")
    if period is not None and not budget / MOMENTS <= period <= budget:
        raise ReportError(f"--period {period:g}: from a {MOMENTS}th of the budget up to it, {budget:g}, is expected")
    multiples = [] if period is None else [round(period * (n + 1), 9) for n in range(int(budget / period - 1e-9))]
    moments = [*multiples, budget]
    with results_folder(results) as folder:
        runs = list(_measured(folder))
    if not runs:
        raise ReportError(f"{results}: no run has been measured yet; there is nothing to replay")
    names = sorted({name for name, _ in runs})
    if experiment is not None and experiment not in names:
        raise ReportError(f"--experiment {experiment}: has no measured run in {results}; allowed: {', '.join(names)}")
    runs = [(name, run) for name, run in runs if experiment in (None, name)]
    units = sorted({run.spec["budget"]["unit"] for _, run in runs})
    if len(units) > 1:
        told = f"budgets in {' and in '.join(units)}, where replay needs one unit"
        raise ReportError(f"{results}: {told}; choose with --experiment: {', '.join(names)}")
    largest = max(run.spec["budget"]["amount"] for _, run in runs)
    if budget > largest:
        raise ReportError(f"--budget {budget:g}: the largest budget in {results} is {amount_of(largest, units[0])}")
    rows = [_row(name, run, moment) for name, run in runs for moment in moments if moment <= run.spec["budget"]["amount"]]
    return pd.DataFrame(rows, columns=COLUMNS)


def describe(table: pd.DataFrame) -> str:
    """Returns a block of text for each experiment: medians over seeds, by method and budget."""
    return "\n\n".join(_block(str(name), group) for name, group in table.groupby("experiment", sort=True))


def _measured(results: Path) -> Iterator[tuple[str, Run]]:
    protocols = set()
    for manifest in experiments_in(results):
        labels = PlanLabels(manifest.config)
        for identity in manifest.runs:
            if (results / identity / "outcome.json").exists():
                run = read_run(results / identity)
                if run.outcome is not None and run.outcome.status.is_result:
                    protocols.add(run.outcome.protocol)
                    if len(protocols) > 1:
                        raise ReportError(f"{results}: runs of protocols {sorted(protocols)} cannot be compared")
                    yield manifest.experiment, replace(run, spec=labels.given_to(run.spec))


def _row(experiment: str, run: Run, budget: float) -> list:
    found, spec = result_at(run, budget), run.spec
    values = [np.nan if found is None or found[name] is None else found[name] for name in COLUMNS[-3:]]
    place = [found["trial"], found["step"]] if found else [None, None]
    head = [experiment, spec["method"]["label"], spec["seed"], spec["budget"]["amount"], spec["budget"]["unit"]]
    void = "; ".join(run.outcome.invalid_because) if run.outcome else ""
    return [*head, void, budget, *place, *values]


def _block(experiment: str, group: pd.DataFrame) -> str:
    unit = budget_unit(group["unit"].iloc[0])
    budgets = sorted(group["replayed"].unique())
    labels = shown(group["label"])
    width = max(map(len, labels.values()))
    cells = {label: [_cell(group, label, budget, len(budgets)) for budget in budgets] for label in labels}
    column = max(len(cell) for row in cells.values() for cell in row) + 2
    lines = [
        f"{experiment}: median test loss of the selected model after so many {unit} of {group['budget'].max():g}",
        " " * width + "".join(f"{budget:>{column}.4g}" for budget in budgets),
    ]
    lines += [f"{name:<{width}}" + "".join(f"{cell:>{column}}" for cell in cells[label]) for label, name in labels.items()]
    runs = group.drop_duplicates(["label", "seed"])
    if void := int((runs["invalid_because"] != "").sum()):
        lines.append(f"in {void} of {len(runs)} runs the clock was disturbed: they are not valid")
    if any(UNKNOWN in cell for row in cells.values() for cell in row):
        lines.append(f"{UNKNOWN}: no model with a finite loss, or a schedule that spans the budget: run it with this one")
    if any(UNTRAINED in row for row in cells.values()):
        lines.append(f"{UNTRAINED}: most of the method's runs had selected no trained model by then")
    return "\n".join(lines)


def _cell(group: pd.DataFrame, label: str, budget: float, columns: int) -> str:
    """Returns the median, with its interval where there is room."""
    runs = group[(group["label"] == label) & (group["replayed"] == budget)]
    losses: Sequence[float] = runs["test_loss"]
    if np.isnan(np.asarray(losses)).all():
        return UNKNOWN
    if untrained(runs):
        return UNTRAINED
    estimate = median_of(losses)
    if columns > 1 or not np.isfinite(estimate.low):
        return f"{estimate.value:.4f}"
    return f"{estimate.value:.4f} {within(f'{estimate.low:.4f}', f'{estimate.high:.4f}', len(losses))} n={len(losses)}"
