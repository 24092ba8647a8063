"""Search by restarting: trials of a training method one after another until the budget ends."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from pydantic import Field

from baselines.searchers import SEARCHERS, Point, Searcher
from baselines.training import Training, TrainingState
from bench.protocol import Incumbent, Ledger, Options, Space, State, Task, Trial, select


class SearchOptions(Options):
    """`over` is the method each trial trains, its open options being what is searched; a trial lasts `trial_epochs`."""

    over: Any
    trial_epochs: int = Field(default=10, ge=1)


@dataclass
class SearchState(State):
    """The trial in progress, and what the searcher has learned."""

    searcher: Searcher = None  # type: ignore[assignment]
    point: Point = field(default_factory=dict)
    inner: TrainingState = None  # type: ignore[assignment]


class Search:
    """Asks for a point, trains it, tells its best validation loss, asks again."""

    def __init__(self, options: SearchOptions, over: Training, space: Space, searcher: str):
        self.options, self.over, self.space = options, over, space
        self._make: Callable[..., Searcher] = SEARCHERS[searcher]

    def init(self, task: Task, seed: int) -> SearchState:
        """The state before the first trial's first step; proposing it is part of the set-up."""
        tuned = self.over.options.tuned
        names = [name for name in tuned if getattr(self.over.options, name) is None]
        state = SearchState(task, seed, model=None, hyper={})  # type: ignore[arg-type]
        state.searcher = self._make(self.space, names, seed)
        self._open_trial(state, incumbent=None)
        return state

    def advance(self, state: SearchState, *, steps: int, progress: float, ledger: Ledger) -> SearchState:
        """Updates of the present trial; where it ends, the next is proposed on the account `search`."""
        length = self.options.trial_epochs * state.task.steps_per_epoch
        steps = min(steps, length - state.trial_step)
        before = state.inner.step
        self.over.advance(state.inner, steps=steps, progress=state.trial_step / length, ledger=ledger)
        state.step += state.inner.step - before
        self._mirror(state)
        if state.inner.diverged or state.trial_step >= length:
            if state.trial_step % state.task.selection_period:
                with ledger.account("selection"):
                    select(state.inner)
            self._close_trial(state, "diverged" if state.inner.diverged else "finished")
            with ledger.account("search"):
                state.searcher.tell(state.point, state.trials[-1].validation_loss)
                self._open_trial(state, state.incumbent)
        return state

    def finish(self, state: SearchState) -> None:
        """Validates the trial where the budget cut it."""
        if state.trial_step:
            select(state.inner)
            self._close_trial(state, "cut")

    def incumbent(self, state: SearchState) -> Incumbent | None:
        """The best validated model of all trials."""
        return state.incumbent

    def scalars(self, state: SearchState) -> dict[str, float]:
        """The number of trials ended."""
        return {"trials": float(len(state.trials))}

    def _open_trial(self, state: SearchState, incumbent: Incumbent | None) -> None:
        state.trial = len(state.trials)
        state.point = state.searcher.ask()
        state.inner = self.over.start(state.task, state.seed, state.point, state.trial)
        self._mirror(state)

    def _close_trial(self, state: SearchState, status: str) -> None:
        self._mirror(state)
        best = state.inner.incumbent
        loss = best.validation_loss if best else math.inf
        state.trials.append(Trial(dict(state.point), loss, state.trial_step, status))

    def _mirror(self, state: SearchState) -> None:
        """The run's view of the trial: its model, step, hyperparameters, and the better of both incumbents."""
        inner = state.inner
        state.model, state.hyper, state.trial_step, state.train_loss = (
            inner.model, inner.hyper, inner.trial_step, inner.train_loss,
        )  # fmt: skip
        best, known = inner.incumbent, state.incumbent
        if best and (known is None or best.validation_loss < known.validation_loss):
            offset = state.step - inner.step
            state.incumbent = Incumbent(best.validation_loss, best.weights, best.step + offset, state.trial)
