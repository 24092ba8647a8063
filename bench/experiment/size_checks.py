"""Sizes that a data set cannot serve, told with the configuration: it is known how many examples each data set has."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from bench.experiment.shocks import Shock
from bench.experiment.yaml_file import Key
from bench.tasks.data_sets import DataSet
from bench.tasks.task_registry import TaskOptions

Misfit = tuple[Key, str]
"""A key of the configuration, and what is wrong with it."""


def misfits(name: str, data: DataSet, options: TaskOptions, methods: Sequence[Mapping[str, Any]]) -> Iterator[Misfit]:
    """Splits and batches that are larger than what they are taken from."""
    whole = data.training_examples
    held, trained = options.validation_size, whole - options.validation_size
    if trained < 1:
        yield _at_most(("task", "validation_size"), held, whole - 1, f"{name} has {whole:,} training examples")
    if options.batch_size > trained:
        yield _at_most(("task", "batch_size"), options.batch_size, trained, "examples that are left for training")
    sizes: list[tuple[Key, int | None]] = [(("task", "validation_batch_size"), options.validation_batch_size)]
    for place, method in enumerate(methods):
        sizes.append((("methods", place, "validation_batch_size"), method.get("validation_batch_size")))
        over = method.get("over") or {}
        sizes.append((("methods", place, "over", "validation_batch_size"), over.get("validation_batch_size")))
    for key, size in sizes:
        if size is not None and size > held:
            yield _at_most(key, size, held, "examples that are held out for validation")


def late_events(unit: str, amount: float, shocks: Sequence[Shock], data: DataSet, options: TaskOptions) -> Iterator[Misfit]:
    """Events of shocks before which a budget in epochs or steps ends."""
    per_epoch = options.steps_per_epoch(data.training_examples - options.validation_size)
    steps = {"epochs": amount * per_epoch, "steps": amount}.get(unit, math.inf)
    for place, shock in enumerate(shocks):
        for number, event in enumerate(shock.events):
            if event.step(per_epoch) >= steps:
                given = f"{event.epoch:g} (budget: {amount:g} {unit}, and an epoch has {per_epoch} steps)"
                yield ("shocks", place, "events", number, "epoch"), f"epoch: must be within the budget (given {given})"


def _at_most(key: Key, given: int, most: int, reason: str) -> Misfit:
    return key, f"{key[-1]}: at most {most:,} is allowed, {reason} (given {given:,})"
