"""One step of any rule together with its tangents, on dual numbers: the slower twin of `oho.linearised`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor
from torch.autograd import forward_ad

from oho.engines.dual import Dual, Tangent, full, tangent_of, value_of
from oho.rules import Rule

Pair = tuple[Tensor, Tangent]
"""A value and its tangent."""


@dataclass(frozen=True)
class Block:
    """What a rule is given, for all columns or some."""

    theta: Pair
    gradient: Pair
    slots: dict[str, Pair]
    hyper: dict[str, Pair]
    noise: Tensor | None


def apply(rule: Rule, block: Block) -> tuple[Pair, dict[str, Pair]]:
    """Applies the rule to values and tangents.  A mistake in the rule itself raises again on PyTorch's tensors."""
    if len(cast(Tensor, block.gradient[1])) == 0:
        slots, hyper = ({name: pair[0] for name, pair in pairs.items()} for pairs in (block.slots, block.hyper))
        moved, slots = rule(block.theta[0], block.gradient[0], slots, hyper, block.noise)
        return (moved, None), {name: (slot, None) for name, slot in slots.items()}
    try:
        return _ours(rule, block)
    except TypeError:  # UnknownOperationError, an operator or an option that our dual numbers lack
        return _pytorchs(rule, block)


def _ours(rule: Rule, block: Block) -> tuple[Pair, dict[str, Pair]]:
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


def _pytorchs(rule: Rule, block: Block) -> tuple[Pair, dict[str, Pair]]:
    """Applies the rule to PyTorch's dual numbers, one row of tangents at a time: any operation, several times slower."""
    rows = []
    for row in range(len(cast(Tensor, block.theta[1]))):
        with forward_ad.dual_level():

            def dual(pair: Pair, row: int = row) -> Tensor:
                value, tangent = pair
                if tangent is None or (isinstance(tangent, dict) and row not in tangent):
                    return value
                found = tangent[row]
                direction = found if isinstance(found, Tensor) else value.new_full((), found)
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


def store(targets: list[tuple[Pair, Tensor, Tensor | None]]) -> None:
    """Copies what a rule returned to its place; a target is (value and tangent, place of the value, place of the tangent).

    A rule may return what it was given, as a slot that remembers θ does: its tangent then lies in the place of another.
    """
    ours = {tangent_place.untyped_storage().data_ptr() for _, _, tangent_place in targets if tangent_place is not None}
    moves = []
    for (value, tangent), place, tangent_place in targets:
        place.copy_(value)
        if tangent_place is not None:
            found = full(tangent, tangent_place)
            is_ours = found.untyped_storage().data_ptr() in ours
            moves.append((found.clone() if is_ours and len(targets) > 1 else found, tangent_place))
    for found, tangent_place in moves:
        tangent_place.copy_(found)
