"""DoWG: distance over weighted gradients (Khaled, Mishchenko, Jin, 2023, arXiv 2305.16284).

    symbol  name      shape  equation
    x       point     (N,)   all trained parameters, concatenated; x₀ is where training starts
    g       gradient  (N,)   of the loss of the current batch + λ/2 |x|², where λ is the weight decay
    r²      distance  ()     r²_t = max(r²_{t-1}, |x_t − x₀|²),  r²_{-1} = ε
    v       weighted  ()     v_t = v_{t-1} + r²_t |g_t|²
    η       lr        ()     r²_t / (√v_t + ε),  x_{t+1} = x_t − η g_t
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from baselines.flat_model import FlatModel
from baselines.optimizers import Closure, Stepper
from bench.protocol import packed, unpacked


class DistanceOverWeightedGradients(Stepper):
    """DoWG with ε = `square_distance`, which its authors' code uses for both, and an L2 penalty in the gradient."""

    def __init__(self, model: nn.Module, *, weight_decay: float, square_distance: float):
        self._flat, self._small = FlatModel(model, weight_decay), square_distance
        self._start = self._flat.point()
        self._square_distance = self._start.new_tensor(square_distance)
        self._weighted = self._start.new_zeros(())
        self._lr = self._start.new_zeros(())

    def update(self, loss: Closure) -> Tensor:
        """Makes one update."""
        place = self._flat.here(loss)
        distance = (place.point - self._start).square().sum()
        self._square_distance.copy_(torch.maximum(self._square_distance, distance))
        self._weighted += self._square_distance * place.gradient.square().sum()
        self._lr.copy_(self._square_distance / (self._weighted.sqrt() + self._small))
        self._flat.move(place.point - self._lr * place.gradient)
        return place.loss

    def hyper(self) -> dict[str, float]:
        """Returns the last learning rate."""
        return {"lr": float(self._lr)}

    def assign(self, name: str, value: float) -> None:
        """Sets the weight decay; there is no other hyperparameter to choose."""
        self._flat.assign(name, value)

    def saved(self) -> dict[str, Any]:
        """Returns where training started, both sums, the last learning rate, and the weight decay."""
        own = {"start": self._start, "square_distance": self._square_distance, "weighted": self._weighted, "lr": self._lr}
        return packed({**own, "weight_decay": self._flat.weight_decay})

    def restore(self, saved: dict[str, Any]) -> None:
        """Restores what `saved` returned."""
        self._start, self._square_distance, self._weighted, self._lr = (
            unpacked(saved[name]) for name in ("start", "square_distance", "weighted", "lr")
        )
        self._flat.weight_decay = saved["weight_decay"]
