"""The influence and its transition: the update rule differentiated forward, slots included.

    symbol  name          shape           meaning
    K       tangents      ()              tuned hyperparameters × sets (exact), tuned hyperparameters (collapsed), and
                                          one for each component of the loss's
    Z       influence     (K, M, N)       dθ/dh, one row a tangent
    S       sets          ()              values a hyperparameter has
    E       directions    (K, S)          dh/dh: 1 where a row's hyperparameter and set meet, else 0
    Φ       update rule                   (θ', s') = Φ(θ, g, s, h, ξ)

    dg      products      (K, M, N)       H Z, and ∂g/∂h beside it in the rows of the loss's hyperparameters

    Z' = ∂Φ/∂θ Z + ∂Φ/∂g dg + ∂Φ/∂s ds/dh + ∂Φ/∂h E          (and the same for each slot)

Equations 4 to 7 of arXiv 2102.07813 are this transition for SGD.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, cast, overload

import torch
from torch import Tensor
from torch.autograd import forward_ad

from oho.directions import Directions
from oho.engines.dual import Dual, Tangent, full, tangent_of, value_of
from oho.rules import Rule, Slots, clip
from oho.sets import SetMap

BLOCK_ELEMENTS = 1 << 20
"""Elements (K × M × columns) of one pass: bounds the memory of temporaries, and keeps them near a CPU's caches."""
SMALLEST_WIDTH = 1 << 12
"""Columns a block has at least."""


@dataclass(frozen=True)
class Influence:
    """d(state)/d(hyperparameters): `theta` (K, M, N) and, for each slot, `slots[name]` (K, M, N).  Changed in place.

    `theta` is that of the weights at which gradients are taken; `averaged` those of `AveragedWeights`.
    """

    theta: Tensor
    slots: dict[str, Tensor]
    averaged: dict[str, Tensor] = field(default_factory=dict)

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """All tangents."""
        return (self.theta, *self.slots.values(), *self.averaged.values())

    @property
    def judged(self) -> Tensor:
        """That of the weights at which validation losses are taken."""
        return self.averaged.get("average", self.theta)

    @property
    def moving(self) -> Influence:
        """Those that the update rule moves."""
        return Influence(self.averaged["iterate"], self.slots) if "iterate" in self.averaged else self

    def scale(self, factor: float) -> None:
        """Multiplies all tangents."""
        for tangent in self.tensors:
            tangent.mul_(factor)

    def shorten(self, values: Tensor, longest: Tensor) -> Tensor:
        """Scales each row of norm r and value h (K, M) down to h r = longest (M,); returns where any was, (M,).

        A row that is not finite is left as it is.
        """
        elasticity = values * torch.linalg.vector_norm(self.theta, dim=-1)
        too_long = elasticity.isfinite() & (elasticity > longest)
        if bool(too_long.any()):
            factor = torch.where(too_long, longest / elasticity, 1.0).unsqueeze(-1)
            for tangent in self.tensors:
                tangent.mul_(factor)
        return too_long.any(0)

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
) -> tuple[Tensor, Slots]:
    """Makes one step of the rule and of its tangents; returns the new θ and slots, and moves `influence` in place.

    `theta`, `gradient`, `noise` (M, N), slots (M, N) or (M, 1), `hyper` (M, S) by name, `products` (K, M, N) = dg.
    The rule works element by element, so it is taken in blocks of columns.
    """
    gradient = _clip(rule, gradient, products)
    segments = sets.segments
    spread = not directions.exact
    if spread:  # one row for all sets: one pass with a value for each column, in place of a pass for each set
        hyper, segments = {name: sets.spread(value) for name, value in hyper.items()}, ((slice(0, theta.shape[1]), 0),)
    new_theta, new_slots = torch.empty_like(theta), {name: torch.empty_like(slot) for name, slot in slots.items()}
    for columns, index in _blocks(segments, directions.rows * len(theta)):
        block = _Block(
            theta=(theta[:, columns], influence.theta[..., columns]),
            gradient=(gradient[:, columns], products[..., columns]),
            slots={
                name: (_columns(slot, columns), _columns(influence.slots.get(name), columns))
                for name, slot in slots.items()
            },
            hyper={
                name: (
                    value[:, columns] if spread else value[:, index : index + 1],
                    None if (row := directions.row(name, index)) is None else {row: 1.0},
                )
                for name, value in hyper.items()
            },
            noise=_columns(noise, columns),
        )
        moved, slots_moved = _apply(rule, block)
        targets = [(moved, new_theta[:, columns], influence.theta[..., columns])] + [
            (pair, _columns(new_slots[name], columns), _columns(influence.slots.get(name), columns))
            for name, pair in slots_moved.items()
        ]
        _store(targets, influence)
    return new_theta, new_slots


def gradient_pullback(
    rule: Rule, sets: SetMap, *, theta: Tensor, gradient: Tensor, slots: Slots, hyper: Mapping[str, Tensor]
) -> Callable[[Tensor], Tensor]:
    """Returns v (M, N) -> (∂θ'/∂g)ᵀ v (M, N), clipping included, for one step of the rule from the state given.

    ∂θ'/∂g of the rule itself is diagonal: its tangent along a gradient of ones.
    """
    clipped = clip(gradient, value=rule.clip_value, norm=rule.clip_norm)
    block = _Block(
        theta=(theta, torch.zeros_like(theta).unsqueeze(0)),
        gradient=(clipped, torch.ones_like(theta).unsqueeze(0)),
        slots={name: (slot, None) for name, slot in slots.items()},
        hyper={name: (sets.spread(value), None) for name, value in hyper.items()},
        noise=None,
    )
    slope = full(_apply(rule, block)[0][1], theta.unsqueeze(0))[0]

    def pull(vector: Tensor) -> Tensor:
        if rule.clip_value is None and rule.clip_norm is None:
            return slope * vector
        with torch.enable_grad():
            leaf = gradient.detach().requires_grad_()
            return torch.autograd.grad(clip(leaf, value=rule.clip_value, norm=rule.clip_norm), leaf, slope * vector)[0]

    return pull


Pair = tuple[Tensor, Tangent]
"""A value and its tangent."""


@dataclass(frozen=True)
class _Block:
    """What a rule is given, for all columns or some."""

    theta: Pair
    gradient: Pair
    slots: dict[str, Pair]
    hyper: dict[str, Pair]
    noise: Tensor | None


def _apply(rule: Rule, block: _Block) -> tuple[Pair, dict[str, Pair]]:
    """Applies the rule and its tangents.  A mistake in the rule itself is raised again on PyTorch's tensors."""
    if len(cast(Tensor, block.gradient[1])) == 0:
        slots, hyper = ({name: pair[0] for name, pair in pairs.items()} for pairs in (block.slots, block.hyper))
        moved, slots = rule(block.theta[0], block.gradient[0], slots, hyper, block.noise)
        return (moved, None), {name: (slot, None) for name, slot in slots.items()}
    try:
        return _ours(rule, block)
    except TypeError:  # UnknownOperationError, an operator or an option that our dual numbers lack
        return _pytorchs(rule, block)


def _ours(rule: Rule, block: _Block) -> tuple[Pair, dict[str, Pair]]:
    """Applies the rule to dual numbers of `oho.engines.dual`."""
    moved, slots = rule(
        cast(Tensor, Dual(*block.theta)),
        cast(Tensor, Dual(*block.gradient)),
        {name: cast(Tensor, Dual(*pair)) for name, pair in block.slots.items()},
        {name: cast(Tensor, Dual(*pair)) for name, pair in block.hyper.items()},
        block.noise,
    )
    return _pair(moved), {name: _pair(slot) for name, slot in slots.items()}


def _pair(x: Any) -> Pair:
    return value_of(x), tangent_of(x)


def _pytorchs(rule: Rule, block: _Block) -> tuple[Pair, dict[str, Pair]]:
    """Applies the rule to PyTorch's dual numbers, one row of tangents at a time: any operation, several times slower."""
    rows = []
    for row in range(len(cast(Tensor, block.theta[1]))):
        with forward_ad.dual_level():

            def dual(pair: Pair, row: int = row) -> Tensor:
                value, tangent = pair
                if tangent is None or (isinstance(tangent, dict) and row not in tangent):
                    return value
                direction = torch.as_tensor(tangent[row], dtype=value.dtype, device=value.device)
                return forward_ad.make_dual(value, direction.expand_as(value).contiguous())

            moved, slots = rule(
                dual(block.theta),
                dual(block.gradient),
                {name: dual(pair) for name, pair in block.slots.items()},
                {name: dual(pair) for name, pair in block.hyper.items()},
                block.noise,
            )
            rows.append({"": forward_ad.unpack_dual(moved)} | {n: forward_ad.unpack_dual(s) for n, s in slots.items()})
    pairs: dict[str, Pair] = {}
    for name, (primal, _) in rows[0].items():
        tangents = [row[name].tangent for row in rows]
        filled = [torch.zeros_like(primal) if t is None else t for t in tangents]
        pairs[name] = (primal, torch.stack(filled))
    return pairs.pop(""), pairs


def _clip(rule: Rule, gradient: Tensor, products: Tensor) -> Tensor:
    """Returns the clipped gradient; `products` become its tangents, in place."""
    if rule.clip_value is None and rule.clip_norm is None:
        return gradient
    with forward_ad.dual_level():
        for row in range(len(products)):
            dual = clip(forward_ad.make_dual(gradient, products[row]), value=rule.clip_value, norm=rule.clip_norm)
            products[row] = forward_ad.unpack_dual(dual).tangent
    return clip(gradient, value=rule.clip_value, norm=rule.clip_norm)


def _blocks(segments: Iterable[tuple[slice, int]], rows: int) -> Iterator[tuple[slice, int]]:
    """Yields the segments, cut where they have more columns than a pass may take."""
    width = max(SMALLEST_WIDTH, BLOCK_ELEMENTS // max(1, rows))
    for columns, index in segments:
        for start in range(columns.start, columns.stop, width):
            yield slice(start, min(start + width, columns.stop)), index


@overload
def _columns(value: Tensor, columns: slice) -> Tensor: ...
@overload
def _columns(value: Tensor | None, columns: slice) -> Tensor | None: ...
def _columns(value: Tensor | None, columns: slice) -> Tensor | None:
    """Returns a block of columns of a value with an entry for each column, the value itself if it has one entry for all."""
    return value[..., columns] if value is not None and value.shape[-1] > 1 else value


def _store(targets: list[tuple[Pair, Tensor, Tensor | None]], influence: Influence) -> None:
    """Copies what a rule returned to where it belongs: (value and tangent, place of the value, place of the tangent).

    A rule may return what it was given (a slot that remembers θ): such a tangent lies where another is about to be stored.
    """
    ours = {tensor.untyped_storage().data_ptr() for tensor in influence.tensors}
    moves = []
    for (value, tangent), place, tangent_place in targets:
        place.copy_(value)
        if tangent_place is not None:
            found = full(tangent, tangent_place)
            is_ours = found.untyped_storage().data_ptr() in ours
            moves.append((found.clone() if is_ours and len(targets) > 1 else found, tangent_place))
    for found, tangent_place in moves:
        tangent_place.copy_(found)
