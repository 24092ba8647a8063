"""The protocol of a method, which holds no clock, no logging and no file, and never sees the test split.

    state = method.init(task, seed)
    method.advance(state, steps=10, progress=0.25, ledger=ledger)     # repeatedly, until the budget ends
    state.incumbent, state.scalars()

The runner owns the loop, the clock and the decision to stop.  A method owns its state and chooses, through
`ledger.account(...)`, the account on which its seconds are booked.  PROTOCOL.md has the rules.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, fields, replace
from typing import Any, ClassVar, Protocol, Self

from torch import Tensor, nn

from bench.protocol.ledger import Ledger
from bench.protocol.settings import Settings
from bench.protocol.task import Task
from bench.records.checkpoints import packed, unpacked

JUDGED_EVERY = 10
"""Steps of a training between checks that its loss is finite; fixed, so that no ending depends on the clock."""


class Options(Settings):
    """The base of every options class."""

    optimizer_name: ClassVar[str] = "sgd"
    """The name by which a space may have separate laws for this optimizer."""

    def values(self) -> dict[str, float | None]:
        """Returns the hyperparameters by name; None is left open, to be drawn from the experiment's space or searched."""
        return {}

    def replace(self, values: Mapping[str, float]) -> Self:
        """Returns a copy with other values."""
        return self.model_copy(update=dict(values))

    @property
    def shared_laws(self) -> Mapping[str, str]:
        """The hyperparameters that have no law of their own, each with the name of the one whose law it has."""
        return {}

    @property
    def tuned_of_loss(self) -> tuple[str, ...]:
        """The hyperparameters of the training loss that the method tunes, which a task must offer."""
        return ()

    def details(self) -> list[str]:
        """Returns what a figure appends to the method's label if these options differ from the usual ones."""
        return []

    @property
    def validates_after_epochs(self) -> int | None:
        """The epochs after which a training of this method validates, where it does not wait for the selection period."""
        return None


@dataclass(frozen=True)
class Kick:
    """A change of a hyperparameter from outside: to `value` or, if that is None, by the factor `factor`."""

    name: str
    value: float | None = None
    factor: float = 1.0

    def of(self, present: Any) -> Any:
        """Returns the new value, given the current one, which is a number or a tensor."""
        return self.factor * present if self.value is None else self.value


@dataclass(frozen=True)
class Incumbent:
    """The best model on the validation split so far: its loss in the task's unit, its weights, and where it was found."""

    validation_loss: float
    weights: dict[str, Tensor]
    step: int
    trial: int
    judged: int = 0
    """The step of the run at which its loss was last evaluated."""
    found: int = 0
    """The step of the run at which it was selected first, however often it is judged anew."""

    def at(self, loss: float, step: int) -> Incumbent:
        """Returns the same model with the validation loss that it has at a step; one that is not finite is infinite."""
        return replace(self, validation_loss=loss if math.isfinite(loss) else math.inf, judged=step)


@dataclass(frozen=True)
class Trial:
    """A trial of a search that has finished or was cut.  `validation_loss` is its best, infinite if it diverged at once."""

    hyper: dict[str, float]
    validation_loss: float
    steps: int
    status: str
    """finished | diverged | pruned | cut"""
    curve: tuple[float, ...] = ()
    """The trial's validation losses in the order they were found, in the task's unit."""


NOT_SAVED = {"saved": False}
"""Metadata of a field of a state that is not saved."""


def remade() -> Any:
    """Marks a field of a state that `init` makes again, so that it is not saved."""
    return field(metadata=NOT_SAVED)


@dataclass(kw_only=True)
class State:
    """The state that every method has.  Methods add fields by subclassing and override what differs.

    `step` counts parameter updates over the whole run, `trial_step` those of the current trial.
    """

    task: Task = remade()
    seed: int = remade()
    model: nn.Module
    """The model that the runner evaluates between two calls of `advance`."""
    hyper: dict[str, Any]
    """The current values for the records: a number each, or a list with one number per set."""
    step: int = 0
    trial: int = 0
    trial_step: int = 0
    train_loss: float = math.nan
    """Training loss of the last step of the last chunk."""
    incumbent: Incumbent | None = None
    """The best model so far, chosen on validation; its loss never rises."""
    end: int | None = None
    """The `trial_step` at which a training ends, if that is known."""
    curve: list[float] = field(default_factory=list)
    """Validation losses of the training so far."""
    trials: list[Trial] = field(default_factory=list)
    diverged: bool = False
    """Whether the training ended with a loss that is not finite; nothing follows it."""

    @property
    def spans_budget(self) -> bool:
        """Returns whether the method's behaviour depends on the length of its budget, beyond being ended by it."""
        return False

    @property
    def random_starts(self) -> int:
        """Returns how many trials are drawn at random before the results of earlier ones count; 0 if none is or all are."""
        return 0

    @property
    def is_open(self) -> bool:
        """Returns whether the current trial is still in progress, that is not among the ended ones."""
        return len(self.trials) == self.trial

    @property
    def trainings(self) -> Sequence[State]:
        """Returns the trainings in progress, of which a method may have several."""
        return [self]

    def selected_weights(self) -> dict[str, Tensor]:
        """Returns the weights of the best model so far, or of the current one if none was selected."""
        return self.incumbent.weights if self.incumbent else self.model.state_dict()

    def scalars(self) -> dict[str, float]:
        """Returns numbers worth plotting beside the losses and hyperparameters."""
        return {}

    def finish(self) -> None:
        """Closes what is in progress, without a validation, because the budget has ended."""

    def kick(self, kick: Kick) -> None:
        """Changes a hyperparameter of this training; the runner calls this on `trainings` only."""
        raise NotImplementedError(f"{type(self).__name__} has no kick: its hyperparameters cannot be changed from outside")

    def saved(self) -> dict[str, Any]:
        """Returns every field except those that are `remade`, as tensors and plain values.

        Objects are saved by their `state_dict` or `saved`.  Raises a TypeError that names a field with neither.
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
    """A way to train under a budget.  Each method's state is its own kind of `State`, hence `Any` here.

    A method that cannot train every network also has `check(task)`, which raises ValueError with the reason; it is called
    before an experiment's first run.
    """

    def init(self, task: Task, seed: int) -> Any:
        """Returns the state before the first step, which depends on the arguments alone."""
        ...

    def advance(self, state: Any, *, steps: int, progress: float, ledger: Ledger) -> None:
        """Makes at most `steps` further updates, or one proposal; `progress` is the used fraction of the budget, in [0, 1).

        Returns right after a validation, so that the clock is read when a model is found, and right after a proposal, so
        that the clock is read before any further work.
        """
        ...

    def restored(self, task: Task, seed: int, saved: Mapping[str, Any]) -> Any:
        """Returns the state that was `saved`, from which a run continues bit for bit as it would have.

        A class that inherits from this one gets the usual implementation: a state of `init` takes over what was saved.
        """
        state = self.init(task, seed)
        state.restore(saved)
        return state


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
    period = state.task.selection_period
    steps = min(steps, period - state.trial_step % period)
    if state.end is not None:
        steps = min(steps, state.end - state.trial_step)
    for _ in range(steps):
        loss = update()
        state.step += 1
        state.trial_step += 1
        state.task.world.step += 1
        validated = state.trial_step % period == 0 or state.trial_step == state.end
        if (validated or state.trial_step % JUDGED_EVERY == 0) and not math.isfinite(float(loss)):
            state.diverged = True
            break
    state.train_loss = float(loss)
    settle()
    if validated and not state.diverged:
        with ledger.account("selection"):
            select(state)


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
