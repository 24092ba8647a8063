"""Convolutions on the tape: all directions in one call, where that is faster.

    symbol  name        shape                   meaning
    x, W    value       (B, I, ...), (O, I, ...)   input and weight of one convolution
    ẋ, Ẇ    tangent     (K, *x), (K, *W)        derivatives of the values along K directions
    ȳ       adjoint     (B, O, ...)             dL/dy
    ȳ̇       swing       (K, *y)                 derivatives of the adjoint

y = x ⋆ W is linear in both, and K directions share one of the two: ẋ_k ⋆ W is one convolution of a batch of K·B, and
x ⋆ Ẇ_k is one with K·O outputs.  Autograd's second backward pass takes a convolution for each direction, some with kernels
as large as an image.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from oho.engines.pearlmutter import Pieces, Room


class Convolution:
    """y = x ⋆ W + b; x (B, I, ...), W (O, I, ...), b (O,).

    `places` are stride, padding and dilation for each axis; `output` is the shape of y.
    """

    def __init__(
        self, x: Tensor, weight: Tensor, places: tuple[list[int], list[int], list[int]], output: torch.Size
    ):
        self.x, self.weight, self.places, self.output = x, weight, places, output

    def pull(self, adjoint: Tensor, moves: Sequence[bool], room: Room) -> Pieces:
        """x̄ = ȳ ⋆ W reversed, W̄ = ȳ ⋆ x, b̄ = Σ ȳ."""
        return self._backward(adjoint, self.x, self.weight, moves)[: len(moves)]

    def push(self, tangents: Pieces) -> Tensor:
        """ẏ = ẋ ⋆ W + x ⋆ Ẇ + ḃ."""
        of_x, of_weight, of_bias = (*tangents, None)[:3]
        rows = next(len(tangent) for tangent in tangents if tangent is not None)
        result = None if of_x is None else _apart(self._forward(of_x.flatten(0, 1), self.weight), rows)
        if of_weight is not None:
            bias = None if of_bias is None else of_bias.flatten()
            moved = self._forward(self.x, of_weight.flatten(0, 1), bias).unflatten(1, (rows, -1)).transpose(0, 1)
            return moved.contiguous() if result is None else result.add_(moved)
        if of_bias is not None:
            bias = of_bias.view(rows, 1, -1, *[1] * (self.x.ndim - 2))
            result = bias.expand(-1, *self.output) if result is None else result.add_(bias)
        assert result is not None
        return result

    def pull_swing(self, adjoint: Tensor, swing: Tensor, tangents: Pieces, tangent: Tensor, room: Room) -> Pieces:
        """x̄̇ = ȳ̇ ⋆ W reversed + ȳ ⋆ Ẇ reversed, W̄̇ = ȳ̇ ⋆ x + ȳ ⋆ ẋ, b̄̇ = Σ ȳ̇."""
        of_x, of_weight, of_bias = (*tangents, None)[:3]
        pieces: list[Tensor | None] = [None] * len(tangents)
        if of_x is not None:
            pieces[0] = self._swing_of_x(adjoint, swing, of_x, of_weight)
        if of_weight is not None:
            moves = (False, True, of_bias is not None)
            found = [self._backward(row, self.x, self.weight, moves) for row in swing]
            of_weights = [weight for _, weight, _ in found]
            if of_x is not None:
                for total, row in zip(of_weights, of_x, strict=True):
                    total.add_(self._backward(adjoint, row, self.weight, (False, True, False))[1])
            pieces[1] = torch.stack(of_weights, out=room(1))
        if of_bias is not None:
            shares = [bias for _, _, bias in found] if of_weight is not None else list(swing.flatten(3).sum((1, 3)))
            pieces[2] = torch.stack(shares, out=room(2))
        return pieces

    def _swing_of_x(self, adjoint: Tensor, swing: Tensor, of_x: Tensor, of_weight: Tensor | None) -> Tensor:
        rows = len(swing)
        if of_weight is not None and max(self.places[0]) > 1:
            return self._joint_swing_of_x(adjoint, swing, of_weight)
        result = _apart(self._of_input(swing.flatten(0, 1), self.weight, of_x.flatten(0, 1)), rows)
        if of_weight is not None:
            joined = of_weight.transpose(0, 1).flatten(1, 2)  # (O, K I, ...)
            like = of_x.reshape(len(self.x), -1, *self.x.shape[2:])
            result.add_(self._of_input(adjoint, joined, like).unflatten(1, (rows, -1)).transpose(0, 1))
        return result

    def _joint_swing_of_x(self, adjoint: Tensor, swing: Tensor, of_weight: Tensor) -> Tensor:
        """Returns the same by one convolution of both terms for each direction: with a stride, the calls cost most."""
        return torch.stack([
            self._of_input(torch.cat([row, adjoint], 1), torch.cat([self.weight, moved]), self.x)
            for row, moved in zip(swing, of_weight, strict=True)
        ])  # fmt: skip

    def _forward(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        stride, padding, dilation = self.places
        return torch.convolution(x, weight, bias, stride, padding, dilation, False, [0] * len(stride), 1)

    def _of_input(self, adjoint: Tensor, weight: Tensor, like: Tensor) -> Tensor:
        """Returns x̄ in the shape of `like`, whose values do not matter."""
        return self._backward(adjoint, like, weight, (True, False, False))[0]

    def _backward(self, adjoint: Tensor, x: Tensor, weight: Tensor, moves: Sequence[bool]) -> list[Tensor]:
        stride, padding, dilation = self.places
        wanted = [*moves, False][:3]
        return torch.ops.aten.convolution_backward(
            adjoint, x, weight, [len(weight)] if wanted[2] else None,
            stride, padding, dilation, False, [0] * len(stride), 1, wanted,
        )  # fmt: skip


def _apart(joined: Tensor, rows: int) -> Tensor:
    return joined.unflatten(0, (rows, -1))
