"""Exact Hessian-vector products of layered networks by Pearlmutter's R-operator, all directions at once.

    symbol  name      shape        meaning
    L       loss      ()           the training closure's loss
    K       rows      ()           directions
    x, y    value     (B, ...)     input and output of one operation, B examples
    x̄, ȳ    adjoint   as x, y      dL/dx, dL/dy
    ẋ, ẏ    tangent   (K, *x)      derivative of the value along each direction
    x̄̇, ȳ̇    swing     (K, *x)      derivative of the adjoint along each direction

Each operation answers in the three sweeps of `oho.engines.sweeps`: adjoints go from the loss back, tangents forward, and
swings back.  All directions share the values, and one call multiplies a matrix with all of them.

Source: Pearlmutter, "Fast exact multiplication by the Hessian", Neural Computation 6 (1994).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Protocol

import torch
from torch import Tensor

Pieces = Sequence[Tensor | None]
"""One tensor for each input of an operation; None for an input that does not depend on parameters."""
Room = Callable[[int], Tensor | None]
"""Place of an input -> where its result may be written, or None for a new tensor."""
LARGE_WEIGHT = 1 << 16
"""The number of elements of one member's weight from which copying it costs more than the calls that this saves."""


class Operation(Protocol):
    """A function y of its inputs, and its derivatives at the values with which it was recorded.

    An input `moves` if it depends on parameters.
    """

    def pull(self, adjoint: Tensor, moves: Sequence[bool], room: Room) -> Pieces:
        """ȳ -> x̄ of each input that moves."""
        ...

    def push(self, tangents: Pieces) -> Tensor:
        """ẋ of each input -> ẏ."""
        ...

    def pull_swing(self, adjoint: Tensor, swing: Tensor, tangents: Pieces, tangent: Tensor, room: Room) -> Pieces:
        """ȳ, ȳ̇, ẋ of each input, ẏ -> x̄̇ of each input that moves."""
        ...


class Linear:
    """y = x Wᵀ + b; x (B, I), W (O, I), b (O,).

    What the tangents of W and b contribute may be computed before the sweep that adds it, and given to it.
    """

    def __init__(self, x: Tensor, weight: Tensor):
        self.x, self.weight = x, weight

    def pull(self, adjoint: Tensor, moves: Sequence[bool], room: Room) -> Pieces:
        """x̄ = ȳ W, W̄ = ȳᵀ x, b̄ = Σ ȳ."""
        return (
            torch.mm(adjoint, self.weight) if moves[0] else None,
            torch.mm(adjoint.t(), self.x, out=room(1)) if moves[1] else None,
            *([torch.sum(adjoint, 0, out=room(2)) if moves[2] else None] if len(moves) > 2 else []),
        )

    def push(self, tangents: Pieces, pushed: Tensor | None = None) -> Tensor:
        """ẏ = (x Ẇᵀ + ḃ) + ẋ Wᵀ; `pushed`, if given, is the part in parentheses, which is overwritten."""
        of_x, *own = tangents
        return _sum_of(self.of_own(own) if pushed is None else pushed, of_x, self.weight.t())

    def pull_swing(self, adjoint: Tensor, swing: Tensor, tangents: Pieces, tangent: Tensor, room: Room) -> Pieces:
        """x̄̇, W̄̇ and b̄̇."""
        return (self.swing_of_x(adjoint, swing, tangents), *self.swing_of_own(adjoint, swing, tangents, room)[1:])

    def swing_of_x(
        self, adjoint: Tensor, swing: Tensor, tangents: Pieces, swung: Tensor | None = None
    ) -> Tensor | None:
        """x̄̇ = ȳ Ẇ + ȳ̇ W; None if x does not move; `swung`, if given, is the first term, which is overwritten."""
        of_x, of_weight, *_ = tangents
        if of_x is None:
            return None
        return _sum_of(self.of_weight(adjoint, of_weight) if swung is None else swung, swing, self.weight)

    def swing_of_own(self, adjoint: Tensor, swing: Tensor, tangents: Pieces, room: Room) -> Pieces:
        """W̄̇ = ȳ̇ᵀ x + ȳᵀ ẋ, b̄̇ = Σ ȳ̇; nothing for x."""
        of_x, of_weight, of_bias = (*tangents, None)[:3]
        rows = swing.shape[0]
        pieces: list[Tensor | None] = [None] * len(tangents)
        if of_weight is not None:
            pieces[1] = product = torch.bmm(swing.transpose(1, 2), self.x.expand(rows, -1, -1), out=room(1))
            if of_x is not None:
                product.baddbmm_(adjoint.t().expand(rows, -1, -1), of_x)
        if of_bias is not None:
            pieces[2] = torch.sum(swing, 1, out=room(2))
        return pieces

    def of_own(self, own: Pieces) -> Tensor | None:
        """x Ẇᵀ + ḃ; None if neither moves."""
        of_weight, of_bias = (*own, None)[:2]
        bias = None if of_bias is None else of_bias.unsqueeze(1)
        if of_weight is None:
            return None if bias is None else bias.repeat(1, self.x.shape[0], 1)
        x, weight = self.x.expand(of_weight.shape[0], -1, -1), of_weight.transpose(1, 2)
        return torch.bmm(x, weight) if bias is None else torch.baddbmm(bias, x, weight)

    @staticmethod
    def of_weight(adjoint: Tensor, of_weight: Tensor | None) -> Tensor | None:
        """ȳ Ẇ; None if W does not move."""
        return None if of_weight is None else torch.bmm(adjoint.expand(len(of_weight), -1, -1), of_weight)


def _sum_of(total: Tensor | None, left: Tensor | None, right: Tensor) -> Tensor:
    """Returns total (K, B, ·), which may be overwritten, plus left (K, B, ·) times a matrix; None counts as zero."""
    if left is None:
        assert total is not None
        return total
    if total is None:
        return torch.matmul(left, right)
    total.view(-1, total.shape[-1]).addmm_(left.reshape(-1, left.shape[-1]), right)
    return total


class MemberLinear:
    """A linear layer of each of M members: y = x Wᵀ + b; x (M, B, I), W (M, O, I), b (M, O).

    Tangents (K, M, B, ...) lie in memory as (M, B, K, ...), so that one product serves all directions of a member.  The
    tangents of large weights, which would have to be copied for that, are multiplied one by one.
    """

    def __init__(self, x: Tensor, weight: Tensor):
        self.x, self.weight = x, weight
        self._one_by_one = weight[0].numel() >= LARGE_WEIGHT
        self._in_place = self._one_by_one or not weight.is_cpu  # a CPU multiplies faster into adjacent small matrices

    def pull(self, adjoint: Tensor, moves: Sequence[bool], room: Room) -> Pieces:
        """x̄ = ȳ W, W̄ = ȳᵀ x, b̄ = Σ ȳ."""
        return (
            torch.bmm(adjoint, self.weight) if moves[0] else None,
            torch.bmm(adjoint.transpose(1, 2), self.x, out=room(1) if self._in_place else None) if moves[1] else None,
            torch.sum(adjoint, 1, out=room(2)) if moves[2] else None,
        )

    def push(self, tangents: Pieces) -> Tensor:
        """ẏ = ẋ Wᵀ + x Ẇᵀ + ḃ."""
        of_x, of_weight, of_bias = tangents
        (members, examples, _), outputs = self.x.shape, self.weight.shape[1]
        rows = next(len(tangent) for tangent in tangents if tangent is not None)
        if of_weight is not None and self._one_by_one:
            result = self.x.new_empty(members, examples, rows, outputs)
            for row in range(rows):
                bias = self.x.new_zeros(()) if of_bias is None else of_bias[row].unsqueeze(1)
                torch.baddbmm(bias, self.x, of_weight[row].transpose(1, 2), out=result[:, :, row])
            result = result.flatten(2)
        else:
            result = self.x.new_zeros(()) if of_bias is None else of_bias.transpose(0, 1).reshape(members, 1, -1)
            if of_weight is not None:
                weight = of_weight.transpose(0, 1).reshape(members, rows * outputs, -1)
                result = torch.baddbmm(result, self.x, weight.transpose(1, 2))
        result = result.expand(members, examples, rows * outputs).reshape(members, examples * rows, outputs)
        if of_x is not None:
            result = torch.baddbmm(result, _joined(of_x), self.weight.transpose(1, 2))
        return _apart(result, examples)

    def pull_swing(self, adjoint: Tensor, swing: Tensor, tangents: Pieces, tangent: Tensor, room: Room) -> Pieces:
        """x̄̇ = ȳ̇ W + ȳ Ẇ, W̄̇ = ȳ̇ᵀ x + ȳᵀ ẋ, b̄̇ = Σ ȳ̇."""
        of_x, of_weight, of_bias = tangents
        members, examples, inputs = self.x.shape
        rows, pieces = len(swing), [None, None, None]  # type: tuple[int, list[Tensor | None]]
        if of_x is not None:
            product = torch.bmm(_joined(swing), self.weight)
            if of_weight is not None:
                weight = of_weight.permute(1, 2, 0, 3).reshape(members, -1, rows * inputs)
                product.view(members, examples, rows * inputs).baddbmm_(adjoint, weight)
            pieces[0] = _apart(product, examples)
        if of_weight is not None and self._one_by_one:
            place = room(1)
            pieces[1] = product = torch.empty_like(of_weight) if place is None else place
            for row in range(rows):
                torch.bmm(swing[row].transpose(1, 2), self.x, out=product[row])
                if of_x is not None:
                    product[row].baddbmm_(adjoint.transpose(1, 2), of_x[row])
        elif of_weight is not None:
            wide = _joined(swing).view(members, examples, -1)
            product = torch.bmm(wide.transpose(1, 2), self.x).view(members, rows, -1, inputs).transpose(0, 1)
            if of_x is not None:
                wide = _joined(of_x).view(members, examples, -1)
                rest = torch.bmm(adjoint.transpose(1, 2), wide).view(members, -1, rows, inputs)
                product = torch.add(product, rest.permute(2, 0, 1, 3), out=room(1))
            pieces[1] = product
        if of_bias is not None:
            pieces[2] = torch.sum(swing, 2, out=room(2))
        return pieces


def _joined(tangents: Tensor) -> Tensor:
    """Returns tangents (K, M, B, ·) as (M, B K, ·), without a copy if they lie in memory as `_apart` leaves them."""
    rows, members, examples, width = tangents.shape
    return tangents.permute(1, 2, 0, 3).reshape(members, examples * rows, width)


def _apart(joined: Tensor, examples: int) -> Tensor:
    """Inverts `_joined`."""
    members, _, width = joined.shape
    return joined.view(members, examples, -1, width).permute(2, 0, 1, 3)


class Elementwise:
    """y = φ(x); `times_slope` maps z and y to φ' z, and φ'' / φ' is `factor` times `bend` of y, None if φ'' is 0."""

    def __init__(
        self, y: Tensor, times_slope: Callable[[Tensor, Tensor], Tensor],
        bend: Callable[[Tensor], Tensor] | None = None, factor: float = 1.0,
    ):  # fmt: skip
        self._y, self._times_slope, self._bend_of, self.factor = y, times_slope, bend, factor

    def pull(self, adjoint: Tensor, moves: Sequence[bool], room: Room) -> Pieces:
        """x̄ = φ' ȳ."""
        return (self._times_slope(adjoint, self._y),)

    def push(self, tangents: Pieces) -> Tensor:
        """ẏ = φ' ẋ."""
        (tangent,) = tangents
        assert tangent is not None
        return self._times_slope(tangent, self._y)

    def pull_swing(self, adjoint: Tensor, swing: Tensor, tangents: Pieces, tangent: Tensor, room: Room) -> Pieces:
        """x̄̇ = φ' ȳ̇ + φ'' ẋ ȳ = φ' ȳ̇ + (φ'' / φ') ẏ ȳ."""
        result = self._times_slope(swing, self._y)
        if self._bend_of is not None:
            result.addcmul_(tangent, self._bend_of(self._y) * adjoint, value=self.factor)
        return (result,)


class LogSoftmax:
    """y = x − log Σ exp x over the last axis; `p` is exp y."""

    def __init__(self, y: Tensor):
        self._y = y

    @cached_property
    def p(self) -> Tensor:
        """exp y."""
        return self._y.exp()

    def pull(self, adjoint: Tensor, moves: Sequence[bool], room: Room) -> Pieces:
        """x̄ = ȳ − p Σ ȳ."""
        return (adjoint - self.p * adjoint.sum(-1, keepdim=True),)

    def push(self, tangents: Pieces) -> Tensor:
        """ẏ = ẋ − Σ p ẋ."""
        (tangent,) = tangents
        assert tangent is not None
        return tangent - (self.p * tangent).sum(-1, keepdim=True)

    def pull_swing(self, adjoint: Tensor, swing: Tensor, tangents: Pieces, tangent: Tensor, room: Room) -> Pieces:
        """x̄̇ = ȳ̇ − p Σ ȳ̇ − p ẏ Σ ȳ."""
        total = adjoint.sum(-1, keepdim=True)
        return (swing - self.p * (swing.sum(-1, keepdim=True) + tangent * total),)


class Reshape:
    """y holds x's elements in the same order."""

    def __init__(self, before: torch.Size, after: torch.Size):
        self.before, self.after = before, after

    def pull(self, adjoint: Tensor, moves: Sequence[bool], room: Room) -> Pieces:
        """x̄ is ȳ in x's shape."""
        return (adjoint.reshape(self.before),)

    def push(self, tangents: Pieces) -> Tensor:
        """ẏ is ẋ in y's shape."""
        (tangent,) = tangents
        assert tangent is not None
        return tangent.reshape(len(tangent), *self.after)

    def pull_swing(self, adjoint: Tensor, swing: Tensor, tangents: Pieces, tangent: Tensor, room: Room) -> Pieces:
        """x̄̇ is ȳ̇ in x's shape."""
        return (swing.reshape(len(swing), *self.before),)
