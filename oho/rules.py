"""Update rules: pure maps, which dual numbers differentiate forward; `oho.linearised` has the tangents of these by hand.

    symbol  name             shape                 meaning
    θ       parameters       (..., N)              all tuned parameters, flattened
    g       gradient         (..., N)              of the training loss at θ, clipped first (`clip`) if the rule asks
    s       slots            (..., N) or (..., 1)  the optimizer's memory, by name
    h       hyperparameters  (..., N) or (..., 1)  by name, spread over the elements by the set map
    ξ       noise            (..., N)              standard normal, for a temperature T above 0

A rule maps (θ, g, s, h, ξ) -> (θ', s'), element by element; only the clipping by norm before it couples elements.  With
hyperparameters held still each equals the `torch.optim` rule of its name.

Options all rules share
    tune         names of the hyperparameters changed online; a value of 0 starts at 1e-5 where its logarithm is tuned
    clip_value   c: g ← clamp(g, −c, c), before clip_norm
    clip_norm    c: g ← g · min(1, c / (‖g‖ + 1e-6)) with the norm over all parameters, as torch.nn.utils.clip_grad_norm_
    temperature  T: θ' ← θ' + sqrt(2 η T) ξ, Langevin dynamics (Welling and Teh, 2011)
All of them are differentiated with the rest.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import ClassVar, Protocol

import torch
from torch import Tensor

Slots = dict[str, Tensor]
Hyper = Mapping[str, Tensor]
CLIP_EPSILON = 1e-6
"""Added to the norm that clipping divides by, as in torch.nn.utils.clip_grad_norm_."""
Initial = float | Tensor | Mapping[Hashable, float]
"""An initial value: one number, one for each set or member, or numbers by the set's label."""


class Rule(Protocol):
    """An update rule; any frozen dataclass with these members may stand in for ours.

    `names` are its hyperparameters (fields of the rule, each an `Initial` value), `slot_names` its slots with one entry for
    each element, `counter_names` its counts of steps, which do not depend on hyperparameters.
    """

    names: ClassVar[tuple[str, ...]]
    slot_names: ClassVar[tuple[str, ...]]
    counter_names: ClassVar[tuple[str, ...]]

    @property
    def tune(self) -> tuple[str, ...]:
        """Names of the hyperparameters changed online."""
        ...

    @property
    def clip_norm(self) -> float | None:
        """Bound of the gradient's norm."""
        ...

    @property
    def clip_value(self) -> float | None:
        """Bound of the gradient's entries."""
        ...

    @property
    def temperature(self) -> float:
        """Temperature of the noise; above 0, the rule is given noise."""
        ...

    def __call__(
        self, theta: Tensor, gradient: Tensor, slots: Slots, hyper: Hyper, noise: Tensor | None = None
    ) -> tuple[Tensor, Slots]:
        """Makes one step; a function of its arguments alone."""
        ...


@dataclass(frozen=True)
class SGD:
    """Gradient descent, θ' = θ − η (g + λ θ) (torch.optim.SGD); `lr` is η, `weight_decay` is λ.

    `Initial` says what a value may be, and the top of this file explains the options.  `OHO` raises TypeError or ValueError
    for those that do not fit.
    """

    names: ClassVar[tuple[str, ...]] = ("lr", "weight_decay")
    slot_names: ClassVar[tuple[str, ...]] = ()
    counter_names: ClassVar[tuple[str, ...]] = ()

    lr: Initial
    weight_decay: Initial = 0.0
    tune: tuple[str, ...] = ("lr", "weight_decay")
    clip_norm: float | None = None
    clip_value: float | None = None
    temperature: float = 0.0

    def __call__(
        self, theta: Tensor, gradient: Tensor, slots: Slots, hyper: Hyper, noise: Tensor | None = None
    ) -> tuple[Tensor, Slots]:
        """Applies the rule."""
        direction = torch.addcmul(gradient, hyper["weight_decay"], theta)
        theta = torch.addcmul(theta, hyper["lr"], direction, value=-1)
        return add_noise(theta, noise, rate=hyper["lr"], temperature=self.temperature), {}


@dataclass(frozen=True)
class Momentum:
    """Momentum, m' = β m + g + λ θ; θ' = θ − η m', or θ − η (g + λ θ + β m') with `nesterov` (torch.optim.SGD).

    `momentum` is β; `SGD` explains the rest.
    """

    names: ClassVar[tuple[str, ...]] = ("lr", "weight_decay", "momentum")
    slot_names: ClassVar[tuple[str, ...]] = ("momentum",)
    counter_names: ClassVar[tuple[str, ...]] = ()

    lr: Initial
    weight_decay: Initial = 0.0
    momentum: Initial = 0.9
    nesterov: bool = False
    tune: tuple[str, ...] = ("lr", "weight_decay")
    clip_norm: float | None = None
    clip_value: float | None = None
    temperature: float = 0.0

    def __call__(
        self, theta: Tensor, gradient: Tensor, slots: Slots, hyper: Hyper, noise: Tensor | None = None
    ) -> tuple[Tensor, Slots]:
        """Applies the rule."""
        direction = torch.addcmul(gradient, hyper["weight_decay"], theta)
        average = torch.addcmul(direction, hyper["momentum"], slots["momentum"])
        step = torch.addcmul(direction, hyper["momentum"], average) if self.nesterov else average
        theta = torch.addcmul(theta, hyper["lr"], step, value=-1)
        return add_noise(theta, noise, rate=hyper["lr"], temperature=self.temperature), {"momentum": average}


@dataclass(frozen=True)
class Adam:
    """Adam with the L2 penalty in the gradient (torch.optim.Adam; Kingma and Ba, 2015).

    ĝ = g + λθ;  m' = β1 m + (1 − β1) ĝ;  v' = β2 v + (1 − β2) ĝ²;  t' = t + 1;
    θ' = θ − η / (1 − β1^t') · m' / (sqrt(v' / (1 − β2^t')) + ε).  `SGD` explains values and options.
    """

    names: ClassVar[tuple[str, ...]] = ("lr", "weight_decay", "beta1", "beta2")
    slot_names: ClassVar[tuple[str, ...]] = ("mean", "square")
    counter_names: ClassVar[tuple[str, ...]] = ("step",)

    lr: Initial = 1e-3
    weight_decay: Initial = 0.0
    beta1: Initial = 0.9
    beta2: Initial = 0.999
    epsilon: float = 1e-8
    tune: tuple[str, ...] = ("lr", "weight_decay")
    clip_norm: float | None = None
    clip_value: float | None = None
    temperature: float = 0.0

    def __call__(
        self, theta: Tensor, gradient: Tensor, slots: Slots, hyper: Hyper, noise: Tensor | None = None
    ) -> tuple[Tensor, Slots]:
        """Applies the rule."""
        gradient = torch.addcmul(gradient, hyper["weight_decay"], theta)
        change, slots = adam_direction(gradient, slots, hyper, self.epsilon)
        return add_noise(theta - hyper["lr"] * change, noise, rate=hyper["lr"], temperature=self.temperature), slots


@dataclass(frozen=True)
class AdamW:
    """Adam with decoupled weight decay, θ ← (1 − η λ) θ first (torch.optim.AdamW; Loshchilov and Hutter, 2019).

    `SGD` explains values and options.
    """

    names: ClassVar[tuple[str, ...]] = ("lr", "weight_decay", "beta1", "beta2")
    slot_names: ClassVar[tuple[str, ...]] = ("mean", "square")
    counter_names: ClassVar[tuple[str, ...]] = ("step",)

    lr: Initial = 1e-3
    weight_decay: Initial = 1e-2
    beta1: Initial = 0.9
    beta2: Initial = 0.999
    epsilon: float = 1e-8
    tune: tuple[str, ...] = ("lr", "weight_decay")
    clip_norm: float | None = None
    clip_value: float | None = None
    temperature: float = 0.0

    def __call__(
        self, theta: Tensor, gradient: Tensor, slots: Slots, hyper: Hyper, noise: Tensor | None = None
    ) -> tuple[Tensor, Slots]:
        """Applies the rule."""
        change, slots = adam_direction(gradient, slots, hyper, self.epsilon)
        decayed = theta * (1 - hyper["lr"] * hyper["weight_decay"])
        return add_noise(decayed - hyper["lr"] * change, noise, rate=hyper["lr"], temperature=self.temperature), slots


def adam_direction(gradient: Tensor, slots: Slots, hyper: Hyper, epsilon: float) -> tuple[Tensor, Slots]:
    """Returns m' / (1 − β1^t') / (sqrt(v' / (1 − β2^t')) + ε), and the new slots."""
    beta1, beta2 = hyper["beta1"], hyper["beta2"]
    step = slots["step"] + 1
    mean = beta1 * slots["mean"] + (1 - beta1) * gradient
    square = beta2 * slots["square"] + (1 - beta2) * gradient * gradient
    root = square_root(square) / square_root(1 - beta2**step)
    return mean / ((1 - beta1**step) * (root + epsilon)), {"step": step, "mean": mean, "square": square}


def clip(gradient: Tensor, *, value: float | None, norm: float | None) -> Tensor:
    """Returns the gradient (..., N), clipped by value and then by norm; None is no clipping."""
    if value is not None:
        gradient = gradient.clamp(-value, value)
    if norm is not None and norm < math.inf:  # inf / length has no derivative in reverse mode
        length = square_root((gradient * gradient).sum(-1, keepdim=True))
        gradient = gradient * (norm / (length + CLIP_EPSILON)).clamp(max=1.0)
    return gradient


def add_noise(theta: Tensor, noise: Tensor | None, *, rate: Tensor, temperature: float) -> Tensor:
    """Returns θ + sqrt(2 η T) ξ, or θ itself at temperature 0."""
    if temperature == 0 or noise is None:
        return theta
    return theta + square_root(2 * temperature * rate) * noise


def square_root(value: Tensor) -> Tensor:
    """Returns √value with a derivative of 0 where the value is 0, so that the tangent of an unused unit stays finite."""
    positive = value > 0
    return torch.where(positive, torch.where(positive, value, 1.0).sqrt(), value * 0)
