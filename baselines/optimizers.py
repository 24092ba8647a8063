"""The optimizers that a schedule scales: SGD, momentum, Adam, AdamW, each with its own options.

A stepper makes one update from a loss; it is all that a training sees of an optimizer, here and in the tuning-free ones.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Annotated, Any, ClassVar, Literal, Protocol

import torch
from pydantic import BeforeValidator, Field, model_validator
from torch import Tensor, nn

from bench.protocol import Options, packed, unpacked

Closure = Callable[[], Tensor]
"""Computes the training loss of the model as it is; makes no backward pass."""


class Stepper(Protocol):
    """An optimizer over a model's parameters."""

    def step(self, loss: Closure, lr: float | None) -> Tensor:
        """One update at the learning rate `lr` (None where there is none to choose); the loss before it, detached."""
        ...

    def training(self) -> None:
        """Before updates: the model's parameters become those that gradients are taken at."""
        ...

    def evaluation(self) -> None:
        """After updates: the model's parameters become those that the method answers with."""
        ...

    def hyper(self) -> dict[str, float]:
        """Present values of what it adapts by itself."""
        ...

    def assign(self, name: str, value: float) -> None:
        """Changes a hyperparameter from outside; one that is not the optimizer's own is none of its business."""
        ...

    def saved(self) -> dict[str, Any]:
        """All but the model and what it was made with, as tensors and plain values."""
        ...

    def restore(self, saved: dict[str, Any]) -> None:
        """Goes on, bit for bit, from what another one has `saved`."""
        ...


class TorchStepper:
    """Any torch.optim.Optimizer.  The parameters evaluated are those trained."""

    def __init__(self, optimizer: torch.optim.Optimizer):
        self.optimizer = optimizer

    def step(self, loss: Closure, lr: float | None) -> Tensor:
        """Zeroes the gradients, computes them, updates."""
        if lr is not None:
            for group in self.optimizer.param_groups:
                group["lr"] = lr
        value = loss()
        self.optimizer.zero_grad()
        value.backward()
        self.optimizer.step()
        return value.detach()

    def training(self) -> None:
        """Nothing to do."""

    def evaluation(self) -> None:
        """Nothing to do."""

    def hyper(self) -> dict[str, float]:
        """Nothing is adapted."""
        return {}

    def assign(self, name: str, value: float) -> None:
        """Into every group."""
        for group in self.optimizer.param_groups:
            if name in ("beta1", "beta2"):
                betas = group["betas"]
                group["betas"] = (value, betas[1]) if name == "beta1" else (betas[0], value)
            elif name in group:
                group[name] = value

    def saved(self) -> dict[str, Any]:
        """Groups and state."""
        parameters = self._parameters()
        groups = [{key: value for key, value in group.items() if key != "params"} for group in self.optimizer.param_groups]
        return {"groups": packed(groups, parameters), "state": packed(self.optimizer.state, parameters)}

    def restore(self, saved: dict[str, Any]) -> None:
        """Not by the optimizer's own `load_state_dict`, which some packages' states do not survive."""
        parameters = self._parameters()
        for group, values in zip(self.optimizer.param_groups, unpacked(saved["groups"], parameters), strict=True):
            group.update(values)
        self.optimizer.state.clear()
        self.optimizer.state.update(unpacked(saved["state"], parameters))

    def _parameters(self) -> list[Tensor]:
        return [parameter for group in self.optimizer.param_groups for parameter in group["params"]]


class Sgd(Options):
    """Plain stochastic gradient descent, L2 penalty in the gradient."""

    own: ClassVar[tuple[str, ...]] = ()
    """Hyperparameters of the optimizer beside learning rate and weight decay that a search may search."""

    label: ClassVar[str] = "SGD"
    name: Literal["sgd"] = "sgd"

    def make(self, parameters: Iterable[nn.Parameter], common: dict[str, Any]) -> torch.optim.Optimizer:
        """torch.optim.SGD; `common` has lr and weight_decay."""
        return torch.optim.SGD(parameters, **common)


class Momentum(Options):
    """SGD with heavy-ball or Nesterov momentum, L2 penalty in the gradient."""

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
        """torch.optim.SGD."""
        assert self.momentum is not None
        return torch.optim.SGD(parameters, momentum=self.momentum, nesterov=self.nesterov, **common)


class Betas(Options):
    """Decay of the averages of gradient and squared gradient."""

    own: ClassVar[tuple[str, ...]] = ("beta1", "beta2")

    beta1: float | None = Field(default=0.9, ge=0, lt=1)
    beta2: float | None = Field(default=0.999, ge=0, lt=1)


class Adam(Betas):
    """Adam with an L2 penalty in the gradient."""

    label: ClassVar[str] = "Adam"
    name: Literal["adam"] = "adam"

    def make(self, parameters: Iterable[nn.Parameter], common: dict[str, Any]) -> torch.optim.Optimizer:
        """torch.optim.Adam."""
        return torch.optim.Adam(parameters, betas=(self.beta1, self.beta2), **common)  # type: ignore[arg-type]


class AdamW(Betas):
    """Adam with decoupled weight decay."""

    label: ClassVar[str] = "AdamW"
    name: Literal["adamw"] = "adamw"

    def make(self, parameters: Iterable[nn.Parameter], common: dict[str, Any]) -> torch.optim.Optimizer:
        """torch.optim.AdamW."""
        return torch.optim.AdamW(parameters, betas=(self.beta1, self.beta2), **common)  # type: ignore[arg-type]


def _named(value: Any) -> Any:
    return {"name": value} if isinstance(value, str) else value


AnyOptimizer = Annotated[Sgd | Momentum | Adam | AdamW, Field(discriminator="name"), BeforeValidator(_named)]
"""In a configuration a name, or a mapping with `name` and its options."""
