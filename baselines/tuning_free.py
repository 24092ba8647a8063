"""Methods that find a learning rate by themselves or need no schedule: published packages, and those of `hypergradient`.

A package is imported where it is needed; `pip install 'oho-bench[baselines]'` installs them all.
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
from baselines.hypergradient import HeavyBallHypergradient, HypergradientDescent, Scaling, UltimateStepper
from baselines.optimizers import Closure, Stepper, TorchStepper
from baselines.training import Training
from bench.protocol import MethodEntry, Package, packed, unpacked


def _package(distribution: str, module: str) -> Package:
    return Package(distribution, module, extra="baselines")


class TuningFreeOptions(schedules.Constant):
    """A weight decay and, in some, an initial learning rate; null is drawn from the experiment's space, by the seed."""

    package: ClassVar[Package | None] = None

    weight_decay: float | None = Field(default=None, ge=0)

    @property
    def initial_lr(self) -> float | None:
        """Nothing is scheduled: optimizers are made with their initial learning rate and go by their own."""
        return None

    def values(self) -> dict[str, float | None]:
        """Learning rate, where there is one to choose, and weight decay."""
        fields = type(self).model_fields
        return {name: getattr(self, name) for name in ("lr", "weight_decay") if name in fields}

    def stepper(self, model: nn.Module) -> Stepper:
        """The optimizer, with no value left open; ValueError if its package is not installed."""
        raise NotImplementedError

    def _import(self) -> Any:
        """The package's module."""
        assert self.package is not None
        if self.package.missing:
            raise ValueError(self.package.missing)
        return importlib.import_module(self.package.module)

    def _filled(self) -> dict[str, Any]:
        """As `values`, of which none is open."""
        return dict(self.values())


def _nothing() -> None:
    pass


class PackageStepper:
    """A package's optimizer, used as those of torch are; `lr` finds its present learning rate, where it adapts one.

    If `scheduled`, the learning rate it is given is a factor on what it finds.

    `noted` are attributes of objects, and `averages` tensors, that are state beside the optimizer's own.

    If it answers with an average of what it trains, `follow` updates that average after an update, `show` puts it into the
    model, and `hide` ends this.  What is trained is kept meanwhile and put back bit by bit, so that a training does not
    depend on how often it is looked at.
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
        """One update."""
        value = self._torch.step(loss, lr if self._scheduled else None)
        self._follow()
        return value

    def training(self) -> None:
        """The model takes back what is trained."""
        self._hide()
        if self._trained:
            _fill(self._parameters, self._trained)

    def evaluation(self) -> None:
        """The model takes the average, if there is one."""
        if self._show:
            self._trained = [parameter.detach().clone() for parameter in self._parameters]
            self._show()

    def hyper(self) -> dict[str, float]:
        """The learning rate it found."""
        return {"lr": float(self._lr(self._torch.optimizer))} if self._lr else {}

    def assign(self, name: str, value: float) -> None:
        """Into every group."""
        self._torch.assign(name, value)

    def saved(self) -> dict[str, Any]:
        """The optimizer's, and what is kept beside it."""
        return {
            "optimizer": self._torch.saved(), "trained": packed(self._trained), "averages": packed(self._averages),
            "noted": [getattr(owner, name) for owner, name in self._noted],
        }  # fmt: skip

    def restore(self, saved: dict[str, Any]) -> None:
        """The same."""
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
    """What finds a learning rate, and may have a schedule that multiplies it, as its authors advise; constant by default,
    since a cosine knows the budget."""

    schedule: Literal["constant", "cosine"] = "constant"

    @property
    def spans_budget(self) -> bool:  # type: ignore[override]
        """Whether the schedule knows the budget."""
        return self.schedule == "cosine"

    def details(self) -> list[str]:
        """The schedule, if there is one."""
        return [] if self.schedule == "constant" else [self.schedule]

    @property
    def initial_lr(self) -> float | None:
        """The factor 1."""
        return 1.0

    def factor(self, place: schedules.Place) -> float:
        """1, or half a cosine from 1 to 0."""
        return schedules.falling(place.progress) if self.schedule == "cosine" else 1.0


class ProdigyOptions(FactorOptions):
    """Prodigy with the package's defaults (Mishchenko and Defazio, 2024, arXiv 2306.06101): weight decay is decoupled."""

    optimizer_name: ClassVar[str] = "prodigy"
    package: ClassVar[Package | None] = _package("prodigyopt", "prodigyopt")

    def stepper(self, model: nn.Module) -> Stepper:
        """prodigyopt.Prodigy.  The learning rate is its estimate d of the distance."""
        # The weight decay is the group's: the constructor prints a line about its own argument.
        group = {"params": list(model.parameters()), "weight_decay": self.weight_decay}
        optimizer = self._import().Prodigy([group])
        return PackageStepper(optimizer, lr=lambda optimizer: optimizer.param_groups[0]["d"], scheduled=True)


class MechanicOptions(FactorOptions):
    """Mechanic with the package's defaults (Cutkosky et al., 2023, arXiv 2306.00144) around `base` with a rate of 1."""

    optimizer_name: ClassVar[str] = "mechanic"
    package: ClassVar[Package | None] = _package("mechanic-pytorch", "mechanic_pytorch")

    base: Literal["adamw", "sgd"] = "adamw"

    def stepper(self, model: nn.Module) -> Stepper:
        """mechanize(AdamW) or mechanize(SGD).  The learning rate is the sum of its scales s."""
        base = {"adamw": torch.optim.AdamW, "sgd": torch.optim.SGD}[self.base]
        optimizer = self._import().mechanize(base)(model.parameters(), lr=1.0, weight_decay=self.weight_decay)
        return PackageStepper(optimizer, lr=lambda optimizer: optimizer.state["_mechanic"]["s"].sum(), scheduled=True)


class DogOptions(TuningFreeOptions):
    """DoG with polynomial-decay averaging (Ivgi, Hinder, Carmon, 2023, arXiv 2302.12022), L2 penalty in the gradient.

    `initial_distance` is the length of the first step over 1 + |x₀|, the package's `reps_rel`; null is what the package
    suggests: 1e-4 for a model with batch normalisation, 1e-6 for any other.
    """

    optimizer_name: ClassVar[str] = "dog"
    package: ClassVar[Package | None] = _package("dog-optimizer", "dog")
    optimizer_class: ClassVar[str] = "DoG"

    initial_distance: float | None = Field(default=None, gt=0)

    def stepper(self, model: nn.Module) -> Stepper:
        """dog.DoG with its PolynomialDecayAverager.  The learning rate is η, in L-DoG its mean over the tensors."""
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
    """L-DoG: the same for each parameter tensor by itself."""

    optimizer_name: ClassVar[str] = "ldog"
    optimizer_class: ClassVar[str] = "LDoG"


class ScheduleFreeOptions(TuningFreeOptions):
    """Schedule-free SGD (Defazio et al., 2024, arXiv 2405.15682), L2 penalty in the gradient.

    `beta` says where gradients are taken: 1 is at the average, 0 at what SGD alone would train.
    """

    optimizer_name: ClassVar[str] = "schedule-free-sgd"
    package: ClassVar[Package | None] = _package("schedulefree", "schedulefree")

    lr: float | None = Field(default=None, gt=0)
    beta: float = Field(default=0.9, gt=0, lt=1)
    warmup_steps: int = Field(default=0, ge=0)

    def stepper(self, model: nn.Module) -> Stepper:
        """schedulefree.SGDScheduleFree or AdamWScheduleFree."""
        optimizer = self._make(model.parameters(), warmup_steps=self.warmup_steps, **self._filled())
        return PackageStepper(optimizer, show=optimizer.eval, hide=optimizer.train)

    def _make(self, parameters: Iterable[nn.Parameter], **common: Any) -> Any:
        return self._import().SGDScheduleFree(parameters, momentum=self.beta, **common)


class ScheduleFreeAdamWOptions(ScheduleFreeOptions):
    """The same with AdamW, weight decay decoupled."""

    optimizer_name: ClassVar[str] = "schedule-free-adamw"

    def _make(self, parameters: Iterable[nn.Parameter], **common: Any) -> Any:
        return self._import().AdamWScheduleFree(parameters, betas=(self.beta, 0.999), **common)


class UltimateOptions(TuningFreeOptions):
    """Gradient descent, the ultimate optimizer (Chandra et al., 2022, arXiv 1909.13371): SGD tunes `base`, L2 penalty.

    `meta_rate` is the learning rate of the upper SGD; null is its authors' on MNIST: 1e-5 above Adam, 0.01 above SGD.
    """

    optimizer_name: ClassVar[str] = "gdtuo"
    package: ClassVar[Package | None] = _package(
        "gradient-descent-the-ultimate-optimizer", "gradient_descent_the_ultimate_optimizer.gdtuo"
    )

    lr: float | None = Field(default=None, gt=0)
    base: Literal["sgd", "adam"] = "adam"
    meta_rate: float | None = Field(default=None, gt=0)

    def stepper(self, model: nn.Module) -> Stepper:
        """gdtuo.ModuleWrapper around gdtuo.SGD or Adam."""
        gdtuo = self._import()
        base, usual = {"sgd": (gdtuo.SGD, 0.01), "adam": (gdtuo.Adam, 1e-5)}[self.base]
        tuned = base(alpha=self.lr, optimizer=gdtuo.SGD(self.meta_rate or usual))
        return UltimateStepper(gdtuo.ModuleWrapper(model, optimizer=tuned), self._filled()["weight_decay"])


class HypergradientDescentOptions(TuningFreeOptions):
    """SGD-HD; `meta_rate` is the published one of SGD on MNIST (Baydin et al., 2018)."""

    optimizer_name: ClassVar[str] = "hypergradient-descent"

    lr: float | None = Field(default=None, gt=0)
    meta_rate: float = Field(default=1e-3, ge=0)

    def stepper(self, model: nn.Module) -> Stepper:
        """HypergradientDescent."""
        return HypergradientDescent(model, meta_rate=self.meta_rate, **self._filled())


class HeavyBallOptions(TuningFreeOptions):
    """HDM-HB; `meta_rate` is AdaGrad's, in units of the learning rate, `scaling` one rate or one for each parameter."""

    optimizer_name: ClassVar[str] = "hdm"

    lr: float | None = Field(default=None, gt=0)
    meta_rate: float = Field(default=0.1, gt=0)
    scaling: Scaling = "diagonal"

    def stepper(self, model: nn.Module) -> Stepper:
        """HeavyBallHypergradient."""
        return HeavyBallHypergradient(model, meta_rate=self.meta_rate, scaling=self.scaling, **self._filled())


def _entry(description: str, label: str, options: type[TuningFreeOptions], family: str = "tuning-free") -> MethodEntry:
    return MethodEntry(
        description=description, label=label, family=family, options=options, build=Training, takes_kicks=True,
        package=options.package,
    )  # fmt: skip


PRODIGY = _entry("Adam that estimates the distance to the solution", "Prodigy", ProdigyOptions)
SCHEDULE_FREE_SGD = _entry("SGD evaluated at an average of its iterates", "Schedule-Free SGD", ScheduleFreeOptions)
SCHEDULE_FREE_ADAMW = _entry(
    "AdamW evaluated at an average of its iterates", "Schedule-Free AdamW", ScheduleFreeAdamWOptions
)
DOG = _entry("distance over gradients, averaged", "DoG", DogOptions)
LDOG = _entry("the same for each parameter tensor", "L-DoG", LayerwiseDogOptions)
MECHANIC = _entry("AdamW or SGD with a learned scale", "Mechanic", MechanicOptions)
GDTUO = _entry(
    "gradient descent, the ultimate optimizer: SGD tunes what Adam or SGD has", "GDTUO", UltimateOptions, "one-step"
)
HYPERGRADIENT_DESCENT = _entry(
    "SGD-HD, one-step hypergradients", "Hypergradient descent", HypergradientDescentOptions, "one-step"
)
HDM = _entry(
    "HDM with heavy ball, normalised hypergradients on each batch", "HDM", HeavyBallOptions, "one-step"
)
