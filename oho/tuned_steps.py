"""Which steps of a training are tuned: what the influence follows, and after which a meta-step may be made.

    symbol  name    shape   meaning
    t       step    ()      steps made, counted from 1
    f       first   ()      steps at the beginning that are all tuned

The steps between are those of plain training, and cost as much: one gradient and the update.  They move parameters, slots
and the average, and leave the influence as it is, as if ∂θ'/∂θ were 1 and ∂θ'/∂h were 0.

Tuned steps come in windows, for single ones are blind to noise.  A learning rate is too high where the noise of gradients
keeps the weights from settling.  The influence knows of that from the very gradients that moved the weights last; where it
has followed few of them, only the gain of a higher rate is left, and the rate runs away.  A window of many steps sees both.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Protocol


class TunedSteps(Protocol):
    """Says which steps are tuned; any frozen dataclass with these members may stand in for ours."""

    @property
    def first(self) -> int:
        """Tuned steps at the beginning that make a meta-step each, whatever `update_every` is."""
        ...

    def count(self, step: int) -> int:
        """Returns how many of the first `step` steps are tuned: 0 of none, and one more or none with each step."""
        ...


@dataclass(frozen=True)
class Windows:
    """Tunes the `first` steps, and a window after each doubling of them: (1 + share) t steps from t = 2f, 4f, 8f … on.

    Windows are as far apart as they are long, and both grow, so that whatever time a change of hyperparameters takes to
    show, some window is longer.  About a `share` of all steps is tuned, at first more.
    """

    first: int = 100
    share: float = 0.25

    def __post_init__(self) -> None:
        """Raises ValueError for less than one step, or a share out of (0, 1]."""
        if self.first < 1 or not 0 < self.share <= 1:
            raise ValueError(f"first={self.first}, share={self.share}: must be 1 or more, and in (0, 1]")

    def count(self, step: int) -> int:
        """Returns how many of the first `step` steps are tuned."""
        tuned, begin = min(step, self.first), 2 * self.first
        while begin < step:
            tuned += min(step - begin, int(self.share * begin))
            begin *= 2
        return tuned


@dataclass(frozen=True)
class AllSteps:
    """Tunes every step."""

    first: ClassVar[int] = 0

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
        raise TypeError(f"tuned_steps: oho.Windows(100) or None is expected; given {kind}")
    return AllSteps() if given is None else given
