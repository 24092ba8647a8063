"""The influence and its transition: the update rule differentiated forward, slots included.

    symbol  name          shape           meaning
    K       tangents      ()              tuned hyperparameters × sets (exact) or tuned hyperparameters (collapsed), and one
                                          for each component of the loss's hyperparameters
    Z       influence     (K, M, N)       dθ/dh, one row a tangent
    S       sets          ()              values a hyperparameter has
    E       directions    (K, S)          dh/dh: 1 where a row's hyperparameter and set meet, else 0
    Φ       update rule                   (θ', s') = Φ(θ, g, s, h, ξ)
    dg      products      (K, M, N)       H Z, plus ∂g/∂h in the rows of the loss's hyperparameters

    Z' = ∂Φ/∂θ Z + ∂Φ/∂g dg + ∂Φ/∂s ds/dh + ∂Φ/∂h E          (and the same for each slot)

Equations 4 to 7 of arXiv 2102.07813 are this transition for SGD.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor
from torch.autograd import forward_ad

from oho.directions import Directions
from oho.dual_step import Block, apply, store
from oho.engines.dual import full
from oho.linearised import Tangents, columns_of, linearised
from oho.rules import CLIP_EPSILON, Rule, Slots, clip
from oho.sets import SetMap

BLOCK_ELEMENTS = 1 << 20
"""The number of elements (K × M × columns) of one pass: bounds the temporaries, and keeps them near a CPU's caches."""
LARGEST_BLOCK = 1 << 25
"""The number of elements of one pass on other devices, where a launch costs more than a pass over a million elements."""
SMALLEST_WIDTH = 1 << 12
"""The smallest number of columns of a block."""


@dataclass(frozen=True)
class Influence:
    """d(state)/d(hyperparameters): `theta` (K, M, N) and, for each slot, `slots[name]` (K, M, N).  Changed in place.

    `theta` belongs to the weights at which gradients are taken, `averaged` to those that `AveragedWeights` keeps.
    """

    theta: Tensor
    slots: dict[str, Tensor]
    averaged: dict[str, Tensor] = field(default_factory=dict)

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """All tangents."""
        return (self.theta, *self.slots.values(), *self.averaged.values())

    @property
    def moved(self) -> tuple[Tensor, ...]:
        """The tangents that a step of the update rule moves."""
        return (self.theta, *self.slots.values())

    def judged(self, present_share: float) -> Tensor:
        """Returns the influence (K, M, N) of the weights at which validation gradients are taken."""
        average = self.averaged.get("average", self.theta)
        return average if present_share == 0 else torch.lerp(average, self.theta, present_share)

    @property
    def moving(self) -> Influence:
        """The influence of the weights and slots that the update rule moves."""
        return Influence(self.averaged["iterate"], self.slots) if "iterate" in self.averaged else self

    @property
    def of_no_row(self) -> Influence:
        """An influence without rows, for a step that it does not follow."""
        return Influence(self.theta[:0], {name: tangent[:0] for name, tangent in self.slots.items()})

    def shorten(self, values: Tensor, longest: Tensor, *, hostless: bool) -> Tensor | None:
        """Scales each row of norm r and value h (K, M) down until h r is at most `longest` (M,).

        Returns for which members a row was scaled (M,), or None if for none.  A row that is not finite is left as it is.
        `Recursion` says what `hostless` means.
        """
        elasticity = values * torch.linalg.vector_norm(self.theta, dim=-1)
        too_long = elasticity > longest
        if not hostless and not bool(too_long.any()):
            return None
        too_long &= elasticity < torch.inf  # and no NaN, which compares as False before
        factor = torch.where(too_long, longest / elasticity, 1.0).unsqueeze(-1)
        for tangent in self.tensors:
            tangent.mul_(factor)
        return too_long.any(0)

    def is_finite(self) -> Tensor:
        """Returns for which members all tangents are finite (M,), in one pass; isfinite() alone takes four on a GPU."""
        rows, members, _ = self.theta.shape
        if rows == 0:
            return torch.ones(members, dtype=torch.bool, device=self.theta.device)
        largest = self.theta.new_empty(len(self.tensors), members)
        for tangent, norms in zip(self.tensors, largest, strict=True):
            torch.linalg.vector_norm(tangent, ord=torch.inf, dim=(0, 2), out=norms)
        finite = largest < torch.inf
        return finite.all(0) if len(finite) > 1 else finite[0]

    def clear_rows(self, rows: Iterable[slice]) -> None:
        """Sets some rows of all tangents to zero."""
        for part in rows:
            for tangent in self.tensors:
                tangent[part].zero_()

    def clear(self) -> None:
        """Sets all tangents to zero (a non-finite entry times zero would stay)."""
        for tangent in self.tensors:
            tangent.zero_()


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
    directions: Directions,
    discount: float = 1.0,
) -> tuple[Tensor, Slots]:
    """Makes one step of the rule and of its tangents; returns the new θ and slots, and moves `influence` in place.

    `theta`, `gradient`, `noise` (M, N), slots (M, N) or (M, 1), `hyper` (M, S) by name; `products` (K, M, N) = dg, which
    is overwritten.  All tangents, dg too, are first multiplied by the discount.  Since the rule works element by element,
    it is applied to blocks of columns.
    """
    before = _Before(theta, clip_with_tangents(rule, gradient, products), slots, hyper, noise)
    tangents = Tangents(theta=influence.theta, gradient=products, slots=influence.slots, discount=discount)
    step = linearised(rule)
    if step is not None:
        return _in_place(partial(step, rule), before, tangents, sets=sets, directions=directions)
    if discount != 1:
        for tangent in (*influence.moved, products):
            tangent.mul_(discount)
    return _on_dual_numbers(rule, before, tangents, sets=sets, directions=directions)


class _Before(NamedTuple):
    """What a step starts from, as `transition` is given it."""

    theta: Tensor
    gradient: Tensor
    slots: Slots
    hyper: Mapping[str, Tensor]
    noise: Tensor | None


def _in_place(
    step: Callable[..., tuple[Tensor, Slots]], before: _Before, tangents: Tangents, *, sets: SetMap, directions: Directions
) -> tuple[Tensor, Slots]:
    """Makes the step of one of our rules; with several sets, each column has its own value of each hyperparameter."""
    theta, gradient, slots, hyper, _ = before
    if sets.count > 1:
        hyper = {name: sets.spread(value) for name, value in hyper.items()}
    parts = []
    for columns, _ in _blocks([(slice(0, theta.shape[1]), 0)], tangents.theta):
        block = tangents.part(columns, own=directions.places(sets.segments, columns))
        of_slots, of_hyper = ({n: columns_of(v, columns) for n, v in values.items()} for values in (slots, hyper))
        parts.append(step(columns_of(theta, columns), columns_of(gradient, columns), of_slots, of_hyper, block))
    if len(parts) == 1:
        return parts[0]
    return torch.cat([moved for moved, _ in parts], -1), {
        name: torch.cat([moved[name] for _, moved in parts], -1) if slot.shape[-1] > 1 else parts[0][1][name]
        for name, slot in slots.items()
    }


def _on_dual_numbers(
    rule: Rule, before: _Before, tangents: Tangents, *, sets: SetMap, directions: Directions
) -> tuple[Tensor, Slots]:
    """Makes the step of any rule, in blocks that lie in one set each."""
    theta, gradient, slots, hyper, noise = before
    segments = sets.segments
    spread = not directions.exact
    if spread:  # one row for all sets: one pass with a value for each column, in place of a pass for each set
        hyper, segments = {name: sets.spread(value) for name, value in hyper.items()}, ((slice(0, theta.shape[1]), 0),)
    new_theta, new_slots = torch.empty_like(theta), {name: torch.empty_like(slot) for name, slot in slots.items()}
    for columns, index in _blocks(segments, tangents.theta):
        ours = tangents.part(columns)
        block = Block(
            theta=(theta[:, columns], ours.theta),
            gradient=(gradient[:, columns], ours.gradient),
            slots={name: (columns_of(slot, columns), ours.slots.get(name)) for name, slot in slots.items()},
            hyper={
                name: (
                    value[:, columns] if spread else value[:, index : index + 1],
                    None if (row := directions.row(name, index)) is None else {row: 1.0},
                )
                for name, value in hyper.items()
            },
            noise=None if noise is None else noise[:, columns],
        )
        moved, slots_moved = apply(rule, block)
        targets = [(moved, new_theta[:, columns], ours.theta)] + [
            (pair, columns_of(new_slots[name], columns), ours.slots.get(name)) for name, pair in slots_moved.items()
        ]
        store(targets)
    return new_theta, new_slots


def gradient_pullback(
    rule: Rule, sets: SetMap, *, theta: Tensor, gradient: Tensor, slots: Slots, hyper: Mapping[str, Tensor]
) -> Callable[[Tensor], Tensor]:
    """Returns v (M, N) -> (∂θ'/∂g)ᵀ v (M, N), clipping included, for one step of the rule from the state given.

    ∂θ'/∂g of the rule itself is diagonal: its tangent along a gradient of ones.
    """
    clipped = clip(gradient, value=rule.clip_value, norm=rule.clip_norm)
    block = Block(
        theta=(theta, torch.zeros_like(theta).unsqueeze(0)),
        gradient=(clipped, torch.ones_like(theta).unsqueeze(0)),
        slots={name: (slot, None) for name, slot in slots.items()},
        hyper={name: (sets.spread(value), None) for name, value in hyper.items()},
        noise=None,
    )
    slope = full(apply(rule, block)[0][1], theta.unsqueeze(0))[0]

    def pull(vector: Tensor) -> Tensor:
        if rule.clip_value is None and rule.clip_norm is None:
            return slope * vector
        with torch.enable_grad():
            leaf = gradient.detach().requires_grad_()
            return torch.autograd.grad(clip(leaf, value=rule.clip_value, norm=rule.clip_norm), leaf, slope * vector)[0]

    return pull


def clip_with_tangents(rule: Rule, gradient: Tensor, products: Tensor) -> Tensor:
    """Returns the clipped gradient; `products` become its tangents, in place."""
    if rule.clip_value is None and rule.clip_norm is None:
        return gradient
    if rule.clip_value is None and rule.clip_norm is not None:
        return _clip_norm(rule.clip_norm, gradient, products)
    with forward_ad.dual_level():
        for row in range(len(products)):
            dual = clip(forward_ad.make_dual(gradient, products[row]), value=rule.clip_value, norm=rule.clip_norm)
            products[row] = forward_ad.unpack_dual(dual).tangent
    return clip(gradient, value=rule.clip_value, norm=rule.clip_norm)


def _clip_norm(longest: float, gradient: Tensor, products: Tensor) -> Tensor:
    """Clips by norm alone, its derivative written out: dual numbers would take the time of a gradient.

    ĝ = r g with r = c / (‖g‖ + ε), where that is below 1;  dĝ = r dg − r / (‖g‖ + ε) (g · dg / ‖g‖) g.
    """
    length = torch.linalg.vector_norm(gradient, dim=-1, keepdim=True)  # (M, 1)
    longer = length + CLIP_EPSILON
    ratio = longest / longer
    factor = ratio.clamp(max=1.0)
    clipped = gradient * factor
    if len(products) == 0:
        return clipped
    slope = (ratio / (longer * length)).masked_fill_(ratio >= 1, 0.0)
    along = torch.matmul(products.transpose(0, 1), gradient.unsqueeze(-1)).transpose(0, 1)  # (K, M, 1)
    products.mul_(factor).addcmul_(along * slope, gradient, value=-1)
    return clipped


def _blocks(segments: Iterable[tuple[slice, int]], tangents: Tensor) -> Iterator[tuple[slice, int]]:
    """Yields the segments of tangents (K, M, N) with their set, cut where they have more columns than one pass takes."""
    rows, elements = len(tangents) * tangents.shape[1], BLOCK_ELEMENTS if tangents.device.type == "cpu" else LARGEST_BLOCK
    width = max(SMALLEST_WIDTH, elements // max(1, rows))
    for columns, index in segments:
        for start in range(columns.start, columns.stop, width):
            yield slice(start, min(start + width, columns.stop)), index
