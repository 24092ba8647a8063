"""The state of a method: what is trained, the best model so far, the trials that have ended, and how all of it is saved."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

from torch import Tensor, nn

from bench.protocol.checkpoints import packed, unpacked
from bench.protocol.task import Task


@dataclass(frozen=True)
class Kick:
    """A change of a hyperparameter from outside: to `value` or, if that is None, by the factor `factor`."""

    name: str
    value: float | None = None
    factor: float = 1.0

    def of(self, present: Any) -> Any:
        """Returns the new value, given the current one, which is a number or a tensor.

        A whole number stays one where only rounding says otherwise: 0.29 times 100 is 29.
        """
        if self.value is not None:
            return self.value
        scaled = self.factor * present
        if isinstance(present, int) and math.isclose(scaled, round(scaled), rel_tol=1e-12):
            return round(scaled)
        return scaled


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
    unselected_seconds: float = 0.0
    """The training's counted seconds since its last validation, if the task selects by these."""
    diverged: bool = False
    """Whether the training ended with a loss that is not finite; nothing follows it."""

    @property
    def spans_budget(self) -> bool:
        """Whether the method's behaviour depends on the length of its budget, beyond being ended by it."""
        return False

    @property
    def random_starts(self) -> int:
        """How many trials are drawn at random before the results of earlier ones count; 0 if none is or all are."""
        return 0

    @property
    def is_open(self) -> bool:
        """Whether the current trial is still in progress, that is not among the ended ones."""
        return len(self.trials) == self.trial

    @property
    def trainings(self) -> Sequence[State]:
        """The trainings in progress, of which a method may have several."""
        return [self]

    def selected_weights(self) -> dict[str, Tensor]:
        """Returns the weights of the best model so far, or of the current one if none was selected."""
        return self.incumbent.weights if self.incumbent else self.model.state_dict()

    def scalars(self) -> dict[str, float]:
        """Returns numbers worth plotting besides the losses and hyperparameters."""
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
