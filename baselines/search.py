"""Search by restarting: trials of a training method one after another until the budget ends."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Self

from pydantic import Field

from baselines.pruners import PRUNERS, Pruner
from baselines.searchers import SEARCHERS, Point, Searcher
from baselines.training import Training, TrainingState
from bench.protocol import Incumbent, Ledger, Options, State, Task, Trial, select


class SearchOptions(Options):
    """`over` is the method each trial trains: what it leaves open is searched.  A trial lasts `trial_epochs`; null is a
    number of epochs that is searched too.  A `pruner` ends trials early, after a validation."""

    over: Any
    trial_epochs: int | None = Field(default=10, ge=1)
    pruner: Literal["none", "median", "successive-halving", "hyperband"] = "none"

    def values(self) -> dict[str, float | None]:
        """What a search over trials may search beside them."""
        return {"trial_epochs": self.trial_epochs}

    def replace(self, values: Mapping[str, float]) -> Self:
        """The same with other values."""
        return self.model_copy(update=values)


@dataclass
class SearchState(State):
    """The trial in progress.  All a searcher and a pruner know is in `trials`, `point` and the trial's curve."""

    searcher: Searcher = None  # type: ignore[assignment]
    pruner: Pruner | None = None
    point: Point = field(default_factory=dict)
    inner: TrainingState = None  # type: ignore[assignment]


class Search:
    """Asks for a point, trains it, asks again with what became of it."""

    spans_budget = False
    """A schedule spans the trial."""

    def __init__(self, options: SearchOptions, over: Training, searcher: str):
        self.options, self.over, self.space = options, over, over.space
        self._make: Callable[..., Searcher] = SEARCHERS[searcher]
        self._make(self.space, self.open, 0)  # a space it cannot search is told before anything runs

    @property
    def open(self) -> list[str]:
        """What is searched."""
        return [*self.over.open, *(["trial_epochs"] if self.options.trial_epochs is None else [])]

    def init(self, task: Task, seed: int) -> SearchState:
        """The state before the first trial's first step; proposing it is part of the set-up."""
        state = SearchState(task, seed, model=None, hyper={})  # type: ignore[arg-type]
        state.searcher = self._make(self.space, self.open, seed)
        if self.options.pruner != "none":
            state.pruner = PRUNERS[self.options.pruner](self._longest(task) // task.selection_period, seed)
        self._open_trial(state)
        return state

    def advance(self, state: SearchState, *, steps: int, progress: float, ledger: Ledger) -> SearchState:
        """Updates of the present trial; where it ends, the next is proposed on the account `search`."""
        inner, seen, before = state.inner, len(state.inner.curve), state.inner.step
        assert inner.length is not None
        steps = min(steps, inner.length - inner.trial_step)
        self.over.advance(inner, steps=steps, progress=progress, ledger=ledger)
        state.step += inner.step - before
        if inner.trial_step >= inner.length and len(inner.curve) == seen:
            with ledger.account("selection"):
                inner.curve.append(select(inner))
        self._mirror(state)
        ending = self._ending(state, ledger, validated=len(inner.curve) > seen)
        if ending:
            self._close_trial(state, ending)
            with ledger.account("search"):
                self._open_trial(state)
        return state

    def finish(self, state: SearchState) -> None:
        """The trial in progress is cut."""
        if state.trial_step:
            self._close_trial(state, "cut")

    def incumbent(self, state: SearchState) -> Incumbent | None:
        """The best validated model of all trials."""
        return state.incumbent

    def scalars(self, state: SearchState) -> dict[str, float]:
        """The number of trials ended."""
        return {"trials": float(len(state.trials))}

    def _ending(self, state: SearchState, ledger: Ledger, *, validated: bool) -> str:
        """How the trial in progress ends here; empty if it goes on."""
        if state.inner.diverged:
            return "diverged"
        if state.inner.trial_step == state.inner.length:
            return "finished"
        if state.pruner is not None and validated:
            with ledger.account("search"):
                return "pruned" if state.pruner.prunes(state.trials, state.inner.curve) else ""
        return ""

    def _open_trial(self, state: SearchState) -> None:
        state.trial = len(state.trials)
        state.point = state.searcher.propose(state.trials)
        epochs = self.options.trial_epochs or round(state.point["trial_epochs"])
        drawn = {name: value for name, value in state.point.items() if name != "trial_epochs"}
        state.inner = self.over.start(state.task, state.seed, drawn, state.trial)
        state.inner.length = epochs * state.task.steps_per_epoch
        self._mirror(state)

    def _close_trial(self, state: SearchState, status: str) -> None:
        best = state.inner.incumbent
        loss = best.validation_loss if best else math.inf
        state.trials.append(Trial(dict(state.point), loss, state.trial_step, status, tuple(state.inner.curve)))

    def _longest(self, task: Task) -> int:
        """Steps of the longest trial there can be."""
        epochs = self.options.trial_epochs or round(self.space.hyperparameters["trial_epochs"].high)
        return epochs * task.steps_per_epoch

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
