"""What a training, `baselines.training`, asks of its options."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol, Self

from torch import nn

from baselines.optimizers import Stepper
from baselines.schedules import Place


class TrainingOptions(Protocol):
    """The part of its options that a training uses."""

    @property
    def spans_budget(self) -> bool:
        """Whether the schedule depends on the budget."""
        ...

    @property
    def initial_lr(self) -> float | None:
        """The rate that the schedule multiplies; None if there is nothing to schedule."""
        ...

    @property
    def shared_laws(self) -> Mapping[str, str]:
        """The values that sets have of their own, with the hyperparameter that each is one of."""
        ...

    @property
    def optimizer_name(self) -> str:
        """The name by which a space may have separate laws for this optimizer."""
        ...

    def values(self) -> dict[str, float | None]:
        """Returns the hyperparameters by name; None is open, to be drawn from the space by the seed or searched."""
        ...

    def replace(self, values: Mapping[str, float]) -> Self:
        """Returns a copy with other values."""
        ...

    def factor(self, place: Place) -> float:
        """Returns the factor on the initial learning rate for the next update."""
        ...

    def stepper(self, model: nn.Module) -> Stepper:
        """Returns the optimizer; no value may be open any more."""
        ...

    def graph_stepper(self, model: nn.Module) -> Stepper:
        """Returns the optimizer as a graph can repeat its updates, if the method's entry says that one can."""
        ...
