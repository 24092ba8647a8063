"""A member of a batch as a stepper: the batch makes the updates, and the member's own optimizer shows and saves them."""

from __future__ import annotations

from typing import Any, Protocol

from torch import Tensor

from baselines.optimizers import Closure, Stepper


class StepperBatch(Protocol):
    """A batch, which holds the optimizers' states stacked and copies a member's part to and from its own optimizer."""

    def write_state(self, index: int) -> None:
        """Writes a member's part of the state into its own optimizer."""
        ...

    def read_state(self, index: int) -> None:
        """Reads a member's part of the state from its own optimizer, which was changed from outside."""
        ...


class MemberStepper(Stepper):
    """Member `index` of a batch; `own` is the optimizer that it would have alone."""

    def __init__(self, own: Stepper, batch: StepperBatch, index: int):
        self.own, self._batch, self._index = own, batch, index

    def update(self, loss: Closure) -> Tensor:
        """Is not called: the batch makes the updates of all its members."""
        raise NotImplementedError("a member of a batch makes no updates of its own")

    def hyper(self) -> dict[str, float]:
        """Returns the current values of what the member's own optimizer adapts."""
        return self.alone().hyper()

    def assign(self, name: str, value: float) -> None:
        """Sets a value of this member."""
        self.alone().assign(name, value)
        self._batch.read_state(self._index)

    def saved(self) -> dict[str, Any]:
        """Returns what the member's own optimizer would have saved."""
        return self.alone().saved()

    def restore(self, saved: dict[str, Any]) -> None:
        """Is not called: states are restored before they are members."""
        raise NotImplementedError("a member of a batch is restored alone")

    def alone(self) -> Stepper:
        """Returns the member's own optimizer with the state that it has reached."""
        self._batch.write_state(self._index)
        return self.own


def alone(stepper: Any) -> Any:
    """Returns a stepper that is no part of a batch, with the state that it has reached."""
    return stepper.alone() if isinstance(stepper, MemberStepper) else stepper
