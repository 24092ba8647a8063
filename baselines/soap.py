"""SOAP as a graph can repeat it: its package's projections and bases, with state in place and every number in a tensor.

    symbol  name         meaning
    G       statistics   means of g gᵀ, one for each side of a weight (Shampoo's)
    Q       basis        eigenvectors of G; there is none for a vector
    m, v    moments      Adam's: of the gradient, and of the square of the gradient in the basis

The package finds a new basis at the end of every so many steps; here the host does, before the step that follows, since it
waits for it.  The package's first step moves nothing: its gradient begins G alone, whose eigenvectors are the first Q.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from baselines.optimizers import Closure, Stepper
from bench.protocol import packed, unpacked


class GraphSoap(Stepper):
    """The updates of a `pytorch_optimizer.SOAP` with one parameter group."""

    def __init__(self, optimizer: Any):
        self._soap, (self._group,) = optimizer, optimizer.param_groups
        self._parameters: list[Tensor] = self._group["params"]
        self._states = [self._begun(parameter.detach()) for parameter in self._parameters]
        first = self._parameters[0]
        self._size, self._kept, self._share, self._square_share = (first.new_zeros(()) for _ in range(4))
        """The length of a step, what weight decay keeps, and what the moments take; those of a first step move nothing."""
        self._steps = 0

    def begin(self, lr: float | None) -> None:
        """Finds a new basis where one is due, and the numbers of the next step."""
        if self._steps == 1:
            self._turn(anew=True)
        elif self._steps > 1 and (self._steps - 1) % self._group["precondition_frequency"] == 0:
            self._turn(anew=False)
        step, rate, (beta1, beta2) = self._steps, self._group["lr"] if lr is None else lr, self._group["betas"]
        moves = step > 0
        self._size.fill_(rate * math.sqrt(1 - beta2**step) / (1 - beta1**step) if moves else 0.0)
        self._kept.fill_(1 - rate * self._group["weight_decay"] if moves else 1.0)
        self._share.fill_(1 - beta1 if moves else 0.0)
        self._square_share.fill_(1 - beta2 if moves else 0.0)
        self._steps += 1

    def update(self, loss: Closure) -> Tensor:
        """Makes one update in the present basis, and adds its gradient to the statistics."""
        value = loss()
        gradients = torch.autograd.grad(value, self._parameters, materialize_grads=True)
        with torch.no_grad():
            for parameter, gradient, state in zip(self._parameters, gradients, self._states, strict=True):
                mean, square = state["exp_avg"], state["exp_avg_sq"]
                mean.lerp_(gradient, self._share)
                square.lerp_(self._soap.project(gradient, state).square(), self._square_share)
                turned = self._soap.project(mean, state) / (square.sqrt() + self._group["eps"])
                parameter.sub_(self._size * self._soap.project(turned, state, project_type="backward")).mul_(self._kept)
                self._soap.update_pre_conditioner(gradient, state, step=0)  # the statistics alone
        return value.detach()

    def assign(self, name: str, value: float) -> None:
        """Sets a value of the package's optimizer."""
        if name in self._group:
            self._group[name] = value

    def saved(self) -> dict[str, Any]:
        """Returns moments, statistics, bases, steps and the weight decay."""
        return packed({"states": self._states, "steps": self._steps, "weight_decay": self._group["weight_decay"]})

    def restore(self, saved: dict[str, Any]) -> None:
        """Restores what `saved` returned."""
        self._states, self._steps = unpacked(saved["states"]), saved["steps"]
        self._group["weight_decay"] = saved["weight_decay"]

    def _begun(self, parameter: Tensor) -> dict[str, Any]:
        """Returns the state before the first step, with a basis of zeros."""
        state: dict[str, Any] = {"exp_avg": torch.zeros_like(parameter), "exp_avg_sq": torch.zeros_like(parameter)}
        every, beta = self._group["precondition_frequency"], self._group["betas"][1]
        self._soap.init_pre_conditioner(parameter, state, precondition_frequency=every, shampoo_beta=beta)
        return state | {"Q": [side.clone() if len(side) else [] for side in state["GG"]]}

    @torch.no_grad()
    def _turn(self, *, anew: bool) -> None:
        """Puts a new basis in the old one's place, made `anew` or by one round of power iteration from there."""
        for state in self._states:
            square = state["exp_avg_sq"]
            found = self._soap.get_orthogonal_matrix(state["GG"]) if anew else self._soap.get_orthogonal_matrix_qr(state)
            square.copy_(state["exp_avg_sq"])  # another tensor now, in the order of the new basis
            state["exp_avg_sq"] = square
            for old, new in zip(state["Q"], found, strict=True):
                if len(old):
                    old.copy_(new)
