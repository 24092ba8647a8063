"""OHO as methods: one training whose learning rate and L2 coefficient follow the validation gradient."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

import oho
from bench.online.exact_twin import ExactTwin
from bench.protocol import Batches, Kick, Ledger, MethodEntry, Options, Space, State, Task, draw, remade, stream, train
from oho.published import CEILINGS

Optimizer = oho.OHO | oho.PublishedOHO
Initial = dict[str, float]
Closure = Callable[[], Tensor]


class InitialOptions(Options):
    """A value left out is drawn from the experiment's space, by the seed.

    Hypergradients are those of the loss on validation batches of `validation_batch_size`, the task's if nothing is said;
    with `source: training`, on the step's own training batch.  With `compare_exact` an exact influence is carried beside
    the run, uncounted, and the errors of its hypergradients are recorded.
    """

    lr: float | None = Field(default=None, gt=0)
    weight_decay: float | None = Field(default=None, ge=0)
    source: Literal["validation", "training"] = "validation"
    validation_batch_size: int | None = Field(default=None, ge=1)
    compare_exact: bool = False

    def values(self) -> dict[str, float | None]:
        """The initial hyperparameters by name; None is drawn from the space."""
        return {"lr": self.lr, "weight_decay": self.weight_decay}

    @property
    def ceiling(self) -> float:
        """Largest L2 coefficient, which also bounds the initial one."""
        return math.inf

    @property
    def sets(self) -> oho.Sets:
        """What shares one value."""
        return "global"


class OnlineOptions(InitialOptions):
    """Published raw parametrisation: both hyperparameters take plain gradient steps and stay within their bounds."""

    tune: tuple[Literal["lr", "weight_decay"], ...] = Field(default=("lr", "weight_decay"), min_length=1)
    meta_rate: float = Field(default=1e-5, ge=0)
    weight_decay_rate_scale: float = Field(default=0.01, ge=0)
    weight_decay_max: float = Field(default=2e-4, gt=0)
    discount: float = Field(default=1.0, ge=0, le=1)
    reset_every: int = Field(default=0, ge=0)
    update_every: int = Field(default=1, ge=1)
    temperature: float = Field(default=0.0, ge=0)

    @property
    def mode(self) -> str:
        """Of the influence: with one set both modes are the same."""
        return "exact"

    @property
    def ceiling(self) -> float:
        """Largest L2 coefficient."""
        return self.weight_decay_max


class SetsOptions(OnlineOptions):
    """Several sets: exact and collapsed influence differ."""

    influence: Literal["exact", "collapsed"] = "exact"

    @property
    def mode(self) -> str:
        """Of the influence."""
        return self.influence


class FullOptions(SetsOptions):
    """One learning rate and L2 coefficient for each parameter tensor."""

    weight_decay_max: float = Field(default=5e-4, gt=0)

    @property
    def sets(self) -> oho.Sets:
        """A set a tensor."""
        return "full"


class LayerwiseOptions(SetsOptions):
    """One of each for the weights and one for the biases of `groups` groups of layers."""

    groups: int = Field(default=2, ge=1)
    meta_rate: float = Field(default=1e-6, ge=0)
    weight_decay_max: float = Field(default=3e-3, gt=0)

    @property
    def sets(self) -> oho.Sets:
        """Weights and biases of each group."""
        return oho.Layerwise(self.groups)


class PublishedOptions(InitialOptions):
    """The published recursion with its defects; `weight_decay_max` left out is the published ceiling of the variant."""

    variant: Literal["global", "full", "layerwise"] = "global"
    groups: int | None = Field(default=None, ge=1)
    meta_rate: float = Field(default=1e-5, ge=0)
    weight_decay_rate_scale: float = Field(default=0.01, ge=0)
    weight_decay_max: float | None = Field(default=None, gt=0)

    @model_validator(mode="after")
    def _groups_belong_to_layerwise(self) -> PublishedOptions:
        if (self.variant == "layerwise") != (self.groups is not None):
            raise ValueError("groups belongs to variant: layerwise, and only to it")
        if self.compare_exact and self.variant == "layerwise":
            raise ValueError("compare_exact: the published layer-wise update is that of no loss; take global or full")
        return self

    @property
    def ceiling(self) -> float:
        """The published one of the variant, unless another was given."""
        return self.weight_decay_max or CEILINGS[self.variant]

    @property
    def sets(self) -> oho.Sets:
        """What shares one value; of the layer-wise variant, what comes nearest."""
        return oho.Layerwise(self.groups) if self.groups else "full" if self.variant == "full" else "global"


@dataclass(kw_only=True)
class OnlineState(State):
    """A training in progress; the optimizer holds influence, hyperparameters and meta-state."""

    optimizer: Optimizer
    batches: Batches = remade()
    validation_batches: Batches = remade()
    options: InitialOptions = remade()
    twin: ExactTwin | None = None

    def scalars(self) -> dict[str, float]:
        """Norms of d(parameters)/d(hyperparameter); meta-steps skipped; steps with a limited influence."""
        norms = self.optimizer.influence_norm()
        counts = {f"skipped_{reason}": count for reason, count in self.optimizer.skipped.items()}
        counts["shortened"] = self.optimizer.shortened
        found = {f"influence_norm_{name}": norm for name, norm in norms.items()} | counts
        found |= self.twin.scalars() if self.twin else {}
        return {name: float(value) for name, value in found.items()}

    def closures(self, step: int, model: nn.Module | None = None) -> tuple[Closure, Closure]:
        """The training loss of a step, and the loss whose hypergradient it follows, of `model` or the run's own."""
        task, model = self.task, model or self.model
        train_loss = partial(task.training_loss, model, self.batches.at(step))
        if self.options.source == "training":
            return train_loss, train_loss
        # A validation batch is gathered only when a meta-step asks for it.
        return train_loss, lambda: task.validation_loss(model, self.validation_batches.at(step))

    def kick(self, kick: Kick) -> None:
        """All sets alike, within the bounds."""
        value = torch.as_tensor(kick.of(self.optimizer.hyper[kick.name]))
        if kick.name == "weight_decay":
            value = value.clamp(max=self.options.ceiling)
        self.optimizer.set_hyper(kick.name, value)
        self.hyper = values_of(self.optimizer)


class Online:
    """A training by the optimizer that `optimize` makes of the model, the initial values, the options and the seed."""

    def __init__(
        self,
        options: InitialOptions,
        space: Space,
        optimize: Callable[[nn.Module, Initial, Any, int], Optimizer],
    ):
        self.options, self.space, self.optimize = options, space.of(options.optimizer_name), optimize

    def init(self, task: Task, seed: int) -> OnlineState:
        """Open initial values are drawn from the space; the L2 coefficient starts no higher than its ceiling."""
        given = self.options.values()
        initial: Initial = {name: value for name, value in given.items() if value is not None}
        initial |= draw(self.space, [name for name in given if name not in initial], seed)
        initial["weight_decay"] = min(initial["weight_decay"], self.options.ceiling)
        model, options = task.model(seed), self.options
        optimizer = self.optimize(model, initial, options, seed)
        return OnlineState(
            task=task, seed=seed, model=model, hyper=dict(initial), options=options, optimizer=optimizer,
            batches=task.train_batches(seed),
            validation_batches=task.validation_batches(seed, options.validation_batch_size),
            twin=ExactTwin(model, optimizer, options.sets) if options.compare_exact else None,
        )  # fmt: skip

    def check(self, task: Task) -> None:
        """Raises ValueError where the sets do not fit the network."""
        self.init(task, seed=0)

    def advance(self, state: OnlineState, *, steps: int, progress: float, ledger: Ledger) -> None:
        """Updates with a meta-step each."""
        state.optimizer.on_phase = ledger.switch

        def update() -> Tensor:
            if state.twin is None:
                return state.optimizer.step(*state.closures(state.step))
            with ledger.account("evaluation"):
                state.twin.follow()
            loss = state.optimizer.step(*state.closures(state.step))
            with ledger.account("evaluation"):
                state.twin.compare(*state.closures(state.step, state.twin.model))
            return loss

        train(state, steps, ledger, update=update)
        state.hyper = values_of(state.optimizer)

    def restored(self, task: Task, seed: int, saved: Mapping[str, Any]) -> OnlineState:
        """Returns the training that was saved."""
        state = self.init(task, seed)
        state.restore(saved)
        return state


def values_of(optimizer: Optimizer) -> dict[str, list[float]]:
    """Present hyperparameters, one value a set."""
    return {name: values.tolist() for name, values in optimizer.hyper.items()}


def published_meta(model: nn.Module, initial: Initial, options: OnlineOptions, seed: int) -> oho.OHO:
    """Our recursion, exact or collapsed, with the published meta-step."""
    rates = {"lr": options.meta_rate, "weight_decay": options.meta_rate * options.weight_decay_rate_scale}
    bounds = {"lr": (0.0, math.inf), "weight_decay": (0.0, options.weight_decay_max)}
    return oho.OHO(
        model.named_parameters(),
        oho.SGD(initial["lr"], initial["weight_decay"], tune=options.tune, temperature=options.temperature),
        sets=options.sets,
        meta=oho.MetaSGD(rates, transform="raw", bounds=bounds),
        influence=options.mode,
        discount=options.discount,
        reset_every=options.reset_every,
        update_every=options.update_every,
        generator=stream(seed, "noise"),
    )


def defaults(model: nn.Module, initial: Initial, options: InitialOptions, seed: int) -> oho.OHO:
    """OHO as a user gets it who chooses nothing."""
    return oho.OHO(model.named_parameters(), oho.SGD(initial["lr"], initial["weight_decay"]))


def published_recursion(model: nn.Module, initial: Initial, options: PublishedOptions, seed: int) -> oho.PublishedOHO:
    """The published recursion."""
    return oho.PublishedOHO(
        model.named_parameters(),
        options.variant,
        options.groups,
        lr=initial["lr"],
        weight_decay=initial["weight_decay"],
        meta_lr=options.meta_rate,
        weight_decay_max=options.weight_decay_max,
        weight_decay_meta_scale=options.weight_decay_rate_scale,
    )


def _entry(description: str, label: str, options: type[InitialOptions], optimize: Callable[..., Optimizer]) -> MethodEntry:
    return MethodEntry(
        description=description, label=label, family="online", options=options,
        build=partial(Online, optimize=optimize), takes_kicks=True,
    )  # fmt: skip


GLOBAL = _entry(
    "exact online hypergradients, one learning rate and L2 coefficient", "Global OHO", OnlineOptions, published_meta
)
LAYERWISE = _entry(
    "one of each for the weights and the biases of every group of layers",
    "Layer-wise OHO",
    LayerwiseOptions,
    published_meta,
)
FULL = _entry("one of each for every parameter tensor", "Full OHO", FullOptions, published_meta)
DEFAULT = _entry("the defaults of the library: nothing to choose", "Default OHO", InitialOptions, defaults)
PUBLISHED = _entry(
    "the published recursion, defect by defect", "Published OHO", PublishedOptions, published_recursion
)


def is_online(entry: MethodEntry) -> bool:
    """Whether a method is an OHO training, whose schedule can be transplanted."""
    return issubclass(entry.options, InitialOptions)
