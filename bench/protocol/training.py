"""Steps of a training, and the choice of its model on the validation split."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace

from torch import Tensor

from bench.protocol.checkpoints import packed
from bench.protocol.ledger import Ledger
from bench.protocol.state import Incumbent, State

JUDGED_EVERY = 10
"""Steps of a training between checks that its loss is finite; fixed, so that no ending depends on the clock."""


def select(state: State) -> float:
    """Validates the current model on the whole validation split and keeps it if it is the run's best so far.

    Returns the validation loss.  A loss that is not finite never becomes the incumbent's; ties keep the older model.  In a
    world that drifts, the older model is validated again, so that both are judged in the present world.
    """
    (validation,) = state.task.evaluate(state.model, state.task.validation)
    if state.incumbent and state.task.world.drifts:
        state.incumbent = judged_anew(state, state.incumbent)
    keep_if_best(state, validation.loss)
    return validation.loss


def keep_if_best(state: State, loss: float) -> None:
    """Keeps the current model, of this validation loss, if it is the run's best so far: see `select`."""
    world = state.task.world
    state.curve.append(loss)
    state.unselected_seconds = 0.0
    best = state.incumbent.validation_loss if state.incumbent else math.inf
    if loss < best:
        weights = packed(state.model.state_dict())
        state.incumbent = Incumbent(loss, weights, state.step, state.trial, world.step, world.step)


def judged_anew(state: State, incumbent: Incumbent) -> Incumbent:
    """Returns a model selected earlier with its validation loss and batch-norm statistics in the present world.

    A loss that is not finite becomes infinite, so that any model of a finite one is better.
    """
    model = state.task.model(state.seed)  # a copy of the state's could be tied to a graph
    model.load_state_dict(incumbent.weights)
    (validation,) = state.task.evaluate(model, state.task.validation)
    return replace(incumbent.at(validation.loss, state.task.world.step), weights=model.state_dict())


def train(
    state: State, steps: int, ledger: Ledger, *, update: Callable[[], Tensor], settle: Callable[[], None] = lambda: None
) -> None:
    """Makes at most `steps` updates, none beyond the end of the selection period or training, where it validates the model.

    `update` makes one update and returns its training loss; `settle` is called after the last one, before the model is
    evaluated.
    """
    left, timed = steps_to_validation(state), state.task.selection_seconds is not None
    due, begun = state.trial_step + left, ledger.counted() if timed else 0.0
    for _ in range(int(min(steps, left))):
        loss = update()
        state.step += 1
        state.trial_step += 1
        state.task.world.step += 1
        if state.trial_step % JUDGED_EVERY == 0 and not math.isfinite(float(loss)):
            break
    state.train_loss = float(loss)
    is_due = state.trial_step == due or (timed and _is_late(state, ledger.counted() - begun))
    state.diverged = not math.isfinite(state.train_loss) and (is_due or state.trial_step % JUDGED_EVERY == 0)
    settle()
    if is_due and not state.diverged:
        with ledger.account("selection"):
            select(state)


def steps_to_validation(state: State) -> float:
    """Returns the steps until the next validation at a known step: at the end of the selection period or of the training.

    It is infinite if the period is one of counted seconds and the end is not known.
    """
    task, step = state.task, state.trial_step
    left = task.selection_period - step % task.selection_period if task.selection_seconds is None else math.inf
    return left if state.end is None else min(left, state.end - step)


def _is_late(state: State, seconds: float) -> bool:
    """Adds counted seconds to those since the training's last validation, and returns whether the period is over."""
    assert state.task.selection_seconds is not None
    state.unselected_seconds += seconds
    return state.unselected_seconds >= state.task.selection_seconds


def adopt(state: State, inner: State, ledger: Ledger | None = None) -> None:
    """Presents the training in progress as the method's own, and keeps the better of both incumbents.

    In a world that drifts, the known incumbent is validated again, on the ledger's account `selection`, once the training
    has been validated; a loss that was found in an older world than the known one's is not compared.
    """
    state.model, state.hyper, state.train_loss = inner.model, inner.hyper, inner.train_loss
    best, known = inner.incumbent, state.incumbent
    if best and known and state.task.world.drifts:
        if best.judged < known.judged:
            return
        if best.judged > known.judged:
            with ledger.account("selection") if ledger else nullcontext():
                known = state.incumbent = judged_anew(state, known)
    if best and (known is None or best.validation_loss < known.validation_loss):
        step, trial = state.step, state.trial
        if best.judged > best.found:  # an older model, which another one's new loss has made the best
            step, trial = best.found, _trial_at(state, best.found)
        state.incumbent = replace(best, step=step, trial=trial)


def _trial_at(state: State, step: int) -> int:
    """Returns the trial in which the run made its step `step`."""
    ends = itertools.accumulate(trial.steps for trial in state.trials)
    return next((trial for trial, end in enumerate(ends) if step <= end), state.trial)
