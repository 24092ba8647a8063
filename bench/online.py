"""OHO as a method: one training whose learning rate and L2 coefficient follow the validation gradient."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

from pydantic import Field
from torch import Tensor, nn

import oho
from bench.protocol import Batches, Incumbent, Ledger, Options, Space, Split, State, Task, draw, select


class OnlineOptions(Options):
    """Published raw parametrisation: both hyperparameters take plain gradient steps and stay within their bounds."""

    tuned: ClassVar[tuple[str, ...]] = ("lr", "weight_decay")

    lr: float | None = Field(default=None, gt=0)
    weight_decay: float | None = Field(default=None, ge=0)
    meta_rate: float = Field(default=1e-5, ge=0)
    weight_decay_rate_scale: float = Field(default=0.01, ge=0)
    weight_decay_max: float = Field(default=2e-4, gt=0)


@dataclass
class OnlineState(State):
    """A training in progress; the optimizer holds influence, hyperparameters and meta-state."""

    optimizer: oho.OHO = None  # type: ignore[assignment]
    batches: Batches = None  # type: ignore[assignment]
    validation_batches: Batches = None  # type: ignore[assignment]


class Online:
    """SGD with OHO on top."""

    def __init__(self, options: OnlineOptions, space: Space):
        self.options, self.space = options, space

    def init(self, task: Task, seed: int) -> OnlineState:
        """Open initial values are drawn from the space; the L2 coefficient starts no higher than its ceiling."""
        open_names = [name for name in self.options.tuned if getattr(self.options, name) is None]
        rate, ceiling = self.options.meta_rate, self.options.weight_decay_max
        model = task.model(seed)
        initial: dict[str, Any] = {name: getattr(self.options, name) for name in self.options.tuned}
        initial |= draw(self.space, open_names, seed)
        initial["weight_decay"] = min(initial["weight_decay"], ceiling)
        state = OnlineState(task, seed, model, initial)
        state.optimizer = oho.OHO(
            model.parameters(),
            rule=oho.SGD(**initial),
            sets="global",
            meta=oho.MetaSGD(
                {"lr": rate, "weight_decay": rate * self.options.weight_decay_rate_scale},
                transform="raw",
                bounds={"lr": (0.0, math.inf), "weight_decay": (0.0, ceiling)},
            ),
            discount=1.0,
        )
        state.batches, state.validation_batches = task.train_batches(seed), task.validation_batches(seed)
        return state

    def advance(self, state: OnlineState, *, steps: int, progress: float, ledger: Ledger) -> OnlineState:
        """Updates with a meta-step each, and a validation that selects after every selection period."""
        task, model = state.task, state.model
        state.optimizer.on_phase = ledger.switch
        for _ in range(steps):
            batch, held = state.batches.at(state.step), state.validation_batches.at(state.step)
            loss = state.optimizer.step(partial(_loss, task, model, batch), partial(_loss, task, model, held))
            state.step += 1
            state.trial_step += 1
            if state.step % task.selection_period == 0:
                with ledger.account("selection"):
                    select(state)
        state.hyper = {name: values.tolist() for name, values in state.optimizer.hyper.items()}
        state.train_loss = float(loss)
        state.diverged = not math.isfinite(state.train_loss)
        return state

    def finish(self, state: State) -> None:
        """Validates the model where the budget left it."""
        select(state)

    def incumbent(self, state: State) -> Incumbent | None:
        """The best validated model of the run."""
        return state.incumbent

    def scalars(self, state: OnlineState) -> dict[str, float]:
        """Norms of d(parameters)/d(hyperparameter), and the number of meta-steps skipped for non-finite values."""
        norms = state.optimizer.influence_norm()
        return {f"influence_norm_{name}": float(norm) for name, norm in norms.items()}


def _loss(task: Task, model: nn.Module, batch: Split) -> Tensor:
    return task.loss(model(batch.inputs), batch.targets)
