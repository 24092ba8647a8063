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
from bench.protocol import Batches, Kick, Ledger, MethodEntry, Space, State, Task, draw, remade, train


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
    def optimizer_name(self) -> str:  # type: ignore[override]
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

    def details(self) -> list[str]:
        """The optimizer, where it is not the usual one."""
        usual = type(self).model_fields["optimizer"].default.name
        return [] if self.optimizer.name == usual else [self.optimizer.label]

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


@dataclass(kw_only=True)
class TrainingState(State):
    """A training in progress.  `hyper` holds the present values."""

    options: Any = remade()
    """Those of the method with every value filled in."""
    stepper: Stepper
    batches: Batches = remade()
    spans: int | None = None
    """Steps that a schedule spans where they are known, as in a search; else it goes by the runner's budget."""

    @property
    def spans_budget(self) -> bool:
        """Whether the schedule knows the budget."""
        return self.options.spans_budget

    def saved(self) -> dict[str, Any]:
        """With the values that the optimizer was made with."""
        return {**super().saved(), "values": self.options.values()}

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
    def open(self) -> list[str]:
        """Names of the values left open."""
        return [name for name, value in self.options.values().items() if value is None]

    def init(self, task: Task, seed: int) -> TrainingState:
        """Values the options leave open are drawn from the space."""
        return self.start(task, seed, draw(self.space, self.open, seed))

    def start(self, task: Task, seed: int, drawn: Mapping[str, float], trial: int = 0) -> TrainingState:
        """The state before the first step, with `drawn` in place of open values."""
        options, model = self.options.replace(drawn), task.model(seed, trial)
        return TrainingState(
            task=task, seed=seed, model=model, hyper=dict(options.values()), trial=trial, options=options,
            stepper=options.stepper(model), batches=task.train_batches(seed),
        )  # fmt: skip

    def advance(self, state: TrainingState, *, steps: int, progress: float, ledger: Ledger) -> None:
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

    def restored(self, task: Task, seed: int, saved: Mapping[str, Any]) -> TrainingState:
        """Returns the training that was saved."""
        state = self.start(task, seed, saved["values"], saved["trial"])
        state.restore(saved)
        return state


def _entry(description: str, label: str, options: type[ScheduledOptions]) -> MethodEntry:
    return MethodEntry(
        description=description, label=label, family="training", options=options, build=Training, takes_kicks=True
    )


FIXED = _entry("constant learning rate, SGD by default", "Fixed", FixedOptions)
STEP = _entry("learning rate times gamma every step_size", "Step", StepOptions)
MULTISTEP = _entry("learning rate times gamma at each milestone", "Multistep", MultistepOptions)
EXPONENTIAL = _entry("learning rate times gamma every step or epoch", "Exponential", ExponentialOptions)
COSINE = _entry("learning rate along half a cosine to 0", "Cosine", CosineOptions)
WARMUP_COSINE = _entry("the same after a linear warm-up", "Warm-up and cosine", WarmupCosineOptions)
ONE_CYCLE = _entry("up and down once", "One-cycle", OneCycleOptions)
ADAM = _entry("Adam at a constant learning rate", "Adam", AdamOptions)


def is_training(entry: MethodEntry) -> bool:
    """Whether a method is one training from start to end, which a search can repeat."""
    return entry.build is Training


def is_scheduled_training(entry: MethodEntry) -> bool:
    """Whether it has an optimizer of torch besides, whose state members of a population copy."""
    return is_training(entry) and issubclass(entry.options, ScheduledOptions)
