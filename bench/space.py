"""Search spaces as data: a law for each hyperparameter, from which every method draws."""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Mapping
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, model_validator

from bench.streams import stream_seed

Bound = Annotated[float, Field(allow_inf_nan=False)]


class Dimension(BaseModel):
    """A uniform law on [low, high], on a logarithmic scale if `log`, rounded to whole numbers if `integer`.

    With `complement` it is the law of 1 − value: decay factors just below 1 differ in their distance from 1.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    low: Bound
    high: Bound
    log: bool = False
    integer: bool = False
    complement: bool = False

    @model_validator(mode="after")
    def _ordered(self) -> Dimension:
        if not self.low < self.high:
            raise ValueError(f"low {self.low:g} must be below high {self.high:g}")
        if self.log and self.low <= 0:
            raise ValueError(f"low {self.low:g} must be positive on a logarithmic scale")
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
        return 1 - coordinate if self.complement else coordinate

    def coordinate(self, value: float) -> float:
        """Where the law has a hyperparameter; within the bounds, though 1 − (1 − low) may round to below low."""
        return min(max(1 - value, self.low), self.high) if self.complement else value


class Space(BaseModel):
    """Named laws.  The name stands in every record and on every figure."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    hyperparameters: Mapping[str, Dimension]

    def missing(self, names: Iterable[str]) -> list[str]:
        """Those of `names` that this space has no law for."""
        return [name for name in names if name not in self.hyperparameters]


def draw(space: Space, names: Iterable[str], seed: int, counter: int = 0) -> dict[str, float]:
    """One value a name.  Each name has its own stream, so methods of one seed share the values they share names of."""

    return {
        name: space.hyperparameters[name].at(random.Random(stream_seed(seed, f"draw {name}", counter)).random())
        for name in names
    }
