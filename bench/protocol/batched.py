"""Trainings of one kind as one batch: what a method has to offer so that the runner can make many of its runs at once.

Each member keeps its own `State`, which between two calls of `advance` is what the method alone would have made of it, to
rounding.  So the runner records, validates, kicks, saves and ends members as if they were alone, and makes a new batch of
those that are left.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor

from bench.protocol.ledger import Ledger
from bench.protocol.stacked import Stacked
from bench.protocol.state import State
from bench.protocol.task import Task
from bench.protocol.training import JUDGED_EVERY, keep_if_best, select, steps_to_validation

ProgressAfter = Callable[[int], float]
"""Returns the fraction of the budget that is used after so many further steps."""


class Batched(Protocol):
    """Several trainings, which have made equally many steps."""

    def advance(self, *, steps: int, progress: ProgressAfter, ledger: Ledger) -> None:
        """Makes at most `steps` further updates of every member, as `Method.advance` does of one.

        `progress(made)` is the fraction of the budget used before the update that follows `made` others of this call.
        Returns right after a validation, and as soon as a member has diverged.
        """
        ...


@dataclass(frozen=True)
class Batching:
    """How trainings of a method become one batch.

    `alike(options)` returns what two trainings must share, besides task and budget, to be members of one batch, or raises
    CannotStackError with the reason why there is no batch for these options.  If a method repeats another one, its option
    `over` is None there, and the other one's batching is asked as well; `repeats` says of which there are batches.
    `build(states, stacked)` returns the batch of some states and of their stacked models; it may replace parts of a state
    by views that show and save the same.  If making states takes trainings, `prepare(methods, tasks, seeds)` makes those of
    all members together.  `captures` says whether the batch makes its steps as a graph where the task's engine is one.
    """

    build: Callable[[Sequence[Any], Stacked], Batched]
    alike: Callable[[Any], Mapping[str, Any]]
    repeats: Callable[[Batching], bool] = lambda batching: True
    prepare: Callable[[Sequence[Any], Sequence[Task], Sequence[int]], None] | None = None
    captures: bool = False


def train_together(
    states: Sequence[State], stacked: Stacked, steps: int, ledger: Ledger, *, update: Callable[[int], Tensor],
    settle: Callable[[], None] = lambda: None,
) -> None:  # fmt: skip
    """Makes at most `steps` updates of all states, none beyond the end of a selection period or training, as `train` does.

    `update(made)` makes the update that follows `made` others of this call, and returns the training losses (M,); `settle`
    is called after the last one, before the models are evaluated.  Members are validated together.

    Raises:
        ValueError: for a task with a selection period in seconds, which are each run's own.
    """
    if any(state.task.selection_seconds is not None for state in states):
        raise ValueError("train_together: selection_seconds is set; allowed is a selection period in steps")
    begun, worlds = [state.trial_step for state in states], [state.task.world for state in states]
    left = [steps_to_validation(state) for state in states]
    steps = int(min(steps, *left))
    due = [index for index, each in enumerate(left) if each == steps]
    for made in range(1, steps + 1):
        losses = update(made - 1)
        for world in worlds:
            world.step += 1
        judged = [
            index for index, step in enumerate(begun)
            if (step + made) % JUDGED_EVERY == 0 or (made == steps and index in due)
        ]  # fmt: skip
        if judged and _diverge(states, judged, losses.tolist()):
            break
    for state, loss in zip(states, losses.tolist(), strict=True):
        state.step += made
        state.trial_step += made
        state.train_loss = loss
    settle()
    if due and made == steps:
        with ledger.account("selection"):
            _select([states[index] for index in due], stacked)


def _diverge(states: Sequence[State], judged: Sequence[int], losses: Sequence[float]) -> bool:
    """Notes which of the judged states have diverged, and returns whether any has."""
    for index in judged:
        states[index].diverged = not math.isfinite(losses[index])
    return any(states[index].diverged for index in judged)


def _select(states: Sequence[State], stacked: Stacked) -> None:
    """Does what `select` does for all of these states that have not diverged, together if they are all members."""
    if len(states) < len(stacked.models):
        for state in states:
            if not state.diverged:
                select(state)
        return
    splits, world = [state.task.validation for state in states], states[0].task.world
    found = stacked.evaluate(splits)
    if world.drifts:
        with stacked.holding([state.selected_weights() for state in states]):
            anew = stacked.evaluate(splits)
        for state, now in zip(states, anew, strict=True):
            if state.incumbent and not state.diverged:
                state.incumbent = state.incumbent.at(now.loss, world.step)
    for state, validation in zip(states, found, strict=True):
        if not state.diverged:
            keep_if_best(state, validation.loss)
