"""Update rules: pure elementwise maps, written once and differentiated forward, never by hand.

    symbol  name             shape    meaning
    θ       parameters       (..., N) all tuned parameters, flattened
    g       gradient         (..., N) of the training loss at θ
    s       slots            (..., N) the optimizer's memory, by name
    h       hyperparameters  (..., 1) or (..., N), by name, broadcast by the set map

A rule maps (θ, g, s, h) -> (θ', s').  With hyperparameters held still each equals the `torch.optim` rule of its name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Protocol

import torch
from torch import Tensor

Slots = dict[str, Tensor]
Hyper = Mapping[str, Tensor]


class Rule(Protocol):
    """An update rule.  `names` are its hyperparameters, fields of the rule; `tune` are those changed online."""

    names: ClassVar[tuple[str, ...]]
    slot_names: ClassVar[tuple[str, ...]]
    tune: tuple[str, ...]

    def __call__(self, theta: Tensor, gradient: Tensor, slots: Slots, hyper: Hyper) -> tuple[Tensor, Slots]:
        """One step; a function of its arguments alone."""
        ...


@dataclass(frozen=True)
class SGD:
    """θ' = θ − η (g + λ θ)."""

    names: ClassVar[tuple[str, ...]] = ("lr", "weight_decay")
    slot_names: ClassVar[tuple[str, ...]] = ()

    lr: float
    weight_decay: float = 0.0
    tune: tuple[str, ...] = ("lr", "weight_decay")

    def __call__(self, theta: Tensor, gradient: Tensor, slots: Slots, hyper: Hyper) -> tuple[Tensor, Slots]:
        """Applies the rule."""
        direction = torch.addcmul(gradient, hyper["weight_decay"], theta)
        return torch.addcmul(theta, hyper["lr"], direction, value=-1), {}


@dataclass(frozen=True)
class Momentum:
    """m' = β m + g + λ θ; θ' = θ − η m', or θ − η (g + λ θ + β m') with `nesterov`."""

    names: ClassVar[tuple[str, ...]] = ("lr", "weight_decay", "momentum")
    slot_names: ClassVar[tuple[str, ...]] = ("momentum",)

    lr: float
    weight_decay: float = 0.0
    momentum: float = 0.9
    nesterov: bool = False
    tune: tuple[str, ...] = ("lr", "weight_decay")

    def __call__(self, theta: Tensor, gradient: Tensor, slots: Slots, hyper: Hyper) -> tuple[Tensor, Slots]:
        """Applies the rule."""
        direction = torch.addcmul(gradient, hyper["weight_decay"], theta)
        average = torch.addcmul(direction, hyper["momentum"], slots["momentum"])
        step = torch.addcmul(direction, hyper["momentum"], average) if self.nesterov else average
        return torch.addcmul(theta, hyper["lr"], step, value=-1), {"momentum": average}


@dataclass(frozen=True)
class Adam:
    """Adam with the L2 penalty in the gradient (torch.optim.Adam)."""

    names: ClassVar[tuple[str, ...]] = ("lr", "weight_decay", "beta1", "beta2")
    slot_names: ClassVar[tuple[str, ...]] = ("step", "mean", "square")
    decoupled: ClassVar[bool] = False

    lr: float = 1e-3
    weight_decay: float = 0.0
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8
    tune: tuple[str, ...] = ("lr", "weight_decay")

    def __call__(self, theta: Tensor, gradient: Tensor, slots: Slots, hyper: Hyper) -> tuple[Tensor, Slots]:
        """Applies the rule."""
        rate, decay, beta1, beta2 = (hyper[name] for name in self.names)
        if self.decoupled:
            theta = theta * (1 - rate * decay)
        else:
            gradient = torch.addcmul(gradient, decay, theta)
        step = slots["step"] + 1
        mean = beta1 * slots["mean"] + (1 - beta1) * gradient
        square = beta2 * slots["square"] + (1 - beta2) * gradient * gradient
        root = _square_root(square / (1 - beta2**step))
        theta = theta - rate / (1 - beta1**step) * mean / (root + self.epsilon)
        return theta, {"step": step, "mean": mean, "square": square}


@dataclass(frozen=True)
class AdamW(Adam):
    """Adam with decoupled weight decay (torch.optim.AdamW; Loshchilov and Hutter, 2019)."""

    decoupled: ClassVar[bool] = True

    weight_decay: float = 1e-2


def _square_root(value: Tensor) -> Tensor:
    """√value, its derivative taken as 0 where the value is 0, so that an unused unit's tangent stays finite."""
    positive = value > 0
    return torch.where(positive, torch.where(positive, value, 1.0).sqrt(), 0.0)
