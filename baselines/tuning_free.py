"""Methods that find a learning rate by themselves or need no schedule: published packages, and those of `hypergradient`.

A package is imported only when it is needed; `pip install 'oho-bench[baselines]'` installs them all.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from baselines import schedules
from baselines.batched_hypergradient import DESCENT, HEAVY_BALL
from baselines.hypergradient import HeavyBallHypergradient, HypergradientDescent, Scaling, UltimateStepper
from baselines.optimizers import Closure, Stepper, TorchStepper
from baselines.training import Training
from bench.protocol import Batching, MethodEntry, Package, packed, unpacked


def _package(distribution: str, module: str) -> Package:
    return Package(distribution, module, extra="baselines")


class TuningFreeOptions(schedules.Constant):
    """A weight decay and, for some methods, an initial learning rate; null is drawn from the space by the seed."""

    package: ClassVar[Package | None] = None

    weight_decay: float | None = Field(default=None, ge=0)

    @property
    def initial_lr(self) -> float | None:
        """Returns None: optimizers receive their initial learning rate when they are made, and nothing is scheduled."""
        return None

    def values(self) -> dict[str, float | None]:
        """Returns the weight decay and, if there is one to choose, the learning rate."""
        fields = type(self).model_fields
        return {name: getattr(self, name) for name in ("lr", "weight_decay") if name in fields}

    def stepper(self, model: nn.Module) -> Stepper:
        """Returns the optimizer, for which no value may be open.  Raises ValueError if its package is not installed."""
        raise NotImplementedError

    def _import(self) -> Any:
        """Returns the package's module."""
        assert self.package is not None
        if self.package.missing:
            raise ValueError(self.package.missing)
        return importlib.import_module(self.package.module)

    def _filled(self) -> dict[str, Any]:
        """Returns `values`, none of which may be open."""
        return dict(self.values())


def _nothing() -> None:
    pass


class PackageStepper:
    """A stepper for a package's optimizer, which is used like one of torch.

    `lr` finds the learning rate that the optimizer adapts, if it adapts one.  If `scheduled`, the learning rate passed to
    `step` is a factor on that one.

    `noted` are attributes of objects, and `averages` are tensors, that hold state beside the optimizer's own.

    If the optimizer returns an average of what it trains, `follow` updates that average after an update, `show` puts it
    into the model, and `hide` ends this.  The trained parameters are kept in the meantime and put back bit by bit, so that
    a training does not depend on how often it is evaluated.
    """

    def __init__(
        self, optimizer: Any, *, lr: Callable[[Any], Any] | None = None, follow: Callable[[], object] = _nothing,
        show: Callable[[], object] | None = None, hide: Callable[[], object] = _nothing, scheduled: bool = False,
        noted: Sequence[tuple[Any, str]] = (), averages: Iterable[Tensor] = (),
    ):  # fmt: skip
        self._scheduled = scheduled
        self._torch, self._lr, self._follow, self._show, self._hide = TorchStepper(optimizer), lr, follow, show, hide
        self._noted, self._averages = noted, list(averages)
        self._parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        self._trained: list[Tensor] = []

    def step(self, loss: Closure, lr: float | None) -> Tensor:
        """Makes one update."""
        value = self._torch.step(loss, lr if self._scheduled else None)
        self._follow()
        return value

    def training(self) -> None:
        """Puts the trained parameters back into the model."""
        self._hide()
        if self._trained:
            _fill(self._parameters, self._trained)

    def evaluation(self) -> None:
        """Puts the average, if there is one, into the model."""
        if self._show:
            self._trained = [parameter.detach().clone() for parameter in self._parameters]
            self._show()

    def hyper(self) -> dict[str, float]:
        """Returns the learning rate that the optimizer found."""
        return {"lr": float(self._lr(self._torch.optimizer))} if self._lr else {}

    def assign(self, name: str, value: float) -> None:
        """Sets the value in every parameter group that has the hyperparameter."""
        self._torch.assign(name, value)

    def saved(self) -> dict[str, Any]:
        """Returns the optimizer's state and what is kept beside it."""
        return {
            "optimizer": self._torch.saved(), "trained": packed(self._trained), "averages": packed(self._averages),
            "noted": [getattr(owner, name) for owner, name in self._noted],
        }  # fmt: skip

    def restore(self, saved: dict[str, Any]) -> None:
        """Restores what `saved` returned."""
        self._torch.restore(saved["optimizer"])
        self._trained = unpacked(saved["trained"])
        _fill(self._averages, saved["averages"])
        for (owner, name), value in zip(self._noted, saved["noted"], strict=True):
            setattr(owner, name, value)


@torch.no_grad()
def _fill(parameters: Iterable[Tensor], values: Iterable[Tensor]) -> None:
    for parameter, value in zip(parameters, values, strict=True):
        parameter.copy_(value)


class FactorOptions(TuningFreeOptions):
    """Options of a method that finds a learning rate, with an optional schedule that multiplies it, as its authors advise.

    The schedule is constant by default, because a cosine depends on the budget.
    """

    schedule: Literal["constant", "cosine"] = "constant"

    @property
    def spans_budget(self) -> bool:  # type: ignore[override]
        """Returns whether the schedule depends on the budget."""
        return self.schedule == "cosine"

    def details(self) -> list[str]:
        """Returns the schedule, unless it is constant."""
        return [] if self.schedule == "constant" else [self.schedule]

    @property
    def initial_lr(self) -> float | None:
        """Returns the factor 1."""
        return 1.0

    def factor(self, place: schedules.Place) -> float:
        """Returns 1, or half a cosine from 1 to 0."""
        return schedules.falling(place.progress) if self.schedule == "cosine" else 1.0


class ProdigyOptions(FactorOptions):
    """Prodigy with the package's defaults (Mishchenko and Defazio, 2024, arXiv 2306.06101); weight decay is decoupled."""

    optimizer_name: ClassVar[str] = "prodigy"
    package: ClassVar[Package | None] = _package("prodigyopt", "prodigyopt")

    def stepper(self, model: nn.Module) -> Stepper:
        """Returns a prodigyopt.Prodigy, whose estimate d of the distance is the learning rate."""
        # The weight decay goes into the group, because the constructor prints a line about its own argument.
        group = {"params": list(model.parameters()), "weight_decay": self.weight_decay}
        optimizer = self._import().Prodigy([group])
        return PackageStepper(optimizer, lr=lambda optimizer: optimizer.param_groups[0]["d"], scheduled=True)


class MechanicOptions(FactorOptions):
    """Mechanic with the package's defaults (Cutkosky et al., 2023, arXiv 2306.00144) around `base` with a rate of 1."""

    optimizer_name: ClassVar[str] = "mechanic"
    package: ClassVar[Package | None] = _package("mechanic-pytorch", "mechanic_pytorch")

    base: Literal["adamw", "sgd"] = "adamw"

    def stepper(self, model: nn.Module) -> Stepper:
        """Returns mechanize(AdamW) or mechanize(SGD), whose learning rate is the sum of its scales s."""
        base = {"adamw": torch.optim.AdamW, "sgd": torch.optim.SGD}[self.base]
        optimizer = self._import().mechanize(base)(model.parameters(), lr=1.0, weight_decay=self.weight_decay)
        return PackageStepper(optimizer, lr=lambda optimizer: optimizer.state["_mechanic"]["s"].sum(), scheduled=True)


class DogOptions(TuningFreeOptions):
    """DoG with polynomial-decay averaging (Ivgi, Hinder, Carmon, 2023, arXiv 2302.12022) and an L2 penalty in the gradient.

    `initial_distance`, the package's `reps_rel`, is the length of the first step over 1 + |x₀|.  Null means what the
    package suggests: 1e-4 for a model with batch normalisation, 1e-6 for any other.
    """

    optimizer_name: ClassVar[str] = "dog"
    package: ClassVar[Package | None] = _package("dog-optimizer", "dog")
    optimizer_class: ClassVar[str] = "DoG"

    initial_distance: float | None = Field(default=None, gt=0)

    def stepper(self, model: nn.Module) -> Stepper:
        """Returns a dog.DoG with its PolynomialDecayAverager.  The learning rate is η; for L-DoG, its mean over tensors."""
        dog = self._import()
        normalised = any("BatchNorm" in type(module).__name__ for module in model.modules())
        distance = self.initial_distance or (1e-4 if normalised else 1e-6)
        make, averager = getattr(dog, self.optimizer_class), dog.PolynomialDecayAverager(model)
        optimizer = make(model.parameters(), reps_rel=distance, weight_decay=self.weight_decay)
        show = partial(_fill, list(model.parameters()), list(averager.averaged_model.parameters()))
        return PackageStepper(
            optimizer, lr=_mean_eta, follow=averager.step, show=show, noted=((optimizer, "_first_step"), (averager, "t")),
            averages=averager.averaged_model.state_dict().values(),
        )  # fmt: skip


def _mean_eta(optimizer: torch.optim.Optimizer) -> Tensor:
    return torch.stack(optimizer.param_groups[0]["eta"]).mean()


class LayerwiseDogOptions(DogOptions):
    """L-DoG, which is DoG for each parameter tensor by itself."""

    optimizer_name: ClassVar[str] = "ldog"
    optimizer_class: ClassVar[str] = "LDoG"


class ScheduleFreeOptions(TuningFreeOptions):
    """Schedule-free SGD (Defazio et al., 2024, arXiv 2405.15682) with an L2 penalty in the gradient.

    `beta` says where gradients are taken: 1 is the average, 0 is the point that SGD alone would train.
    """

    optimizer_name: ClassVar[str] = "schedule-free-sgd"
    package: ClassVar[Package | None] = _package("schedulefree", "schedulefree")

    lr: float | None = Field(default=None, gt=0)
    beta: float = Field(default=0.9, gt=0, lt=1)
    warmup_steps: int = Field(default=0, ge=0)

    def stepper(self, model: nn.Module) -> Stepper:
        """Returns a schedulefree.SGDScheduleFree or AdamWScheduleFree."""
        optimizer = self._make(model.parameters(), warmup_steps=self.warmup_steps, **self._filled())
        return PackageStepper(optimizer, show=optimizer.eval, hide=optimizer.train)

    def _make(self, parameters: Iterable[nn.Parameter], **common: Any) -> Any:
        return self._import().SGDScheduleFree(parameters, momentum=self.beta, **common)


class ScheduleFreeAdamWOptions(ScheduleFreeOptions):
    """Schedule-free AdamW, with decoupled weight decay."""

    optimizer_name: ClassVar[str] = "schedule-free-adamw"

    def _make(self, parameters: Iterable[nn.Parameter], **common: Any) -> Any:
        return self._import().AdamWScheduleFree(parameters, betas=(self.beta, 0.999), **common)


class UltimateOptions(TuningFreeOptions):
    """Gradient descent, the ultimate optimizer (Chandra et al., 2022, arXiv 1909.13371): SGD tunes `base`.

    The L2 penalty is part of the loss.  `meta_rate` is the learning rate of the upper SGD; null means its authors' rate on
    MNIST: 1e-5 above Adam, 0.01 above SGD.
    """

    optimizer_name: ClassVar[str] = "gdtuo"
    package: ClassVar[Package | None] = _package(
        "gradient-descent-the-ultimate-optimizer", "gradient_descent_the_ultimate_optimizer.gdtuo"
    )

    lr: float | None = Field(default=None, gt=0)
    base: Literal["sgd", "adam"] = "adam"
    meta_rate: float | None = Field(default=None, gt=0)

    def stepper(self, model: nn.Module) -> Stepper:
        """Returns a gdtuo.ModuleWrapper around gdtuo.SGD or gdtuo.Adam."""
        gdtuo = self._import()
        base, usual = {"sgd": (gdtuo.SGD, 0.01), "adam": (gdtuo.Adam, 1e-5)}[self.base]
        tuned = base(alpha=self.lr, optimizer=gdtuo.SGD(self.meta_rate or usual))
        return UltimateStepper(gdtuo.ModuleWrapper(model, optimizer=tuned), self._filled()["weight_decay"])


class HypergradientDescentOptions(TuningFreeOptions):
    """SGD-HD; the default `meta_rate` is the published one for SGD on MNIST (Baydin et al., 2018)."""

    optimizer_name: ClassVar[str] = "hypergradient-descent"

    lr: float | None = Field(default=None, gt=0)
    meta_rate: float = Field(default=1e-3, ge=0)

    def stepper(self, model: nn.Module) -> Stepper:
        """Returns a HypergradientDescent."""
        return HypergradientDescent(model, meta_rate=self.meta_rate, **self._filled())


class HeavyBallOptions(TuningFreeOptions):
    """HDM-HB; `meta_rate` is AdaGrad's, in units of the learning rate.

    `scaling` chooses one learning rate, or one for each parameter.
    """

    optimizer_name: ClassVar[str] = "hdm"

    lr: float | None = Field(default=None, gt=0)
    meta_rate: float = Field(default=0.1, gt=0)
    scaling: Scaling = "diagonal"

    def stepper(self, model: nn.Module) -> Stepper:
        """Returns a HeavyBallHypergradient."""
        return HeavyBallHypergradient(model, meta_rate=self.meta_rate, scaling=self.scaling, **self._filled())


def _entry(
    description: str, label: str, options: type[TuningFreeOptions], family: str = "tuning-free",
    batching: Batching | None = None,
) -> MethodEntry:  # fmt: skip
    return MethodEntry(
        description=description, label=label, family=family, options=options, build=Training, takes_kicks=True,
        package=options.package, batching=batching,
    )  # fmt: skip


PRODIGY = _entry("Adam that estimates the distance to the solution", "Prodigy", ProdigyOptions)
SCHEDULE_FREE_SGD = _entry("SGD evaluated at an average of its iterates", "Schedule-Free SGD", ScheduleFreeOptions)
SCHEDULE_FREE_ADAMW = _entry(
    "AdamW evaluated at an average of its iterates", "Schedule-Free AdamW", ScheduleFreeAdamWOptions
)
DOG = _entry("distance over gradients, averaged", "DoG", DogOptions)
LDOG = _entry("distance over gradients for each parameter tensor, averaged", "L-DoG", LayerwiseDogOptions)
MECHANIC = _entry("AdamW or SGD with a learned scale", "Mechanic", MechanicOptions)
GDTUO = _entry(
    "gradient descent, the ultimate optimizer: SGD tunes Adam or SGD", "GDTUO", UltimateOptions, "one-step"
)
HYPERGRADIENT_DESCENT = _entry(
    "SGD-HD, one-step hypergradients", "Hypergradient descent", HypergradientDescentOptions, "one-step", DESCENT
)
HDM = _entry(
    "HDM with a heavy ball and normalised hypergradients on each batch", "HDM", HeavyBallOptions, "one-step",
    HEAVY_BALL,
)
