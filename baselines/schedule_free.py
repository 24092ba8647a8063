"""Schedule-free SGD and AdamW as a graph can repeat them: their package's formulas, with every number in a tensor.

The package counts its weights, rates and corrections on the host, in arguments of its operations.  Elsewhere it is used.

    symbol  name        shape  equation
    y       point       (N,)   where gradients are taken; in the model while it is trained
    z       fast point  (N,)   z ← z − α g
    x       average     (N,)   y = β x + (1 − β) z; in the model while it is evaluated
    g       direction   (N,)   gradient, for AdamW over the root of its second moment v, + κ y
    α       rate        ()     with a linear warm-up
    c       share       ()     of z in x, α² over its sum; y ← y + c (z − y) + α (β (1 − c) − 1) g
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from baselines.flat_model import FlatStepper
from baselines.optimizers import Closure
from bench.protocol.averages import Exchange

EPSILON = 1e-8


class GraphScheduleFree(FlatStepper):
    """SGDScheduleFree or, with a `square_decay`, AdamWScheduleFree of `schedulefree` (Defazio et al., arXiv 2405.15682)."""

    carried = ("fast", "square", "_lr", "_steps", "_highest", "_weights")

    def __init__(
        self, model: nn.Module, *, lr: float, weight_decay: float, beta: float, warmup_steps: int,
        square_decay: float | None = None,
    ):  # fmt: skip
        super().__init__(model, weight_decay)
        self._exchange = Exchange()
        self._lr, self._beta, self._warmup = lr, beta, warmup_steps
        self.fast, self._decay = self.flat.point(), square_decay
        self.square = torch.zeros_like(self.fast)
        self._rate, self._share, self._pull, self._correction = (self.fast.new_zeros(()) for _ in range(4))
        """α, c, α (β (1 − c) − 1), and what corrects the bias of v."""
        self._steps, self._highest, self._weights = 0, 0.0, 0.0

    def begin(self, lr: float | None) -> None:
        """Finds the numbers of the next step."""
        self._steps += 1
        rate = self._lr * min(1.0, self._steps / max(1, self._warmup))
        self._highest = max(rate, self._highest)
        self._weights += self._highest**2
        share = self._highest**2 / self._weights if self._weights else 0.0
        self._rate.fill_(rate)
        self._share.fill_(share)
        self._pull.fill_(rate * (self._beta * (1 - share) - 1))
        self._correction.fill_(1 - (self._decay or 0.0) ** self._steps)

    def update(self, loss: Closure) -> Tensor:
        """Makes one update."""
        point, value, gradient = self.flat.unpenalised(loss)
        if self._decay is not None:
            self.square.mul_(self._decay).addcmul_(gradient, gradient, value=1 - self._decay)
            gradient = gradient / ((self.square / self._correction).sqrt() + EPSILON)
        gradient = gradient + self.flat.weight_decay * point
        moved = point.lerp(self.fast, self._share) + self._pull * gradient
        self.fast.sub_(self._rate * gradient)
        self.flat.move(moved)
        return value

    def training(self) -> None:
        """Puts y back into the model."""
        self._exchange.training(self.flat.parameters)

    def evaluation(self) -> None:
        """Puts x into the model."""
        average = self.flat.point().lerp(self.fast, 1 - 1 / self._beta)
        self._exchange.evaluation(self.flat.parameters, self.flat.parts(average))

    def assign(self, name: str, value: float) -> None:
        """Sets the learning rate or the weight decay."""
        if name == "lr":
            self._lr = value
        else:
            super().assign(name, value)

    def saved(self) -> dict[str, Any]:
        """Returns y, too, if the model does not hold it."""
        return super().saved() | self._exchange.saved()

    def restore(self, saved: dict[str, Any]) -> None:
        """Restores what `saved` returned."""
        super().restore({"weight_decay": saved.get("_weight_decay"), **saved})  # its name in older checkpoints
        self._exchange.restore(saved)
