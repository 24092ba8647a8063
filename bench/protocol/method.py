"""What a method is.  A method holds no clock, no logging and no file, and never sees the test split.

    state = method.init(task, seed)
    method.advance(state, steps=10, progress=0.25, ledger=ledger)     # again and again, until the budget ends
    state.incumbent, state.scalars()

The runner owns loop, clock and stopping; a method owns its state and says, through `ledger.account(...)`, on which
account the seconds it causes are booked.  PROTOCOL.md has the rules.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, Protocol, Self

from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn

from bench.protocol.ledger import Ledger
from bench.protocol.task import Task
from bench.records.checkpoints import packed, unpacked

JUDGED_EVERY = 10
"""Steps of a training between two looks at whether its loss is finite: fixed, so that no ending depends on the clock."""


class Options(BaseModel):
    """The base of every options class: frozen, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    optimizer_name: ClassVar[str] = "sgd"
    """The name by which a space may have laws of its own."""

    def values(self) -> dict[str, float | None]:
        """Returns the hyperparameters by name; None is left open: drawn from the experiment's space, or searched."""
        return {}

    def replace(self, values: Mapping[str, float]) -> Self:
        """Returns the same options with other values."""
        return self.model_copy(update=dict(values))

    def details(self) -> list[str]:
        """Returns what a figure adds to the method's label where these options differ from the usual ones."""
        return []


@dataclass(frozen=True)
class Kick:
    """A change of a hyperparameter from outside: to `value` or, where that is None, by `factor`."""

    name: str
    value: float | None = None
    factor: float = 1.0

    def of(self, present: Any) -> Any:
        """Returns what the kick makes of the present value, a number or a tensor."""
        return self.factor * present if self.value is None else self.value


@dataclass(frozen=True)
class Incumbent:
    """The best model on the validation split so far: its loss in the task's unit, its weights, where it was found."""

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
    """Its validation losses in the order they were found, in the task's unit."""


def remade() -> Any:
    """Marks a field of a state that `init` makes again, so that it is not saved."""
    return field(metadata={"saved": False})


@dataclass(kw_only=True)
class State:
    """What every method's state has; methods add their own fields by subclassing, and override what differs.

    `step` counts parameter updates over the whole run, `trial_step` those of the present trial.
    """

    task: Task = remade()
    seed: int = remade()
    model: nn.Module
    """Between two calls of `advance` it is what the runner evaluates."""
    hyper: dict[str, Any]
    """The present values, for the records: a number, or a list with one number a set."""
    step: int = 0
    trial: int = 0
    trial_step: int = 0
    train_loss: float = math.nan
    """Training loss of the last step of the last chunk."""
    incumbent: Incumbent | None = None
    """The best model so far, chosen on validation; its loss never rises."""
    end: int | None = None
    """The `trial_step` at which a training ends, where that is known."""
    curve: list[float] = field(default_factory=list)
    """Validation losses of the training so far."""
    trials: list[Trial] = field(default_factory=list)
    diverged: bool = False
    """The training ended in a non-finite loss and nothing follows it."""

    @property
    def spans_budget(self) -> bool:
        """Whether what the method does depends on how long its budget is, beyond being ended by it."""
        return False

    @property
    def is_open(self) -> bool:
        """Whether the present trial goes on: it is not among the ended ones yet."""
        return len(self.trials) == self.trial

    @property
    def trainings(self) -> Sequence[State]:
        """The trainings in progress, where a method is made of several."""
        return [self]

    def scalars(self) -> dict[str, float]:
        """Returns what is worth plotting beside losses and hyperparameters."""
        return {}

    def finish(self) -> None:
        """Closes what is in progress, as it is and without a validation: the budget has ended."""

    def kick(self, kick: Kick) -> None:
        """Changes a hyperparameter of this training; the runner asks this of `trainings` only."""
        raise NotImplementedError(f"{type(self).__name__} has no kick: its hyperparameters cannot be changed from outside")

    def saved(self) -> dict[str, Any]:
        """Returns every field but those that are `remade`, as tensors and plain values.

        Objects are saved by their `state_dict` or `saved`.  A TypeError names a field that has neither.
        """
        return {name: _saved(f"{type(self).__name__}.{name}", getattr(self, name)) for name in self._saved_names()}

    def restore(self, saved: Mapping[str, Any]) -> None:
        """Takes over what another state has `saved`."""
        for name in self._saved_names():
            present, value = getattr(self, name), saved[name]
            if hasattr(present, "load_state_dict"):
                present.load_state_dict(value)
            elif hasattr(present, "restore"):
                present.restore(value)
            else:
                setattr(self, name, unpacked(value))
        self.incumbent = None if saved["incumbent"] is None else Incumbent(**unpacked(saved["incumbent"]))
        self.trials = [Trial(**trial) for trial in saved["trials"]]

    def _saved_names(self) -> list[str]:
        return [each.name for each in fields(self) if each.metadata.get("saved", True)]


PLAIN = (bool, int, float, str, Tensor, type(None))


def _saved(name: str, value: Any) -> Any:
    if hasattr(value, "state_dict"):
        return packed(value.state_dict())
    if hasattr(value, "saved"):
        return value.saved()
    if isinstance(value, Incumbent | Trial):
        return packed(vars(value))
    if isinstance(value, list) and any(isinstance(item, Trial) for item in value):
        return [packed(vars(item)) for item in value]
    if not _is_plain(value):
        remedy = "give it `state_dict` and `load_state_dict`, or mark the field as `remade()` and let `init` make it"
        raise TypeError(f"{name}: {type(value).__name__} cannot be saved in a checkpoint; {remedy}")
    return packed(value)


def _is_plain(value: Any) -> bool:
    if isinstance(value, Mapping):
        return all(map(_is_plain, value.values()))
    return all(map(_is_plain, value)) if isinstance(value, list | tuple) else isinstance(value, PLAIN)


class Method(Protocol):
    """One way to train under a budget.  A method's state is a `State` of its own kind, hence `Any` here.

    A method that cannot train every network also has `check(task)`, which raises ValueError with the reason; it is called
    before an experiment's first run.
    """

    def init(self, task: Task, seed: int) -> Any:
        """Returns the state before the first step.  A function of its arguments alone."""
        ...

    def advance(self, state: Any, *, steps: int, progress: float, ledger: Ledger) -> None:
        """Makes at most `steps` further updates, or a proposal.  Returns after a validation, so that the clock is read
        where a model is found, and after a proposal, so that it is read before more is done.

        `progress` is the fraction of the budget used, in [0, 1).
        """
        ...

    def restored(self, task: Task, seed: int, saved: Mapping[str, Any]) -> Any:
        """Returns the state that was `saved`: what follows is what would have followed, bit for bit.

        A class that inherits from this one gets the usual way: a state of `init` that takes over what was saved.
        """
        state = self.init(task, seed)
        state.restore(saved)
        return state


def select(state: State) -> float:
    """Validates the present model on the whole validation split and keeps it if it is the best of the run so far.

    Returns the validation loss; a non-finite one never becomes the incumbent.  Ties keep the older model.
    """
    (validation,) = state.task.evaluate(state.model, state.task.validation)
    loss = validation.loss
    state.curve.append(loss)
    best = state.incumbent.validation_loss if state.incumbent else math.inf
    if loss < best:
        weights = copy.deepcopy(state.model.state_dict())
        state.incumbent = Incumbent(loss, weights, state.step, state.trial)
    return loss


def train(
    state: State, steps: int, ledger: Ledger, *, update: Callable[[], Tensor], settle: Callable[[], None] = lambda: None
) -> None:
    """At most `steps` updates up to the end of the selection period or of the training, where the model is validated.

    `update` makes one and returns its training loss; `settle` is called after the last, before the model is looked at.
    """
    period = state.task.selection_period
    steps = min(steps, period - state.trial_step % period)
    if state.end is not None:
        steps = min(steps, state.end - state.trial_step)
    for _ in range(steps):
        loss = update()
        state.step += 1
        state.trial_step += 1
        validated = state.trial_step % period == 0 or state.trial_step == state.end
        if (validated or state.trial_step % JUDGED_EVERY == 0) and not math.isfinite(float(loss)):
            state.diverged = True
            break
    state.train_loss = float(loss)
    settle()
    if validated and not state.diverged:
        with ledger.account("selection"):
            select(state)


def adopt(state: State, inner: State) -> None:
    """A method made of several trainings shows the one in progress as its own, and keeps the better of both incumbents."""
    state.model, state.hyper, state.train_loss = inner.model, inner.hyper, inner.train_loss
    best, known = inner.incumbent, state.incumbent
    if best and (known is None or best.validation_loss < known.validation_loss):
        state.incumbent = Incumbent(best.validation_loss, best.weights, state.step, state.trial)
