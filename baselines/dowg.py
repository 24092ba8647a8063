"""DoWG: distance over weighted gradients (Khaled, Mishchenko, Jin, 2023, arXiv 2305.16284).

    symbol  name      shape  equation
    x       point     (N,)   all trained parameters, concatenated; x₀ is where training starts
    g       gradient  (N,)   of the loss of the current batch + λ/2 |x|², where λ is the weight decay
    r²      distance  ()     r²_t = max(r²_{t-1}, |x_t − x₀|²),  r²_{-1} = ε
    v       weighted  ()     v_t = v_{t-1} + r²_t |g_t|²
    η       lr        ()     r²_t / (√v_t + ε),  x_{t+1} = x_t − η g_t
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from baselines.flat_model import FlatStepper
from baselines.optimizers import Closure


class DistanceOverWeightedGradients(FlatStepper):
    """DoWG with ε = `square_distance`, which its authors' code uses for both, and an L2 penalty in the gradient."""

    carried = ("start", "square_distance", "weighted", "lr")

    def __init__(self, model: nn.Module, *, weight_decay: float, square_distance: float):
        super().__init__(model, weight_decay)
        self._small = square_distance
        self.start = self.flat.point()
        self.square_distance = self.start.new_tensor(square_distance)
        self.weighted = self.start.new_zeros(())
        self.lr = self.start.new_zeros(())

    def update(self, loss: Closure) -> Tensor:
        """Makes one update."""
        place = self.flat.here(loss)
        distance = (place.point - self.start).square().sum()
        self.square_distance.copy_(torch.maximum(self.square_distance, distance))
        self.weighted += self.square_distance * place.gradient.square().sum()
        self.lr.copy_(self.square_distance / (self.weighted.sqrt() + self._small))
        self.flat.move(place.point - self.lr * place.gradient)
        return place.loss

    def hyper(self) -> dict[str, float]:
        """Returns the last learning rate."""
        return {"lr": float(self.lr)}
