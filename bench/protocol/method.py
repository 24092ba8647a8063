"""The protocol of a method, which holds no clock, no logging and no file, and never sees the test split.

    state = method.init(task, seed)
    method.advance(state, steps=10, progress=0.25, ledger=ledger)     # repeatedly, until the budget ends
    state.incumbent, state.scalars()

The runner owns the loop, the clock and the decision to stop.  A method owns its state and chooses, through
`ledger.account(...)`, the account on which its seconds are booked.  PROTOCOL.md has the rules.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Protocol, Self

from bench.protocol.ledger import Ledger
from bench.protocol.settings import Settings
from bench.protocol.task import Task


class Options(Settings):
    """The base of every method's options class."""

    optimizer_name: ClassVar[str] = "sgd"
    """The name by which a space may have separate laws for this optimizer."""
    clamps_kicks: ClassVar[bool] = False
    """Whether a training keeps within bounds of its own what a shock's factor makes of a hyperparameter."""

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


class Method(Protocol):
    """A way to train under a budget.  Each method's state is its own kind of `State`, hence `Any` here.

    A method that cannot train every network also has `check(task)`, which raises ValueError with the reason; it is called
    before an experiment's first run.  One whose `init` takes long has `recall(seed, saved)`, which takes what `init` found
    from a saved state; it is called before a process that continues a run calls `init`.
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
