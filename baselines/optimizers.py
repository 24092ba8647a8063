"""Steppers: how a training updates its model, by an optimizer of `torch.optim` or of a tuning-free package.

A stepper makes one update from a loss.  Training code sees nothing else of an optimizer.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from bench.protocol import Closure, descend, make_capturable, packed, unpacked
from bench.protocol.averages import Exchange
from bench.protocol.optimizers import Adam, AdamW, AnyOptimizer, Momentum
from oho.averages import Average

Parameters = Iterable[nn.Parameter] | Iterable[dict[str, Any]]
"""A model's parameters, or groups of them with values of their own."""


def trained_parameters(model: nn.Module) -> list[nn.Parameter]:
    """Returns the parameters that a training moves: all but the frozen ones, which have requires_grad False."""
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


class Stepper(Protocol):
    """An optimizer over a model's parameters.

    A step has a part of the host, `begin`, and one of the device, `update`.  A graph can repeat the latter if it writes all
    that it carries from step to step in place, and takes from `begin` what changes otherwise, such as a schedule's rate, in
    tensors.

    A class that inherits from this one trains the parameters that it returns, adapts none of its hyperparameters, and
    overrides what is different.
    """

    def step(self, loss: Closure, lr: float | None) -> Tensor:
        """Makes one update and returns the detached loss before it; `lr` is None if there is no rate to choose."""
        self.begin(lr)
        return self.update(loss)

    def begin(self, lr: float | None) -> None:
        """Makes ready for one update, at this learning rate if the optimizer does not find its own."""
        return

    def update(self, loss: Closure) -> Tensor:
        """Makes the update; returns the detached loss before it."""
        ...

    def make_capturable(self) -> None:
        """Puts into tensors what `begin` changes, before a graph repeats `update`."""
        return

    def training(self) -> None:
        """Prepares for updates: puts the parameters at which gradients are taken into the model."""
        return

    def evaluation(self) -> None:
        """Ends a series of updates: puts the parameters that the method returns into the model."""
        return

    def hyper(self) -> dict[str, float]:
        """Returns the current values of the hyperparameters that the optimizer adapts by itself."""
        return {}

    def assign(self, name: str, value: float) -> None:
        """Changes a hyperparameter from outside; ignores a name that the optimizer does not have."""
        ...

    def saved(self) -> dict[str, Any]:
        """Returns everything except the model and the constructor's arguments, as tensors and plain values."""
        ...

    def restore(self, saved: dict[str, Any]) -> None:
        """Continues, bit for bit, from what another stepper has `saved`."""
        ...


class TorchStepper(Stepper):
    """A stepper for any torch.optim.Optimizer; it evaluates the parameters it trains."""

    def __init__(self, optimizer: torch.optim.Optimizer):
        self.optimizer = optimizer

    def begin(self, lr: float | None) -> None:
        """Sets the learning rate of each parameter group."""
        if lr is None:
            return
        for group, rate in zip(self.optimizer.param_groups, self.rates(lr), strict=True):
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(rate)
            else:
                group["lr"] = rate

    def update(self, loss: Closure) -> Tensor:
        """Zeroes the gradients, computes them and updates the parameters."""
        return descend(self.optimizer, loss)

    def make_capturable(self) -> None:
        """Gives the optimizer fused kernels, and learning rates that are tensors."""
        make_capturable(self.optimizer)

    def rates(self, lr: float) -> list[float]:
        """Returns the learning rate of each parameter group."""
        return [lr] * len(self.optimizer.param_groups)

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

    def take_state(self, source: TorchStepper) -> None:
        """Takes over another optimizer's slots but keeps the optimizer's own hyperparameters."""
        groups = self.optimizer.param_groups
        own = [{key: value for key, value in group.items() if key != "params"} for group in groups]
        self.optimizer.load_state_dict(copy.deepcopy(source.optimizer.state_dict()))
        for group, values in zip(self.optimizer.param_groups, own, strict=True):
            group.update(values)

    def _parameters(self) -> list[Tensor]:
        return [parameter for group in self.optimizer.param_groups for parameter in group["params"]]


class AveragedStepper(Stepper):
    """A stepper whose model, when it is evaluated, holds an average of the weights of all its updates."""

    def __init__(self, stepper: TorchStepper, kind: Average, model: nn.Module):
        self.stepper, self.kind, self.model = stepper, kind, model
        self.average = [parameter.detach().clone() for parameter in model.parameters()]
        self.steps, self.exchange = 0, Exchange()
        self._share: float | Tensor = 0.0
        """The weight of the next parameters in the average."""

    def begin(self, lr: float | None) -> None:
        """Makes ready for one update, which the average follows."""
        self.stepper.begin(lr)
        self.steps += 1
        share = self.kind.weight(self.steps)
        self._share = self._share.fill_(share) if isinstance(self._share, Tensor) else share

    def update(self, loss: Closure) -> Tensor:
        """Makes the update."""
        value = self.stepper.update(loss)
        parameters: list[Tensor] = list(self.model.parameters())
        with torch.no_grad():
            if isinstance(self._share, Tensor):
                for mean, parameter in zip(self.average, parameters, strict=True):
                    mean.lerp_(parameter, self._share)
            else:
                torch._foreach_lerp_(self.average, parameters, self._share)
        return value

    def make_capturable(self) -> None:
        """Puts the share into a tensor, as the averaged stepper does its learning rates."""
        self.stepper.make_capturable()
        self._share = self.average[0].new_zeros(())

    def training(self) -> None:
        """Puts the weights of the training into the model."""
        self.exchange.training(self.model.parameters())
        self.stepper.training()

    def evaluation(self) -> None:
        """Puts the average into the model."""
        self.stepper.evaluation()
        self.exchange.evaluation(self.model.parameters(), self.average)

    def hyper(self) -> dict[str, float]:
        """Returns what the averaged stepper adapts."""
        return self.stepper.hyper()

    def assign(self, name: str, value: float) -> None:
        """Changes a hyperparameter of the averaged stepper."""
        self.stepper.assign(name, value)

    def saved(self) -> dict[str, Any]:
        """Returns the average, the weights, and what the averaged stepper saves."""
        own = {"average": packed(self.average), "steps": self.steps, **self.exchange.saved()}
        return {"averaged": own, "stepper": self.stepper.saved()}

    def restore(self, saved: dict[str, Any]) -> None:
        """Continues, bit for bit, from what another stepper has `saved`."""
        own = saved["averaged"]
        self.average, self.steps = unpacked(own["average"]), own["steps"]
        self.exchange.restore(own)
        self.stepper.restore(saved["stepper"])

    def take_state(self, source: AveragedStepper) -> None:
        """Takes over another's average and slots, once the model holds what the other's does."""
        self.average, self.steps = [tensor.clone() for tensor in source.average], source.steps
        self.exchange.restore(source.exchange.saved())
        self.stepper.take_state(source.stepper)


def torch_optimizer(
    optimizer: AnyOptimizer, parameters: Parameters, *, lr: float, weight_decay: float
) -> torch.optim.Optimizer:
    """Returns the `torch.optim` optimizer that these options describe, none of whose values is open."""
    common: dict[str, Any] = {"lr": lr, "weight_decay": weight_decay}
    if isinstance(optimizer, Momentum):
        assert optimizer.momentum is not None
        return torch.optim.SGD(parameters, momentum=optimizer.momentum, nesterov=optimizer.nesterov, **common)
    if isinstance(optimizer, Adam | AdamW):
        assert optimizer.beta1 is not None
        assert optimizer.beta2 is not None
        kind = torch.optim.Adam if isinstance(optimizer, Adam) else torch.optim.AdamW
        return kind(parameters, betas=(optimizer.beta1, optimizer.beta2), **common)
    return torch.optim.SGD(parameters, **common)
