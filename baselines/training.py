"""Training from start to end with an optimizer and a schedule: what restarting methods repeat."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, Self

from pydantic import Field
from torch import Tensor, nn

from baselines import schedules
from baselines.optimizers import Adam, AnyOptimizer, Sgd, Stepper, TorchStepper
from baselines.schedules import Place
from bench.protocol import Batches, Incumbent, Kick, Ledger, Space, State, Task, draw, packed, train


class TrainingOptions(Protocol):
    """What a training needs of its options."""

    @property
    def spans_budget(self) -> bool:
        """Whether the schedule knows the budget."""
        ...

    @property
    def initial_lr(self) -> float | None:
        """What the schedule multiplies; None where there is nothing to schedule."""
        ...

    @property
    def optimizer_name(self) -> str:
        """By which a space may have laws of its own."""
        ...

    def values(self) -> dict[str, float | None]:
        """Hyperparameters by name; None is open: drawn from the space by the seed, or searched."""
        ...

    def replace(self, values: Mapping[str, float]) -> Self:
        """The same with other values."""
        ...

    def factor(self, place: Place) -> float:
        """What the initial learning rate is multiplied by for the next update."""
        ...

    def stepper(self, model: nn.Module) -> Stepper:
        """The optimizer, with no value left open."""
        ...


class ScheduledOptions(schedules.Constant):
    """An optimizer with a schedule.  A value of null is drawn from the experiment's space, by the seed."""

    lr: float | None = Field(default=None, gt=0)
    weight_decay: float | None = Field(default=None, ge=0)
    optimizer: AnyOptimizer = Sgd()

    @property
    def optimizer_name(self) -> str:
        """sgd | momentum | adam | adamw."""
        return self.optimizer.name

    @property
    def initial_lr(self) -> float | None:
        """The learning rate."""
        return self.lr

    def values(self) -> dict[str, float | None]:
        """Learning rate and weight decay, then those of the schedule, then those of the optimizer."""
        names = ("lr", "weight_decay", *self.own)
        return {name: getattr(self, name) for name in names} | {
            name: getattr(self.optimizer, name) for name in self.optimizer.own
        }

    def replace(self, values: Mapping[str, float]) -> Self:
        """The same with other values."""
        inner = {name: value for name, value in values.items() if name in self.optimizer.own}
        outer = {name: value for name, value in values.items() if name not in inner}
        return self.model_copy(update={**outer, "optimizer": self.optimizer.model_copy(update=inner)})

    def stepper(self, model: nn.Module) -> Stepper:
        """The optimizer."""
        common = {"lr": self.lr, "weight_decay": self.weight_decay}
        return TorchStepper(self.optimizer.make(model.parameters(), common))


class FixedOptions(ScheduledOptions):
    """A constant learning rate."""


class StepOptions(ScheduledOptions, schedules.Step):
    """A drop every so many steps or epochs."""


class MultistepOptions(ScheduledOptions, schedules.Multistep):
    """Drops at given steps or epochs."""


class ExponentialOptions(ScheduledOptions, schedules.Exponential):
    """A steady decay."""


class CosineOptions(ScheduledOptions, schedules.Cosine):
    """Half a cosine over the budget or, in a search, over the trial."""


class WarmupCosineOptions(ScheduledOptions, schedules.WarmupCosine):
    """A linear warm-up, then half a cosine, over the budget or, in a search, over the trial."""


class OneCycleOptions(ScheduledOptions, schedules.OneCycle):
    """Up and down once, over the budget or, in a search, over the trial."""


class AdamOptions(FixedOptions):
    """The paper's Adam: a constant learning rate."""

    optimizer: Adam = Adam()  # type: ignore[assignment]


@dataclass
class TrainingState(State):
    """A training in progress.  `hyper` holds the present values."""

    options: Any = None
    """Those of the method with every value filled in."""
    stepper: Stepper = None  # type: ignore[assignment]
    batches: Batches = None  # type: ignore[assignment]
    spans: int | None = None
    """Steps that a schedule spans where they are known, as in a search; else it goes by the runner's budget."""

    def kick(self, kick: Kick) -> None:
        """What the optimizer adapts changes where it stands; of a learning rate with a schedule, what that multiplies."""
        adapted = self.stepper.hyper()
        present = adapted.get(kick.name, self.options.values()[kick.name])
        value = kick.of(present)
        if kick.name not in adapted:
            self.options = self.options.replace({kick.name: value})
        self.stepper.assign(kick.name, value)
        self.hyper[kick.name] = value * (self.hyper[kick.name] / present if present else 1.0)


class Training:
    """One training from start to end: the method a search repeats."""

    def __init__(self, options: TrainingOptions, space: Space):
        self.options, self.space = options, space.of(options.optimizer_name)

    @property
    def spans_budget(self) -> bool:
        """Whether the schedule knows the budget."""
        return self.options.spans_budget

    @property
    def open(self) -> list[str]:
        """Names of the values left open."""
        return [name for name, value in self.options.values().items() if value is None]

    def init(self, task: Task, seed: int) -> TrainingState:
        """Values the options leave open are drawn from the space."""
        return self.start(task, seed, draw(self.space, self.open, seed))

    def start(self, task: Task, seed: int, drawn: Mapping[str, float], trial: int = 0) -> TrainingState:
        """The state before the first step, with `drawn` in place of open values."""
        options = self.options.replace(drawn)
        model = task.model(seed, trial)
        state = TrainingState(task, seed, model, dict(options.values()), trial=trial, options=options)
        state.stepper = options.stepper(model)
        state.batches = task.train_batches(seed)
        return state

    def advance(self, state: TrainingState, *, steps: int, progress: float, ledger: Ledger) -> TrainingState:
        """Updates with the schedule's learning rates."""
        task, options = state.task, state.options
        initial_lr, lr = options.initial_lr, None

        def update() -> Tensor:
            nonlocal lr
            if initial_lr is not None:
                fraction = state.trial_step / state.spans if state.spans else progress
                lr = initial_lr * options.factor(Place(fraction, state.trial_step, task.steps_per_epoch))
            batch = state.batches.at(state.trial_step)
            return state.stepper.step(partial(task.training_loss, state.model, batch), lr)

        def settle() -> None:
            state.stepper.evaluation()
            state.hyper |= {**({} if lr is None else {"lr": lr}), **state.stepper.hyper()}

        state.stepper.training()
        train(state, steps, ledger, update=update, settle=settle)
        return state

    def saved(self, state: TrainingState) -> dict[str, Any]:
        """With the model, the values that its optimizer was made with, and the optimizer."""
        return {
            **state.saved(), "model": packed(state.model.state_dict()), "values": state.options.values(),
            "spans": state.spans, "stepper": state.stepper.saved(),
        }  # fmt: skip

    def restored(self, task: Task, seed: int, saved: Mapping[str, Any]) -> TrainingState:
        """The training that was saved."""
        state = self.start(task, seed, saved["values"], saved["trial"])
        state.restore(saved)
        state.model.load_state_dict(saved["model"])
        state.stepper.restore(saved["stepper"])
        state.spans = saved["spans"]
        return state

    def finish(self, state: State) -> None:
        """Nothing is open."""

    def incumbent(self, state: State) -> Incumbent | None:
        """The best validated model of the run."""
        return state.incumbent

    def scalars(self, state: State) -> dict[str, float]:
        """Nothing beyond losses and hyperparameters."""
        return {}
