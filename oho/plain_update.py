"""The rules of `oho.rules` in place and without tangents, for steps that the influence does not follow.

    symbol  name           shape              meaning
    θ       parameters     (M, N)             moved in place
    g       gradient       (M, N)             clipped already; overwritten
    s       slots          (M, N) or (M, 1)   moved in place
    h       hyper          (M, N) or (M, 1)   values

The operations are those of `oho.linearised`, and so are the numbers, bit for bit.  Without tangents, which need what was
there before, they write over it: most of a plain step's time beyond its gradient is memory that is read and written.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from oho.rules import SGD, Adam, AdamW, Hyper, Momentum, Rule, Slots

PlainUpdate = Callable[[Any, Tensor, Tensor, Slots, Hyper], None]
"""(rule, θ, g, s, h) -> nothing; moves θ and s."""


def plain_update(rule: Rule) -> PlainUpdate | None:
    """Returns the update of one of our rules; None for other rules, and for those that draw noise."""
    return UPDATES.get(type(rule).__call__) if rule.temperature == 0 else None


def _sgd(rule: SGD, theta: Tensor, gradient: Tensor, slots: Slots, hyper: Hyper) -> None:
    direction = gradient.addcmul_(hyper["weight_decay"], theta)
    theta.addcmul_(hyper["lr"], direction, value=-1)


def _momentum(rule: Momentum, theta: Tensor, gradient: Tensor, slots: Slots, hyper: Hyper) -> None:
    beta, average = hyper["momentum"], slots["momentum"]
    direction = gradient.addcmul_(hyper["weight_decay"], theta)
    torch.addcmul(direction, beta, average, out=average)
    step = direction.addcmul_(beta, average) if rule.nesterov else average
    theta.addcmul_(hyper["lr"], step, value=-1)


def _adam(rule: Adam, theta: Tensor, gradient: Tensor, slots: Slots, hyper: Hyper) -> None:
    gradient.addcmul_(hyper["weight_decay"], theta)
    change, rate = _adam_change(gradient, slots, hyper, rule.epsilon)
    theta.addcmul_(change, rate, value=-1)


def _adamw(rule: AdamW, theta: Tensor, gradient: Tensor, slots: Slots, hyper: Hyper) -> None:
    change, rate = _adam_change(gradient, slots, hyper, rule.epsilon)
    theta.mul_(1 - hyper["lr"] * hyper["weight_decay"]).addcmul_(change, rate, value=-1)


def _adam_change(gradient: Tensor, slots: Slots, hyper: Hyper, epsilon: float) -> tuple[Tensor, Tensor]:
    """Moves the slots; returns c and ρ of `oho.linearised`, whose product is the step."""
    beta1, beta2, step = hyper["beta1"], hyper["beta2"], slots["step"].add_(1)
    mean = slots["mean"].lerp_(gradient, 1 - beta1)
    root = slots["square"].lerp_(gradient.mul_(gradient), 1 - beta2).sqrt()
    scale = (1 - beta2**step).sqrt()
    rate = hyper["lr"] * scale / (1 - beta1**step)
    return torch.div(mean, root.add_(epsilon * scale), out=root), rate


UPDATES: dict[Callable[..., Any], PlainUpdate] = {
    SGD.__call__: _sgd,
    Momentum.__call__: _momentum,
    Adam.__call__: _adam,
    AdamW.__call__: _adamw,
}
"""The updates by the code of the rule, so that a user's class which overrides it is not mistaken for ours."""
