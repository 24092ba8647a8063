"""The rules of `oho.rules` together with their tangents, in place, by one multiply-add for each term of the transition.

    symbol  name        shape                 meaning
    K       rows        ()                    tangents
    dθ      theta       (K, M, C)             dθ/dh of C columns
    dg, ds  gradient,   (K, M, C)             dg/dh, which is overwritten, and the tangents of slots
            slots
    μ       discount    ()                    factor on all tangents before the step
    h       hyper       (M, C) or (M, 1)      values
    E       own         (row, columns)        where dh/dh is 1: the rows in which a hyperparameter moves, and their columns

A rule works element by element, so that each term of Z' = ∂Φ/∂θ Z + ∂Φ/∂g dg + ∂Φ/∂s ds/dh + ∂Φ/∂h E has one coefficient
for all rows.  `oho.engines.dual` finds the terms of any rule and allocates each of them.  Here they are written down, in an
order in which they may overwrite each other, and give the same numbers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from oho.rules import SGD, Adam, AdamW, Hyper, Momentum, Rule, Slots


@dataclass(frozen=True)
class Tangents:
    """The tangents of some columns; `own[name]` has the row and the columns of each set of a hyperparameter."""

    theta: Tensor
    gradient: Tensor
    slots: Mapping[str, Tensor]
    own: Mapping[str, list[tuple[int, slice]]] = field(default_factory=dict)
    discount: float = 1.0

    def add(self, name: str, to: Tensor, x: Tensor, factor: Tensor | None = None, *, value: float = 1.0) -> None:
        """Adds value · x, or value · x · factor, to the rows of one hyperparameter in a tangent; both (M, C) or (M, 1)."""
        for row, columns in self.own.get(name, ()):
            place = columns_of(to[row], columns)
            if factor is None:
                place.add_(columns_of(x, columns), alpha=value)
            else:
                place.addcmul_(columns_of(x, columns), columns_of(factor, columns), value=value)

    def part(self, columns: slice, *, own: Mapping[str, list[tuple[int, slice]]] | None = None) -> Tangents:
        """Returns views of some columns."""
        slots = {name: columns_of(tangent, columns) for name, tangent in self.slots.items()}
        theta, gradient = columns_of(self.theta, columns), columns_of(self.gradient, columns)
        return Tangents(theta, gradient, slots, own or {}, self.discount)

    def kept(self, lost: Tensor) -> Tensor:
        """Returns μ (1 − lost)."""
        return torch.rsub(lost, self.discount, alpha=self.discount)

    def discounted(self, tangent: Tensor) -> Tensor:
        """Multiplies a tangent, none of whose terms was discounted, by μ in place, and returns it."""
        return tangent if self.discount == 1 else tangent.mul_(self.discount)


Step = Callable[[Any, Tensor, Tensor, Slots, Hyper, Tangents], tuple[Tensor, Slots]]
"""(rule, θ, g, s, h, tangents) -> θ' and s'; moves the tangents."""


def linearised(rule: Rule) -> Step | None:
    """Returns the step of one of our rules with its tangents; None for other rules, and for those that draw noise."""
    return STEPS.get(type(rule).__call__) if rule.temperature == 0 else None


def columns_of(value: Tensor, columns: slice) -> Tensor:
    """Returns a block of columns of a value, or the value itself if it has one entry for all columns.

    It is the value itself, too, if the block is all of it: slicing takes as long as a small operation.
    """
    return value if value.shape[-1] in (1, columns.stop - columns.start) else value[..., columns]


def _sgd(rule: SGD, theta: Tensor, gradient: Tensor, slots: Slots, hyper: Hyper, move: Tangents) -> tuple[Tensor, Slots]:
    """dθ' = μ (1 − ηλ) dθ − μ η dg."""
    rate, decay = hyper["lr"], hyper["weight_decay"]
    direction = torch.addcmul(gradient, decay, theta)
    move.theta.mul_(move.kept(rate * decay)).addcmul_(move.gradient, rate, value=-move.discount)
    move.add("lr", move.theta, direction, value=-1)
    move.add("weight_decay", move.theta, theta, rate, value=-1)
    return torch.addcmul(theta, rate, direction, value=-1), {}


def _momentum(
    rule: Momentum, theta: Tensor, gradient: Tensor, slots: Slots, hyper: Hyper, move: Tangents
) -> tuple[Tensor, Slots]:
    """dm' = μ (β dm + dg + λ dθ);  dθ' = μ dθ − η dm', or μ (1 − ηλ) dθ − μ η dg − η β dm' with `nesterov`."""
    rate, decay, beta, last = hyper["lr"], hyper["weight_decay"], hyper["momentum"], slots["momentum"]
    direction = torch.addcmul(gradient, decay, theta)
    average = torch.addcmul(direction, beta, last)
    moved = move.slots["momentum"]
    torch.addcmul(move.gradient, beta, moved, out=moved)
    move.discounted(moved.addcmul_(move.theta, decay))
    move.add("weight_decay", moved, theta)
    move.add("momentum", moved, last)
    if rule.nesterov:
        step = torch.addcmul(direction, beta, average)
        move.theta.mul_(move.kept(rate * decay)).addcmul_(move.gradient, rate, value=-move.discount)
        move.theta.addcmul_(moved, rate * beta, value=-1)
        move.add("weight_decay", move.theta, theta, rate, value=-1)
        move.add("momentum", move.theta, average, rate, value=-1)
    else:
        step = average
        move.discounted(move.theta).addcmul_(moved, rate, value=-1)
    move.add("lr", move.theta, step, value=-1)
    return torch.addcmul(theta, rate, step, value=-1), {"momentum": average}


def _adam(rule: Adam, theta: Tensor, gradient: Tensor, slots: Slots, hyper: Hyper, move: Tangents) -> tuple[Tensor, Slots]:
    """dĝ = dg + λ dθ, to be discounted later;  dθ' = μ dθ plus what `_adam_direction` adds."""
    decay = hyper["weight_decay"]
    move.gradient.addcmul_(move.theta, decay)
    move.add("weight_decay", move.gradient, theta, value=1 / move.discount)
    move.discounted(move.theta)
    change, rate, slots = _adam_direction(torch.addcmul(gradient, decay, theta), slots, hyper, move, rule.epsilon)
    return torch.addcmul(theta, change, rate, value=-1), slots


def _adamw(
    rule: AdamW, theta: Tensor, gradient: Tensor, slots: Slots, hyper: Hyper, move: Tangents
) -> tuple[Tensor, Slots]:
    """dθ' = μ (1 − ηλ) dθ plus what `_adam_direction` adds."""
    rate, decay = hyper["lr"], hyper["weight_decay"]
    kept = 1 - rate * decay
    move.theta.mul_(move.discount * kept)
    move.add("lr", move.theta, theta, decay, value=-1)
    move.add("weight_decay", move.theta, theta, rate, value=-1)
    change, rate, slots = _adam_direction(gradient, slots, hyper, move, rule.epsilon)
    return (theta * kept).addcmul_(change, rate, value=-1), slots


def _adam_direction(
    gradient: Tensor, slots: Slots, hyper: Hyper, move: Tangents, epsilon: float
) -> tuple[Tensor, Tensor, Slots]:
    """dm' = μ (β1 dm + (1 − β1) dg);  dv' = μ (β2 dv + 2 (1 − β2) g dg);  dθ' −= a dm' − b dv'.

    With d = √v' + ε √(1 − β2^t'), c = m' / d and ρ = η √(1 − β2^t') / (1 − β1^t'), the step is ρ c: a = ρ / d and
    b = ρ c / (2 d √v'), which counts as 0 where v' is 0.  Returns c, ρ and the new slots.
    """
    beta1, beta2, step = hyper["beta1"], hyper["beta2"], slots["step"] + 1
    share1, share2 = 1 - beta1, 1 - beta2
    mean = torch.lerp(slots["mean"], gradient, share1)
    square = torch.lerp(slots["square"], squared := gradient * gradient, share2)
    correction1, correction2 = 1 - beta1**step, 1 - beta2**step
    scale = correction2.sqrt()
    rate = hyper["lr"] * scale / correction1
    root = square.sqrt()
    divisor = root + epsilon * scale
    change = mean / divisor
    moved = {"step": step, "mean": mean, "square": square}
    if len(move.theta) == 0:
        return change, rate, moved

    of_mean, of_square = move.slots["mean"], move.slots["square"]
    move.discounted(of_mean.lerp_(move.gradient, share1))
    of_square.mul_(move.discount * beta2).addcmul_(move.gradient, gradient * share2, value=2 * move.discount)
    if "beta1" in move.own:
        move.add("beta1", of_mean, slots["mean"] - gradient)
    if "beta2" in move.own:
        move.add("beta2", of_square, slots["square"] - squared)
    slope = rate / divisor
    bend = slope * change
    if "beta1" in move.own:
        factor = rate * step * beta1 ** (step - 1) / correction1
        move.add("beta1", move.theta, change, factor, value=-1)
    if "beta2" in move.own:
        factor = step * beta2 ** (step - 1) / correction2
        move.add("beta2", move.theta, bend * root, factor, value=0.5)
    bend.div_(functional.threshold(root, 0.0, math.inf, inplace=True))
    move.theta.addcmul_(of_mean, slope, value=-1).addcmul_(of_square, bend, value=0.5)
    move.add("lr", move.theta, change, scale / correction1, value=-1)
    return change, rate, moved


STEPS: dict[Callable[..., Any], Step] = {
    SGD.__call__: _sgd,
    Momentum.__call__: _momentum,
    Adam.__call__: _adam,
    AdamW.__call__: _adamw,
}
"""The steps by the code of the rule, so that a user's class which overrides it is not mistaken for ours."""
