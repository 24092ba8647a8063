"""MetaOptimize: AdamW whose learning rate Lion tunes along a discounted trace of its updates.

After Sharifnassab, Salehkaleybar and Sutton (2025, arXiv 2402.02342), in the form "AdamW, Lion, Hessian-free, scalar" that
their code calls `MetaOptimize_AdamW_Lion_hg`.

    symbol  name           shape  equation
    x       point          (N,)   all trained parameters, concatenated
    g       gradient       (N,)   of the loss of the current batch
    m, s    moments        (N,)   Adam's averages of g and of g², both with their bias corrected
    β       log rate       ()     the learning rate is α = exp β
    κ       weight decay   ()     decoupled
    γ       discount       ()
    h       trace          (N,)   −dx/dβ: h ← γ (1 − α κ) h + α g / (√s + ε), the curvature left out
    M       meta-momentum  ()     Lion's average of the hypergradient h · g, which is −df/dβ
    r       meta-rate      ()     β ← β + r sign(c M + (1 − c) h · g)
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from baselines.flat_model import FlatStepper
from baselines.optimizers import Closure

BETAS, EPSILON = (0.9, 0.999), 1e-8
"""The decays of both moments, and AdamW's ε."""
META_BETA, META_MIX = 0.99, 0.9
"""Lion's decay of M, and c: its share in a step."""


class MetaOptimize(FlatStepper):
    """AdamW with one learning rate, which changes by the factor exp(±meta_rate) in each step."""

    carried = ("_mean", "_square", "_trace", "_log_lr", "_meta_momentum", "steps")

    def __init__(self, model: nn.Module, *, lr: float, weight_decay: float, meta_rate: float, discount: float):
        super().__init__(model, weight_decay)
        self._meta_rate, self._discount = meta_rate, discount
        point = self.flat.point()
        self._mean, self._square, self._trace = (torch.zeros_like(point) for _ in range(3))
        # float64, because float32 would round away part of a step.
        self._log_lr = point.new_tensor(math.log(lr), dtype=torch.float64)
        self._meta_momentum = point.new_zeros(())
        self.steps = 0
        self._shares = [point.new_zeros(()) for _ in BETAS]
        """The weights of the next gradient in both moments."""

    def begin(self, lr: float | None) -> None:
        """Corrects the bias of the moments: at the first step they are the gradient's alone."""
        self.steps += 1
        for share, beta in zip(self._shares, BETAS, strict=True):
            share.fill_((1 - beta) / (1 - beta**self.steps))

    def update(self, loss: Closure) -> Tensor:
        """Updates the parameters, then the learning rate."""
        point, value, gradient = self.flat.unpenalised(loss)
        self._mean.lerp_(gradient, self._shares[0])
        self._square.lerp_(gradient.square(), self._shares[1])
        root = self._square.sqrt().add_(EPSILON)
        rate = self._log_lr.exp().to(point.dtype)
        kept = 1 - rate * self.flat.weight_decay
        self.flat.move(kept * point - rate * (self._mean / root))
        hypergradient = self._trace @ gradient
        self._trace.mul_(self._discount * kept).add_(rate * (gradient / root))
        self._meta_momentum.mul_(META_BETA).add_((1 - META_BETA) * hypergradient)
        step = META_MIX * self._meta_momentum + (1 - META_MIX) * hypergradient
        self._log_lr += self._meta_rate * step.sign()
        return value

    def hyper(self) -> dict[str, float]:
        """Returns the current learning rate."""
        return {"lr": float(self._log_lr.exp())}

    def assign(self, name: str, value: float) -> None:
        """Sets the learning rate, which is adapted from there on, or the weight decay."""
        if name == "lr":
            self._log_lr.fill_(math.log(value))
        else:
            super().assign(name, value)
