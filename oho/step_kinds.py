"""What each step of a training does: train alone, tune as well, or make a meta-step on top.

    kind    influence                meta-step
    plain   stays as it is           no
    tuned   follows the parameters   no
    meta    follows the parameters   yes, if the step is given a validation loss

Steps are counted from 1.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass

from oho.tuned_steps import TunedSteps

HORIZON = 1_000_000
"""The number of steps among which `next_meta` looks for a meta-step, since a user's own tuned steps may end for good."""


@dataclass(frozen=True)
class StepKinds:
    """The kinds of all steps; `hyperparameters` are the names of those that are tuned.

    Of the steps that `tuned_steps` tune, those among the first `first_updates` steps and every `update_every`-th one make a
    meta-step, unless there are no hyperparameters.
    """

    tuned_steps: TunedSteps
    update_every: int
    first_updates: int
    hyperparameters: tuple[str, ...]

    def is_tuned(self, step: int) -> bool:
        """Returns whether the influence follows a step."""
        return self.tuned_steps.count(step) > self.tuned_steps.count(step - 1)

    def is_meta(self, step: int) -> bool:
        """Returns whether a step makes a meta-step, if it is given a validation loss."""
        is_due = step <= self.first_updates or self.tuned_steps.count(step) % self.update_every == 0
        return bool(self.hyperparameters) and self.is_tuned(step) and is_due

    def plain_before(self, step: int) -> int:
        """Returns the number of plain steps between the last tuned step and this one."""
        last = step - 1
        while last and not self.is_tuned(last):
            last -= 1
        return step - 1 - last

    def last_meta(self, step: int) -> int:
        """Returns the last step up to this one that makes a meta-step; 0 if there is none."""
        while step and not self.is_meta(step):
            step -= 1
        return step

    def next_meta(self, step: int) -> int | None:
        """Returns the first step after this one that makes a meta-step; None if none of the next HORIZON steps does."""
        tuned, later = self.tuned_steps.count(step), range(step + 1, step + HORIZON + 1)
        for count in (tuned + 1, (tuned // self.update_every + 1) * self.update_every):
            place = bisect_left(later, count, key=self.tuned_steps.count)
            if place < HORIZON and self.is_meta(later[place]):
                return later[place]
        return None
