"""Plain training with a torch optimizer and a schedule: Fixed, Step, Exponential, Cosine (SGD) and Adam."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field

from bench.protocol import Batches, Incumbent, Ledger, Options, Space, State, Task, draw, select

Schedule = Callable[[float, int], float]
"""(progress in [0, 1), steps done) -> factor on the initial learning rate."""


class FixedOptions(Options):
    """A value left out is drawn from the experiment's space, by the seed."""

    tuned: ClassVar[tuple[str, ...]] = ("lr", "weight_decay")

    lr: float | None = Field(default=None, gt=0)
    weight_decay: float | None = Field(default=None, ge=0)


class StepOptions(FixedOptions):
    """The learning rate is multiplied by `gamma` every `step_size` steps or epochs."""

    tuned: ClassVar[tuple[str, ...]] = ("lr", "weight_decay", "step_size")

    step_size: int | None = Field(default=None, ge=1)
    gamma: float = Field(default=0.1, gt=0, lt=1)
    unit: Literal["step", "epoch"] = "step"


class ExponentialOptions(FixedOptions):
    """The learning rate is multiplied by `gamma` every step or epoch."""

    tuned: ClassVar[tuple[str, ...]] = ("lr", "weight_decay", "gamma")

    gamma: float | None = Field(default=None, gt=0, lt=1)
    unit: Literal["step", "epoch"] = "epoch"


class CosineOptions(FixedOptions):
    """The learning rate falls to 0 along half a cosine, over the budget or, in a search, over the trial."""


class AdamOptions(FixedOptions):
    """Adam with an L2 penalty in the gradient (torch.optim.Adam); betas at torch's defaults unless given."""

    beta1: float = Field(default=0.9, ge=0, lt=1)
    beta2: float = Field(default=0.999, ge=0, lt=1)


@dataclass
class TrainingState(State):
    """A training in progress.  `hyper` holds the present values, `initial_lr` the one the schedule scales."""

    optimizer: torch.optim.Optimizer = None  # type: ignore[assignment]
    batches: Batches = None  # type: ignore[assignment]
    initial_lr: float = math.nan


class Training:
    """One training from start to end: the method a search repeats."""

    def __init__(self, options: FixedOptions, space: Space):
        self.options, self.space = options, space

    def init(self, task: Task, seed: int) -> TrainingState:
        """Values the options leave open are drawn from the space."""
        open_names = [name for name in self.options.tuned if getattr(self.options, name) is None]
        return self.start(task, seed, draw(self.space, open_names, seed))

    def start(self, task: Task, seed: int, drawn: dict[str, float], trial: int = 0) -> TrainingState:
        """The state before the first step, with `drawn` in place of open options."""
        options = self.options.model_copy(update=drawn)
        model = task.model(seed, trial)
        hyper = {name: getattr(options, name) for name in options.tuned}
        state = TrainingState(task, seed, model, hyper, trial=trial)
        state.initial_lr = hyper["lr"]
        state.optimizer = self._optimizer(model, options)
        state.batches = task.train_batches(seed)
        return state

    def advance(self, state: TrainingState, *, steps: int, progress: float, ledger: Ledger) -> TrainingState:
        """Updates, and a validation that selects after every selection period."""
        task, schedule = state.task, self._schedule(state)
        loss = torch.zeros(())
        for _ in range(steps):
            state.hyper["lr"] = state.initial_lr * schedule(progress, state.trial_step)
            for group in state.optimizer.param_groups:
                group["lr"] = state.hyper["lr"]
            batch = state.batches.at(state.trial_step)
            loss = task.training_loss(state.model, batch)
            state.optimizer.zero_grad()
            loss.backward()
            state.optimizer.step()
            state.step += 1
            state.trial_step += 1
            if state.trial_step % task.selection_period == 0:
                with ledger.account("selection"):
                    select(state)
        state.train_loss = float(loss.detach())
        state.diverged = not math.isfinite(state.train_loss)
        return state

    def finish(self, state: State) -> None:
        """Validates the model where the budget left it."""
        select(state)

    def incumbent(self, state: State) -> Incumbent | None:
        """The best validated model of the run."""
        return state.incumbent

    def scalars(self, state: State) -> dict[str, float]:
        """Nothing beyond losses and hyperparameters."""
        return {}

    def _optimizer(self, model: torch.nn.Module, options: FixedOptions) -> torch.optim.Optimizer:
        common: dict[str, Any] = {"lr": options.lr, "weight_decay": options.weight_decay}
        if isinstance(options, AdamOptions):
            return torch.optim.Adam(model.parameters(), betas=(options.beta1, options.beta2), **common)
        return torch.optim.SGD(model.parameters(), **common)

    def _schedule(self, state: TrainingState) -> Schedule:
        options, hyper = self.options, state.hyper
        per_unit = state.task.steps_per_epoch if getattr(options, "unit", "step") == "epoch" else 1
        if isinstance(options, CosineOptions):
            return lambda progress, step: 0.5 * (1 + math.cos(math.pi * progress))
        if isinstance(options, ExponentialOptions):
            return lambda progress, step: hyper["gamma"] ** (step // per_unit)
        if isinstance(options, StepOptions):
            return lambda progress, step: options.gamma ** (step // (per_unit * hyper["step_size"]))
        return lambda progress, step: 1.0
