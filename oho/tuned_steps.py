"""Which steps of a training are tuned: what the influence follows, and after which a meta-step may be made.

The steps between are those of plain training, and cost as much: one gradient and the update.  They move parameters, slots
and the average, and leave the influence as it is, as if ∂θ'/∂θ were 1 and ∂θ'/∂h were 0.

Tuned steps come in windows, because single ones are blind to noise.  A learning rate is too high where the noise of
gradients keeps the weights from settling, which the influence learns from the very gradients that moved the weights last.
Where it has followed few of them, it sees only the gain of a higher rate, and the rate runs away.  A window of many steps
shows both.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


class TunedSteps(Protocol):
    """Says which steps are tuned; any frozen dataclass with this method may stand in for ours."""

    def count(self, step: int) -> int:
        """Returns how many of the first `step` steps are tuned: 0 for step 0, and each step adds one or none."""
        ...


@dataclass(frozen=True)
class Windows:
    """Tunes the `first` steps, where hyperparameters have far to go, and then the last `length` of every `period` steps.

    All three are whole numbers of steps, 1 or more; ValueError is raised for others, and for a length above the period.
    """

    first: int = 400
    length: int = 50
    period: int = 400

    def __post_init__(self) -> None:
        """Raises ValueError for numbers of steps out of range."""
        are_whole = all(type(steps) is int for steps in (self.first, self.length, self.period))
        if not are_whole or self.first < 1 or not 1 <= self.length <= self.period:
            given = f"first={self.first}, length={self.length}, period={self.period}"
            raise ValueError(f"{given}: must be whole numbers of steps, 1 or more, the length no more than the period")

    def count(self, step: int) -> int:
        """Returns how many of the first `step` steps are tuned."""
        periods, rest = divmod(max(0, step - self.first), self.period)
        return min(step, self.first) + periods * self.length + max(0, rest - (self.period - self.length))


@dataclass(frozen=True)
class AllSteps:
    """Tunes every step."""

    def count(self, step: int) -> int:
        """Returns the number of steps."""
        return step


def resolve_tuned_steps(given: TunedSteps | None) -> TunedSteps:
    """Returns what was given, or `AllSteps` for None.

    Raises:
        TypeError: for anything that does not count tuned steps.
    """
    if given is not None and (isinstance(given, type | Sequence) or not hasattr(given, "count")):
        kind = given.__name__ if isinstance(given, type) else type(given).__name__
        raise TypeError(f"tuned_steps: oho.Windows() or None is expected; given {kind}")
    return AllSteps() if given is None else given
