"""Search spaces as data: each hyperparameter has a law, from which every method draws."""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Mapping
from typing import Annotated

from pydantic import AfterValidator, model_validator

from bench.protocol.settings import Settings
from bench.protocol.streams import stream_seed
from bench.records.names import checked_name

MOST_WHOLE_NUMBERS, LARGEST_WHOLE_NUMBER = 1_000_000, 2**53
"""How many whole numbers a law may have, of which some searchers keep a list, and up to which floats hold them exactly."""


class Dimension(Settings):
    """A uniform law on [low, high], on a logarithmic scale if `log`.

    With `integer` it gives the whole numbers from low to high, all equally likely.  On a logarithmic scale each has the
    probability of all numbers that are nearest to it; for 1 to 3, `low: 0.5, high: 3.5` gives the ends all of theirs.

    With `complement` it is the law of 1 − value, because decay factors just below 1 differ in their distance from 1.  With
    an `offset` it is the law of value − offset.

    Every method draws through `at`, and every searcher keeps to `bounds`, `coordinate` and `value`.
    """

    low: float
    high: float
    log: bool = False
    integer: bool = False
    complement: bool = False
    offset: float = 0.0

    @model_validator(mode="after")
    def _can_be_drawn_from(self) -> Dimension:
        low, high = self.low, self.high
        if not low < high:
            raise ValueError(f"low {low:g} must be below high {high:g}")
        if self.log and low <= 0:
            raise ValueError(f"low {low:g} must be positive on a logarithmic scale")
        if self.offset and (self.complement or self.integer):
            raise ValueError("an offset cannot be combined with complement or integer")
        if self.log and math.isinf(high / low):
            raise ValueError(f"low {low:g} is too far below high {high:g}: their ratio is beyond double precision")
        if self.integer:
            self._check_whole_numbers()
        return self

    def _check_whole_numbers(self) -> None:
        low, high = self.bounds
        if low > high:
            raise ValueError(f"there is no whole number from low {self.low:g} to high {self.high:g}")
        if max(abs(low), abs(high)) > LARGEST_WHOLE_NUMBER or high - low >= MOST_WHOLE_NUMBERS:
            allowed = f"at most {MOST_WHOLE_NUMBERS:,} whole numbers are allowed, none beyond {LARGEST_WHOLE_NUMBER}"
            raise ValueError(f"{allowed}, from low {self.low:g} to high {self.high:g}")

    @property
    def bounds(self) -> tuple[float, float]:
        """The least and the greatest coordinate; ints if the law gives whole numbers."""
        return (math.ceil(self.low), math.floor(self.high)) if self.integer else (self.low, self.high)

    def at(self, fraction: float) -> float:
        """Returns the law's quantile at a fraction in [0, 1]."""
        low, high = self.bounds
        if self.log:
            coordinate = math.exp(math.log(self.low) + fraction * math.log(self.high / self.low))
        elif self.integer:
            coordinate = math.floor(low + fraction * (high - low + 1))
        else:
            coordinate = low + fraction * (high - low)
        return self.value(self._nearest(coordinate))

    def _nearest(self, coordinate: float) -> float:
        """Returns the nearest coordinate that the law has."""
        low, high = self.bounds
        return min(max(round(coordinate) if self.integer else coordinate, low), high)

    def value(self, coordinate: float) -> float:
        """Returns the hyperparameter at a coordinate of the law."""
        if self.complement:
            return 1 - coordinate
        return coordinate + self.offset if self.offset else coordinate  # adding 0.0 would make an int a float

    def coordinate(self, value: float) -> float:
        """Returns the law's coordinate of a hyperparameter, within the bounds even if 1 − (1 − low) rounds to below low."""
        return self._nearest(1 - value if self.complement else value - self.offset)

    def near(self, value: float, factor: float) -> float:
        """Returns the hyperparameter whose coordinate is `factor` times as large, within the law's bounds.

        A whole number that rounding would leave where it is moves by one in the factor's direction.
        """
        coordinate = self.coordinate(value)
        found = self._nearest(coordinate * factor)
        if self.integer and found == coordinate and factor != 1:
            found = self._nearest(coordinate + math.copysign(1, (factor - 1) * (coordinate or 1)))
        return self.value(found)


class Space(Settings):
    """A named set of laws.  Its name is in every record and on every figure."""

    name: Annotated[str, AfterValidator(checked_name)]
    hyperparameters: Mapping[str, Dimension]
    optimizers: Mapping[str, Mapping[str, Dimension]] = {}
    """Laws that replace those above for methods that use the optimizer of that name."""

    def of(self, optimizer: str) -> Space:
        """Returns the space of methods that use the given optimizer."""
        own = self.optimizers.get(optimizer, {})
        return Space(name=self.name, hyperparameters={**self.hyperparameters, **own})

    def sharing(self, laws: Mapping[str, str]) -> Space:
        """Returns the space in which each of these names has the law that the other one has, where there is that law."""
        alike = {name: self.hyperparameters[other] for name, other in laws.items() if other in self.hyperparameters}
        return Space(name=self.name, hyperparameters={**self.hyperparameters, **alike})

    def missing(self, names: Iterable[str]) -> list[str]:
        """Returns those of `names` for which this space has no law."""
        return [name for name in names if name not in self.hyperparameters]


def draw(space: Space, names: Iterable[str], seed: int, counter: int = 0) -> dict[str, float]:
    """Returns one value per name.  Each name has its own stream, so methods of one seed share values of shared names."""

    return {
        name: space.hyperparameters[name].at(random.Random(stream_seed(seed, f"draw {name}", counter)).random())
        for name in names
    }
