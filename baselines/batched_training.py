"""Trainings with a torch optimizer as one batch: the same updates for all members at once, each at its own values.

    symbol  name        shape    meaning
    M       members     ()       trainings side by side
    N       size        ()       elements of one member
    θ       parameters  (M, N)
    g       gradient    (M, N)
    h       value       (M, 1)   one hyperparameter of each member

Updates are those of `torch.optim`, and what depends on a member's values alone is computed in float64, as there.  Schedules
may differ between members, optimizers may not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from baselines.member_stepper import MemberStepper, alone
from baselines.optimizers import AveragedStepper, TorchStepper
from baselines.schedules import Place
from baselines.stacked_averages import StackedAverages
from bench.protocol import Batching, CannotStackError, Ledger, Stacked, StackedBatches, train_together
from bench.protocol.optimizers import Momentum

EPSILON = 1e-8
"""That of torch.optim's Adam and AdamW."""
SLOTS: Mapping[str, tuple[str, ...]] = {
    "sgd": (), "momentum": ("momentum_buffer",), "adam": ("exp_avg", "exp_avg_sq"), "adamw": ("exp_avg", "exp_avg_sq"),
}  # fmt: skip
"""What torch.optim keeps for each element, by optimizer."""


class TrainingBatch:
    """Trainings of `baselines.training`, all with one kind of optimizer."""

    def __init__(self, states: Sequence[Any], stacked: Stacked):
        self.states, self._stacked = states, stacked
        self._batches = StackedBatches([state.batches for state in states])
        self._kind = states[0].options.optimizer_name
        self._nesterov = getattr(states[0].options.optimizer, "nesterov", False)
        steppers = [alone(state.stepper) for state in states]
        averaged = [each for each in steppers if isinstance(each, AveragedStepper)]
        self._averages = StackedAverages(averaged, stacked) if averaged else None
        self._own: list[TorchStepper] = [each.stepper for each in averaged] or steppers
        self._slots = {
            name: torch.stack([_slot(own, name, like) for own, like in zip(self._own, stacked.theta, strict=True)])
            for name in SLOTS[self._kind]
        }
        for index, (state, own) in enumerate(zip(states, steppers, strict=True)):
            state.stepper = MemberStepper(own, self, index)
        self._read_values()

    def read_state(self, index: int) -> None:
        """Reads what a member's own optimizer was given from outside: hyperparameters alone."""
        self._read_values()

    def _read_values(self) -> None:
        groups = [own.optimizer.param_groups[0] for own in self._own]
        betas = [group.get("betas", (0.0, 0.0)) for group in groups]
        self._decay = self._column([group["weight_decay"] for group in groups])
        self._momentum = self._column([group.get("momentum", 0.0) for group in groups])
        self._betas = torch.tensor(betas, dtype=torch.float64)

    def advance(self, *, steps: int, progress: float, ledger: Ledger) -> None:
        """Updates the parameters of all members at their schedules' learning rates."""
        lrs: list[float] = []
        averages = self._averages
        begun = [state.trial_step for state in self.states]

        def update(made: int) -> Tensor:
            steps = [step + made for step in begun]
            lrs[:] = [_rate(state, step, progress) for state, step in zip(self.states, steps, strict=True)]
            losses = self._stacked.losses(self._batches.at_each(steps))
            gradients = torch.autograd.grad(losses.sum(), list(self._stacked.tensors.values()))
            gradient = torch.cat([each.flatten(1) for each in gradients], 1)
            if self._kind in ("adam", "adamw"):
                self._adam(gradient, lrs, torch.tensor(steps, dtype=torch.float64) + 1)
            else:
                self._sgd(gradient, lrs)
            if averages is not None:
                averages.follow()
            return losses.detach()

        if averages is None:
            train_together(self.states, self._stacked, steps, ledger, update=update)
        else:
            averages.training()
            train_together(self.states, self._stacked, steps, ledger, update=update, settle=averages.evaluation)
        for state, own, lr in zip(self.states, self._own, lrs, strict=True):
            state.hyper["lr"] = lr
            own.assign("lr", lr)

    def _sgd(self, gradient: Tensor, lrs: list[float]) -> None:
        theta = self._stacked.theta
        gradient.addcmul_(self._decay, theta)
        if self._kind == "momentum":
            average = self._slots["momentum_buffer"]
            average.mul_(self._momentum).add_(gradient)
            gradient = gradient.addcmul_(self._momentum, average) if self._nesterov else average
        theta.addcmul_(self._column(lrs), gradient, value=-1)

    def _adam(self, gradient: Tensor, lrs: list[float], steps: Tensor) -> None:
        theta, (mean, square) = self._stacked.theta, self._slots.values()
        rates, (beta1, beta2) = torch.tensor(lrs, dtype=torch.float64), self._betas.unbind(1)
        if self._kind == "adamw":
            theta.mul_(1 - self._column(lrs) * self._decay)
        else:
            gradient.addcmul_(self._decay, theta)
        mean.lerp_(gradient, self._column(1 - beta1))
        square.mul_(self._column(beta2)).addcmul_(self._column(1 - beta2) * gradient, gradient)
        root = (square.sqrt() / self._column((1 - beta2**steps).sqrt())).add_(EPSILON)
        theta.addcdiv_(self._column(rates / (1 - beta1**steps)) * mean, root, value=-1)

    def _column(self, values: list[float] | Tensor) -> Tensor:
        """Returns one number of each member as (M, 1), in the parameters' type."""
        theta = self._stacked.theta
        return torch.as_tensor(values, dtype=torch.float64).to(theta.device, theta.dtype).unsqueeze(1)

    def write_state(self, index: int) -> None:
        """Writes a member's part of the state into its own optimizer."""
        if self._averages is not None:
            self._averages.write(index)
        optimizer = self._own[index].optimizer
        parameters = optimizer.param_groups[0]["params"]
        sizes = [parameter.numel() for parameter in parameters]
        for name, slots in self._slots.items():
            for parameter, part in zip(parameters, slots[index].split(sizes), strict=True):
                optimizer.state[parameter][name] = part.view_as(parameter).clone()
        if self._kind in ("adam", "adamw"):
            for parameter in parameters:
                optimizer.state[parameter]["step"] = torch.tensor(float(self.states[index].trial_step))


def _rate(state: Any, step: int, progress: float) -> float:
    """Returns the learning rate of a member's update that follows `step` others."""
    fraction = step / state.spans if state.spans else progress
    return state.options.initial_lr * state.options.factor(Place(fraction, step, state.task.steps_per_epoch))


def _slot(own: TorchStepper, name: str, like: Tensor) -> Tensor:
    """Returns what an optimizer keeps under this name, flattened (N,); zeros before its first step."""
    kept = [own.optimizer.state.get(parameter, {}).get(name) for parameter in own.optimizer.param_groups[0]["params"]]
    return torch.cat([part.flatten() for part in kept]) if kept[0] is not None else torch.zeros_like(like)


def _alike(options: Any) -> dict[str, Any]:
    if options.groups is not None:
        raise CannotStackError("its sets have values of their own")
    optimizer = options.optimizer
    nesterov = isinstance(optimizer, Momentum) and optimizer.nesterov
    return {"optimizer": options.optimizer_name, "nesterov": nesterov, "averaged": options.average is not None}


BATCHING = Batching(TrainingBatch, _alike)
