"""The state of a training by OHO: its closures, its steps as a graph, and what it reports."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor, nn

from bench.online.averaged_state import AveragedState, Optimizer
from bench.online.captured import CapturedSteps, captured_steps
from bench.online.exact_twin import ExactTwin
from bench.online.options import OnlineOptions
from bench.online.precision import at_precision
from bench.online.tuned_loss import Closure, replayed_loss, training_closure
from bench.protocol import Batch, Batches, Kick, Ledger, ReplayedNoise, remade
from bench.protocol.state import NOT_SAVED
from bench.records.wandb_names import MOST_SINGLE_SETS


@dataclass(kw_only=True)
class OnlineState(AveragedState):
    """A training in progress; the optimizer holds influence, hyperparameters and meta-state."""

    batches: Batches = remade()
    validation_batches: Batches = remade()
    options: OnlineOptions = remade()
    twin: ExactTwin | None = None
    captured: CapturedSteps | None = field(default=None, metadata=NOT_SAVED)
    """The optimizer's steps as a graph, if the task's engine is one and some steps were made."""

    def capture(self, ledger: Ledger) -> None:
        """Makes the steps from now on those of a graph."""
        if self.captured is None:
            task, model, fraction = self.task, self.model, self.options.curvature_part
            valid = task.training_loss if self.options.source == "training" else task.validation_loss
            noise = ReplayedNoise(task.device)

            def loss_of_part(inputs: Tensor, targets: Tensor, *hyper: Mapping[str, Tensor]) -> Tensor:
                return task.training_loss(model, Batch(inputs, targets, noise).part(fraction or 1.0), *hyper)

            self.captured = captured_steps(
                task,
                self.optimizer,
                replayed_loss(task, model, noise),
                at_precision(
                    self.options, task.device, lambda inputs, targets: valid(model, Batch(inputs, targets, noise))
                ),
                ledger=ledger,
                curvature=None if fraction is None else loss_of_part,
                noises=[noise],
                look_ahead=not (task.noisy or self.options.tuned_of_loss),  # on a GPU, draws were not tried with it
            )
        self.captured.book_on(ledger)

    def make_step(self) -> Tensor:
        """Makes one step, as a graph if there is one; returns the training loss before it, detached."""
        if self.captured is None:
            return self.optimizer.step(*self.closures(self.step), **self.part(self.step))
        batches = self.batches if self.options.source == "training" else self.validation_batches
        batch, noise = self.batches.at(self.step)[:2], self.batches.noise(self.step)
        return self.captured.step(batch, lambda: batches.at(self.step)[:2], seeds=[noise])

    def scalars(self) -> dict[str, float]:
        """Returns norms of d(parameters)/d(hyperparameter), hypergradients, and counts of skipped and shortened steps."""
        norms = self.optimizer.influence_norm()
        counts = {f"skipped_{reason}": count for reason, count in self.optimizer.skipped.items()}
        counts["shortened"] = self.optimizer.shortened
        found = {f"influence_norm_{name}": norm for name, norm in norms.items()} | counts
        found |= hypergradients_of(self.optimizer) if self.step else {}
        found |= self.twin.scalars() if self.twin else {}
        return {name: float(value) for name, value in found.items()}

    def closures(self, step: int, model: nn.Module | None = None) -> tuple[Closure, Closure]:
        """Returns a step's training loss and the loss whose hypergradient it follows, of `model` or the run's own.

        The training loss takes its hyperparameters, if some are tuned; the other loss never has them.
        """
        task, model, batch = self.task, model or self.model, self.batches.at(step)
        train_loss = training_closure(task, model, batch)
        if self.options.source == "training":
            loss: Closure = partial(task.training_loss, model, batch)
        else:  # a validation batch is gathered only when a meta-step asks for it
            loss = lambda: task.validation_loss(model, self.validation_batches.at(step))  # noqa: E731
        return train_loss, at_precision(self.options, task.device, loss)

    def part(self, step: int) -> dict[str, Closure]:
        """Returns what a step's curvature products are taken from, if not from the whole batch."""
        fraction = self.options.curvature_part
        if fraction is None or not self.optimizer.is_tuned_step(step + 1):
            return {}
        batch = self.batches.at(step).part(fraction)
        return {"curvature_closure": training_closure(self.task, self.model, batch)}

    def kick(self, kick: Kick) -> None:
        """Changes all sets alike, within the bounds."""
        present = self.optimizer.hyper[kick.name]
        low, high = self.options.bounds[kick.name]
        value = torch.as_tensor(kick.of(present), dtype=present.dtype, device=present.device)
        within = value.clamp(low, min(high, torch.finfo(value.dtype).max))
        self.optimizer.set_hyper(kick.name, torch.where(value == 0, value, within))  # what 0 is on a logarithm, `oho` says
        self.hyper = values_of(self.optimizer)


def values_of(optimizer: Optimizer) -> dict[str, list[float]]:
    """Returns the present hyperparameters, one value for each set; those of the loss have one value."""
    return {name: values.reshape(-1).tolist() for name, values in optimizer.hyper.items()}


def hypergradients_of(optimizer: Optimizer) -> dict[str, float]:
    """Returns the last hypergradients, one for each set or, of many sets, their norm; without those that are not finite."""
    found: dict[str, float] = {}
    for name, values in optimizer.hypergradient.items():
        values = values.reshape(-1)
        if len(values) > MOST_SINGLE_SETS:
            found[f"hypergradient_norm_{name}"] = float(values.norm())
        elif len(values) == 1:
            found[f"hypergradient_{name}"] = float(values)
        else:
            found |= {f"hypergradient_{name}_{number}": value for number, value in enumerate(values.tolist())}
    return {name: value for name, value in found.items() if math.isfinite(value)}
