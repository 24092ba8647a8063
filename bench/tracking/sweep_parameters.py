"""The laws of a search's space as the parameters of a W&B sweep, and back from a sweep's values to hyperparameters.

    law                                 W&B's distribution
    uniform, also with an offset        uniform, or int_uniform for whole numbers
    logarithmic                         log_uniform_values, or q_log_uniform_values for whole numbers
    logarithmic in 1 - value            log_uniform_values of a parameter `one_minus_NAME`, because W&B has no such law
    logarithmic with an offset          none: it is refused
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from bench.protocol import Dimension, Space

ONE_MINUS = "one_minus_"


class SweepError(ValueError):
    """A law that no distribution of W&B's equals."""


@dataclass(frozen=True)
class Parameter:
    """A parameter of a sweep: its name and definition there, and the hyperparameter that its values stand for."""

    name: str
    definition: Mapping[str, Any]
    hyperparameter: str

    def value(self, given: float) -> float:
        """Returns the hyperparameter at a value of the parameter."""
        return given if self.name == self.hyperparameter else 1 - given


def parameters_of(space: Space, names: Iterable[str]) -> tuple[Parameter, ...]:
    """Returns the parameters that draw hyperparameters as the space does.  Raises `SweepError`."""
    return tuple(_parameter(name, space.hyperparameters[name]) for name in names)


def _parameter(name: str, law: Dimension) -> Parameter:
    if not law.log:
        low, high = sorted(map(law.value, law.bounds))
        return Parameter(name, _between("int_uniform" if law.integer else "uniform", low, high), name)
    if law.offset:
        raise SweepError(
            f"the law of {name} is logarithmic in {name} - {law.offset:g}, and W&B has no such law: use a space without the"
            " offset, or `oho-bench run`"
        )
    if law.integer and not (_rounds_within(law.low) and _rounds_within(-law.high)):
        raise SweepError(
            f"the law of {name} is that of whole numbers from {law.low:g} to {law.high:g}, and W&B would round some of its"
            " own beyond them: give it whole bounds, or bounds such as 0.5 and 3.5"
        )
    kind = "q_log_uniform_values" if law.integer else "log_uniform_values"
    return Parameter(f"{ONE_MINUS}{name}" if law.complement else name, _between(kind, law.low, law.high), name)


def _between(distribution: str, low: float, high: float) -> dict[str, Any]:
    if low == high:  # of whole numbers, a law may have one alone
        return {"value": low}
    return {"distribution": distribution, "min": low, "max": high, **({"q": 1} if distribution.startswith("q") else {})}


def _rounds_within(bound: float) -> bool:
    """Returns whether the numbers above a bound are rounded to whole numbers above it."""
    fraction = bound - math.floor(bound)
    return fraction == 0 or fraction >= 0.5
