"""What OHO's methods tune of a task's training loss."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor, nn

import oho
from bench.protocol import Batch, ReplayedNoise, Task, not_offered

Closure = Callable[..., Tensor]


def training_closure(task: Task, model: nn.Module, batch: Batch) -> Closure:
    """Returns the training loss of a batch as a function of nothing or, if it has any, of its hyperparameters' values."""
    return lambda *hyper: task.training_loss(model, batch, *hyper)


def replayed_loss(task: Task, model: nn.Module, noise: ReplayedNoise) -> Closure:
    """Returns the training loss of a batch's inputs and targets, as a graph repeats it."""
    return lambda inputs, targets, *hyper: task.training_loss(model, Batch(inputs, targets, noise), *hyper)


def loss_hyper(task: Task, names: Sequence[str]) -> oho.LossHyper | None:
    """Returns hyperparameters of the task's training loss at their initial values, or None where there are no names.

    Raises:
        ValueError: for a name that the task does not offer.
    """
    if refusal := not_offered(task.tunable, names):
        raise ValueError(f"tune_loss: {task.name} {refusal}")
    chosen = [each for each in task.tunable if each.name in names]
    values: dict[str, Any] = {each.name: each.initial for each in chosen}
    return oho.LossHyper(bounds={each.name: each.bounds for each in chosen}, **values) if chosen else None
