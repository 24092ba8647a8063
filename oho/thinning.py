"""Which steps of a training are tuned: what the influence follows, and after which a meta-step may be made.

    symbol  name    shape   meaning
    t       step    ()      steps made, counted from 1
    f       first   ()      steps at the beginning that are all tuned
    n       count   ()      tuned steps among the first t

The steps between are those of plain training, and cost as much: one gradient and the update.  They move parameters, slots
and the average, and leave the influence as it is, as if ∂θ'/∂θ were 1 and ∂θ'/∂h were 0.  What that leaves out grows with
the gaps: `oho.audit` shows how much it is.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol


class TunedSteps(Protocol):
    """Says which steps are tuned; any frozen dataclass with this method may stand in for ours."""

    def count(self, step: int) -> int:
        """Returns how many of the first `step` steps are tuned: 0 of none, and one more or none with each step."""
        ...


@dataclass(frozen=True)
class Thinning:
    """Tunes all of the `first` steps and then ever fewer, n = √(f t): the price of tuning falls as training goes on.

    A training of 100 f steps tunes a tenth of them.  Hyperparameters move far at the beginning and little later on.
    """

    first: int = 100

    def __post_init__(self) -> None:
        """Raises ValueError for less than one step."""
        if self.first < 1:
            raise ValueError(f"first={self.first}: must be a number of steps, 1 or more")

    def count(self, step: int) -> int:
        """Returns how many of the first `step` steps are tuned."""
        return step if step <= self.first else math.isqrt(self.first * step)


@dataclass(frozen=True)
class AllSteps:
    """Tunes every step."""

    def count(self, step: int) -> int:
        """Returns the number of steps."""
        return step


def resolve_tuned_steps(given: TunedSteps | None) -> TunedSteps:
    """Returns the steps that were asked for, None being all.

    Raises:
        TypeError: for something else.
    """
    if given is not None and (isinstance(given, type) or not hasattr(given, "count")):
        kind = given.__name__ if isinstance(given, type) else type(given).__name__
        raise TypeError(f"tuned_steps: oho.Thinning(100) or None is expected; given {kind}")
    return AllSteps() if given is None else given
