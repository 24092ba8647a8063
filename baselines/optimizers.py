"""The optimizers that a schedule scales: SGD, momentum, Adam and AdamW, each with its own options.

A stepper makes one update from a loss.  Training code, here and in the tuning-free methods, sees nothing else of an
optimizer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Annotated, Any, ClassVar, Literal, Protocol

import torch
from pydantic import BeforeValidator, Field, model_validator
from torch import Tensor, nn

from bench.protocol import Options, packed, unpacked

Closure = Callable[[], Tensor]
"""Computes the training loss of the model in its current state, without a backward pass."""


class Stepper(Protocol):
    """An optimizer over a model's parameters."""

    def step(self, loss: Closure, lr: float | None) -> Tensor:
        """Makes one update and returns the detached loss before it; `lr` is None if there is no rate to choose."""
        ...

    def training(self) -> None:
        """Prepares for updates: puts the parameters at which gradients are taken into the model."""
        ...

    def evaluation(self) -> None:
        """Ends a series of updates: puts the parameters that the method returns into the model."""
        ...

    def hyper(self) -> dict[str, float]:
        """Returns the current values of the hyperparameters that the optimizer adapts by itself."""
        ...

    def assign(self, name: str, value: float) -> None:
        """Changes a hyperparameter from outside; ignores a name that the optimizer does not have."""
        ...

    def saved(self) -> dict[str, Any]:
        """Returns everything except the model and the constructor's arguments, as tensors and plain values."""
        ...

    def restore(self, saved: dict[str, Any]) -> None:
        """Continues, bit for bit, from what another stepper has `saved`."""
        ...


class TorchStepper:
    """A stepper for any torch.optim.Optimizer; it evaluates the parameters it trains."""

    def __init__(self, optimizer: torch.optim.Optimizer):
        self.optimizer = optimizer

    def step(self, loss: Closure, lr: float | None) -> Tensor:
        """Zeroes the gradients, computes them and updates the parameters."""
        if lr is not None:
            for group in self.optimizer.param_groups:
                group["lr"] = lr
        value = loss()
        self.optimizer.zero_grad()
        value.backward()
        self.optimizer.step()
        return value.detach()

    def training(self) -> None:
        """Does nothing: the model always holds the trained parameters."""

    def evaluation(self) -> None:
        """Does nothing: the trained parameters are the ones evaluated."""

    def hyper(self) -> dict[str, float]:
        """Returns nothing, since these optimizers adapt no hyperparameter."""
        return {}

    def assign(self, name: str, value: float) -> None:
        """Sets the value in every parameter group that has the hyperparameter."""
        for group in self.optimizer.param_groups:
            if name in ("beta1", "beta2"):
                betas = group["betas"]
                group["betas"] = (value, betas[1]) if name == "beta1" else (betas[0], value)
            elif name in group:
                group[name] = value

    def saved(self) -> dict[str, Any]:
        """Returns the parameter groups' options and the optimizer's state."""
        parameters = self._parameters()
        groups = [{key: value for key, value in group.items() if key != "params"} for group in self.optimizer.param_groups]
        return {"groups": packed(groups, parameters), "state": packed(self.optimizer.state, parameters)}

    def restore(self, saved: dict[str, Any]) -> None:
        """Restores what `saved` returned, without `load_state_dict`, which some packages' states do not survive."""
        parameters = self._parameters()
        for group, values in zip(self.optimizer.param_groups, unpacked(saved["groups"], parameters), strict=True):
            group.update(values)
        self.optimizer.state.clear()
        self.optimizer.state.update(unpacked(saved["state"], parameters))

    def _parameters(self) -> list[Tensor]:
        return [parameter for group in self.optimizer.param_groups for parameter in group["params"]]


class Sgd(Options):
    """Plain stochastic gradient descent with an L2 penalty in the gradient."""

    own: ClassVar[tuple[str, ...]] = ()
    """The optimizer's hyperparameters, beside learning rate and weight decay, that a search may tune."""

    label: ClassVar[str] = "SGD"
    name: Literal["sgd"] = "sgd"

    def make(self, parameters: Iterable[nn.Parameter], common: dict[str, Any]) -> torch.optim.Optimizer:
        """Returns a torch.optim.SGD; `common` has lr and weight_decay."""
        return torch.optim.SGD(parameters, **common)


class Momentum(Options):
    """SGD with heavy-ball or Nesterov momentum and an L2 penalty in the gradient."""

    own: ClassVar[tuple[str, ...]] = ("momentum",)

    label: ClassVar[str] = "momentum"
    name: Literal["momentum"] = "momentum"
    momentum: float | None = Field(default=0.9, ge=0, lt=1)
    nesterov: bool = False

    @model_validator(mode="after")
    def _nesterov_needs_momentum(self) -> Momentum:
        if self.nesterov and self.momentum == 0:
            raise ValueError("nesterov needs a momentum above 0")
        return self

    def make(self, parameters: Iterable[nn.Parameter], common: dict[str, Any]) -> torch.optim.Optimizer:
        """Returns a torch.optim.SGD with momentum."""
        assert self.momentum is not None
        return torch.optim.SGD(parameters, momentum=self.momentum, nesterov=self.nesterov, **common)


class Betas(Options):
    """The decay factors of the averages of the gradient and of its square."""

    own: ClassVar[tuple[str, ...]] = ("beta1", "beta2")

    beta1: float | None = Field(default=0.9, ge=0, lt=1)
    beta2: float | None = Field(default=0.999, ge=0, lt=1)


class Adam(Betas):
    """Adam with an L2 penalty in the gradient."""

    label: ClassVar[str] = "Adam"
    name: Literal["adam"] = "adam"

    def make(self, parameters: Iterable[nn.Parameter], common: dict[str, Any]) -> torch.optim.Optimizer:
        """Returns a torch.optim.Adam."""
        return torch.optim.Adam(parameters, betas=(self.beta1, self.beta2), **common)  # type: ignore[arg-type]


class AdamW(Betas):
    """Adam with decoupled weight decay."""

    label: ClassVar[str] = "AdamW"
    name: Literal["adamw"] = "adamw"

    def make(self, parameters: Iterable[nn.Parameter], common: dict[str, Any]) -> torch.optim.Optimizer:
        """Returns a torch.optim.AdamW."""
        return torch.optim.AdamW(parameters, betas=(self.beta1, self.beta2), **common)  # type: ignore[arg-type]


def _named(value: Any) -> Any:
    return {"name": value} if isinstance(value, str) else value


AnyOptimizer = Annotated[Sgd | Momentum | Adam | AdamW, Field(discriminator="name"), BeforeValidator(_named)]
"""A configuration gives either a name or a mapping with `name` and the optimizer's options."""
