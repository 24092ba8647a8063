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
    """L = −Σ w log p(target); p (..., C) softmax of x, w (..., 1) each example's weight, `hit` (..., C) one-hot."""

    def __init__(self, x: Tensor, hit: Tensor, weight: Tensor):
        self._x, self.hit, self.weight = x, hit, weight

    @cached_property
    def p(self) -> Tensor:
        """The probabilities."""
        return self._x.softmax(-1)

    def adjoint(self) -> Tensor:
        """x̄ = w (p − hit)."""
        return self.weight * (self.p - self.hit)

    def swing(self, tangent: Tensor) -> Tensor:
        """x̄̇ = w p (ẋ − Σ p ẋ)."""
        moved = self.p * tangent
        return self.weight * torch.addcmul(moved, self.p, moved.sum(-1, keepdim=True), value=-1)


class NegativeLogLikelihood:
    """L = −Σ w x(target), linear in x."""

    def __init__(self, hit: Tensor, weight: Tensor):
        self.hit, self.weight = hit, weight

    def adjoint(self) -> Tensor:
        """x̄ = −w hit."""
        return -self.weight * self.hit

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
