"""The influence and its transition: the update rule differentiated forward, slots included.

    symbol  name          shape    meaning
    Z       influence     (K, N)   dθ/dh, one row a tangent
    E       selectors     (K, 1|N) dh/dh: 1 where a row's hyperparameter acts, else 0
    Φ       update rule            (θ', s') = Φ(θ, g, s, h)

    Z' = ∂Φ/∂θ Z + ∂Φ/∂g H Z + ∂Φ/∂s dS + ∂Φ/∂h E          (and the same for each slot)

Equations 4 to 7 of arXiv 2102.07813 are this transition for SGD.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.autograd import forward_ad

from oho.rules import Rule, Slots
from oho.sets import SetMap

Tangents = dict[str, Tensor]


@dataclass
class Influence:
    """d(state)/d(hyperparameters): `theta` (K, N) and, for each slot that varies, `slots[name]` (K, N)."""

    theta: Tensor
    slots: Tangents

    def scale(self, factor: float) -> None:
        """Multiplies all tangents in place."""
        for tangent in (self.theta, *self.slots.values()):
            tangent.mul_(factor)

    def clear(self) -> None:
        """Sets all tangents to zero in place: a non-finite entry times zero would stay."""
        for tangent in (self.theta, *self.slots.values()):
            tangent.zero_()


def selectors(rule: Rule, sets: SetMap, *, exact: bool, like: Tensor) -> Tangents:
    """dh/dh by hyperparameter, (K, 1) or (K, N).

    Exact: a row for each (hyperparameter, set).  Collapsed: a row for each hyperparameter, all sets at once.
    """
    per_name = sets.count if exact else 1
    rows = len(rule.tune) * per_name
    result = {}
    for name in rule.names:
        values = like.new_zeros(rows, sets.count)
        if name in rule.tune:
            first = rule.tune.index(name) * per_name
            block = torch.eye(sets.count) if exact else torch.ones(1, sets.count)
            values[first : first + per_name] = block.to(values)
        result[name] = sets.spread(values)
    return result


def transition(
    rule: Rule,
    theta: Tensor,
    gradient: Tensor,
    slots: Slots,
    hyper: Mapping[str, Tensor],
    *,
    influence: Influence,
    products: Tensor,
    selectors: Tangents,
) -> tuple[Tensor, Slots, Influence]:
    """One step of the rule and of its tangents, in a single forward-mode pass over (K, N).

    `theta`, `gradient` (N,), `hyper` (1,) or (N,) by name, `products` (K, N).  Returns the new θ and slots, (N,), and the
    new influence.  The primal is repeated in K equal rows; its row 0 is the update itself.
    """
    with forward_ad.dual_level():

        def dual(value: Tensor, tangent: Tensor) -> Tensor:
            return forward_ad.make_dual(value.expand_as(tangent).contiguous(), tangent)

        new_theta, new_slots = rule(
            dual(theta, influence.theta),
            dual(gradient, products),
            {name: dual(value, influence.slots[name]) if name in influence.slots else value
             for name, value in slots.items()},
            {name: dual(value, selectors[name]) if name in rule.tune else value for name, value in hyper.items()},
        )  # fmt: skip
        theta_next, theta_tangent = _split(new_theta, influence.theta)
        slots_next: Slots = {}
        slot_tangents: Tangents = {}
        for name, value in new_slots.items():
            if name in influence.slots:
                slots_next[name], slot_tangents[name] = _split(value, influence.slots[name])
            else:
                slots_next[name] = value
    return theta_next, slots_next, Influence(theta_tangent, slot_tangents)


def _split(value: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
    primal, tangent = forward_ad.unpack_dual(value)
    return primal[0].clone(), torch.zeros_like(like) if tangent is None else tangent.clone()
