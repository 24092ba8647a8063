"""Prodigy and D-Adaptation with Adam as a graph can repeat them: their packages' formulas, with every number in a tensor.

The packages ask the device for the estimate of the distance in every step, which no graph can.  Elsewhere they are used.

    symbol  name       shape  equation
    x       point      (N,)   all trained parameters, concatenated; x₀ is where training starts
    g       gradient   (N,)   of the loss of the current batch
    γ       factor     ()     what a schedule multiplies the learning rate by
    κ       decay      ()     decoupled weight decay
    d       distance   ()     estimate of |x₀ − x*|, from d₀, which never falls; d γ is the learning rate
    m, v    moments    (N,)   Adam's, not corrected for their bias: of d g and (d g)² (Prodigy), or of d γ g and g²
    s       sum        (N,)   weighted gradients, decayed by √β₂
    r       numerator  ()     Prodigy: √β₂ r + (d/d₀) d γ g · (x₀ − x);  D-Adaptation: a mean of d γ g · s / (√v + ε)

Both: d ← max(d, r / |s|₁), for D-Adaptation with |s|₁ times 1 − √β₂.
"""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import Tensor, nn

from baselines.flat_model import FlatStepper
from baselines.optimizers import Closure

BETAS, EPSILON, FIRST_DISTANCE = (0.9, 0.999), 1e-8, 1e-6
"""The defaults of both packages."""
ROOT = math.sqrt(BETAS[1])


class _DistanceEstimate(FlatStepper):
    """What both methods share: state and factor."""

    carried: ClassVar[tuple[str, ...]] = ("_mean", "_square", "_sum", "_numerator", "_distance")

    def __init__(self, model: nn.Module, *, weight_decay: float):
        super().__init__(model, weight_decay)
        point = self.flat.point()
        self._mean, self._square, self._sum = (torch.zeros_like(point) for _ in range(3))
        # float64, as the packages' own numbers are.
        self._numerator, self._factor = (point.new_zeros((), dtype=torch.float64) for _ in range(2))
        self._distance = torch.full_like(self._numerator, FIRST_DISTANCE)

    def begin(self, lr: float | None) -> None:
        """Takes the schedule's factor."""
        self._factor.fill_(1.0 if lr is None else lr)

    def hyper(self) -> dict[str, float]:
        """Returns the distance as the learning rate."""
        return {"lr": float(self._distance)}

    def _estimate(self, denominator: Tensor) -> None:
        """Lets the distance grow to its new estimate, unless that is not a number."""
        self._distance.copy_(torch.fmax(self._distance, self._numerator / denominator))


class GraphProdigy(_DistanceEstimate):
    """Prodigy as `prodigyopt` has it (Mishchenko and Defazio, 2024, arXiv 2306.06101)."""

    carried = (*_DistanceEstimate.carried, "start")

    def __init__(self, model: nn.Module, *, weight_decay: float):
        super().__init__(model, weight_decay=weight_decay)
        self.start = self.flat.point()

    def update(self, loss: Closure) -> Tensor:
        """Makes one update."""
        point, value, gradient = self.flat.unpenalised(loss)
        distance, rate = self._distance.clone(), self._distance * self._factor
        weight = distance / FIRST_DISTANCE * rate
        self._numerator.mul_(ROOT).add_(weight * (gradient @ (self.start - point)))
        self._mean.mul_(BETAS[0]).add_(distance * (1 - BETAS[0]) * gradient)
        self._square.mul_(BETAS[1]).add_(distance.square() * (1 - BETAS[1]) * gradient.square())
        self._sum.mul_(ROOT).add_(weight * gradient)
        self._estimate(self._sum.abs().sum())
        root = self._square.sqrt() + self._distance * EPSILON
        self.flat.move((1 - self.flat.weight_decay * rate) * point - rate * (self._mean / root))
        return value


class GraphDAdaptation(_DistanceEstimate):
    """Adam with D-Adaptation as `pytorch_optimizer` has it (Defazio and Mishchenko, 2023, arXiv 2301.07733)."""

    def update(self, loss: Closure) -> Tensor:
        """Makes one update."""
        point, value, gradient = self.flat.unpenalised(loss)
        rate = self._distance * self._factor
        found = rate * (gradient @ (self._sum / (self._square.sqrt() + EPSILON)))
        self._numerator.mul_(ROOT).add_((1 - ROOT) * found)
        self._mean.mul_(BETAS[0]).add_(rate * (1 - BETAS[0]) * gradient)
        self._square.mul_(BETAS[1]).add_((1 - BETAS[1]) * gradient.square())
        self._sum.mul_(ROOT).add_(rate * (1 - ROOT) * gradient)
        self._estimate((1 - ROOT) * self._sum.abs().sum())
        root = self._square.sqrt() + EPSILON
        self.flat.move((1 - self.flat.weight_decay * rate) * point - self._mean / root)
        return value
