"""One-step hypergradients of several trainings as one batch: `baselines.hypergradient` with a row for each member.

    symbol  name      shape             meaning
    M       members   ()                trainings side by side
    N       size      ()                elements of one member
    x, g    point     (M, N)            parameters, and the gradient of the penalised loss there
    r       rate      (M, 1)            the members' meta-rates
    α       lr        (M, 1)            SGD-HD, in float64 as there
    P       scale     (M, 1) or (M, N)  HDM
    β       momentum  (M, 1)            HDM
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from baselines.hypergradient import (
    MOMENTUM_LIMIT,
    MOMENTUM_RATE,
    SMALL,
    AdaGrad,
    HeavyBallHypergradient,
    HypergradientDescent,
)
from baselines.member_stepper import MemberStepper, alone
from bench.protocol import GRAPH, Batching, CapturedFunction, Ledger, Stacked, StackedBatches, train_together
from bench.protocol.batched import ProgressAfter


class Points:
    """The points `theta` (M, N) of all members, with their penalised losses."""

    def __init__(self, stacked: Stacked, decays: Sequence[float]):
        self._stacked, self.theta = stacked, stacked.theta
        self._decay = self.column(decays)

    def here(self, inputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Returns losses (M,), penalised losses (M, 1) and their gradients (M, N) at the current points."""
        losses = self._stacked.losses((inputs, targets))
        gradients = torch.autograd.grad(losses.sum(), list(self._stacked.tensors.values()))
        losses = losses.detach()
        penalised = losses.unsqueeze(1) + 0.5 * self._decay * self.theta.square().sum(1, keepdim=True)
        return losses, penalised, torch.cat([each.flatten(1) for each in gradients], 1) + self._decay * self.theta

    def column(self, values: Sequence[float]) -> Tensor:
        """Returns a number of each member as (M, 1)."""
        return torch.tensor(values, dtype=self.theta.dtype, device=self.theta.device).unsqueeze(1)


class Rows(Protocol):
    """What the members' own optimizers carry from step to step, as stacked tensors."""

    def update(self, inputs: Tensor, targets: Tensor) -> Tensor:
        """Makes one update from stacked batches (M, B, ...), and returns the losses (M,) before it."""
        ...

    def write(self, index: int) -> None:
        """Writes a member's part into its own optimizer."""
        ...


class DescentRows:
    """The learning rates and last gradients of SGD-HD."""

    def __init__(self, own: Sequence[HypergradientDescent], points: Points, rate: Tensor):
        self._own, self._points, self._rate = own, points, rate
        self._lr = torch.stack([each.lr.reshape(1) for each in own])
        self._previous = torch.stack([each.previous for each in own])

    def update(self, inputs: Tensor, targets: Tensor) -> Tensor:
        """Makes one update at the adapted learning rates."""
        losses, _, gradient = self._points.here(inputs, targets)
        self._lr.add_(self._rate * (gradient * self._previous).sum(1, keepdim=True)).clamp_(min=0)
        self._points.theta.addcmul_(self._lr.to(gradient.dtype), gradient, value=-1)
        self._previous.copy_(gradient)
        return losses

    def write(self, index: int) -> None:
        """Writes a member's learning rate and last gradient into its own optimizer."""
        own = self._own[index]
        own.lr, own.previous = self._lr[index, 0].clone(), self._previous[index].clone()


class HeavyBallRows:
    """The points before, the scales and the momenta of HDM with its heavy ball, all with one kind of scaling."""

    def __init__(self, own: Sequence[HeavyBallHypergradient], points: Points, rate: Tensor):
        self._own, self._points, self._is_diagonal = own, points, own[0].is_diagonal
        self._before = torch.stack([each.before for each in own])
        self._scale = _stacked([each.scale for each in own], rate=rate)
        self._momentum = _stacked([each.momentum for each in own], rate=MOMENTUM_RATE, high=MOMENTUM_LIMIT)

    def update(self, inputs: Tensor, targets: Tensor) -> Tensor:
        """Makes one trial of each member, which moves those that get better."""
        theta = self._points.theta
        losses, value, gradient = self._points.here(inputs, targets)
        point, difference = theta.clone(), theta - self._before
        theta.copy_(point - self._scale.value * gradient + self._momentum.value * difference)
        trial, (_, trial_value, trial_gradient) = theta.clone(), self._points.here(inputs, targets)
        finite = trial_value.isfinite() & trial_gradient.isfinite().all(1, keepdim=True)
        seen = torch.where(finite, trial_gradient, torch.zeros_like(trial_gradient))
        square = gradient.square().sum(1, keepdim=True) + SMALL
        of_scale = -seen * gradient / square
        self._scale.step(of_scale if self._is_diagonal else of_scale.sum(1, keepdim=True))
        self._momentum.step((seen * difference).sum(1, keepdim=True) / square)
        theta.copy_(torch.where(finite & (trial_value < value), trial, point))
        self._before.copy_(point)
        return losses

    def write(self, index: int) -> None:
        """Writes a member's part into its own optimizer."""
        own = self._own[index]
        own.before = self._before[index].clone()
        for adapted, rows in ((own.scale, self._scale), (own.momentum, self._momentum)):
            shape = adapted.value.shape
            adapted.value = rows.value[index].reshape(shape).clone()
            adapted.squares = rows.squares[index].reshape(shape).clone()


def _stacked(adapted: Sequence[AdaGrad], *, rate: Tensor | float, high: float = math.inf) -> AdaGrad:
    """Returns the members' values with their sums as one, (M, 1) or (M, N)."""
    rows = AdaGrad(torch.stack([each.value.reshape(-1) for each in adapted]), rate=rate, high=high)
    rows.squares.copy_(torch.stack([each.squares.reshape(-1) for each in adapted]))
    return rows


class OneStepBatch:
    """Trainings whose optimizers are stacked by `rows`, of these optimizers, their points, and their meta-rates (M, 1)."""

    def __init__(self, states: Sequence[Any], stacked: Stacked, *, rows: Callable[[Sequence[Any], Points, Tensor], Rows]):
        self.states, self._stacked, self._make_rows = states, stacked, rows
        self._batches = StackedBatches([state.batches for state in states])
        self._own = [alone(state.stepper) for state in states]
        for index, (state, own) in enumerate(zip(states, self._own, strict=True)):
            state.stepper = MemberStepper(own, self, index)
        self._captured: CapturedFunction | None = None
        """The updates as a graph, if the task's engine is one and some updates were made."""
        self._read()

    def advance(self, *, steps: int, progress: ProgressAfter, ledger: Ledger) -> None:
        """Updates parameters and learning rates of all members."""
        begun, task = self.states[0].trial_step, self.states[0].task
        make: Callable[..., Tensor] = self._rows.update
        if task.engine == GRAPH:
            make = self._captured = self._captured or CapturedFunction(self._rows.update, task, ledger)
            self._captured.book_on(ledger)
        train_together(
            self.states, self._stacked, steps, ledger, update=lambda made: make(*self._batches.at(begun + made))
        )  # fmt: skip
        for state in self.states:
            state.hyper |= state.stepper.hyper()

    def write_state(self, index: int) -> None:
        """Writes a member's part of the state into its own optimizer."""
        self._rows.write(index)

    def read_state(self, index: int) -> None:
        """Reads the states of all members, since one was changed from outside."""
        for other in range(len(self._own)):
            if other != index:
                self.write_state(other)
        self._read()

    def _read(self) -> None:
        """Stacks the states of the members' own optimizers."""
        points = Points(self._stacked, [own.flat.weight_decay for own in self._own])
        self._rows = self._make_rows(self._own, points, points.column([state.options.meta_rate for state in self.states]))
        self._captured = None  # with the old tensors


def descent_batch(states: Sequence[Any], stacked: Stacked) -> OneStepBatch:
    """Returns trainings by SGD-HD as one batch."""
    return OneStepBatch(states, stacked, rows=DescentRows)


def heavy_ball_batch(states: Sequence[Any], stacked: Stacked) -> OneStepBatch:
    """Returns trainings by HDM with its heavy ball, all with one kind of scaling, as one batch."""
    return OneStepBatch(states, stacked, rows=HeavyBallRows)


DESCENT = Batching(descent_batch, lambda options: {}, captures=True)
HEAVY_BALL = Batching(heavy_ball_batch, lambda options: {"scaling": options.scaling}, captures=True)
