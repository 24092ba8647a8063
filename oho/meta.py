"""Meta-rules: how hyperparameters follow their hypergradient.

    symbol  name            meaning
    h       value           a hyperparameter's value, one a set
    u       coordinate      u = T(h); T is raw (u = h), log (u = log h) or logit (u = log h/(1 − h))
    d       hypergradient   d(validation loss)/dh

A meta-step moves u along d · dh/du, then projects h onto its bounds.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

Bounds = tuple[float, float]
PerName = float | Mapping[str, float]

DEFAULT_BOUNDS: dict[str, Bounds] = {
    "lr": (0.0, math.inf),
    "weight_decay": (0.0, math.inf),
    "momentum": (0.0, 0.999),
    "beta1": (0.0, 0.999),
    "beta2": (0.0, 0.99999),
}
LOWEST_POSITIVE = 1e-8
"""Lower bound under `log` and `logit`, where 0 is infinitely far."""


class MetaRule(Protocol):
    """Options shared by all meta-rules, and the step in u."""

    rate: PerName
    transform: str | Mapping[str, str]
    bounds: Mapping[str, Bounds]
    clip: float | None

    def step(self, name: str, gradient: Tensor, memory: dict[str, Tensor]) -> Tensor:
        """The change of u, of `gradient`'s shape; `memory` is this hyperparameter's own."""
        ...


@dataclass(frozen=True)
class MetaSGD:
    """u' = u − rate · gradient, as published.  `clip` bounds each entry of the gradient with respect to u."""

    rate: PerName
    transform: str | Mapping[str, str] = "raw"
    bounds: Mapping[str, Bounds] = field(default_factory=dict)
    clip: float | None = None

    def step(self, name: str, gradient: Tensor, memory: dict[str, Tensor]) -> Tensor:
        """A plain gradient step."""
        return -per_name(self.rate, name) * gradient


@dataclass(frozen=True)
class MetaAdam:
    """Adam on u: a step of about `rate` whatever the gradient's scale."""

    rate: PerName
    transform: str | Mapping[str, str] = "log"
    bounds: Mapping[str, Bounds] = field(default_factory=dict)
    clip: float | None = None
    beta1: float = 0.9
    beta2: float = 0.999

    def step(self, name: str, gradient: Tensor, memory: dict[str, Tensor]) -> Tensor:
        """A step of Adam (Kingma and Ba, 2015)."""
        zero = torch.zeros_like(gradient)
        count = memory.get("count", torch.zeros((), device=gradient.device)) + 1
        mean = self.beta1 * memory.get("mean", zero) + (1 - self.beta1) * gradient
        square = self.beta2 * memory.get("square", zero) + (1 - self.beta2) * gradient**2
        memory.update(count=count, mean=mean, square=square)
        root = (square / (1 - self.beta2**count)).sqrt()
        return -per_name(self.rate, name) * mean / (1 - self.beta1**count) / (root + 1e-12)


@dataclass(frozen=True)
class MetaSign:
    """u' = u − rate · sign(gradient)."""

    rate: PerName
    transform: str | Mapping[str, str] = "log"
    bounds: Mapping[str, Bounds] = field(default_factory=dict)
    clip: float | None = None

    def step(self, name: str, gradient: Tensor, memory: dict[str, Tensor]) -> Tensor:
        """A step of fixed length."""
        return -per_name(self.rate, name) * gradient.sign()


def per_name(value: PerName, name: str) -> float:
    """The entry of `name`, or the one value for all names."""
    if not isinstance(value, Mapping):
        return value
    if name not in value:
        raise ValueError(f"rate: no meta-rate is given for {name}; given: {', '.join(value)}")
    return value[name]


def transform_of(meta: MetaRule, name: str) -> str:
    """raw | log | logit."""
    kind = meta.transform if isinstance(meta.transform, str) else meta.transform.get(name, "raw")
    if kind not in ("raw", "log", "logit"):
        raise ValueError(f"transform={kind!r} of {name}: allowed are raw, log, logit")
    return kind


def bounds_of(meta: MetaRule, name: str) -> Bounds:
    """The closed interval a hyperparameter stays in."""
    low, high = meta.bounds.get(name, DEFAULT_BOUNDS[name])
    if transform_of(meta, name) != "raw":
        low = max(low, LOWEST_POSITIVE)
    if transform_of(meta, name) == "logit":
        high = min(high, 1 - 1e-6)
    return low, high


def meta_step(meta: MetaRule, name: str, value: Tensor, hypergradient: Tensor, memory: dict[str, Tensor]) -> Tensor:
    """The hyperparameter's next value, (S,), from its value and hypergradient, both (S,)."""
    kind, (low, high) = transform_of(meta, name), bounds_of(meta, name)
    slope = {"raw": torch.ones_like(value), "log": value, "logit": value * (1 - value)}[kind]
    gradient = hypergradient * slope
    if meta.clip is not None:
        gradient = gradient.clamp(-meta.clip, meta.clip)
    change = meta.step(name, gradient, memory)
    if kind == "log":
        moved = value * change.exp()
    elif kind == "logit":
        moved = torch.sigmoid(torch.logit(value) + change)
    else:
        moved = value + change
    return moved.clamp(low, high)
