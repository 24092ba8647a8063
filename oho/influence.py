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

from oho.rules import Rule, Slots, clip
from oho.sets import SetMap

BLOCK_ELEMENTS = {"cpu": 1 << 15}
"""Elements (rows × M × columns) of one forward-mode pass, by device type.  On a CPU the temporaries of a block stay in a
core's cache and come from the allocator's free lists; whole tensors of 1e5 elements cost a page fault every 4 KiB."""
BLOCK_ELEMENTS_ELSEWHERE = 1 << 22


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
    The rule works element by element, so it is taken in blocks of rows and columns, each with its primal repeated in
    equal rows; row 0 of the first block of rows is the update itself.
    """
    gradient = _clip(rule, gradient, products)
    if selectors.rows == 0:  # nothing is tuned: the rule alone
        return rule(theta, gradient, slots, {name: sets.spread(value) for name, value in hyper.items()}, noise)
    new_theta, new_slots = torch.empty_like(theta), {name: torch.empty_like(slot) for name, slot in slots.items()}
    row_blocks, column_blocks = _blocks(selectors.rows, theta)
    with forward_ad.dual_level():
        for rows in row_blocks:
            duals = {name: _dual_hyper(sets, value, selectors.values[name][rows]) for name, value in hyper.items()}
            for columns in column_blocks:
                there = (rows, slice(None), columns)
                moved, slots_moved = rule(
                    _dual(theta[:, columns], influence.theta[there]),
                    _dual(gradient[:, columns], products[there]),
                    {
                        name: _dual(slot[:, columns], influence.slots[name][there])
                        if name in influence.slots
                        else _columns(slot, columns)
                        for name, slot in slots.items()
                    },
                    {name: _columns(value, columns) for name, value in duals.items()},
                    None if noise is None else noise[:, columns],
                )
                new_theta[:, columns] = _keep(moved, influence.theta[there])
                for name, slot in slots_moved.items():
                    kept = _keep(slot, influence.slots[name][there]) if name in influence.slots else slot
                    _columns(new_slots[name], columns).copy_(kept)
    return new_theta, new_slots


def _clip(rule: Rule, gradient: Tensor, products: Tensor) -> Tensor:
    """The clipped gradient; `products` become the tangents of it, in place."""
    if rule.clip_value is None and rule.clip_norm is None:
        return gradient
    with forward_ad.dual_level():
        for row in range(len(products)):
            dual = clip(_dual(gradient, products[row]), value=rule.clip_value, norm=rule.clip_norm)
            products[row] = forward_ad.unpack_dual(dual).tangent
    return clip(gradient, value=rule.clip_value, norm=rule.clip_norm)


def _blocks(rows: int, theta: Tensor) -> tuple[list[slice], list[slice]]:
    """Slices of the rows and of the columns, a block of each no larger than a pass may be."""
    elements = BLOCK_ELEMENTS.get(theta.device.type, BLOCK_ELEMENTS_ELSEWHERE)
    members, size = theta.shape
    height, width = max(1, elements // theta.numel()), min(size, max(1, elements // members))
    return (
        [slice(start, min(start + height, rows)) for start in range(0, rows, height)],
        [slice(start, min(start + width, size)) for start in range(0, size, width)],
    )


def _columns(value: Tensor, columns: slice) -> Tensor:
    """A block of columns of a value that has one a column, the value itself if it has one for all."""
    return value[..., columns] if value.shape[-1] > 1 else value


def _dual(value: Tensor, tangent: Tensor) -> Tensor:
    return forward_ad.make_dual(value.expand_as(tangent).contiguous(), tangent)


def _dual_hyper(sets: SetMap, value: Tensor, selector: Tensor) -> Tensor:
    """(R, M, 1) or (R, M, N).  Untuned hyperparameters are dual too: PyTorch is slower where a tangent is missing."""
    shape = (len(selector), *value.shape)
    return sets.spread(forward_ad.make_dual(value.expand(shape).contiguous(), selector.expand(shape).contiguous()))


def _keep(value: Tensor, destination: Tensor) -> Tensor:
    """Stores a dual number's tangent; returns row 0 of its primal, (M, columns)."""
    primal, tangent = forward_ad.unpack_dual(value)
    if tangent is None:
        destination.zero_()
    else:
        destination.copy_(tangent)
    return primal[0]
