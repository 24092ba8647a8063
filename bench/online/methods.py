"""OHO as methods: one training whose hyperparameters follow the gradient of the validation loss."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

import oho
from bench.online.averaged_state import AveragedState, Optimizer
from bench.online.batched import BATCHING, published_recursion
from bench.online.exact_twin import ExactTwin
from bench.online.options import (
    AveragedOptions,
    DefaultOptions,
    FullOptions,
    GlobalOptions,
    LayerwiseOptions,
    OnlineOptions,
    PublishedOptions,
)
from bench.online.precision import at_precision
from bench.online.tuned_loss import Closure, loss_hyper, training_closure
from bench.protocol import (
    GRAPH,
    Batch,
    Batches,
    Capturing,
    Kick,
    Ledger,
    Method,
    MethodEntry,
    ReplayedNoise,
    Space,
    Task,
    draw,
    remade,
    stream,
    train,
    uses_stand_in,
)
from bench.protocol.state import NOT_SAVED
from bench.records.wandb_names import MOST_SINGLE_SETS

Initial = dict[str, float]
UNCHECKED = None
"""No product is compared at the first step, for the clock counts the method's own work.  `oho-bench audit` compares one."""


@dataclass(kw_only=True)
class OnlineState(AveragedState):
    """A training in progress; the optimizer holds influence, hyperparameters and meta-state."""

    batches: Batches = remade()
    validation_batches: Batches = remade()
    options: OnlineOptions = remade()
    twin: ExactTwin | None = None
    capturing: Capturing | None = field(default=None, metadata=NOT_SAVED)
    noise: ReplayedNoise | None = field(default=None, metadata=NOT_SAVED)
    captured: oho.CapturedStep | None = field(default=None, metadata=NOT_SAVED)
    """The optimizer's steps as a graph, if the task's engine is one and some steps were made."""

    def capture(self, ledger: Ledger) -> None:
        """Makes the steps from now on those of a graph."""
        if self.captured is None:
            task, model, fraction = self.task, self.model, self.options.curvature_part
            valid = task.training_loss if self.options.source == "training" else task.validation_loss
            self.capturing, self.noise = Capturing(ledger), (noise := ReplayedNoise(task.device))

            def loss_of_part(inputs: Tensor, targets: Tensor, *hyper: Mapping[str, Tensor]) -> Tensor:
                return task.training_loss(model, Batch(inputs, targets, noise).part(fraction or 1.0), *hyper)

            self.captured = oho.CapturedStep(
                self.optimizer,
                lambda inputs, targets, *hyper: task.training_loss(model, Batch(inputs, targets, noise), *hyper),
                at_precision(
                    self.options, task.device, lambda inputs, targets: valid(model, Batch(inputs, targets, noise))
                ),
                curvature=None if fraction is None else loss_of_part,
                generators=noise.generators,
                around=self.capturing,
                stand_in=uses_stand_in(task),
            )
        assert self.capturing is not None
        self.capturing.ledger = ledger

    def captured_step(self) -> Tensor:
        """Makes one step as a graph."""
        assert self.captured is not None
        assert self.noise is not None
        self.noise.begin(self.batches.noise(self.step))
        batches = self.batches if self.options.source == "training" else self.validation_batches
        return self.captured(self.batches.at(self.step)[:2], lambda: batches.at(self.step)[:2])

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
        train_loss = training_closure(task, model, batch, self.options.tuned_of_loss)
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
        return {"curvature_closure": training_closure(self.task, self.model, batch, self.options.tuned_of_loss)}

    def kick(self, kick: Kick) -> None:
        """Changes all sets alike, within the bounds."""
        present = self.optimizer.hyper[kick.name]
        low, high = self.options.bounds[kick.name]
        value = torch.as_tensor(kick.of(present), dtype=present.dtype, device=present.device)
        self.optimizer.set_hyper(kick.name, value.clamp(low, min(high, torch.finfo(value.dtype).max)))
        self.hyper = values_of(self.optimizer)


class Online(Method):
    """A training by the optimizer that `optimize` makes of the model, the initial values, the options, the seed, and what
    is tuned of the training loss."""

    def __init__(
        self,
        options: OnlineOptions,
        space: Space,
        optimize: Callable[[nn.Module, Initial, Any, int, oho.LossHyper | None], Optimizer],
    ):
        self.options, self.space, self.optimize = options, space.of(options.optimizer_name), optimize

    def init(self, task: Task, seed: int) -> OnlineState:
        """Draws open initial values from the space; the L2 coefficient starts no higher than its ceiling.

        Raises:
            ValueError: for a hyperparameter of the training loss that the task does not offer.
        """
        given = self.options.values()
        initial: Initial = {name: value for name, value in given.items() if value is not None}
        initial |= draw(self.space, [name for name in given if name not in initial], seed)
        initial["weight_decay"] = min(initial["weight_decay"], self.options.bounds["weight_decay"][1])
        model, options = task.model(seed), self.options
        loss = loss_hyper(task, options.tuned_of_loss)
        optimizer = self.optimize(model, initial, options, seed, loss)
        hyper = initial | ({} if loss is None else {name: float(value) for name, value in loss.values.items()})
        return OnlineState(
            task=task, seed=seed, model=model, hyper=hyper, options=options, optimizer=optimizer,
            batches=task.train_batches(seed),
            validation_batches=task.validation_batches(seed, options.validation_batch_size),
            twin=ExactTwin(model, optimizer, options.sets, loss) if options.compare_exact else None,
        )  # fmt: skip

    def check(self, task: Task) -> None:
        """Raises ValueError where the sets do not fit the network, or the task does not offer what is tuned of its loss."""
        self.init(task, seed=0)

    def advance(self, state: OnlineState, *, steps: int, progress: float, ledger: Ledger) -> None:
        """Makes updates with a meta-step each."""
        state.optimizer.on_phase = ledger.switch

        def update() -> Tensor:
            if state.captured is not None:
                return state.captured_step()
            if state.twin is None:
                return state.optimizer.step(*state.closures(state.step), **state.part(state.step))
            with ledger.account("evaluation"):
                state.twin.follow()
            loss = state.optimizer.step(*state.closures(state.step), **state.part(state.step))
            with ledger.account("evaluation"):
                state.twin.compare(*state.closures(state.step, state.twin.model))
            return loss

        state.training()
        if state.task.engine == GRAPH:
            state.capture(ledger)
        train(state, steps, ledger, update=update, settle=state.evaluation)
        state.hyper = values_of(state.optimizer)


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


def published_meta(
    model: nn.Module, initial: Initial, options: GlobalOptions, seed: int, loss: oho.LossHyper | None
) -> oho.OHO:
    """Makes our recursion, exact or collapsed, with the published meta-step."""
    return oho.OHO(
        model.named_parameters(),
        options.rule(initial, tune=options.tune, temperature=options.temperature),
        loss=loss,
        sets=options.sets,
        meta=oho.MetaSGD(options.rates, transform="raw", bounds=options.bounds),
        influence=options.mode,
        discount=options.discount,
        influence_limit=options.influence_limit,
        average=options.kind_of_average,
        present_share=options.present_share,
        reset_every=options.reset_every,
        update_every=options.update_every,
        first_updates=options.first_updates,
        tuned_steps=options.tuned_steps,
        generator=stream(seed, "noise"),
        check=UNCHECKED,
    )


def defaults(
    model: nn.Module, initial: Initial, options: DefaultOptions, seed: int, loss: oho.LossHyper | None,
    *, made: Callable[..., oho.OHO] = oho.OHO,
) -> oho.OHO:  # fmt: skip
    """Makes what a user gets who chooses nothing but the update rule."""
    return made(
        model.named_parameters(), options.rule(initial, tune=options.tune), loss=loss, average=options.kind_of_average,
        present_share=options.present_share, update_every=options.update_every,
        first_updates=options.first_updates, tuned_steps=options.tuned_steps, check=UNCHECKED,
    )  # fmt: skip


averaged = partial(defaults, made=oho.averaged)
"""Makes `oho.averaged`."""


def published(
    model: nn.Module, initial: Initial, options: PublishedOptions, seed: int, loss: None
) -> oho.PublishedOHO:
    """Makes the published recursion, which tunes nothing of the loss."""
    return published_recursion(model.named_parameters(), initial, options)


def captures(options: OnlineOptions) -> str:
    """Returns why steps of these options cannot be captured as a graph; nothing if they can."""
    if options.compare_exact:
        return "compare_exact is for eager steps"
    return "noise is drawn by the CPU (temperature)" if getattr(options, "temperature", 0.0) else ""


def _entry(
    description: str, label: str, options: type[OnlineOptions], optimize: Callable[..., Optimizer],
    captures: bool | Callable[[Any], str] = captures,
) -> MethodEntry:  # fmt: skip
    return MethodEntry(
        description=description, label=label, family="online", options=options,
        build=partial(Online, optimize=optimize), takes_kicks=True, batching=BATCHING,
        captures=captures,
    )  # fmt: skip


GLOBAL = _entry(
    "exact online hypergradients, one value of each hyperparameter", "Global OHO", GlobalOptions, published_meta
)
LAYERWISE = _entry(
    "one value each for the weights and the biases of every group of layers",
    "Layer-wise OHO",
    LayerwiseOptions,
    published_meta,
)
FULL = _entry("one value for every parameter tensor", "Full OHO", FullOptions, published_meta)
DEFAULT = _entry("the defaults of the library, over any optimizer", "Default OHO", DefaultOptions, defaults)
AVERAGED = _entry(
    "online hypergradients for an average of the weights, at the cost of few plain steps", "Averaged OHO", AveragedOptions,
    averaged,
)  # fmt: skip
PUBLISHED = _entry(
    "the published recursion, defect by defect", "Published OHO", PublishedOptions, published, captures=False
)


def is_online(entry: MethodEntry) -> bool:
    """Returns whether a method is an OHO training, whose schedule can be transplanted."""
    return issubclass(entry.options, OnlineOptions)
