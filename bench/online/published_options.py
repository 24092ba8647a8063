"""Options of the methods with the published meta-step: what shares one value, meta-rates and ceilings."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator

import oho
from bench.online.default_options import DefaultOptions
from bench.online.options import OnlineOptions
from bench.protocol.averages import left_out
from oho.bounds import DEFAULT_BOUNDS, Bounds
from oho.published import CEILINGS


class GlobalOptions(DefaultOptions):
    """The published raw parametrisation: hyperparameters take plain gradient steps and stay within their bounds.

    `meta_rate` is the length of a step relative to the hypergradient, for the weight decay times
    `weight_decay_rate_scale`.  `meta_rates` gives hyperparameters, those of the loss too, rates of their own, such as
    {beta1: 1e-3}, instead of both.  The defaults are the published ones, chosen for SGD: learning rates of Adam are
    smaller and hypergradients with respect to them larger, so that they want meta-rates of some 1e-7.  Momentum and betas
    stay within [0, 0.999] and, beta2, [0, 0.99999].  With an `influence_limit`, tangents longer than so many times the
    parameters are shortened, as `oho-default` does beyond 1.
    """

    meta_rate: float = Field(default=1e-5, ge=0)
    meta_rates: Mapping[str, float] = {}
    weight_decay_rate_scale: float = Field(default=0.01, ge=0)
    weight_decay_max: float = Field(default=2e-4, gt=0)
    discount: float = Field(default=1.0, ge=0, le=1)
    influence_limit: float | None = Field(default=None, gt=0, exclude_if=left_out)
    reset_every: int = Field(default=0, ge=0)
    update_every: int = Field(default=1, ge=1)
    temperature: float = Field(default=0.0, ge=0)

    @field_validator("meta_rates")
    @classmethod
    def _of_what_is_tuned(cls, rates: Mapping[str, float], info: ValidationInfo) -> Mapping[str, float]:
        if "tune" in info.data and "tune_loss" in info.data:  # else these have a mistake of their own
            tuned = (*info.data["tune"], *info.data["tune_loss"])
            if unknown := [name for name in rates if name not in tuned]:
                raise ValueError(f"{', '.join(unknown)}: not tuned; tuned are {', '.join(tuned)}")
        if negative := [name for name, rate in rates.items() if rate < 0]:
            raise ValueError(f"{', '.join(negative)}: must be 0 or more")
        return rates

    def details(self) -> list[str]:
        """Returns also that the influence has a limit."""
        return [*super().details(), *([] if self.influence_limit is None else ["limited"])]

    @property
    def rates(self) -> dict[str, float]:
        """The meta-rate of each tuned hyperparameter."""
        usual = {"weight_decay": self.meta_rate * self.weight_decay_rate_scale}
        tuned = (*self.tune, *self.tune_loss)
        return {name: self.meta_rates.get(name, usual.get(name, self.meta_rate)) for name in tuned}

    @property
    def bounds(self) -> Mapping[str, Bounds]:
        """The library's, but for the ceiling of the weight decay."""
        return {**DEFAULT_BOUNDS, "weight_decay": (0.0, self.weight_decay_max)}


class SetsOptions(GlobalOptions):
    """Several sets: exact and collapsed influence differ."""

    influence: Literal["exact", "collapsed"] = "exact"

    @property
    def mode(self) -> str:
        """The influence's."""
        return self.influence


class FullOptions(SetsOptions):
    """One value of each hyperparameter for each parameter tensor."""

    weight_decay_max: float = Field(default=5e-4, gt=0)

    @property
    def sets(self) -> oho.Sets:
        """A set for each tensor."""
        return "full"


class LayerwiseOptions(SetsOptions):
    """One value of each hyperparameter for the weights and one for the biases of `groups` groups of layers."""

    groups: int = Field(default=2, ge=1)
    meta_rate: float = Field(default=1e-6, ge=0)
    weight_decay_max: float = Field(default=3e-3, gt=0)

    @property
    def sets(self) -> oho.Sets:
        """Weights and biases of each group."""
        return oho.Layerwise(self.groups)


class PublishedOptions(OnlineOptions):
    """The published recursion with its defects, for SGD alone.

    `weight_decay_max` left out is the published ceiling of the variant.
    """

    variant: Literal["global", "full", "layerwise"] = "global"
    groups: int | None = Field(default=None, ge=1)
    meta_rate: float = Field(default=1e-5, ge=0)
    weight_decay_rate_scale: float = Field(default=0.01, ge=0)
    weight_decay_max: float | None = Field(default=None, gt=0)

    @model_validator(mode="after")
    def _groups_belong_to_layerwise(self) -> PublishedOptions:
        if (self.variant == "layerwise") != (self.groups is not None):
            raise ValueError("groups belongs to variant: layerwise, and only to it")
        if self.compare_exact and self.variant == "layerwise":
            raise ValueError("compare_exact: the published layer-wise update is that of no loss; take global or full")
        return self

    @property
    def bounds(self) -> Mapping[str, Bounds]:
        """The published ceiling of the variant's weight decay, unless another was given."""
        return {"lr": (0.0, math.inf), "weight_decay": (0.0, self.weight_decay_max or CEILINGS[self.variant])}

    @property
    def sets(self) -> oho.Sets:
        """What shares one value; for the layer-wise variant, what comes nearest."""
        return oho.Layerwise(self.groups) if self.groups else "full" if self.variant == "full" else "global"
