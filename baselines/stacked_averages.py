"""The averages of the weights of several trainings as one: a row for each member, of the kind that the member asked for.

    symbol  name     shape   meaning
    M       members  ()      trainings side by side
    N       size     ()      elements of one member
    θ       weights  (M, N)  of the trainings
    θ̄       average  (M, N)  of the weights, in the models while they are evaluated
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from baselines.optimizers import AveragedStepper
from bench.protocol import Stacked
from bench.protocol.averages import Exchanges
from bench.protocol.stacked import flat_rows


class StackedAverages:
    """What `AveragedStepper` does, for all members at once; their kinds of averages may differ."""

    def __init__(self, steppers: Sequence[AveragedStepper], stacked: Stacked):
        self._steppers, self._stacked, self._steps = steppers, stacked, [each.steps for each in steppers]
        self._average = flat_rows(each.average for each in steppers)
        self._exchanges = Exchanges([each.exchange for each in steppers], stacked)

    def training(self) -> None:
        """Puts the weights of the trainings into the models."""
        self._exchanges.training()

    def next_shares(self) -> list[float]:
        """Counts a step, and returns the share of its weights in each member's average."""
        self._steps = [steps + 1 for steps in self._steps]
        return [each.kind.weight(steps) for each, steps in zip(self._steppers, self._steps, strict=True)]

    def follow(self, shares: Tensor) -> None:
        """Moves the averages towards the weights of a step by its shares (M, 1)."""
        self._average.lerp_(self._stacked.theta, shares)

    def evaluation(self) -> None:
        """Puts the averages into the models."""
        self._exchanges.evaluation(self._average)

    def write(self, index: int) -> None:
        """Writes a member's average into its own stepper."""
        own = self._steppers[index]
        own.steps = self._steps[index]
        own.average = [part.clone() for part in self._stacked.parts(self._average[index : index + 1])[0]]
