"""OHO's trainings as one batch: a population of `oho.OHO`, each of whose members has its own values and meta-rates."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

import oho
from bench.online.captured import CapturedSteps, captured_steps
from bench.online.optimizers import published_recursion
from bench.online.options import OnlineOptions
from bench.online.precision import at_precision
from bench.online.published_options import GlobalOptions, PublishedOptions
from bench.online.stacked_twins import StackedTwins, population_like
from bench.online.tuned_loss import loss_hyper
from bench.protocol import (
    GRAPH,
    Batching,
    Ledger,
    Noise,
    ReplayedNoise,
    Stacked,
    StackedBatches,
    WithOptimizer,
    train_together,
)
from bench.protocol.averages import Exchanges
from bench.protocol.batched import ProgressAfter
from oho.member import Member

OWN = ("lr", "weight_decay", "meta_rate", "meta_rates", "weight_decay_rate_scale")
"""Options in which members may differ, besides the values of the update rule."""
Inputs = tuple[Tensor, Tensor]
Closure = Callable[..., Tensor]


class OnlineBatch:
    """Trainings of `bench.online.methods`, all with one rule and one kind of influence."""

    def __init__(self, states: Sequence[Any], stacked: Stacked):
        self.states, self._stacked, self._options = states, stacked, states[0].options
        self._batches = StackedBatches([state.batches for state in states])
        self._validation_batches = StackedBatches([state.validation_batches for state in states])
        self._exchanges = Exchanges([state.exchange for state in states], stacked)
        self.optimizer = _population(states, stacked)
        for index, state in enumerate(states):
            state.optimizer = self.optimizer.member(index)
        loss = loss_hyper(states[0].task, self._options.tuned_of_loss)
        twins = [state.twin for state in states if state.twin]
        self._twins = StackedTwins(twins, self.optimizer, stacked, self._options.sets, loss) if twins else None
        self._captured: CapturedSteps | None = None
        """The optimizer's steps as a graph, if the task's engine is one and some steps were made."""

    def advance(self, *, steps: int, progress: ProgressAfter, ledger: Ledger) -> None:
        """Makes updates of all members, and the meta-steps that are due after them."""
        self.optimizer.on_phase = ledger.switch
        if self.states[0].task.engine == GRAPH:
            self._capture(ledger)
        begun = self.states[0].trial_step

        def update(made: int) -> Tensor:
            step = begun + made
            batch, twins = self._batches.at(step), self._twins
            with ledger.account("evaluation") if twins else nullcontext():
                if twins:
                    twins.follow()
            losses = self._step(step, batch)
            with ledger.account("evaluation") if twins else nullcontext():
                if twins:
                    twins.compare(*self._closures(step, batch, twins.stacked))
            return losses

        self._exchanges.training()
        settle = partial(self._exchanges.settle, self.optimizer)
        train_together(self.states, self._stacked, steps, ledger, update=update, settle=settle)
        show_hyper(self.optimizer, self.states)

    def _step(self, step: int, batch: Inputs) -> Tensor:
        """Makes one step of all members and returns their training losses (M,)."""
        if self._captured is None:
            return self.optimizer.step(*self._closures(step, batch, self._stacked), **self._part(step, batch))
        batches = self._batches if self._options.source == "training" else self._validation_batches
        return self._captured.step(batch, lambda: batches.at(step), seeds=self._noises(step))

    def _capture(self, ledger: Ledger) -> None:
        """Has a graph make the steps from now on, and books its captures on this ledger."""
        if self._captured is None:
            options, stacked, task = self._options, self._stacked, self.states[0].task
            noises = replayed_noises(self.states) if options.tuned_of_loss else ()
            losses, fraction = partial(member_losses, stacked, noises), options.curvature_part
            self._captured = captured_steps(
                task,
                self.optimizer,
                losses,
                at_precision(options, task.device, partial(member_losses, stacked, ())),
                ledger=ledger,
                curvature=None if fraction is None else lambda *given: losses(*_first(fraction, *given[:2]), *given[2:]),
                noises=noises,
            )
        self._captured.book_on(ledger)

    def _closures(self, step: int, batch: Inputs, stacked: Stacked) -> tuple[Closure, Closure]:
        """Returns what `OnlineState.closures` does, of the members' models or of others."""
        train = partial(member_losses, stacked, self._noises(step), *batch)
        if self._options.source == "training":
            loss: Closure = partial(stacked.losses, batch)
        else:
            loss = lambda: stacked.losses(self._validation_batches.at(step))  # noqa: E731
        return train, at_precision(self._options, stacked.theta.device, loss)

    def _noises(self, step: int) -> Sequence[int]:
        """Returns the seeds of what moves each member's batch, if something of the loss is tuned."""
        return self._batches.noises(step) if self._options.tuned_of_loss else ()

    def _part(self, step: int, batch: Inputs) -> dict[str, Closure]:
        """Returns what a step's curvature products are taken from, if not from the whole batch."""
        fraction = self._options.curvature_part
        if fraction is None or not self.optimizer.is_tuned_step(step + 1):
            return {}
        part = _first(fraction, *batch)
        return {"curvature_closure": partial(member_losses, self._stacked, self._noises(step), *part)}


def replayed_noises(states: Sequence[Any]) -> list[ReplayedNoise]:
    """Returns what a graph draws for each member where a hyperparameter of the loss changes inputs."""
    generators: list[torch.Generator] = []
    return [ReplayedNoise(state.task.device, generators) for state in states]


def member_losses(
    stacked: Stacked, noises: Sequence[Noise], inputs: Tensor, targets: Tensor, *hyper: Mapping[str, Tensor]
) -> Tensor:
    """Returns each member's loss (M,) of a batch, with what is tuned of it if anything is."""
    if not hyper:
        return stacked.losses((inputs, targets))
    return stacked.training_losses((inputs, targets), noises, *hyper)


def _first(fraction: float, inputs: Tensor, targets: Tensor) -> Inputs:
    """Returns the first examples of each member's batch."""
    count = max(1, round(fraction * targets.shape[1]))
    return inputs[:, :count], targets[:, :count]


def show_hyper(optimizer: oho.OHO, states: Sequence[Any]) -> None:
    """Gives each state the hyperparameters that the optimizer of all of them has for it now."""
    values = {name: value.reshape(len(states), -1).tolist() for name, value in optimizer.hyper.items()}
    for index, state in enumerate(states):
        state.hyper = {name: value[index] for name, value in values.items()}


def _population(states: Sequence[Any], stacked: Stacked) -> Any:
    """Returns a population like the optimizers of its members, in their states."""
    optimizers, options = [state.optimizer for state in states], states[0].options
    if isinstance(options, PublishedOptions):
        published = published_recursion(stacked.tensors.items(), {}, options, members=len(states))
        published.load_members([each.state_dict() for each in optimizers])
        return published
    like: Any = optimizers[0].population if isinstance(optimizers[0], Member) else optimizers[0]
    meta = like.meta
    if isinstance(options, GlobalOptions):
        rates = [state.options.rates for state in states]
        device = stacked.theta.device
        own = {name: torch.tensor([each[name] for each in rates], device=device).unsqueeze(1) for name in rates[0]}
        meta = replace(meta, rate=own)
    loss = loss_hyper(states[0].task, options.tuned_of_loss)
    return population_like(optimizers, stacked, sets=options.sets, meta=meta, loss=loss)


def _alike(options: OnlineOptions) -> Mapping[str, Any]:
    own = OWN[:2] if isinstance(options, PublishedOptions) else OWN  # its meta-rates are those of all members
    shared = options.model_dump(mode="json", exclude=set(own))
    if isinstance(options, WithOptimizer):
        shared["optimizer"] = options.optimizer.model_dump(mode="json", exclude=set(options.optimizer.own))
    return shared | {"kind": type(options).__name__}


BATCHING = Batching(OnlineBatch, _alike, captures=True)
