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
from bench.protocol.method import JUDGED_EVERY, State, keep_if_best
from bench.protocol.stacked import Stacked
from bench.protocol.task import Task


class Batched(Protocol):
    """Several trainings, which have made equally many steps."""

    def advance(self, *, steps: int, progress: float, ledger: Ledger) -> None:
        """Makes at most `steps` further updates of every member, as `Method.advance` does of one.

        Returns right after a validation, and as soon as a member has diverged.
        """
        ...


@dataclass(frozen=True)
class Batching:
    """How trainings of a method become one batch.

    `alike(options)` returns what two trainings must share, beside task and budget, to be members of one batch, or raises
    CannotStackError with the reason why there is no batch for these options.  If a method repeats another one, its option
    `over` is None there, and the other one's batching is asked as well.  `build(states, stacked)` returns the batch of some
    states and of their stacked models; it may replace parts of a state by views that show and save the same.  If making
    states takes trainings, `prepare(methods, tasks, seeds)` makes those of all members together.
    """

    build: Callable[[Sequence[Any], Stacked], Batched]
    alike: Callable[[Any], Mapping[str, Any]]
    prepare: Callable[[Sequence[Any], Sequence[Task], Sequence[int]], None] | None = None


def train_together(
    states: Sequence[State], stacked: Stacked, steps: int, ledger: Ledger, *, update: Callable[[int], Tensor],
    settle: Callable[[], None] = lambda: None,
) -> None:  # fmt: skip
    """Makes at most `steps` updates of all states, none beyond the end of the selection period, as `train` does of one.

    `update(step)` makes the update that follows `step` others, and returns the training losses (M,); `settle` is called
    after the last one, before the models are evaluated.  Members are validated together.
    """
    first, worlds = states[0], [state.task.world for state in states]
    period, begun = first.task.selection_period, first.trial_step
    steps = min(steps, period - begun % period)
    for made in range(1, steps + 1):
        losses = update(begun + made - 1)
        for world in worlds:
            world.step += 1
        validated = (begun + made) % period == 0
        if validated or (begun + made) % JUDGED_EVERY == 0:
            diverged = [not math.isfinite(loss) for loss in losses.tolist()]
            if any(diverged):
                for state, has in zip(states, diverged, strict=True):
                    state.diverged = has
                break
    for state, loss in zip(states, losses.tolist(), strict=True):
        state.step += made
        state.trial_step += made
        state.train_loss = loss
    settle()
    if validated:
        with ledger.account("selection"):
            _select(states, stacked)


def _select(states: Sequence[State], stacked: Stacked) -> None:
    """Does what `select` does for all states that have not diverged."""
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
