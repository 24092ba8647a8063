"""A model's trained parameters as one vector (N,), for optimizers whose formulas are about vectors."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from baselines.optimizers import Closure
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
        self.parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self.weight_decay = weight_decay

    def assign(self, name: str, value: float) -> None:
        """Sets the weight decay; ignores any other name."""
        if name == "weight_decay":
            self.weight_decay = value

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


def saved_fields(owner: object, names: Iterable[str]) -> dict[str, Any]:
    """Returns these fields of an optimizer, packed."""
    return packed({name: getattr(owner, name) for name in names})


def restore_fields(owner: object, saved: Mapping[str, Any], names: Iterable[str]) -> None:
    """Gives these fields what `saved_fields` returned."""
    for name in names:
        setattr(owner, name, unpacked(saved[name]))


def vector(tensors: Iterable[Tensor]) -> Tensor:
    """Returns tensors concatenated (N,)."""
    return torch.cat([tensor.reshape(-1) for tensor in tensors])
