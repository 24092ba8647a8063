"""The options that all of OHO's methods have in common."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

from pydantic import Field

import oho
from bench.protocol import InitialValues
from oho.averages import Average
from oho.bounds import DEFAULT_BOUNDS, Bounds
from oho.rules import Rule


class OnlineOptions(InitialValues):
    """What all methods named oho-* have in common: initial values, and the loss whose hypergradients they follow."""

    clamps_kicks: ClassVar[bool] = True

    source: Literal["validation", "training"] = "validation"
    validation_batch_size: int | None = Field(default=None, ge=1)
    compare_exact: bool = False

    @property
    def bounds(self) -> Mapping[str, Bounds]:
        """The interval that each hyperparameter stays in, kicks included."""
        return DEFAULT_BOUNDS

    @property
    def sets(self) -> oho.Sets:
        """What shares one value."""
        return "global"

    @property
    def kind_of_average(self) -> Average | None:
        """The library's average, if there is one."""
        return None

    @property
    def curvature_part(self) -> float | None:
        """The part of a batch from which products are taken; None is all of it."""
        return None

    @property
    def validates_narrowly(self) -> bool:
        """Whether the loss whose hypergradients are followed is computed in bfloat16."""
        return False

    @property
    def has_bounded_twin(self) -> bool:
        """Whether the exact influence beside the run has the run's own discount and limit."""
        return False

    def rule(self, values: Mapping[str, float], *, tune: tuple[str, ...], temperature: float = 0.0) -> Rule:
        """Returns the update rule with these hyperparameters, of which those in `tune` are tuned."""
        return oho.SGD(**values, tune=tune, temperature=temperature)
