"""DoG and L-DoG as a graph can repeat them: their package's formulas, without its questions to the device.

    symbol  name      shape  equation
    T       parts     ()     1 for DoG; for L-DoG one for each parameter tensor
    x       point     (N,)   all trained parameters, concatenated; x₀ is where training starts
    g       gradient  (N,)   of the loss of the current batch, + κ x
    r       distance  (T,)   largest |x − x₀| so far of each part, from ρ (1 + |x₀|)
    G       weights   (T,)   ε + Σ |g|² of each part
    η       rate      (T,)   r / √G;  x ← x − η g
    x̄       average   (N,)   x̄ ← x̄ + (γ + 1) / (γ + t) (x − x̄) at step t: in the model while it is evaluated
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from baselines.flat_model import FlatStepper
from baselines.optimizers import Closure
from bench.protocol.averages import Exchange

EPSILON, DECAY = 1e-8, 8.0
"""The package's ε and γ."""


class GraphDog(FlatStepper):
    """DoG or, if it `is_layerwise`, L-DoG of the package `dog` (Ivgi, Hinder, Carmon, 2023, arXiv 2302.12022)."""

    carried = ("_start", "_distance", "_weights", "_rate", "_average", "steps")

    def __init__(self, model: nn.Module, *, weight_decay: float, initial_distance: float, is_layerwise: bool):
        super().__init__(model, weight_decay)
        self._exchange = Exchange()
        self._start = self.flat.point()
        sizes = [parameter.numel() for parameter in self.flat.parameters]
        self._sizes = sizes if is_layerwise else [sum(sizes)]
        self._distance = initial_distance * (1 + self._squares(self._start).sqrt())
        self._weights = torch.full_like(self._distance, EPSILON)
        self._rate, self._average = torch.zeros_like(self._distance), torch.zeros_like(self._start)
        self._share, self.steps = self._start.new_zeros(()), 0

    def begin(self, lr: float | None) -> None:
        """Finds the share of the next point in the average."""
        self.steps += 1
        self._share.fill_((DECAY + 1) / (DECAY + self.steps))

    def update(self, loss: Closure) -> Tensor:
        """Makes one update."""
        point, value, _, gradient = self.flat.here(loss)
        self._distance.copy_(torch.maximum(self._distance, self._squares(point - self._start).sqrt()))
        self._weights += self._squares(gradient)
        self._rate.copy_(self._distance / self._weights.sqrt())
        steps = [rate * part for rate, part in zip(self._rate, gradient.split(self._sizes), strict=True)]
        moved = point - torch.cat(steps)
        self._average.lerp_(moved, self._share)
        self.flat.move(moved)
        return value

    def training(self) -> None:
        """Puts x back into the model."""
        self._exchange.training(self.flat.parameters)

    def evaluation(self) -> None:
        """Puts the average into the model, once there is one."""
        if self.steps:
            self._exchange.evaluation(self.flat.parameters, self.flat.parts(self._average))

    def hyper(self) -> dict[str, float]:
        """Returns η; for L-DoG, its mean over tensors."""
        return {"lr": float(self._rate.mean())}

    def saved(self) -> dict[str, Any]:
        """Returns x, too, if the model does not hold it."""
        return super().saved() | self._exchange.saved()

    def restore(self, saved: dict[str, Any]) -> None:
        """Restores what `saved` returned."""
        super().restore(saved)
        self._exchange.restore(saved)

    def _squares(self, vector: Tensor) -> Tensor:
        """Returns the squared norm of each part, (T,)."""
        return torch.stack([part.square().sum() for part in vector.split(self._sizes)])
