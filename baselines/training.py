"""Training from start to end with an optimizer and a schedule; restarting methods repeat it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Annotated, Any, Self, cast

from pydantic import Field, ValidationInfo, field_validator
from torch import Tensor, nn

from baselines import schedules
from baselines.batched_training import BATCHING
from baselines.optimizers import AveragedStepper, Stepper, TorchStepper, torch_optimizer
from baselines.schedules import Place
from baselines.training_options import TrainingOptions
from baselines.values_of_sets import SetsStepper, shared_laws
from bench.protocol import (
    GRAPH,
    Batches,
    CapturedUpdates,
    Kick,
    Ledger,
    MethodEntry,
    Space,
    State,
    Task,
    draw,
    remade,
    train,
)
from bench.protocol.averages import PlainAverage, left_out
from bench.protocol.optimizers import Adam, InitialValues, WithOptimizer
from bench.protocol.state import NOT_SAVED

NonNegative = Annotated[float, Field(ge=0)]


class ScheduledOptions(WithOptimizer, schedules.Constant):
    """An optimizer with a schedule.  A value of null is drawn from the experiment's space, by the seed.

    With an `average` of the weights it is the average that is validated, selected and tested.  With `groups`, weights and
    biases of each of so many groups of layers have a learning rate and a weight decay of their own; what is open is drawn
    or searched for each, and `of_sets` gives single ones, such as {lr_weights_1: 0.1, weight_decay_biases_2: 0}.
    """

    average: PlainAverage = Field(default=None, exclude_if=left_out)
    groups: int | None = Field(default=None, ge=1, exclude_if=left_out)
    of_sets: Mapping[str, NonNegative] = Field(default={}, exclude_if=lambda values: not values)

    @field_validator("of_sets")
    @classmethod
    def _of_its_sets(cls, values: Mapping[str, float], info: ValidationInfo) -> Mapping[str, float]:
        names = shared_laws(info.data.get("groups"))
        if unknown := [name for name in values if name not in names]:
            raise ValueError(f"there is no {', '.join(unknown)}; there are {', '.join(names) or 'none without groups'}")
        return values

    @property
    def initial_lr(self) -> float | None:
        """The learning rate or, where each set has its own, the factor on all of them."""
        return 1.0 if self.groups else self.lr

    @property
    def shared_laws(self) -> Mapping[str, str]:
        """The names of what sets have of their own."""
        return shared_laws(self.groups)

    def values(self) -> dict[str, float | None]:
        """Returns learning rate and weight decay, then the schedule's values, then the optimizer's."""
        common, schedule = InitialValues.values(self), {name: getattr(self, name) for name in self.own}
        optimizer = {name: value for name, value in super().values().items() if name not in common}
        if self.groups:
            common = {name: self.of_sets.get(name, common[whole]) for name, whole in self.shared_laws.items()}
        return common | schedule | optimizer

    def replace(self, values: Mapping[str, float]) -> Self:
        """Returns a copy with other values."""
        own = {name: value for name, value in values.items() if name in self.shared_laws}
        others = {name: value for name, value in values.items() if name not in own}
        copy = super().replace(others)
        return copy.model_copy(update={"of_sets": {**self.of_sets, **own}}) if own else copy

    def stepper(self, model: nn.Module) -> Stepper:
        """Returns the optimizer; no value may be open any more."""
        plain = self._plain(model)
        return plain if self.average is None else AveragedStepper(plain, self.average.kind(), model)

    def graph_stepper(self, model: nn.Module) -> Stepper:
        """Returns the same, which a graph can repeat."""
        return self.stepper(model)

    def _plain(self, model: nn.Module) -> TorchStepper:
        if self.groups:
            return SetsStepper(self.optimizer, model, self.groups, cast(Mapping[str, float], self.values()))
        assert self.lr is not None
        assert self.weight_decay is not None
        parameters = model.parameters()
        return TorchStepper(torch_optimizer(self.optimizer, parameters, lr=self.lr, weight_decay=self.weight_decay))

    def details(self) -> list[str]:
        """Returns the optimizer's label unless it is the usual one, the average's if there is one, and what sets have."""
        average = () if self.average is None else (self.average.label,)
        return [*super().details(), *average, *((f"{len(self.shared_laws)} values",) if self.groups else ())]


class FixedOptions(ScheduledOptions):
    """A constant learning rate."""


class StepOptions(ScheduledOptions, schedules.Step):
    """A learning rate that drops every so many steps or epochs."""


class MultistepOptions(ScheduledOptions, schedules.Multistep):
    """A learning rate that drops at given steps or epochs."""


class ExponentialOptions(ScheduledOptions, schedules.Exponential):
    """A learning rate that decays steadily."""


class CosineOptions(ScheduledOptions, schedules.Cosine):
    """Half a cosine over the budget or, in a search, over the trial."""


class WarmupCosineOptions(ScheduledOptions, schedules.WarmupCosine):
    """A linear warm-up, then half a cosine, over the budget or, in a search, over the trial."""


class OneCycleOptions(ScheduledOptions, schedules.OneCycle):
    """One rise and fall of the learning rate over the budget or, in a search, over the trial."""


class AdamOptions(FixedOptions):
    """The paper's Adam, which has a constant learning rate."""

    optimizer: Adam = Adam()  # type: ignore[assignment]


@dataclass(kw_only=True)
class TrainingState(State):
    """A training in progress; `hyper` holds the current values."""

    options: Any = remade()
    """The method's options with every value filled in."""
    stepper: Stepper
    batches: Batches = remade()
    captured: CapturedUpdates | None = field(default=None, metadata=NOT_SAVED)
    """The updates as a graph, if the task's engine is one and some updates were made."""
    spans: int | None = None
    """Number of steps that a schedule spans, known in a search; None if the schedule follows the runner's budget."""

    @property
    def spans_budget(self) -> bool:
        """Whether the schedule depends on the budget."""
        return self.options.spans_budget

    def saved(self) -> dict[str, Any]:
        """Returns the saved fields together with the values that the optimizer was made with."""
        return {**super().saved(), "values": self.options.values()}

    def kick(self, kick: Kick) -> None:
        """Changes an adapted value in place, and of a scheduled learning rate what the schedule multiplies."""
        adapted = self.stepper.hyper()
        present = adapted.get(kick.name, self.options.values()[kick.name])
        value = kick.of(present)
        if kick.name not in adapted:
            self.options = self.options.replace({kick.name: value})
        self.stepper.assign(kick.name, value)
        self.captured = None  # with the old value
        if kick.name in self.hyper:  # values of sets are known by the name that they share
            self.hyper[kick.name] = value * (self.hyper[kick.name] / present if present else 1.0)
        else:
            self.hyper |= self.stepper.hyper()


def hyper_at_start(options: TrainingOptions, stepper: Stepper) -> dict[str, Any]:
    """Returns what is recorded of a training before its first step; values of sets stand under the name that they share."""
    own = options.shared_laws
    values = {name: value for name, value in options.values().items() if name not in own}
    return values | (stepper.hyper() if own else {})


class Training:
    """A method that trains once from start to end; a search repeats it."""

    def __init__(self, options: TrainingOptions, space: Space):
        self.options, self.space = options, space.of(options.optimizer_name).sharing(options.shared_laws)

    @property
    def open(self) -> list[str]:
        """Names of the values that the options leave open."""
        return [name for name, value in self.options.values().items() if value is None]

    def init(self, task: Task, seed: int) -> TrainingState:
        """Returns the state before the first step, with open values drawn from the space."""
        return self.start(task, seed, draw(self.space, self.open, seed))

    def start(self, task: Task, seed: int, drawn: Mapping[str, float], trial: int = 0) -> TrainingState:
        """Returns the state before the first step, with `drawn` in place of open values."""
        options, model = self.options.replace(drawn), task.model(seed, trial)
        stepper = options.graph_stepper(model) if task.engine == GRAPH else options.stepper(model)
        return TrainingState(
            task=task, seed=seed, model=model, hyper=hyper_at_start(options, stepper), trial=trial,
            options=options, stepper=stepper, batches=task.train_batches(seed),
        )  # fmt: skip

    def check(self, task: Task) -> None:
        """Raises ValueError where the network has fewer layers than there are groups."""
        if self.options.shared_laws:
            self.start(task, 0, draw(self.space, self.open, 0))

    def advance(self, state: TrainingState, *, steps: int, progress: float, ledger: Ledger) -> None:
        """Updates the parameters at the schedule's learning rates."""
        task, options = state.task, state.options
        initial_lr, lr = options.initial_lr, None

        def update() -> Tensor:
            nonlocal lr
            if initial_lr is not None:
                fraction = state.trial_step / state.spans if state.spans else progress
                lr = initial_lr * options.factor(Place(fraction, state.trial_step, task.steps_per_epoch))
            batch = state.batches.at(state.trial_step)
            if state.captured is not None:
                state.stepper.begin(lr)
                return state.captured.step(batch)
            return state.stepper.step(partial(task.training_loss, state.model, batch), lr)

        def settle() -> None:
            state.stepper.evaluation()
            state.hyper |= {**({} if lr is None else {"lr": lr}), **state.stepper.hyper()}

        state.stepper.training()
        if task.engine == GRAPH:
            if state.captured is None:
                state.stepper.make_capturable()
                state.captured = CapturedUpdates(task, state.model, state.stepper.update, ledger)
            state.captured.book_on(ledger)
        train(state, steps, ledger, update=update, settle=settle)

    def restored(self, task: Task, seed: int, saved: Mapping[str, Any]) -> TrainingState:
        """Returns the training that was saved."""
        state = self.start(task, seed, saved["values"], saved["trial"])
        state.restore(saved)
        return state


def _entry(description: str, label: str, options: type[ScheduledOptions]) -> MethodEntry:
    return MethodEntry(
        description=description, label=label, family="training", options=options, build=Training, takes_kicks=True,
        batching=BATCHING, captures=True,
    )  # fmt: skip


FIXED = _entry("constant learning rate, SGD by default", "Fixed", FixedOptions)
STEP = _entry("learning rate times gamma every step_size", "Step", StepOptions)
MULTISTEP = _entry("learning rate times gamma at each milestone", "Multistep", MultistepOptions)
EXPONENTIAL = _entry("learning rate times gamma every step or epoch", "Exponential", ExponentialOptions)
COSINE = _entry("learning rate along half a cosine to 0", "Cosine", CosineOptions)
WARMUP_COSINE = _entry("linear warm-up, then half a cosine to 0", "Warm-up and cosine", WarmupCosineOptions)
ONE_CYCLE = _entry("learning rate up and down once", "One-cycle", OneCycleOptions)
ADAM = _entry("Adam at a constant learning rate", "Adam", AdamOptions)


def is_training(entry: MethodEntry) -> bool:
    """Returns whether a method is one training from start to end, which a search can repeat."""
    return entry.build is Training


def is_scheduled_training(entry: MethodEntry) -> bool:
    """Returns whether a method is a training with a torch optimizer, whose state a population's members can copy."""
    return is_training(entry) and issubclass(entry.options, ScheduledOptions)
