"""Operations of the tape that sum, select, rearrange or multiply, and so connect the layers of larger networks.

Symbols and sweeps are those of `oho.engines.pearlmutter`: x̄ adjoint, ẋ tangent, x̄̇ swing, K directions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from oho.engines.pearlmutter import Operation, Pieces, Room


class Part(NamedTuple):
    """A tensor of zeros except for `value`, which begins at `start` of an axis (counted from the end) of length `whole`."""

    value: Tensor
    axis: int
    start: int
    whole: int

    def written(self, total: Tensor | None) -> Tensor:
        """Adds the piece, in place, to a total that has no other owner or, without one, to zeros; returns the sum."""
        if total is None:
            shape = list(self.value.shape)
            shape[self.axis] = self.whole
            total = self.value.new_zeros(shape)
        total.narrow(self.axis, self.start, self.value.shape[self.axis]).add_(self.value)
        return total


class Rearrangement:
    """y = A x for a fixed linear A, which `apply` and its transpose know for any number of leading axes."""

    def __init__(self, apply: Callable[[Tensor], Tensor], transpose: Callable[[Tensor], Tensor | Part]):
        self.apply, self.transpose = apply, transpose

    def pull(self, adjoint: Tensor, moves: Sequence[bool], room: Room) -> Pieces:
        """x̄ = Aᵀ ȳ."""
        return (self.transpose(adjoint),)  # type: ignore[return-value]

    def push(self, tangents: Pieces) -> Tensor:
        """ẏ = A ẋ."""
        (tangent,) = tangents
        assert tangent is not None
        return self.apply(tangent)

    def pull_swing(self, adjoint: Tensor, swing: Tensor, tangents: Pieces, tangent: Tensor, room: Room) -> Pieces:
        """x̄̇ = Aᵀ ȳ̇."""
        return (self.transpose(swing),)  # type: ignore[return-value]


class Sum:
    """y = x1 + x2, either of which may be broadcast; `shapes` are those of x1 and x2."""

    def __init__(self, shapes: Sequence[torch.Size], output: torch.Size):
        self.shapes, self.output = shapes, output

    def pull(self, adjoint: Tensor, moves: Sequence[bool], room: Room) -> Pieces:
        """x̄ = ȳ, summed where x is broadcast."""
        return tuple(adjoint.sum_to_size(shape) if moved else None for shape, moved in zip(self.shapes, moves, strict=True))

    def push(self, tangents: Pieces) -> Tensor:
        """ẏ = ẋ1 + ẋ2."""
        wide = [
            tangent.view(len(tangent), *[1] * (len(self.output) - len(shape)), *shape)
            for tangent, shape in zip(tangents, self.shapes, strict=True)
            if tangent is not None
        ]
        return wide[0] + wide[1] if len(wide) == 2 else wide[0].expand(-1, *self.output)

    def pull_swing(self, adjoint: Tensor, swing: Tensor, tangents: Pieces, tangent: Tensor, room: Room) -> Pieces:
        """x̄̇ = ȳ̇, summed where x is broadcast."""
        rows, pieces = len(swing), []
        for moved, shape in zip(tangents, self.shapes, strict=True):
            narrow = (rows, *[1] * (len(self.output) - len(shape)), *shape)
            pieces.append(None if moved is None else swing.sum_to_size(narrow).view(rows, *shape))
        return pieces


class Curved:
    """y = φ(x), element by element, where φ' may be 0; `curves` returns φ' and φ'' at x."""

    def __init__(self, x: Tensor, curves: Callable[[Tensor], tuple[Tensor, Tensor]]):
        self._x, self._curves_at = x, curves

    @cached_property
    def curves(self) -> tuple[Tensor, Tensor]:
        """φ' and φ'', computed when a sweep first asks for them."""
        return self._curves_at(self._x)

    def pull(self, adjoint: Tensor, moves: Sequence[bool], room: Room) -> Pieces:
        """x̄ = φ' ȳ."""
        return (adjoint * self.curves[0],)

    def push(self, tangents: Pieces) -> Tensor:
        """ẏ = φ' ẋ."""
        (tangent,) = tangents
        assert tangent is not None
        return tangent * self.curves[0]

    def pull_swing(self, adjoint: Tensor, swing: Tensor, tangents: Pieces, tangent: Tensor, room: Room) -> Pieces:
        """x̄̇ = φ' ȳ̇ + φ'' ẋ ȳ."""
        (of_x,) = tangents
        assert of_x is not None
        slope, curvature = self.curves
        return ((swing * slope).addcmul_(of_x, curvature * adjoint),)


class Softmax:
    """y = softmax of x over the last axis."""

    def __init__(self, y: Tensor):
        self.y = y

    def pull(self, adjoint: Tensor, moves: Sequence[bool], room: Room) -> Pieces:
        """x̄ = y ȳ − y Σ y ȳ."""
        return (self._carried(self.y * adjoint),)

    def push(self, tangents: Pieces) -> Tensor:
        """ẏ = y (ẋ − Σ y ẋ)."""
        (tangent,) = tangents
        assert tangent is not None
        return self._carried(self.y * tangent)

    def pull_swing(self, adjoint: Tensor, swing: Tensor, tangents: Pieces, tangent: Tensor, room: Room) -> Pieces:
        """x̄̇ = z − y Σ z with z = y ȳ̇ + ẏ (ȳ − Σ y ȳ)."""
        centred = adjoint - (self.y * adjoint).sum(-1, keepdim=True)
        return (self._carried((self.y * swing).addcmul_(tangent, centred)),)

    def _carried(self, weighted: Tensor) -> Tensor:
        """Returns z − y Σ z, in place of z."""
        return weighted.addcmul_(self.y, weighted.sum(-1, keepdim=True), value=-1)


class Product:
    """y = a b of matrices; a (*, n, k), b (*, k, m), the leading axes the same."""

    def __init__(self, a: Tensor, b: Tensor):
        self.a, self.b, self.lead = a.flatten(0, -3), b.flatten(0, -3), a.shape[:-2]

    def pull(self, adjoint: Tensor, moves: Sequence[bool], room: Room) -> Pieces:
        """ā = ȳ bᵀ, b̄ = aᵀ ȳ."""
        adjoint = adjoint.flatten(0, -3)
        return (
            torch.bmm(adjoint, self.b.mT).unflatten(0, self.lead) if moves[0] else None,
            torch.bmm(self.a.mT, adjoint).unflatten(0, self.lead) if moves[1] else None,
        )

    def push(self, tangents: Pieces) -> Tensor:
        """ẏ = ȧ b + a ḃ."""
        of_a, of_b = map(_matrices, tangents)
        return self._summed((of_a, self.b), (self.a, of_b))

    def pull_swing(self, adjoint: Tensor, swing: Tensor, tangents: Pieces, tangent: Tensor, room: Room) -> Pieces:
        """ā̇ = ȳ̇ bᵀ + ȳ ḃᵀ, b̄̇ = aᵀ ȳ̇ + ȧᵀ ȳ."""
        of_a, of_b = map(_matrices, tangents)
        adjoint, swings = adjoint.flatten(0, -3), _matrices(swing)
        return (
            None if of_a is None else self._summed((swings, self.b.mT), (adjoint, None if of_b is None else of_b.mT)),
            None if of_b is None else self._summed((self.a.mT, swings), (None if of_a is None else of_a.mT, adjoint)),
        )

    def _summed(self, *pairs: tuple[Tensor | None, Tensor | None]) -> Tensor:
        """Returns the sum of products (K, *lead, n, m), each of a factor (B, ., .) and another (K, B, ., .)."""
        result: Tensor | None = None
        for left, right in pairs:
            if left is None or right is None:
                continue
            rows = len(left) if left.ndim == 4 else len(right)
            lefts, rights = (value if value.ndim == 4 else value.expand(rows, -1, -1, -1) for value in (left, right))
            if result is None:
                result = left.new_empty(*lefts.shape[:3], rights.shape[3])
                for place, *factors in zip(result, lefts, rights, strict=True):
                    torch.bmm(*factors, out=place)
            else:
                for place, *factors in zip(result, lefts, rights, strict=True):
                    place.baddbmm_(*factors)
        assert result is not None
        return result.unflatten(1, self.lead)


def _matrices(tangent: Tensor | None) -> Tensor | None:
    """Returns (K, *, n, m) as (K, B, n, m)."""
    return None if tangent is None else tangent.reshape(len(tangent), -1, *tangent.shape[-2:])


class Embedding:
    """y has the row of a table (V, D) for each of the given places."""

    def __init__(self, places: Tensor, count: int):
        self.places, self.count = places, count

    def pull(self, adjoint: Tensor, moves: Sequence[bool], room: Room) -> Pieces:
        """The adjoint of a row is the sum of the adjoints of its uses."""
        return (self._gathered(adjoint),)

    def push(self, tangents: Pieces) -> Tensor:
        """ẏ has rows of the table's tangent."""
        (tangent,) = tangents
        assert tangent is not None
        return tangent[:, self.places]

    def pull_swing(self, adjoint: Tensor, swing: Tensor, tangents: Pieces, tangent: Tensor, room: Room) -> Pieces:
        """The swing of a row is the sum of the swings of its uses."""
        return (torch.stack([self._gathered(row) for row in swing], out=room(0)),)

    def _gathered(self, values: Tensor) -> Tensor:
        return torch.ops.aten.embedding_dense_backward(values, self.places, self.count, -1, False)


class Rows:
    """An operation on rows (R, ·), for a first input and an output with the axes `lead` in place of R."""

    def __init__(self, operation: Operation, lead: torch.Size):
        self.operation, self.lead = operation, lead

    def pull(self, adjoint: Tensor, moves: Sequence[bool], room: Room) -> Pieces:
        """As the operation does."""
        return self._led(self.operation.pull(adjoint.flatten(0, -2), moves, room), 0)

    def push(self, tangents: Pieces) -> Tensor:
        """As the operation does."""
        return self.operation.push(self._flat(tangents)).unflatten(1, self.lead)

    def pull_swing(self, adjoint: Tensor, swing: Tensor, tangents: Pieces, tangent: Tensor, room: Room) -> Pieces:
        """As the operation does."""
        swings, moved = swing.flatten(1, -2), tangent.flatten(1, -2)
        return self._led(self.operation.pull_swing(adjoint.flatten(0, -2), swings, self._flat(tangents), moved, room), 1)

    def _flat(self, tangents: Pieces) -> Pieces:
        first, *rest = tangents
        return (None if first is None else first.flatten(1, -2), *rest)

    def _led(self, pieces: Pieces, axis: int) -> Pieces:
        first, *rest = pieces
        return (None if first is None else first.unflatten(axis, self.lead), *rest)
