"""Warns of budgets that end before a method has selected anything, so that all its runs return the untrained model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from bench.experiment.plugins import entry_of
from bench.experiment.schema import Budget
from bench.experiment.spec import Spec, options_in
from bench.experiment.tasks import TaskRead
from bench.records.durations import amount_of
from bench.records.names import shown

LISTED = 5
"""How many methods a line names."""


def too_short(task: TaskRead, budget: Budget, methods: Sequence[Spec]) -> Iterator[str]:
    """Yields a line for the methods whose first selection, at the same step, comes after a budget in steps or epochs ends.

    A budget of plain steps holds no more steps than it names.  When a timed run first selects is only known at its end, so
    the run itself warns, and so it does where the period is one of counted time.
    """
    if budget.unit == "seconds" or task.options.selection_every:
        return
    steps = budget.amount * (task.steps_per_epoch if budget.unit == "epochs" else 1)
    labels: dict[int, list[str]] = {}
    for method in methods:
        labels.setdefault(first_selection(task, method), []).append(method["label"])
    amount = amount_of(budget.amount, budget.unit)
    for first, those in labels.items():
        if first > steps + 1e-9:
            length = amount_of(first / task.steps_per_epoch, "epochs")
            yield (
                f"{_listed(those)} the untrained model in every run: the budget of {amount} ends"
                f" before the first selection, after {first:,} steps ({length})"
            )


def first_selection(task: TaskRead, method: Spec) -> int:
    """Returns the step at which a method first validates a model that it may return."""
    options = entry_of("method", method).options.model_validate(options_in(method))
    epochs = options.validates_after_epochs
    return min(task.selection_period, task.selection_period if epochs is None else epochs * task.steps_per_epoch)


def _listed(labels: Sequence[str]) -> str:
    """Returns the subject and verb of the sentence; of many methods, it names the first."""
    names = [repr(label) for label in shown(labels).values()]
    if len(names) == 1:
        return f"{names[0]} returns"
    *most, last = names if len(names) <= LISTED else [*names[: LISTED - 1], f"{len(names) - LISTED + 1} more"]
    return f"{', '.join(most)} and {last} return"
