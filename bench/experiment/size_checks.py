"""Finds settings that a task, its data or a budget cannot serve: sizes, periods, shocks, hyperparameters of the loss."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from bench.experiment.methods import options_of
from bench.experiment.schema import Budget
from bench.experiment.shocks import Shock
from bench.experiment.tasks import TaskRead
from bench.experiment.yaml_file import Key
from bench.protocol import not_offered
from bench.records.durations import amount_of
from bench.records.schema import TIMED

Misfit = tuple[Key, str]
"""A key of the configuration, and what is wrong with it."""


def misfits(task: TaskRead, methods: Sequence[Mapping[str, Any]]) -> Iterator[Misfit]:
    """Yields splits and batches that are larger than what they are taken from."""
    options, held, trained = task.options, task.held_out, task.trained
    if trained < 1:
        reason = f"{task.name} has {task.examples:,} training examples"
        yield _at_most(("task", "validation_size"), held, task.examples - 1, reason)
    if options.batch_size > trained:
        yield _at_most(("task", "batch_size"), options.batch_size, trained, "examples that are left for training")
    sizes: list[tuple[Key, Any]] = [(("task", "validation_batch_size"), options.validation_batch_size)]
    for place, method in enumerate(methods):
        sizes.append((("methods", place, "validation_batch_size"), method.get("validation_batch_size")))
        over = method.get("over") or {}
        sizes.append((("methods", place, "over", "validation_batch_size"), over.get("validation_batch_size")))
    for key, size in sizes:
        if isinstance(size, int) and size > held:  # a user's own method may mean anything by the name
            yield _at_most(key, size, held, "examples that are held out for validation")


def untunable(task: TaskRead, methods: Sequence[Mapping[str, Any]]) -> Iterator[Misfit]:
    """Yields names of hyperparameters of the training loss that the task does not offer."""
    for place, method in enumerate(methods):
        parts: list[tuple[Key, Mapping[str, Any] | None]] = [
            (("methods", place), method), (("methods", place, "over"), method.get("over")),
        ]  # fmt: skip
        for key, part in parts:
            if part and (reason := not_offered(task.tunable, options_of(dict(part)).tuned_of_loss)):
                yield (*key, "tune_loss"), f"tune_loss: {task.name} {reason}"


def unfit_periods(task: TaskRead, budget: Budget) -> Iterator[Misfit]:
    """Yields a selection period in counted time whose unit is not the budget's."""
    every = task.options.selection_every
    if every is None or every.unit == budget.unit:
        return
    given = f"(given {every.unit}: {every.amount:g})"
    if budget.unit in TIMED:
        needed = f"the unit of the budget, {budget.unit}, is expected {given}"
    else:
        needed = f"a budget in {every.unit} is needed, and this one is in {budget.unit}; or give selection_epochs {given}"
    yield ("task", "selection_every", every.unit), f"task.selection_every: {needed}"


def late_events(task: TaskRead, budget: Budget, shocks: Sequence[Shock]) -> Iterator[Misfit]:
    """Yields events of shocks that a budget in epochs or steps does not reach."""
    unit, amount, per_epoch = budget.unit, budget.amount, task.steps_per_epoch
    steps = {"epochs": amount * per_epoch, "steps": amount}.get(unit, math.inf)
    for place, shock in enumerate(shocks):
        for number, event in enumerate(shock.events):
            if event.step(per_epoch) >= steps:
                given = f"{event.epoch:g} (budget: {amount_of(amount, unit)}, and an epoch has {per_epoch} steps)"
                yield ("shocks", place, "events", number, "epoch"), f"epoch: must be within the budget (given {given})"


def classless_events(task: TaskRead, shocks: Sequence[Shock]) -> Iterator[Misfit]:
    """Yields events that change classes or images of data that have none."""
    has_classes = task.entry.objective_for(task.options).has_classes
    for place, shock in enumerate(shocks):
        for number, event in enumerate(shock.events):
            for name, needed, has in (("shift_labels", "classes", has_classes), ("label_noise", "classes", has_classes),
                                      ("rotate", "images", task.data.images)):  # fmt: skip
                if getattr(event, name) and not has:
                    yield ("shocks", place, "events", number, name), f"{name}: {task.name} has no {needed}"


def _at_most(key: Key, given: int, most: int, reason: str) -> Misfit:
    return key, f"{key[-1]}: at most {most:,} is allowed, {reason} (given {given:,})"
