"""A schedule that OHO found, on another seed: how much of what it gives is the schedule, how much is following the run?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor

import oho
from bench.online.averaged_state import AveragedState
from bench.online.batched_transplants import BATCHING
from bench.online.captured import CapturedSteps, captured_steps
from bench.online.methods import Online, is_online
from bench.online.state import OnlineState, values_of
from bench.online.tuned_loss import replayed_loss, training_closure
from bench.protocol import (
    GRAPH,
    Batches,
    Ledger,
    Method,
    MethodEntry,
    Options,
    ReplayedNoise,
    Task,
    remade,
    stream,
    train,
    unpacked,
)
from bench.protocol.state import NOT_SAVED

Schedule = dict[str, Tensor]
"""Values by hyperparameter, (steps, sets)."""


class TransplantOptions(Options):
    """`over` is the OHO method that finds the schedule, in a training of `epochs` on the seed `donor_offset` further on.

    The schedule is used in its `order`: kept, shuffled in time, or with all its values replaced by their mean.  After its
    end the last values stay.  Finding the schedule is set-up: it is not counted.
    """

    over: Any
    epochs: int = Field(ge=1)
    donor_offset: int = Field(default=1000, ge=0)
    order: Literal["kept", "shuffled", "mean"] = "kept"

    def details(self) -> list[str]:
        """Returns the order, where it is not kept."""
        return [] if self.order == "kept" else [self.order]


@dataclass(kw_only=True)
class TransplantState(AveragedState):
    """A training along the schedule, whose values are set before each step."""

    batches: Batches = remade()
    schedule: Schedule
    sets: oho.Sets = remade()
    """What shares one value of the schedule."""
    captured: CapturedSteps | None = field(default=None, metadata=NOT_SAVED)
    """The optimizer's steps as a graph, if the task's engine is one and some steps were made."""

    def capture(self, ledger: Ledger) -> None:
        """Makes the steps from now on those of a graph."""
        if self.captured is None:
            noise = ReplayedNoise(self.task.device)
            loss = replayed_loss(self.task, self.model, noise)
            self.captured = captured_steps(self.task, self.optimizer, loss, ledger=ledger, noises=[noise])
        self.captured.book_on(ledger)

    def make_step(self) -> Tensor:
        """Makes one step, as a graph if there is one; returns the training loss before it, detached."""
        batch = self.batches.at(self.step)
        if self.captured is None:
            return self.optimizer.step(training_closure(self.task, self.model, batch))
        return self.captured.step(batch[:2], seeds=[self.batches.noise(self.step)])


class Transplant(Method):
    """The update rule of the donor, whose hyperparameters follow what was found elsewhere."""

    def __init__(self, options: TransplantOptions, over: Online):
        if getattr(over.options, "temperature", 0):
            raise ValueError("over: a training with a temperature is moved by noise, too, which no schedule holds")
        self.options, self.over = options, over
        self._found: dict[int, Schedule] = {}

    def init(self, task: Task, seed: int) -> TransplantState:
        """Trains the donor, once for each seed."""
        if seed not in self._found:
            self.take(self._donate(task, seed + self.options.donor_offset), seed)
        schedule, model = self._found[seed], task.model(seed)
        hyper = {name: values[0].reshape(-1).tolist() for name, values in schedule.items()}
        donor = self.over.options
        of_loss = donor.tuned_of_loss
        rule = donor.rule({name: 0.0 for name in schedule if name not in of_loss}, tune=())
        values: dict[str, Any] = dict.fromkeys(of_loss, 0.0)
        loss = oho.LossHyper(tune=(), **values) if of_loss else None
        optimizer = oho.OHO(model.named_parameters(), rule, loss=loss, sets=donor.sets, average=donor.kind_of_average)
        return TransplantState(
            task=task, seed=seed, model=model, hyper=hyper, schedule=schedule, optimizer=optimizer,
            batches=task.train_batches(seed), sets=donor.sets,
        )  # fmt: skip

    def advance(self, state: TransplantState, *, steps: int, progress: float, ledger: Ledger) -> None:
        """Makes updates along the schedule."""
        last = len(state.schedule["lr"]) - 1

        def update() -> Tensor:
            for name, values in state.schedule.items():
                state.optimizer.set_hyper(name, values[min(state.step, last)])
            return state.make_step()

        state.training()
        if state.task.engine == GRAPH:
            state.capture(ledger)
        train(state, steps, ledger, update=update, settle=state.evaluation)
        state.hyper = values_of(state.optimizer)

    def recall(self, seed: int, saved: Mapping[str, Any]) -> None:
        """Takes the schedule of a training that was saved, so that `init` does not search for it again."""
        self._found[seed] = unpacked(saved["schedule"])

    def restored(self, task: Task, seed: int, saved: Mapping[str, Any]) -> TransplantState:
        """Returns the training that was saved."""
        self.recall(seed, saved)
        return super().restored(task, seed, saved)

    def _donate(self, task: Task, seed: int) -> Schedule:
        """Returns the values that each step of the donor was made with, up to where it diverged, if it did."""
        donor: OnlineState = self.over.init(task, seed)
        found: dict[str, list[Tensor]] = {name: [] for name in donor.optimizer.hyper}
        while donor.step < self.options.epochs * task.steps_per_epoch and not donor.diverged:
            present = dict(donor.optimizer.hyper)
            if not all(bool(values.isfinite().all()) for values in present.values()):
                break
            for name, values in present.items():
                found[name].append(values.cpu())  # where setting one waits for no GPU
            self.over.advance(donor, steps=1, progress=0.0, ledger=Ledger())
        return {name: torch.stack(values) for name, values in found.items()}

    def take(self, schedule: Schedule, seed: int) -> None:
        """Takes over what the donor of a seed has found, so that `init` does not train it."""
        self._found[seed] = self._arranged(schedule, seed)

    def _arranged(self, schedule: Schedule, seed: int) -> Schedule:
        if self.options.order == "mean":
            return {name: values.mean(0, keepdim=True) for name, values in schedule.items()}
        if self.options.order == "shuffled":
            order = torch.randperm(len(schedule["lr"]), generator=stream(seed, "shuffled schedule"))
            return {name: values[order] for name, values in schedule.items()}
        return schedule


TRANSPLANT = MethodEntry(
    description="a training along the schedule that an OHO run of another seed found, kept, shuffled, or averaged",
    label="Transplant",
    family="transplant",
    options=TransplantOptions,
    build=Transplant,
    repeats=is_online,
    batching=BATCHING,
    captures=True,
)
