"""Batch and layer norm on the tape, with few passes over their values.

    symbol  name          shape            meaning
    x       inputs        (B, C, ...)      batch norm: statistics are those of the n values of a channel
                          (..., D)         layer norm: statistics are those of the D values of a row
    x̂       normalised    as x             (x − μ) r,  r = 1 / √(σ² + ε)
    γ, β    weight, bias  (C,) or (D,)
    y       outputs       as x             γ x̂ + β
    P u     projected     as x             u − mean(u) − x̂ mean(x̂ u), so that dx̂ = r P dx

With u = γ ȳ:  x̄ = r P u,  γ̄ = Σ ȳ x̂,  β̄ = Σ ȳ, and along a direction

    dx̄ = r P (γ ȳ̇ + γ̇ ȳ) − r mean(x̂ ẋ) x̄ − r mean(x̂ u) dx̂ − r mean(u dx̂) x̂
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from oho.engines.pearlmutter import Pieces, Room


class Sums(NamedTuple):
    """Values v of one or K directions, and for each direction and channel, (K, C), Σ v and Σ v x̂."""

    values: Tensor
    total: Tensor
    with_normal: Tensor


class BatchNorm:
    """y = γ x̂ + β with the statistics of the batch; x (B, C, ...), γ and β (C,).

    dx̄ is a sum of ȳ̇, ȳ, x and ẋ, each times one number for each channel, which comes from sums over the channel.
    """

    def __init__(self, x: Tensor, weight: Tensor, mean: Tensor, scale: Tensor, epsilon: float):
        self.x, self.weight, self.mean, self.scale, self.epsilon = x, weight, mean, scale, epsilon
        self.count = x.numel() // x.shape[1]
        self._of_adjoint: Sums | None = None
        self._of_tangent: Sums | None = None

    def pull(self, adjoint: Tensor, moves: Sequence[bool], room: Room) -> Pieces:
        """x̄ = r P (γ ȳ)."""
        pieces = torch.ops.aten.native_batch_norm_backward(
            adjoint, self.x, self.weight, None, None, self.mean, self.scale, True, self.epsilon, list(moves)
        )
        if moves[1] and moves[2]:
            self._of_adjoint = Sums(adjoint, pieces[2].unsqueeze(0), pieces[1].unsqueeze(0))
        return pieces

    def push(self, tangents: Pieces) -> Tensor:
        """ẏ = γ dx̂ + γ̇ x̂ + β̇."""
        of_x, of_weight, of_bias = tangents
        rows = next(len(tangent) for tangent in tangents if tangent is not None)
        r, zero = self.scale, torch.zeros_like(self.scale)
        along = zero if of_weight is None else of_weight * r  # of x − μ
        shift = zero if of_bias is None else of_bias
        if of_x is None:
            return self._combined([(self.x, along.expand(rows, -1))], shift - along * self.mean)
        _, total, with_normal = self._of_tangent = self._sums_with(of_x)
        slope = self.weight * r
        along = along - slope * r * with_normal / self.count
        shift = shift - slope * total / self.count - along * self.mean
        return self._combined([(of_x, slope.expand_as(total)), (self.x, along)], shift)

    def pull_swing(self, adjoint: Tensor, swing: Tensor, tangents: Pieces, tangent: Tensor, room: Room) -> Pieces:
        """γ̄̇ = Σ (ȳ̇ x̂ + ȳ dx̂), β̄̇ = Σ ȳ̇."""
        of_x, of_weight, of_bias = tangents
        _, total, of_swing = self._sums_with(swing)
        result, with_moved = None, torch.zeros_like(total)  # Σ ȳ dx̂ = Σ ẋ r P ȳ
        if of_x is not None:
            n, r, mean, weight = self.count, self.scale, self.mean, self.weight
            _, moved, moved_normal = self._known(self._of_tangent, of_x) or self._sums_with(of_x)
            of_adjoint = self._known(self._of_adjoint, adjoint) or self._sums_with(adjoint.unsqueeze(0))
            _, of_bias_alone, of_weight_alone = of_adjoint  # β̄, γ̄
            with_moved = self._products(of_x, adjoint) - (of_bias_alone * moved + of_weight_alone * moved_normal) / n
            with_moved *= r
            often = (0 if of_weight is None else of_weight) - weight * r * moved_normal / n  # of r P ȳ
            of_tangent = -weight * r * r * of_weight_alone / n
            of_normal = -(r * (weight * (of_swing + with_moved) + often * of_weight_alone) + of_tangent * moved_normal) / n
            shift = -(r * (weight * total + often * of_bias_alone) + of_tangent * moved) / n - of_normal * r * mean
            slope = (weight * r).expand_as(total)
            terms = [(swing, slope), (adjoint, often * r), (self.x, of_normal * r), (of_x, of_tangent)]
            result = self._combined(terms, shift)
        return (
            result,
            None if of_weight is None else torch.add(of_swing, with_moved, out=room(1)),
            None if of_bias is None else total,
        )

    def _wide(self, numbers: Tensor) -> Tensor:
        """Returns numbers (..., C) shaped so that they broadcast over the channels of x."""
        return numbers.view(*numbers.shape, *[1] * (self.x.ndim - 2)).unsqueeze(-self.x.ndim)

    def _combined(self, terms: Sequence[tuple[Tensor, Tensor]], shift: Tensor) -> Tensor:
        """Returns the sum of values times numbers (K, C), plus numbers."""
        (value, factor), *rest = terms
        result = value * self._wide(factor)
        for value, factor in rest:
            result.addcmul_(self._wide(factor), value)
        return result.add_(self._wide(shift))

    @staticmethod
    def _known(kept: Sums | None, values: Tensor) -> Sums | None:
        """Returns the sums that were kept if they are those of the values."""
        return kept if kept is not None and kept.values.is_set_to(values) else None

    def _sums_with(self, values: Tensor) -> Sums:
        """Returns the sums of values for K directions, which are β̄ and γ̄ for ȳ = v whatever γ is."""
        found = [
            torch.ops.aten.native_batch_norm_backward(
                row, self.x, self.weight, None, None, self.mean, self.scale, True, self.epsilon, [False, True, True]
            )
            for row in values
        ]
        total, with_normal = (torch.stack([sums[place] for sums in found]) for place in (2, 1))
        return Sums(values, total, with_normal)

    def _products(self, values: Tensor, other: Tensor) -> Tensor:
        """Returns Σ v u for each direction and channel, (K, C)."""
        zero, one = torch.zeros_like(self.mean), torch.ones_like(self.mean)
        return torch.stack([
            torch.ops.aten.native_batch_norm_backward(
                row, other, one, None, None, zero, one, True, 0.0, [False, True, False]
            )[1]
            for row in values
        ])  # fmt: skip


class LayerNorm:
    """y = γ x̂ + β with the statistics of each row; x (R, D), γ and β (D,), μ and r (R, 1)."""

    def __init__(self, x: Tensor, weight: Tensor, mean: Tensor, scale: Tensor):
        self.x, self.weight, self.mean, self.scale = x, weight, mean, scale
        self._last: tuple[Tensor, Tensor] | None = None

    @cached_property
    def normal(self) -> Tensor:
        """x̂."""
        return (self.x - self.mean).mul_(self.scale)

    def pull(self, adjoint: Tensor, moves: Sequence[bool], room: Room) -> Pieces:
        """x̄ = r P (γ ȳ)."""
        return torch.ops.aten.native_layer_norm_backward(
            adjoint, self.x, self.x.shape[1:], self.mean, self.scale, self.weight, self.weight, list(moves)
        )

    def push(self, tangents: Pieces) -> Tensor:
        """ẏ = γ dx̂ + γ̇ x̂ + β̇."""
        of_x, of_weight, of_bias = tangents
        result = self.normal.new_zeros(()) if of_bias is None else of_bias.unsqueeze(1)
        if of_weight is not None:
            result = torch.addcmul(result, self.normal, of_weight.unsqueeze(1))
        if of_x is not None:
            result = torch.addcmul(result, self._moved(of_x), self.weight)
        return result.expand(-1, *self.x.shape)

    def pull_swing(self, adjoint: Tensor, swing: Tensor, tangents: Pieces, tangent: Tensor, room: Room) -> Pieces:
        """γ̄̇ = Σ (ȳ̇ x̂ + ȳ dx̂), β̄̇ = Σ ȳ̇."""
        of_x, of_weight, of_bias = tangents
        normal, r, u = self.normal, self.scale, adjoint * self.weight
        moved = None if of_x is None else self._moved(of_x)
        result = of_weights = None
        if of_x is not None and moved is not None:
            inner = swing * self.weight
            if of_weight is not None:
                inner.addcmul_(adjoint, of_weight.unsqueeze(1))
            result = self._projected(inner)
            result.addcmul_(self._projected(u.unsqueeze(0)), r * _mean(normal, of_x), value=-1)
            result.addcmul_(moved, r * _mean(normal, u), value=-1).addcmul_(normal, r * _mean(moved, u), value=-1)
        if of_weight is not None:
            products = swing * normal
            of_weights = (products if moved is None else products.addcmul_(moved, adjoint)).sum(1)
        return result, of_weights, None if of_bias is None else swing.sum(1)

    def _moved(self, of_x: Tensor) -> Tensor:
        """dx̂ = r P ẋ, kept from `push` for the same ẋ or another view of it."""
        if self._last is None or not self._last[0].is_set_to(of_x):
            self._last = of_x, self._projected(of_x)
        return self._last[1]

    def _projected(self, values: Tensor) -> Tensor:
        """r P v for each direction."""
        return torch.stack([
            torch.ops.aten.native_layer_norm_backward(
                row, self.x, self.x.shape[1:], self.mean, self.scale, None, None, [True, False, False]
            )[0]
            for row in values
        ])  # fmt: skip


def _mean(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).mean(-1, keepdim=True)
