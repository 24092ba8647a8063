"""One-step hypergradients of several trainings as one batch: `baselines.hypergradient` with a row for each member.

    symbol  name      shape             meaning
    M       members   ()                trainings side by side
    N       size      ()                elements of one member
    x, g    point     (M, N)            parameters, and the gradient of the penalised loss there
    α       lr        (M, 1)            SGD-HD, in float64 as there
    P       scale     (M, 1) or (M, N)  HDM
    β       momentum  (M, 1)            HDM
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from baselines.hypergradient import MOMENTUM_LIMIT, MOMENTUM_RATE, SMALL
from baselines.member_stepper import MemberStepper, alone
from bench.protocol import GRAPH, Batching, CapturedFunction, Ledger, Stacked, StackedBatches, train_together
from bench.protocol.batched import ProgressAfter


class _OneStepBatch:
    """What both methods share: stacked points, their losses, and the way to the members' own optimizers."""

    def __init__(self, states: Sequence[Any], stacked: Stacked):
        self.states, self._stacked = states, stacked
        self._batches = StackedBatches([state.batches for state in states])
        self._own = [alone(state.stepper) for state in states]
        for index, (state, own) in enumerate(zip(states, self._own, strict=True)):
            state.stepper = MemberStepper(own, self, index)
        self._captured: CapturedFunction | None = None
        """The updates as a graph, if the task's engine is one and some updates were made."""
        self.read()
        self._rate = self._column([state.options.meta_rate for state in states])

    def advance(self, *, steps: int, progress: ProgressAfter, ledger: Ledger) -> None:
        """Updates parameters and learning rates of all members."""
        begun, task = self.states[0].trial_step, self.states[0].task
        make: Callable[..., Tensor] = self.update
        if task.engine == GRAPH:
            make = self._captured = self._captured or CapturedFunction(self.update, task, ledger)
            self._captured.book_on(ledger)
        train_together(
            self.states, self._stacked, steps, ledger, update=lambda made: make(*self._batches.at(begun + made))
        )  # fmt: skip
        for state in self.states:
            state.hyper |= state.stepper.hyper()

    def update(self, inputs: Tensor, targets: Tensor) -> Tensor:
        """Makes one update from stacked batches (M, B, ...), and returns the losses (M,) before it."""
        raise NotImplementedError

    def read(self) -> None:
        """Stacks the states of the members' own optimizers."""
        self._captured = None  # with the old tensors
        self._decay = self._column([own._flat.weight_decay for own in self._own])

    def read_state(self, index: int) -> None:
        """Reads the states of all members, since one was changed from outside."""
        for other in range(len(self._own)):
            if other != index:
                self.write_state(other)
        self.read()

    def write_state(self, index: int) -> None:
        """Writes a member's part of the state into its own optimizer."""
        raise NotImplementedError

    def _here(self, inputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Returns losses (M,), penalised losses (M, 1) and their gradients (M, N) at the current points."""
        losses, theta = self._stacked.losses((inputs, targets)), self._stacked.theta
        gradients = torch.autograd.grad(losses.sum(), list(self._stacked.tensors.values()))
        losses = losses.detach()
        penalised = losses.unsqueeze(1) + 0.5 * self._decay * theta.square().sum(1, keepdim=True)
        return losses, penalised, torch.cat([each.flatten(1) for each in gradients], 1) + self._decay * theta

    def _column(self, values: Sequence[float]) -> Tensor:
        theta = self._stacked.theta
        return torch.tensor(values, dtype=theta.dtype, device=theta.device).unsqueeze(1)


class DescentBatch(_OneStepBatch):
    """Trainings by SGD-HD."""

    def read(self) -> None:
        """Stacks learning rates and last gradients."""
        super().read()
        self._lr = torch.stack([own._lr.reshape(1) for own in self._own])
        self._previous = torch.stack([own._previous for own in self._own])

    def write_state(self, index: int) -> None:
        """Writes a member's learning rate and last gradient into its own optimizer."""
        own = self._own[index]
        own._lr, own._previous = self._lr[index, 0].clone(), self._previous[index].clone()

    def update(self, inputs: Tensor, targets: Tensor) -> Tensor:
        """Makes one update at the adapted learning rates."""
        losses, _, gradient = self._here(inputs, targets)
        self._lr.add_(self._rate * (gradient * self._previous).sum(1, keepdim=True)).clamp_(min=0)
        self._stacked.theta.addcmul_(self._lr.to(gradient.dtype), gradient, value=-1)
        self._previous.copy_(gradient)
        return losses


class HeavyBallBatch(_OneStepBatch):
    """Trainings by HDM with its heavy ball, all with one kind of scaling."""

    def read(self) -> None:
        """Stacks the points before, the scales and the momenta with their AdaGrad sums."""
        super().read()
        self._before = torch.stack([own._before for own in self._own])
        self._is_diagonal = self._own[0]._diagonal
        scales, momenta = [own._scale for own in self._own], [own._momentum for own in self._own]
        self._scale, self._scale_squares, self._momentum, self._momentum_squares = (
            torch.stack([getattr(each, name).reshape(-1) for each in adapted])
            for adapted in (scales, momenta) for name in ("value", "_squares")
        )  # fmt: skip

    def write_state(self, index: int) -> None:
        """Writes a member's part into its own optimizer."""
        own = self._own[index]
        own._before = self._before[index].clone()
        for adapted, value, squares in (
            (own._scale, self._scale, self._scale_squares), (own._momentum, self._momentum, self._momentum_squares),
        ):  # fmt: skip
            adapted.value = value[index].reshape(adapted.value.shape).clone()
            adapted._squares = squares[index].reshape(adapted.value.shape).clone()

    def update(self, inputs: Tensor, targets: Tensor) -> Tensor:
        """Makes one trial of each member, which moves those that get better."""
        theta = self._stacked.theta
        losses, value, gradient = self._here(inputs, targets)
        point, difference = theta.clone(), theta - self._before
        theta.copy_(point - self._scale * gradient + self._momentum * difference)
        trial, (_, trial_value, trial_gradient) = theta.clone(), self._here(inputs, targets)
        finite = trial_value.isfinite() & trial_gradient.isfinite().all(1, keepdim=True)
        seen = torch.where(finite, trial_gradient, torch.zeros_like(trial_gradient))
        square = gradient.square().sum(1, keepdim=True) + SMALL
        of_scale = -seen * gradient / square
        of_scale = of_scale if self._is_diagonal else of_scale.sum(1, keepdim=True)
        _adagrad(self._scale, self._scale_squares, of_scale, self._rate, torch.inf)
        of_momentum = (seen * difference).sum(1, keepdim=True) / square
        _adagrad(self._momentum, self._momentum_squares, of_momentum, MOMENTUM_RATE, MOMENTUM_LIMIT)
        theta.copy_(torch.where(finite & (trial_value < value), trial, point))
        self._before.copy_(point)
        return losses


def _adagrad(value: Tensor, squares: Tensor, derivative: Tensor, rate: Tensor | float, high: float) -> None:
    squares += derivative.square()
    value.sub_(rate * derivative / (squares.sqrt() + SMALL)).clamp_(0, high)


DESCENT = Batching(DescentBatch, lambda options: {}, captures=True)
HEAVY_BALL = Batching(HeavyBallBatch, lambda options: {"scaling": options.scaling}, captures=True)
