"""Learning-rate schedules, each a factor on the initial learning rate with options of its own.

Step, multistep and exponential count steps or epochs, as `unit` says.  Cosine, warm-up with cosine, and one cycle span the
budget, in whatever unit, or the trial in a search.  The formulas are those of torch.optim.lr_scheduler.
"""

from __future__ import annotations

import math
from typing import ClassVar, Literal, NamedTuple

from pydantic import Field, field_validator

from bench.protocol import Options

Unit = Literal["step", "epoch"]


class Place(NamedTuple):
    """Where a training stands: the fraction of the budget or trial that has passed, in [0, 1), and the updates made."""

    progress: float
    step: int
    steps_per_epoch: int

    def units(self, unit: Unit) -> int:
        """Returns the number of whole steps or epochs done."""
        return self.step // (self.steps_per_epoch if unit == "epoch" else 1)


class Constant(Options):
    """A constant learning rate."""

    own: ClassVar[tuple[str, ...]] = ()
    """Hyperparameters of the schedule that a search may tune."""
    spans_budget: ClassVar[bool] = False
    """Whether the schedule depends on the budget, so that a smaller budget's result cannot be read off the records."""

    def factor(self, place: Place) -> float:
        """Returns the factor on the initial learning rate for the next update."""
        return 1.0


class Step(Constant):
    """A learning rate that is multiplied by `gamma` every `step_size` units."""

    own: ClassVar[tuple[str, ...]] = ("step_size",)

    step_size: int | None = Field(default=None, ge=1)
    gamma: float = Field(default=0.1, gt=0, lt=1)
    unit: Unit = "step"

    def factor(self, place: Place) -> float:
        """Returns StepLR's factor."""
        assert self.step_size is not None
        return self.gamma ** (place.units(self.unit) // self.step_size)


class Multistep(Constant):
    """A learning rate that is multiplied by `gamma` at each of the `milestones`."""

    milestones: tuple[int, ...] = Field(min_length=1)
    gamma: float = Field(default=0.1, gt=0, lt=1)
    unit: Unit = "epoch"

    @field_validator("milestones")
    @classmethod
    def _rising(cls, milestones: tuple[int, ...]) -> tuple[int, ...]:
        if list(milestones) != sorted({m for m in milestones if m > 0}):
            raise ValueError("must be positive numbers of units, each larger than the one before")
        return milestones

    def factor(self, place: Place) -> float:
        """Returns MultiStepLR's factor."""
        done = place.units(self.unit)
        return self.gamma ** sum(done >= milestone for milestone in self.milestones)


class Exponential(Constant):
    """A learning rate that is multiplied by `gamma` every unit."""

    own: ClassVar[tuple[str, ...]] = ("gamma",)

    gamma: float | None = Field(default=None, gt=0, lt=1)
    unit: Unit = "epoch"

    def factor(self, place: Place) -> float:
        """Returns ExponentialLR's factor."""
        assert self.gamma is not None
        return self.gamma ** place.units(self.unit)


class Cosine(Constant):
    """A learning rate that falls to 0 along half a cosine."""

    spans_budget: ClassVar[bool] = True

    def factor(self, place: Place) -> float:
        """Returns CosineAnnealingLR's factor."""
        return falling(place.progress)


class WarmupCosine(Constant):
    """A learning rate that rises linearly from a thousandth, then falls to 0 along half a cosine.

    The rise takes the fraction `warmup`.
    """

    spans_budget: ClassVar[bool] = True

    warmup: float = Field(default=0.05, gt=0, lt=1)

    def factor(self, place: Place) -> float:
        """Returns LinearLR's factor, then CosineAnnealingLR's."""
        if place.progress < self.warmup:
            return 1e-3 + (1 - 1e-3) * place.progress / self.warmup
        return falling((place.progress - self.warmup) / (1 - self.warmup))


class OneCycle(Constant):
    """A learning rate that rises from lr / `start_divisor` to lr during the fraction `rise`, then falls.

    It ends at lr / (start_divisor · end_divisor).
    """

    spans_budget: ClassVar[bool] = True

    rise: float = Field(default=0.3, gt=0, lt=1)
    start_divisor: float = Field(default=25.0, ge=1)
    end_divisor: float = Field(default=1e4, ge=1)

    def factor(self, place: Place) -> float:
        """Returns OneCycleLR's factor with cosine annealing, for the learning rate alone (Smith and Topin, 2017)."""
        first, last = 1 / self.start_divisor, 1 / (self.start_divisor * self.end_divisor)
        if place.progress < self.rise:
            return 1 + (first - 1) * falling(place.progress / self.rise)
        return last + (1 - last) * falling((place.progress - self.rise) / (1 - self.rise))


def falling(fraction: float) -> float:
    """Returns half a cosine, which falls from 1 at 0 to 0 at 1."""
    return 0.5 * (1 + math.cos(math.pi * fraction))
