"""What a method is.  A method holds no clock, no logging and no file, and never sees the test split.

    state = method.init(task, seed)
    state = method.advance(state, steps=10, progress=0.25, ledger=ledger)     # again and again, until the budget ends
    method.incumbent(state), method.scalars(state)

The runner owns loop, clock and stopping; a method owns its state and says, through `ledger.account(...)`, on which
account the seconds it causes are booked.  All a method module needs is importable from here.  PROTOCOL.md has the rules.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass, field
from typing import Any, Protocol

from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn

from bench.clock import Ledger
from bench.space import Dimension, Space, draw
from bench.streams import stream, stream_seed
from bench.tasks import Batch, Batches, Split, Task, evaluate

__all__ = [
    "Batch", "Batches", "Dimension", "Incumbent", "Ledger", "Method", "Options", "Space", "Split", "State", "Task", "Trial",
    "draw", "evaluate", "select", "stream", "stream_seed",
]  # fmt: skip


class Options(BaseModel):
    """Base of every options class: frozen, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


@dataclass(frozen=True)
class Incumbent:
    """The best model on the validation split so far: its loss in nats per example, its weights, where it was found."""

    validation_loss: float
    weights: dict[str, Tensor]
    step: int
    trial: int


@dataclass(frozen=True)
class Trial:
    """One finished or cut trial of a search.  `validation_loss` is its best, infinite when it diverged at once."""

    hyper: dict[str, float]
    validation_loss: float
    steps: int
    status: str
    """finished | diverged | pruned | cut"""
    curve: tuple[float, ...] = ()
    """Its validation losses in the order they were found, nats per example."""


@dataclass
class State:
    """What every method's state has; methods add their own by subclassing.

    `step` counts parameter updates over the whole run, `trial_step` those of the present trial.
    """

    task: Task
    seed: int
    model: nn.Module
    hyper: dict[str, Any]
    step: int = 0
    trial: int = 0
    trial_step: int = 0
    train_loss: float = math.nan
    """Training loss of the last step of the last chunk."""
    incumbent: Incumbent | None = None
    trials: list[Trial] = field(default_factory=list)
    diverged: bool = False
    """The training ended in a non-finite loss and nothing follows it."""


class Method(Protocol):
    """One way to train under a budget.  A method's state is a `State` of its own kind, hence `Any` here."""

    @property
    def spans_budget(self) -> bool:
        """Whether what it does depends on how long its budget is, beyond being ended by it."""
        ...

    def init(self, task: Task, seed: int) -> Any:
        """The state before the first step.  A function of its arguments alone."""
        ...

    def advance(self, state: Any, *, steps: int, progress: float, ledger: Ledger) -> Any:
        """At most `steps` further updates, and none after a validation, so that the clock is read where a model is found.

        `progress` is the fraction of the budget used, in [0, 1).  Between two calls `state.model` is what is evaluated.
        """
        ...

    def finish(self, state: Any) -> None:
        """The budget ended: a trial in progress is closed as it is, without a validation."""
        ...

    def incumbent(self, state: Any) -> Incumbent | None:
        """The best model so far, chosen on validation; its loss never rises."""
        ...

    def scalars(self, state: Any) -> dict[str, float]:
        """What is worth plotting beside losses and hyperparameters."""
        ...


def select(state: State) -> float:
    """Validates the present model on the whole validation split and keeps it if it is the best of the run so far.

    Returns the validation loss; a non-finite one never becomes the incumbent.  Ties keep the older model.
    """
    (validation,) = state.task.evaluate(state.model, state.task.validation)
    loss = validation.loss
    best = state.incumbent.validation_loss if state.incumbent else math.inf
    if loss < best:
        weights = copy.deepcopy(state.model.state_dict())
        state.incumbent = Incumbent(loss, weights, state.step, state.trial)
    return loss

