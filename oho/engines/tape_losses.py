"""The losses that end a tape.

Symbols and sweeps are those of `oho.engines.pearlmutter`: x̄ adjoint, ẋ tangent, x̄̇ swing.
"""

from __future__ import annotations

from functools import cached_property
from typing import Protocol

import torch
from torch import Tensor


class Loss(Protocol):
    """A scalar function of one input that moves."""

    def adjoint(self) -> Tensor:
        """x̄."""
        ...

    def swing(self, tangent: Tensor) -> Tensor:
        """ẋ -> x̄̇."""
        ...


class CrossEntropy:
    """L = −Σ w log p(target); p (..., C) softmax of x, w (..., 1) each example's weight.

    `of_log_p` (..., C) is the adjoint of log p: −w at the target, 0 elsewhere.
    """

    def __init__(self, log_p: Tensor, of_log_p: Tensor):
        self._log_p, self._of_log_p = log_p, of_log_p

    @cached_property
    def weight(self) -> Tensor:
        """w, which is 0 for an example that is ignored."""
        return torch.linalg.vector_norm(self._of_log_p, ord=1, dim=-1, keepdim=True)

    @cached_property
    def p(self) -> Tensor:
        """The probabilities."""
        return self._log_p.exp()

    def adjoint(self) -> Tensor:
        """x̄ = w p, less w at the target."""
        return torch.ops.aten._log_softmax_backward_data(self._of_log_p, self._log_p, -1, self._log_p.dtype)

    def swing(self, tangent: Tensor) -> Tensor:
        """x̄̇ = w p (ẋ − Σ p ẋ)."""
        moved = self.p * tangent
        return self.weight * torch.addcmul(moved, self.p, moved.sum(-1, keepdim=True), value=-1)


class NegativeLogLikelihood:
    """L = −Σ w x(target), linear in x; `of_x` is x̄: −w at the target, 0 elsewhere."""

    def __init__(self, of_x: Tensor):
        self._of_x = of_x

    def adjoint(self) -> Tensor:
        """x̄, as it was given."""
        return self._of_x

    def swing(self, tangent: Tensor) -> Tensor:
        """x̄̇ = 0."""
        return torch.zeros_like(tangent)


class SquaredError:
    """L = w Σ (x − target)²."""

    def __init__(self, difference: Tensor, weight: float):
        self.difference, self.weight = difference, weight

    def adjoint(self) -> Tensor:
        """x̄ = 2 w (x − target)."""
        return 2 * self.weight * self.difference

    def swing(self, tangent: Tensor) -> Tensor:
        """x̄̇ = 2 w ẋ."""
        return 2 * self.weight * tangent
