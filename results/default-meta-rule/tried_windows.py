"""Windows that `search_short.py` tried beside `oho.Windows`: other steps, meta-steps and influences between them."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import count

import oho
from oho.step_kinds import StepKinds


@dataclass(frozen=True)
class Growing:
    """The first steps, and then windows of `length` whose gaps grow by a length each, up to those of `period`."""

    first: int = 100
    length: int = 50
    period: int = 200

    def count(self, step: int) -> int:
        """Returns how many of the first `step` steps are tuned."""
        tuned, end, gap = min(step, self.first), self.first, 0
        while end < step:
            gap = min(gap + self.length, self.period - self.length)
            tuned += max(0, min(step - end - gap, self.length))
            end += gap + self.length
        return tuned


@dataclass(frozen=True)
class Scaled:
    """The first steps, and then windows, each as long as a `part` of the steps made when it begins: a quarter of all steps.

    None has fewer than `least` steps or more than `most`; the gap before each is three times as long.
    """

    part: float = 0.1
    first: int = 100
    least: int = 50
    most: int = 400

    def count(self, step: int) -> int:
        """Returns how many of the first `step` steps are tuned."""
        tuned, end = min(step, self.first), self.first
        while end < step:
            length = round(min(max(self.part * end / (1 - 3 * self.part), self.least), self.most))
            tuned += max(0, min(step - end - 3 * length, length))
            end += 4 * length
        return tuned


@dataclass(frozen=True)
class LateKinds(StepKinds):
    """Kinds of steps of which those in the first half of a window make no meta-step, unless among the `first_updates`."""

    def is_meta(self, step: int) -> bool:
        """Returns whether a step makes a meta-step, if it is given a validation loss."""
        return super().is_meta(step) and (step <= self.first_updates or self._is_late(step))

    def _is_late(self, step: int) -> bool:
        before = next((n for n in range(1, step) if not self.is_tuned(step - n)), step)
        after = next(n for n in count(1) if not self.is_tuned(step + n))
        return before >= after or before == step


class Tried(oho.OHO):
    """An optimizer whose influence is multiplied by `gap` for each step between windows, and whose meta-steps may be late.

    The influence of the average follows that of the weights through the gap: both are multiplied alike, before or after.
    """

    gap, kinds = 1.0, StepKinds

    @property
    def _kinds(self) -> StepKinds:
        return self.kinds(self.tuned_steps, self.update_every, self.first_updates, self._recursion.tuning.tuned)

    def _before_step(self) -> None:
        if self.gap != 1 and self.is_tuned and self.steps_behind:
            for tangent in self._recursion.influence.tensors:
                tangent.mul_(self.gap**self.steps_behind)
        super()._before_step()
