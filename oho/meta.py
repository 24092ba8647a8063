"""Meta-rules: how hyperparameters follow their hypergradient.

    symbol  name            shape    meaning
    h       value           (M, S)   a hyperparameter's value, one for each set and member
    u       coordinate      (M, S)   u = T(h); T is raw (u = h), log (u = log h) or logit (u = log h/(1 − h))
    d       hypergradient   (M, S)   d(validation loss)/dh
    c       gradient        (M, S)   d · dh/du, clipped to [−clip, clip] if asked
    m       meta-rate       ()       step length in u

A meta-step moves u along c and projects h = T⁻¹(u) onto its bounds.  Options all meta-rules share
    rate       one number, or a mapping by name with one for each hyperparameter; with members, a tensor (M, 1) in place of
               a number gives each member its own
    transform  "raw", "log" or "logit", or a mapping by name (names it lacks are raw)
    bounds     mapping from name to (low, high); names it lacks have those of `oho.bounds`
    clip       largest absolute entry of the gradient with respect to u; None for no clipping
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

from oho.bounds import Bounds, Coordinate

PerName = float | Tensor | Mapping[str, float | Tensor]
Memory = dict[str, Tensor]


class MetaRule(Protocol):
    """The options of all meta-rules, and the step in u; any frozen dataclass with these members may stand in for ours."""

    @property
    def rate(self) -> PerName:
        """Step length in u."""
        ...

    @property
    def transform(self) -> str | Mapping[str, str]:
        """raw | log | logit."""
        ...

    @property
    def bounds(self) -> Mapping[str, Bounds]:
        """Closed intervals of h."""
        ...

    @property
    def clip(self) -> float | None:
        """Largest absolute entry of the gradient in u."""
        ...

    def step(self, name: str, gradient: Tensor, memory: Memory) -> tuple[Tensor, Memory]:
        """Returns the change of u and the hyperparameter's new memory, tensors of `gradient`'s shape (M, S)."""
        ...


@dataclass(frozen=True)
class MetaSGD:
    """u' = u − m c, the published rule; the options are explained at the top of `oho.meta`."""

    rate: PerName
    transform: str | Mapping[str, str] = "raw"
    bounds: Mapping[str, Bounds] = field(default_factory=dict)
    clip: float | None = None

    def step(self, name: str, gradient: Tensor, memory: Memory) -> tuple[Tensor, Memory]:
        """Makes a plain gradient step."""
        return -per_name(self.rate, name) * gradient, {}


@dataclass(frozen=True)
class MetaAdam:
    """Adam on u: steps of about `rate`, whatever the gradient's scale (Kingma and Ba, 2015).

    Its averages are kept in float64, since the square of a large float32 hypergradient overflows.  The options are
    explained at the top of `oho.meta`.
    """

    rate: PerName
    transform: str | Mapping[str, str] = "log"
    bounds: Mapping[str, Bounds] = field(default_factory=dict)
    clip: float | None = None
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-12

    def step(self, name: str, gradient: Tensor, memory: Memory) -> tuple[Tensor, Memory]:
        """Makes a step of Adam."""
        wide = gradient.double()
        memory = memory or dict.fromkeys(("count", "mean", "square"), torch.zeros_like(wide))
        count = memory["count"] + 1
        mean = (self.beta1 * memory["mean"]).add_(wide, alpha=1 - self.beta1)
        square = (self.beta2 * memory["square"]).addcmul_(wide, wide, value=1 - self.beta2)
        root = (square / (1 - self.beta2**count)).sqrt_()
        change = mean * -per_name(self.rate, name) / (1 - self.beta1**count) / root.add_(self.epsilon)
        return change.to(gradient.dtype), {"count": count, "mean": mean, "square": square}


@dataclass(frozen=True)
class MetaSign:
    """u' = u − m sign(c): steps of length `rate`.  The options are explained at the top of `oho.meta`."""

    rate: PerName
    transform: str | Mapping[str, str] = "log"
    bounds: Mapping[str, Bounds] = field(default_factory=dict)
    clip: float | None = None

    def step(self, name: str, gradient: Tensor, memory: Memory) -> tuple[Tensor, Memory]:
        """Makes a step of fixed length."""
        return -per_name(self.rate, name) * gradient.sign(), {}


DEFAULT_DISCOUNT = 0.999
"""Discount of the influence under `default_meta()`."""
DEFAULT_LIMIT = 1.0
"""Limit of the influence under `default_meta()`."""


def default_meta() -> MetaAdam:
    """Returns the meta-rule that `OHO` uses if none is given; `results/default-meta-rule` says why it is this one."""
    transform = {"lr": "log", "weight_decay": "log", "momentum": "logit", "beta1": "logit", "beta2": "logit"}
    return MetaAdam(0.01, transform=transform)


def per_name(value: PerName, name: str) -> float | Tensor:
    """Returns the entry of `name`, or the one value for all names; raises ValueError where the entry is missing."""
    if not isinstance(value, Mapping):
        return value
    if name not in value:
        raise ValueError(f"rate: no meta-rate is given for {name}; given: {', '.join(value)}")
    return value[name]


def moved_alike(meta: MetaRule, coordinates: Mapping[str, Coordinate]) -> list[tuple[str, ...]]:
    """Returns the names in groups, each of which a meta-step moves as if it were one hyperparameter with more sets.

    Adam makes so many small operations that this is worth its copies.  For other rules, and for rates of which each set has
    its own, each name is a group.
    """
    groups: dict[Any, list[str]] = {}
    is_adam = getattr(type(meta), "step", None) is MetaAdam.step  # a rule's step may be a field, which its class lacks
    for name, coordinate in coordinates.items():
        key: Any = name
        if is_adam and torch.as_tensor(rate := per_name(meta.rate, name)).shape[-1:].numel() == 1:
            key = (coordinate, id(rate) if isinstance(rate, Tensor) else rate)
        groups.setdefault(key, []).append(name)
    return [tuple(names) for names in groups.values()]


def meta_step(
    meta: MetaRule, name: str, value: Tensor, hypergradient: Tensor, memory: Memory, *, coordinate: Coordinate
) -> tuple[Tensor, Memory]:
    """Returns a hyperparameter's next value (M, S) and memory, from its value and hypergradient, both (M, S)."""
    kind, (low, high) = coordinate
    gradient = hypergradient
    if kind != "raw":
        gradient = gradient * (value if kind == "log" else value * (1 - value))
    if meta.clip is not None:
        gradient = gradient.clamp(-meta.clip, meta.clip)
    change, memory = meta.step(name, gradient, memory)
    if kind == "log":
        moved = value * change.exp()
    elif kind == "logit":
        moved = torch.sigmoid(torch.logit(value) + change)
    else:
        moved = value + change
    return moved.clamp(low, high), memory
