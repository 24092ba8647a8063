"""Search by restarting: trials of a training method one after another until the budget ends."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic import Field

from baselines.pruners import PRUNERS, Pruner
from baselines.searchers import SEARCHERS, Point, Searcher
from baselines.training import Training, TrainingState
from bench.protocol import Incumbent, Ledger, Options, State, Task, Trial, adopt


class SearchOptions(Options):
    """`over` is the method each trial trains: what it leaves open is searched.  A trial lasts `trial_epochs`; null is a
    number of epochs that is searched too.  A `pruner` ends trials early, after a validation."""

    over: Any
    trial_epochs: int | None = Field(default=10, ge=1)
    pruner: Literal["none", "median", "successive-halving", "hyperband"] = "none"


@dataclass
class SearchState(State):
    """The trial in progress.  All a searcher and a pruner know is in `trials`, `point` and the trial's curve."""

    searcher: Searcher = None  # type: ignore[assignment]
    pruner: Pruner | None = None
    point: Point = field(default_factory=dict)
    judged: int = 0
    """Validations of the trial in progress that the pruner has seen."""
    inner: TrainingState = None  # type: ignore[assignment]

    @property
    def trainings(self) -> list[TrainingState]:
        """The trial in progress."""
        return [self.inner]


class Search:
    """Asks for a point, trains it, asks again with what became of it.

    A trial is closed where it ends; what costs time, a pruner's verdict and the next proposal, is left to the next call, so
    that a model is found when its validation is over and nothing is proposed after the deadline.
    """

    spans_budget = False
    """A schedule spans the trial."""

    def __init__(self, options: SearchOptions, over: Training, searcher: str):
        self.options, self.over, self.space = options, over, over.space
        self._make: Callable[..., Searcher] = SEARCHERS[searcher]
        self._make(self.space, self.open, 0)  # a space it cannot search is told before anything runs
        if options.trial_epochs is None and not self.space.hyperparameters["trial_epochs"].integer:
            raise ValueError("the law of trial_epochs needs integer: true")

    @property
    def open(self) -> list[str]:
        """What is searched."""
        return [*self.over.open, *(["trial_epochs"] if self.options.trial_epochs is None else [])]

    def init(self, task: Task, seed: int) -> SearchState:
        """The state before the first trial's first step; proposing it is part of the set-up."""
        state = self._closed(task, seed)
        self._open_trial(state)
        return state

    def saved(self, state: SearchState) -> dict[str, Any]:
        """With the trial in progress; searcher and pruner are functions of what is in it."""
        own = {"point": dict(state.point), "judged": state.judged, "inner": self.over.saved(state.inner)}
        return {**state.saved(), **own}

    def restored(self, task: Task, seed: int, saved: Mapping[str, Any]) -> SearchState:
        """The search that was saved."""
        state = self._closed(task, seed)
        state.inner = self.over.restored(task, seed, saved["inner"])
        self._show(state)
        state.restore(saved)
        state.hyper, state.point, state.judged = state.inner.hyper, dict(saved["point"]), saved["judged"]
        return state

    def _closed(self, task: Task, seed: int) -> SearchState:
        """Before the first trial."""
        state = SearchState(task, seed, model=None, hyper={})  # type: ignore[arg-type]
        state.searcher = self._make(self.space, self.open, seed)
        if self.options.pruner != "none":
            validations = math.ceil(self._longest(task) / task.selection_period)
            state.pruner = PRUNERS[self.options.pruner](validations, seed)
        return state

    def advance(self, state: SearchState, *, steps: int, progress: float, ledger: Ledger) -> SearchState:
        """Updates of the present trial or, where it has ended, the proposal of the next on the account `search`."""
        with ledger.account("search"):
            if state.is_open and self._prunes(state):
                self._close_trial(state, "pruned")
            if not state.is_open:
                self._open_trial(state)
                return state
        inner, before = state.inner, state.inner.step
        self.over.advance(inner, steps=steps, progress=progress, ledger=ledger)
        state.step += inner.step - before
        self._show(state)
        if inner.diverged or inner.trial_step == inner.end:
            self._close_trial(state, "diverged" if inner.diverged else "finished")
        return state

    def finish(self, state: SearchState) -> None:
        """The trial in progress is cut."""
        if state.is_open and state.trial_step:
            self._close_trial(state, "cut")

    def incumbent(self, state: SearchState) -> Incumbent | None:
        """The best validated model of all trials."""
        return state.incumbent

    def scalars(self, state: SearchState) -> dict[str, float]:
        """The number of trials ended."""
        return {"trials": float(len(state.trials))}

    def _prunes(self, state: SearchState) -> bool:
        curve = state.inner.curve
        if state.pruner is None or len(curve) == state.judged:
            return False
        state.judged = len(curve)
        return state.pruner.prunes(state.trials, curve)

    def _open_trial(self, state: SearchState) -> None:
        state.trial, state.judged = len(state.trials), 0
        state.point = state.searcher.propose(state.trials)
        epochs = self.options.trial_epochs or round(state.point["trial_epochs"])
        drawn = {name: value for name, value in state.point.items() if name != "trial_epochs"}
        state.inner = self.over.start(state.task, state.seed, drawn, state.trial)
        state.inner.end = state.inner.spans = epochs * state.task.steps_per_epoch
        self._show(state)

    def _close_trial(self, state: SearchState, status: str) -> None:
        best = state.inner.incumbent
        loss = best.validation_loss if best else math.inf
        state.trials.append(Trial(dict(state.point), loss, state.trial_step, status, tuple(state.inner.curve)))

    def _longest(self, task: Task) -> int:
        """Steps of the longest trial there can be."""
        epochs = self.options.trial_epochs or round(self.space.hyperparameters["trial_epochs"].high)
        return epochs * task.steps_per_epoch

    def _show(self, state: SearchState) -> None:
        adopt(state, state.inner)
        state.trial_step = state.inner.trial_step
