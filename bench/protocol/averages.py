"""Averages of the weights as an option of every training: what is evaluated, selected and returned is then the average.

    symbol  name     shape      meaning
    θ       weights  (tensors)  of the training, moved by its updates
    θ̄       average  (tensors)  of the weights, in the model while it is evaluated
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import BeforeValidator, Field
from torch import Tensor

import oho
from bench.protocol.checkpoints import packed, unpacked
from bench.protocol.settings import Settings
from bench.protocol.stacked import Stacked, flat_rows


class ExponentialAverage(Settings):
    """An exponential average with its bias corrected; `horizon` in steps.  A plain number means this one."""

    label: ClassVar[str] = "averaged"
    name: Literal["exponential"] = "exponential"
    horizon: float = Field(default=1000.0, ge=1, allow_inf_nan=False)

    def kind(self) -> oho.Exponential:
        """Returns the library's."""
        return oho.Exponential(self.horizon)


class UniformAverage(Settings):
    """The mean of all weights after step `start`."""

    label: ClassVar[str] = "mean weights"
    name: Literal["uniform"] = "uniform"
    start: int = Field(default=0, ge=0)

    def kind(self) -> oho.Uniform:
        """Returns the library's."""
        return oho.Uniform(self.start)


class RecentAverage(Settings):
    """An average of about the last `part` of all steps, however many."""

    label: ClassVar[str] = "averaged"
    name: Literal["recent"] = "recent"
    part: float = Field(default=0.1, gt=0, le=1)

    def kind(self) -> oho.Recent:
        """Returns the library's."""
        return oho.Recent(self.part)


class ScheduleFreeAverage(Settings):
    """The mean of all weights, and gradients between it and the weights; `interpolation` is the mean's share there."""

    label: ClassVar[str] = "schedule-free"
    name: Literal["schedule-free"] = "schedule-free"
    interpolation: float = Field(default=0.9, ge=0, lt=1)

    def kind(self) -> oho.ScheduleFree:
        """Returns the library's."""
        return oho.ScheduleFree(self.interpolation)


def _named(value: Any) -> Any:
    if isinstance(value, str):
        return {"name": value}
    return {"name": "exponential", "horizon": value} if isinstance(value, int | float) else value


def left_out(value: Any) -> bool:
    """Returns whether an option is left out of specs: those made before it was there keep their id."""
    return value is None


Plain = ExponentialAverage | UniformAverage | RecentAverage
PlainAverage = Annotated[Annotated[Plain, Field(discriminator="name")] | None, BeforeValidator(_named)]
"""A configuration gives a horizon in steps, a name, or a mapping with `name` and the average's options."""
Differentiable = Plain | ScheduleFreeAverage
AnyAverage = Annotated[Annotated[Differentiable, Field(discriminator="name")] | None, BeforeValidator(_named)]
"""What `PlainAverage` takes, or "schedule-free", for methods that differentiate the average."""


class Exchange:
    """Keeps θ while the model's parameters hold θ̄, as they do between two calls of a method's `advance`."""

    def __init__(self) -> None:
        self.weights: list[Tensor] | None = None

    def evaluation(self, parameters: Iterable[Tensor], average: Sequence[Tensor]) -> None:
        """Puts θ̄ into the parameters."""
        if self.weights is None:
            own = list(parameters)
            self.weights = [parameter.detach().clone() for parameter in own]
            _put(own, average)

    def training(self, parameters: Iterable[Tensor]) -> None:
        """Puts θ back, bit for bit."""
        if self.weights is not None:
            _put(parameters, self.weights)
            self.weights = None

    def saved(self) -> dict[str, Any]:
        """Returns a copy of θ, if the model does not hold it."""
        return {"weights": packed(self.weights)}

    def restore(self, saved: dict[str, Any]) -> None:
        """Takes over what another has `saved`."""
        self.weights = unpacked(saved["weights"])


class Exchanges:
    """Keeps θ of all members of a batch: between two calls of its `advance` the stacked models hold all θ̄."""

    def __init__(self, exchanges: Sequence[Exchange], stacked: Stacked):
        self._exchanges, self._stacked = exchanges, stacked
        self._kept: Tensor | None = None
        self._parts: list[list[Tensor]] = []
        """Views of what is kept: each member's own θ, given out anew after each evaluation."""

    def training(self) -> None:
        """Puts all θ back."""
        theta = self._stacked.theta
        if self._kept is not None and all(
            each.weights is own for each, own in zip(self._exchanges, self._parts, strict=True)
        ):
            theta.copy_(self._kept)
        elif any(each.weights is not None for each in self._exchanges):
            present = self._stacked.parts(theta)
            theta.copy_(flat_rows(each.weights or own for each, own in zip(self._exchanges, present, strict=True)))
        for each in self._exchanges:
            each.weights = None

    def evaluation(self, average: Tensor) -> None:
        """Puts all θ̄ (M, N) into the models."""
        if self._kept is None:
            self._kept = torch.empty_like(average)
            self._parts = self._stacked.parts(self._kept)
        self._kept.copy_(self._stacked.theta)
        for each, weights in zip(self._exchanges, self._parts, strict=True):
            each.weights = weights
        self._stacked.theta.copy_(average)

    def settle(self, optimizer: oho.OHO | oho.PublishedOHO) -> None:
        """Puts the averages that a population has into the models, if it has any."""
        if optimizer.average is not None:
            with optimizer.averaged():
                average = self._stacked.theta.clone()
            self.evaluation(average)


@torch.no_grad()
def _put(parameters: Iterable[Tensor], values: Sequence[Tensor]) -> None:
    torch._foreach_copy_(list(parameters), list(values))
