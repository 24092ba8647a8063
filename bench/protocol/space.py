"""Search spaces as data: a law for each hyperparameter, from which every method draws."""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Mapping
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, model_validator

from bench.protocol.streams import stream_seed

OPTIMIZERS = ("sgd", "momentum", "adam", "adamw")
"""Names of optimizers that several methods use, for which a space may have laws of its own."""
Bound = Annotated[float, Field(allow_inf_nan=False)]


class Dimension(BaseModel):
    """A uniform law on [low, high], on a logarithmic scale if `log`, rounded to whole numbers if `integer`.

    With `complement` it is the law of 1 − value: decay factors just below 1 differ in their distance from 1.  With an
    `offset` it is the law of value − offset.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    low: Bound
    high: Bound
    log: bool = False
    integer: bool = False
    complement: bool = False
    offset: Bound = 0.0

    @model_validator(mode="after")
    def _ordered(self) -> Dimension:
        if not self.low < self.high:
            raise ValueError(f"low {self.low:g} must be below high {self.high:g}")
        if self.log and self.low <= 0:
            raise ValueError(f"low {self.low:g} must be positive on a logarithmic scale")
        if self.offset and (self.complement or self.integer):
            raise ValueError("an offset goes with neither complement nor integer")
        return self

    def at(self, fraction: float) -> float:
        """The law's quantile; fraction in [0, 1]."""
        if self.log:
            value = math.exp(math.log(self.low) + fraction * math.log(self.high / self.low))
        else:
            value = self.low + fraction * (self.high - self.low)
        return self.value(round(value) if self.integer else min(max(value, self.low), self.high))

    def value(self, coordinate: float) -> float:
        """The hyperparameter at a point of the law."""
        if self.complement:
            return 1 - coordinate
        return coordinate + self.offset if self.offset else coordinate  # a whole number stays one

    def coordinate(self, value: float) -> float:
        """Where the law has a hyperparameter; within the bounds, though 1 − (1 − low) may round to below low."""
        coordinate = 1 - value if self.complement else value - self.offset
        return min(max(coordinate, self.low), self.high)

    def near(self, value: float, factor: float) -> float:
        """The hyperparameter whose coordinate is `factor` times as large, within the law's bounds."""
        coordinate = min(max(self.coordinate(value) * factor, self.low), self.high)
        return self.value(round(coordinate) if self.integer else coordinate)


class Space(BaseModel):
    """Named laws.  The name stands in every record and on every figure."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    hyperparameters: Mapping[str, Dimension]
    optimizers: Mapping[str, Mapping[str, Dimension]] = {}
    """Laws that take the place of those above where a method uses an optimizer of that name."""

    def of(self, optimizer: str) -> Space:
        """The space of methods that use an optimizer."""
        own = self.optimizers.get(optimizer, {})
        return Space(name=self.name, hyperparameters={**self.hyperparameters, **own})

    def missing(self, names: Iterable[str]) -> list[str]:
        """Those of `names` that this space has no law for."""
        return [name for name in names if name not in self.hyperparameters]


def draw(space: Space, names: Iterable[str], seed: int, counter: int = 0) -> dict[str, float]:
    """One value a name.  Each name has its own stream, so methods of one seed share the values they share names of."""

    return {
        name: space.hyperparameters[name].at(random.Random(stream_seed(seed, f"draw {name}", counter)).random())
        for name in names
    }
