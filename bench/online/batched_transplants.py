"""Transplants as one batch, each along its own schedule, and their donors as another one.

    symbol  name     shape   meaning
    M       members  ()      trainings side by side
    T       length   ()      steps of the longest schedule
    S       sets     ()      values of one hyperparameter
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

import oho
from bench.online.batched import OnlineBatch, member_losses, replayed_noises, show_hyper
from bench.online.captured import CapturedSteps, captured_steps
from bench.online.stacked_twins import population_like
from bench.protocol import GRAPH, Ledger, Stacked, StackedBatches, Task, train_together
from bench.protocol.averages import Exchanges
from bench.protocol.batched import Batching, ProgressAfter


class TransplantBatch:
    """Trainings of `bench.online.transplant`, whose donors were of one kind."""

    def __init__(self, states: Sequence[Any], stacked: Stacked):
        self.states, self._stacked = states, stacked
        self._batches = StackedBatches([state.batches for state in states])
        self._exchanges = Exchanges([state.exchange for state in states], stacked)
        first = states[0].optimizer
        self._of_loss = tuple(name for name in states[0].schedule if name not in first.rule.names)
        values: dict[str, Any] = dict.fromkeys(self._of_loss, 0.0)
        self.optimizer = population_like(
            [state.optimizer for state in states], stacked, sets=states[0].sets, meta=oho.MetaSGD(0.0),
            loss=oho.LossHyper(tune=(), **values) if values else None,
        )  # fmt: skip
        for index, state in enumerate(states):
            state.optimizer = self.optimizer.member(index)
        lengths = [len(state.schedule["lr"]) for state in states]
        self._schedules = {  # (T, M, ...), in which the last values stay
            name: torch.stack([_lengthened(state.schedule[name], max(lengths)) for state in states], 1)
            for name in states[0].schedule
        }
        self._captured: CapturedSteps | None = None
        """The optimizer's steps as a graph, if the task's engine is one and some steps were made."""

    def advance(self, *, steps: int, progress: ProgressAfter, ledger: Ledger) -> None:
        """Makes updates along the schedules."""
        begun = self.states[0].trial_step
        if self.states[0].task.engine == GRAPH:
            self._capture(ledger)

        def update(made: int) -> Tensor:
            step = begun + made
            for name, values in self._schedules.items():
                self.optimizer.set_hyper(name, values[min(step, len(values) - 1)])
            batch, seeds = self._batches.at(step), self._batches.noises(step) if self._of_loss else ()
            if self._captured is not None:
                return self._captured.step(batch, seeds=seeds)
            return self.optimizer.step(partial(member_losses, self._stacked, seeds, *batch))

        self._exchanges.training()
        settle = partial(self._exchanges.settle, self.optimizer)
        train_together(self.states, self._stacked, steps, ledger, update=update, settle=settle)
        show_hyper(self.optimizer, self.states)

    def _capture(self, ledger: Ledger) -> None:
        """Has a graph make the steps from now on, and books its captures on this ledger."""
        if self._captured is None:
            noises = replayed_noises(self.states) if self._of_loss else ()
            losses = partial(member_losses, self._stacked, noises)
            self._captured = captured_steps(self.states[0].task, self.optimizer, losses, ledger=ledger, noises=noises)
        self._captured.book_on(ledger)


def _lengthened(values: Tensor, length: int) -> Tensor:
    """Returns values (T, ...) of `length` steps, in which the last ones stay."""
    rest = values[-1:].expand(length - len(values), *values.shape[1:])
    return torch.cat([values, rest])


def donate_together(methods: Sequence[Any], tasks: Sequence[Task], seeds: Sequence[int]) -> None:
    """Trains the donors of these transplants as one batch, each once, and gives them what was found."""
    donors: dict[tuple[str, int], Any] = {}
    wanted = []
    for method, task, seed in zip(methods, tasks, seeds, strict=True):
        donor = seed + method.options.donor_offset
        wanted.append(key := (method.over.options.model_dump_json(), donor))
        if key not in donors:
            own = replace(task, world=replace(task.world, step=0))
            donors[key] = method.over.init(own, donor)
    steps = methods[0].options.epochs * tasks[0].steps_per_epoch
    found = dict(zip(donors, _found_by(list(donors.values()), steps), strict=True))
    for method, seed, key in zip(methods, seeds, wanted, strict=True):
        method.take(found[key], seed)


def _found_by(donors: Sequence[Any], steps: int) -> list[Mapping[str, Tensor]]:
    """Returns the values that each step of the donors was made with, up to where one diverged, if it did."""
    batch = OnlineBatch(donors, Stacked([each.task for each in donors], [each.model for each in donors]))
    values: dict[str, list[Tensor]] = {name: [] for name in batch.optimizer.hyper}
    lengths, is_open = [0] * len(donors), [True] * len(donors)
    for _ in range(steps):
        present = batch.optimizer.hyper
        finite = torch.cat([each.reshape(len(donors), -1) for each in present.values()], 1).isfinite().all(1).tolist()
        is_open = [was and here and not donor.diverged for was, here, donor in zip(is_open, finite, donors, strict=True)]
        if not any(is_open):
            break
        lengths = [length + still for length, still in zip(lengths, is_open, strict=True)]
        for name, each in present.items():
            values[name].append(each.cpu())  # where setting one waits for no GPU
        batch.advance(steps=1, progress=lambda made: 0.0, ledger=Ledger())
    stacked = {name: torch.stack(each) for name, each in values.items()}
    return [
        {name: each[:length, index].clone() for name, each in stacked.items()} for index, length in enumerate(lengths)
    ]


def _alike(options: Any) -> Mapping[str, Any]:
    return {"epochs": options.epochs}


BATCHING = Batching(TransplantBatch, _alike, prepare=donate_together, captures=True)
