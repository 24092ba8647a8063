"""The influence and its transition: the update rule differentiated forward, slots included.

    symbol  name          shape           meaning
    K       tangents      ()              tuned hyperparameters × sets (exact), tuned hyperparameters (collapsed)
    Z       influence     (K, M, N)       dθ/dh, one row a tangent
    S       sets          ()              values a hyperparameter has
    E       selectors     (K, 1, S)       dh/dh: 1 where a row's hyperparameter and set meet, else 0
    Φ       update rule                   (θ', s') = Φ(θ, g, s, h, ξ)

    Z' = ∂Φ/∂θ Z + ∂Φ/∂g H Z + ∂Φ/∂s ds/dh + ∂Φ/∂h E          (and the same for each slot)

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

CHUNK_ELEMENTS = 1 << 20
"""Elements of one forward-mode pass (rows × M × N): keeps its temporaries small when there are many tangents."""


@dataclass(frozen=True)
class Influence:
    """d(state)/d(hyperparameters): `theta` (K, M, N) and, for each slot, `slots[name]` (K, M, N).  Changed in place."""

    theta: Tensor
    slots: dict[str, Tensor]

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """All tangents."""
        return (self.theta, *self.slots.values())

    def scale(self, factor: float) -> None:
        """Multiplies all tangents."""
        for tangent in self.tensors:
            tangent.mul_(factor)

    def clear(self) -> None:
        """Sets all tangents to zero (a non-finite entry times zero would stay)."""
        for tangent in self.tensors:
            tangent.zero_()


@dataclass(frozen=True)
class Selectors:
    """E by hyperparameter, (K, 1, S).  Exact: a row for each (name, set); collapsed: all sets of a name in one row."""

    values: dict[str, Tensor]
    rows: int
    per_name: int


def selectors(rule: Rule, sets: SetMap, *, exact: bool, like: Tensor) -> Selectors:
    """The selectors of a rule's tuned hyperparameters, of `like`'s dtype and device; zeros for the others."""
    per_name = sets.count if exact else 1
    rows = len(rule.tune) * per_name
    block = torch.eye(sets.count) if exact else torch.ones(1, sets.count)
    values = {name: like.new_zeros(rows, 1, sets.count) for name in rule.names}
    for index, name in enumerate(rule.tune):
        values[name][index * per_name : (index + 1) * per_name, 0] = block.to(like)
    return Selectors(values, rows, per_name)


def transition(
    rule: Rule,
    sets: SetMap,
    *,
    theta: Tensor,
    gradient: Tensor,
    slots: Slots,
    hyper: Mapping[str, Tensor],
    noise: Tensor | None,
    influence: Influence,
    products: Tensor,
    selectors: Selectors,
) -> tuple[Tensor, Slots]:
    """One step of the rule and of its tangents; returns the new θ and slots and moves `influence` in place.

    `theta`, `gradient`, `noise` (M, N), slots (M, N) or (M, 1), `hyper` (M, S) by name, `products` (K, M, N) = H Z.
    Tangents go through the rule in chunks of rows, the primal repeated in equal rows; row 0 of the first chunk is the
    update itself.
    """
    chunk = max(1, CHUNK_ELEMENTS // theta.numel())
    primal: tuple[Tensor, Slots] | None = None
    for start in range(0, selectors.rows, chunk):
        rows = slice(start, min(start + chunk, selectors.rows))
        with forward_ad.dual_level():
            new_theta, new_slots = rule(
                _dual(theta, influence.theta[rows]),
                _dual(gradient, products[rows]),
                {
                    name: _dual(slot, influence.slots[name][rows]) if name in influence.slots else slot
                    for name, slot in slots.items()
                },
                {name: _dual_hyper(sets, value, selectors.values[name][rows]) for name, value in hyper.items()},
                noise,
            )
            updated = _keep(new_theta, influence.theta[rows])
            slots_updated = {
                name: _keep(value, influence.slots[name][rows]) if name in influence.slots else value
                for name, value in new_slots.items()
            }
        if primal is None:
            primal = updated, slots_updated
    if primal is None:  # nothing is tuned: the rule alone
        return rule(theta, gradient, slots, {name: sets.spread(value) for name, value in hyper.items()}, noise)
    return primal


def _dual(value: Tensor, tangent: Tensor) -> Tensor:
    return forward_ad.make_dual(value.expand_as(tangent).contiguous(), tangent)


def _dual_hyper(sets: SetMap, value: Tensor, selector: Tensor) -> Tensor:
    """(R, M, 1) or (R, M, N).  Untuned hyperparameters are dual too: PyTorch is slower where a tangent is missing."""
    shape = (len(selector), *value.shape)
    return sets.spread(forward_ad.make_dual(value.expand(shape).contiguous(), selector.expand(shape).contiguous()))


def _keep(value: Tensor, destination: Tensor) -> Tensor:
    """Stores a dual number's tangent; returns row 0 of its primal, (M, N)."""
    primal, tangent = forward_ad.unpack_dual(value)
    if tangent is None:
        destination.zero_()
    else:
        destination.copy_(tangent)
    return primal[0].clone()
