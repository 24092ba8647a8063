"""A model's trained parameters as one vector (N,), for optimizers whose formulas are about vectors."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from baselines.optimizers import Closure, Stepper, trained_parameters
from bench.protocol import packed, unpacked


class Place(NamedTuple):
    """A point with its loss () without the penalty, its penalised loss `value` (), and the gradient (N,) of `value`."""

    point: Tensor
    loss: Tensor
    value: Tensor
    gradient: Tensor


class FlatModel:
    """A model's trained parameters as one vector (N,), and its loss as a function of it, with a penalty or without."""

    def __init__(self, model: nn.Module, weight_decay: float):
        self.parameters = trained_parameters(model)
        self.weight_decay = weight_decay

    def point(self) -> Tensor:
        """Returns a copy of the model's current parameters (N,)."""
        return vector(self.parameters).detach()

    def here(self, loss: Closure) -> Place:
        """Returns loss, penalised loss and its gradient at the model's current parameters."""
        point, value, gradient = self.unpenalised(loss)
        penalty = 0.5 * self.weight_decay * (point @ point)
        return Place(point, value, value + penalty, gradient + self.weight_decay * point)

    def unpenalised(self, loss: Closure) -> tuple[Tensor, Tensor, Tensor]:
        """Returns the model's current parameters (N,), the loss () there, and its gradient (N,), both without a penalty."""
        value, point = loss(), self.point()
        gradient = vector(torch.autograd.grad(value, self.parameters, materialize_grads=True))
        return point, value.detach(), gradient

    @torch.no_grad()
    def move(self, point: Tensor) -> None:
        """Copies a point (N,) into the model's parameters."""
        for parameter, part in zip(self.parameters, self.parts(point), strict=True):
            parameter.copy_(part)

    def parts(self, point: Tensor) -> list[Tensor]:
        """Returns a point (N,) as views, shaped like the model's parameters."""
        parts = point.split([parameter.numel() for parameter in self.parameters])
        return [part.view_as(parameter) for parameter, part in zip(self.parameters, parts, strict=True)]


class FlatStepper(Stepper):
    """A stepper over a model's trained parameters as one vector, of which others choose the weight decay alone.

    A class that inherits from this one names what it carries from step to step, and overrides what is different.
    """

    carried: ClassVar[tuple[str, ...]]
    """The fields that a checkpoint holds, under their names, besides the weight decay."""

    def __init__(self, model: nn.Module, weight_decay: float):
        self.flat = FlatModel(model, weight_decay)

    def assign(self, name: str, value: float) -> None:
        """Sets the weight decay; ignores any other name."""
        if name == "weight_decay":
            self.flat.weight_decay = value

    def saved(self) -> dict[str, Any]:
        """Returns what is carried from step to step, and the weight decay."""
        return packed({name: getattr(self, name) for name in self.carried}) | {"weight_decay": self.flat.weight_decay}

    def restore(self, saved: dict[str, Any]) -> None:
        """Restores what `saved` returned."""
        for name in self.carried:
            setattr(self, name, unpacked(saved[name]))
        self.flat.weight_decay = saved["weight_decay"]


def vector(tensors: Iterable[Tensor]) -> Tensor:
    """Returns tensors concatenated (N,)."""
    return torch.cat([tensor.reshape(-1) for tensor in tensors])
