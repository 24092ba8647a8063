"""Search by restarting: trials of a training method run one after another until the budget ends."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

from pydantic import Field
from torch import nn

from baselines.batched_search import BATCHING
from baselines.pruners import PRUNERS, Pruner
from baselines.searchers import SEARCHERS, Point, Searcher
from baselines.training import Training, TrainingState, is_training
from bench.protocol import Ledger, MethodEntry, Options, State, Task, Trial, adopt, remade


class SearchOptions(Options):
    """Each trial trains the method `over`; the hyperparameters that it leaves open are searched.

    A trial lasts `trial_epochs`; null means that this number is searched too.  A `pruner` ends trials early, after a
    validation.
    """

    over: Any
    trial_epochs: int | None = Field(default=10, ge=1)
    pruner: Literal["none", "median", "successive-halving", "hyperband"] = "none"

    def values(self) -> dict[str, float | None]:
        """Returns the number of epochs; if it is searched, the space must have a law for it."""
        return {"trial_epochs": self.trial_epochs}

    @property
    def validates_after_epochs(self) -> int | None:
        """A trial's end; None where its length is searched."""
        return self.trial_epochs

    def details(self) -> list[str]:
        """Returns the pruner, if there is one."""
        return [] if self.pruner == "none" else [self.pruner.replace("-", " ")]


@dataclass(kw_only=True)
class SearchState(State):
    """A search in progress.  All that a searcher and a pruner know is in `trials`, `point` and the trial's curve."""

    model: nn.Module = remade()
    hyper: dict[str, Any] = remade()
    searcher: Searcher = remade()
    pruner: Pruner | None = remade()
    inner: TrainingState = remade()
    started: Callable[[Point, int], TrainingState] = remade()
    """Returns the training of a trial, given its point and number, before its first step."""
    point: Point = field(default_factory=dict)
    judged: int = 0
    """The number of the current trial's validations that the pruner has seen."""

    @property
    def trainings(self) -> list[TrainingState]:
        """The trial in progress."""
        return [self.inner]

    @property
    def random_starts(self) -> int:
        """The number of trials that are drawn at random before the searcher's model proposes any."""
        return self.searcher.STARTS

    def saved(self) -> dict[str, Any]:
        """Returns the saved fields together with the trial in progress."""
        return {**super().saved(), "inner": self.inner.saved()}

    def scalars(self) -> dict[str, float]:
        """Returns the number of trials that have ended."""
        return {"trials": float(len(self.trials))}

    def open_trial(self, inner: TrainingState, point: Point) -> None:
        """Begins a trial."""
        self.inner, self.point, self.trial, self.judged = inner, point, len(self.trials), 0
        self.show()

    def has_ended(self) -> bool:
        """Returns whether the trial in progress has ended; it is pruned now if the pruner says so."""
        if self.is_open and self._is_pruned():
            self.close_trial("pruned")
        return not self.is_open

    def _is_pruned(self) -> bool:
        curve = self.inner.curve
        if self.pruner is None or len(curve) == self.judged:
            return False
        self.judged = len(curve)
        return self.pruner.prunes(self.trials, curve)

    def propose(self) -> None:
        """Begins the next trial where the searcher says."""
        point = self.searcher.propose(self.trials)
        self.open_trial(self.started(point, len(self.trials)), point)

    def follow(self, steps: int, ledger: Ledger) -> None:
        """Takes over what so many steps have made of the trial in progress, and closes it if that was its end."""
        inner = self.inner
        self.step += steps
        self.show(ledger)
        if inner.diverged or inner.trial_step == inner.end:
            self.close_trial("diverged" if inner.diverged else "finished")

    def close_trial(self, status: str) -> None:
        """Ends the trial in progress as finished, diverged, pruned or cut."""
        best = self.inner.incumbent
        loss = best.validation_loss if best else math.inf
        self.trials.append(Trial(dict(self.point), loss, self.trial_step, status, tuple(self.inner.curve)))

    def finish(self) -> None:
        """Cuts the trial in progress."""
        if self.is_open and self.trial_step:
            self.close_trial("cut")

    def show(self, ledger: Ledger | None = None) -> None:
        """Presents the trial in progress as the search's own model."""
        adopt(self, self.inner, ledger)
        self.trial_step = self.inner.trial_step


class Search:
    """A method that asks a searcher for a point, trains it, and asks again with the result.

    `advance` closes a trial where it ends.  Whatever costs time, that is the pruner's verdict and the next proposal, is
    left to the next call, so that the clock is read right after a validation and nothing is proposed after the deadline.
    """

    def __init__(self, options: SearchOptions, over: Training, searcher: str):
        self.options, self.over, self.space = options, over, over.space
        self._make: Callable[..., Searcher] = SEARCHERS[searcher]
        self._make(self.space, self.open, 0)  # reports a space it cannot search before anything runs
        if options.trial_epochs is None and not self.space.hyperparameters["trial_epochs"].integer:
            raise ValueError("the space's law of trial_epochs needs integer: true")

    @property
    def open(self) -> list[str]:
        """Names of the hyperparameters that are searched."""
        return [*self.over.open, *(["trial_epochs"] if self.options.trial_epochs is None else [])]

    def check(self, task: Task) -> None:
        """Raises ValueError where what it repeats cannot train the network."""
        self.over.check(task)

    def init(self, task: Task, seed: int) -> SearchState:
        """Returns the state before the first trial's first step; the first proposal is part of the set-up."""
        searcher = self._make(self.space, self.open, seed)
        point = searcher.propose([])
        return self._state(task, seed, searcher, self._started(task, seed, point, 0), point)

    def restored(self, task: Task, seed: int, saved: Mapping[str, Any]) -> SearchState:
        """Returns the search that was saved; searcher and pruner are functions of what was saved."""
        inner = self.over.restored(task, seed, saved["inner"])
        state = self._state(task, seed, self._make(self.space, self.open, seed), inner, saved["point"])
        state.restore(saved)
        return state

    def _state(self, task: Task, seed: int, searcher: Searcher, inner: TrainingState, point: Point) -> SearchState:
        state = SearchState(
            task=task, seed=seed, model=inner.model, hyper=inner.hyper, searcher=searcher, pruner=self._pruner(task, seed),
            inner=inner, started=partial(self._started, task, seed),
        )  # fmt: skip
        state.open_trial(inner, point)
        return state

    def advance(self, state: SearchState, *, steps: int, progress: float, ledger: Ledger) -> None:
        """Updates the current trial or, if it has ended, proposes the next one on the account `search`."""
        with ledger.account("search"):
            if state.has_ended():
                state.propose()
                return
        before = state.inner.step
        self.over.advance(state.inner, steps=steps, progress=progress, ledger=ledger)
        state.follow(state.inner.step - before, ledger)

    def _started(self, task: Task, seed: int, point: Point, trial: int) -> TrainingState:
        """Returns a trial's training before its first step."""
        epochs = self.options.trial_epochs or round(point["trial_epochs"])
        drawn = {name: value for name, value in point.items() if name != "trial_epochs"}
        inner = self.over.start(task, seed, drawn, trial)
        inner.end = inner.spans = epochs * task.steps_per_epoch
        return inner

    def _pruner(self, task: Task, seed: int) -> Pruner | None:
        if self.options.pruner == "none":
            return None
        longest = self.options.trial_epochs or round(self.space.hyperparameters["trial_epochs"].high)
        validations = None
        if task.selection_seconds is None:
            validations = math.ceil(longest * task.steps_per_epoch / task.selection_period)
        return PRUNERS[self.options.pruner](validations, seed)


def _entry(searcher: str, description: str, label: str) -> MethodEntry:
    return MethodEntry(
        description=description, label=label, family="search", options=SearchOptions,
        build=partial(Search, searcher=searcher), repeats=is_training, takes_kicks=True, batching=BATCHING,
        captures=True,
    )  # fmt: skip


RANDOM_SEARCH = _entry("random", "restarts at points drawn from the space", "Random search")
SOBOL_SEARCH = _entry("sobol", "restarts at the points of a scrambled Sobol sequence", "Sobol search")
BAYESIAN_SEARCH = _entry(
    "gaussian-process",
    "restarts by scikit-optimize's Gaussian process with expected improvement, as in the paper",
    "Bayesian optimization",
)
TPE_SEARCH = _entry("tpe", "restarts by Optuna's tree-structured Parzen estimator", "TPE")
GP_SEARCH = _entry("optuna-gp", "restarts by Optuna's Gaussian process", "Optuna GP")
CMA_SEARCH = _entry("cma-es", "restarts by CMA-ES", "CMA-ES")
