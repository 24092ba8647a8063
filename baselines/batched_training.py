"""Trainings with a torch optimizer as one batch: the same updates for all members at once, each at its own values.

    symbol  name        shape    meaning
    M       members     ()       trainings side by side
    N       size        ()       elements of one member
    θ       parameters  (M, N)
    g       gradient    (M, N)
    h       value       (M, 1)   one number of each member that an update takes, such as its learning rate
    V       values      ()       numbers of each member that an update takes

Updates are those of `torch.optim`, and what depends on a member's values alone is computed in float64, as there, by the
host, and goes to the device in one copy.  Schedules may differ between members, optimizers may not.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from baselines.member_stepper import MemberStepper, alone
from baselines.optimizers import AveragedStepper, TorchStepper
from baselines.schedules import Place
from baselines.stacked_averages import StackedAverages
from bench.protocol import (
    GRAPH,
    Batching,
    CannotStackError,
    CapturedFunction,
    Ledger,
    Stacked,
    StackedBatches,
    train_together,
)
from bench.protocol.batched import ProgressAfter
from bench.protocol.optimizers import Momentum

EPSILON = 1e-8
"""The ε of torch.optim's Adam and AdamW."""
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
        self._captured: CapturedFunction | None = None
        """The updates as a graph, if the task's engine is one and some updates were made."""
        self._read_values()

    def read_state(self, index: int) -> None:
        """Reads what a member's own optimizer was given from outside: hyperparameters alone."""
        self._read_values()

    def _read_values(self) -> None:
        groups = [own.optimizer.param_groups[0] for own in self._own]
        self._decay = _numbers([group["weight_decay"] for group in groups])
        self._momentum = _numbers([group.get("momentum", 0.0) for group in groups])
        self._betas = [_numbers([group.get("betas", (0.0, 0.0))[place] for group in groups]) for place in (0, 1)]

    def advance(self, *, steps: int, progress: ProgressAfter, ledger: Ledger) -> None:
        """Updates the parameters of all members at their schedules' learning rates."""
        lrs: list[float] = []
        averages = self._averages
        begun = [state.trial_step for state in self.states]
        make: Callable[..., Tensor] = self._on_device
        if self.states[0].task.engine == GRAPH:
            make = self._captured = self._captured or CapturedFunction(self._update, self.states[0].task, ledger)
            self._captured.book_on(ledger)

        def update(made: int) -> Tensor:
            steps = [step + made for step in begun]
            lrs[:] = self._rates(steps, progress(made))
            return make(*self._batches.at_each(steps), self._values(lrs, steps))

        if averages is None:
            train_together(self.states, self._stacked, steps, ledger, update=update)
        else:
            averages.training()
            train_together(self.states, self._stacked, steps, ledger, update=update, settle=averages.evaluation)
        for state, own, lr in zip(self.states, self._own, lrs, strict=True):
            state.hyper["lr"] = lr
            own.assign("lr", lr)

    def _rates(self, steps: Sequence[int], progress: float) -> list[float]:
        """Returns the learning rates of the members' updates that follow so many others of their trainings."""
        rates, per_epoch = [], self.states[0].task.steps_per_epoch
        for state, step in zip(self.states, steps, strict=True):
            place = Place(step / state.spans if state.spans else progress, step, per_epoch)
            rates.append(state.options.initial_lr * state.options.factor(place))
        return rates

    def _values(self, lrs: Sequence[float], steps: Sequence[int]) -> Tensor:
        """Returns what an update takes of each member, (V, M, 1), in the order in which `_update` takes it."""
        rates = _numbers(lrs)
        if self._kind in ("adam", "adamw"):
            (beta1, beta2), made = self._betas, _numbers(steps) + 1
            scales = rates / (1 - beta1**made), (1 - beta2**made).sqrt()
            values = [rates, self._decay, 1 - beta1, beta2, 1 - beta2, *scales]
        else:
            values = [rates, self._decay, self._momentum]
        if self._averages is not None:
            values.append(_numbers(self._averages.next_shares()))
        return torch.stack(values).to(self._stacked.theta.dtype).unsqueeze(2)

    def _on_device(self, inputs: Tensor, targets: Tensor, values: Tensor) -> Tensor:
        """Makes one update operation by operation, without waiting for the device."""
        return self._update(inputs, targets, values.to(self._stacked.theta.device, non_blocking=True))

    def _update(self, inputs: Tensor, targets: Tensor, values: Tensor) -> Tensor:
        """Makes one update of all members from their batches (M, B, ...), and returns their losses (M,) before it."""
        losses = self._stacked.losses((inputs, targets))
        gradients = torch.autograd.grad(losses.sum(), list(self._stacked.tensors.values()))
        gradient, columns = torch.cat([each.flatten(1) for each in gradients], 1), list(values)
        shares = columns.pop() if self._averages is not None else None
        update = self._adam if self._kind in ("adam", "adamw") else self._sgd
        update(gradient, *columns)
        if self._averages is not None and shares is not None:
            self._averages.follow(shares)
        return losses.detach()

    def _sgd(self, gradient: Tensor, lr: Tensor, decay: Tensor, momentum: Tensor) -> None:
        theta = self._stacked.theta
        gradient.addcmul_(decay, theta)
        if self._kind == "momentum":
            average = self._slots["momentum_buffer"]
            average.mul_(momentum).add_(gradient)
            gradient = gradient.addcmul_(momentum, average) if self._nesterov else average
        theta.addcmul_(lr, gradient, value=-1)

    def _adam(
        self, gradient: Tensor, lr: Tensor, decay: Tensor, new: Tensor, kept_square: Tensor, new_square: Tensor,
        scale: Tensor, root_scale: Tensor,
    ) -> None:  # fmt: skip
        """Moves both moments, of which `new` is 1 − β₁ and `new_square` 1 − β₂; the scales correct their bias."""
        theta, (mean, square) = self._stacked.theta, self._slots.values()
        if self._kind == "adamw":
            theta.mul_(1 - lr * decay)
        else:
            gradient.addcmul_(decay, theta)
        mean.lerp_(gradient, new)
        square.mul_(kept_square).addcmul_(new_square * gradient, gradient)
        root = (square.sqrt() / root_scale).add_(EPSILON)
        theta.addcdiv_(scale * mean, root, value=-1)

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


def _numbers(values: Sequence[float]) -> Tensor:
    """Returns one number of each member, (M,), in float64, in the host's memory."""
    return torch.tensor(values, dtype=torch.float64)


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


BATCHING = Batching(TrainingBatch, _alike, captures=True)
