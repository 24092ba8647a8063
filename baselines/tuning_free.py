"""Tuning-free methods: optimizers that need no learning rate, or no schedule.  Most come from their authors' packages."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from baselines.distance_estimates import GraphDAdaptation, GraphProdigy
from baselines.dog import GraphDog
from baselines.dowg import DistanceOverWeightedGradients
from baselines.optimizers import Stepper, trained_parameters
from baselines.package_stepper import PackageStepper, fill
from baselines.schedule_free import GraphScheduleFree
from baselines.self_tuning import FactorOptions, TuningFreeOptions, needed, self_tuning_entry
from bench.protocol import Package


class ProdigyOptions(FactorOptions):
    """Prodigy with the package's defaults (Mishchenko and Defazio, 2024, arXiv 2306.06101); weight decay is decoupled."""

    optimizer_name: ClassVar[str] = "prodigy"
    package: ClassVar[Package | None] = needed("prodigyopt", "prodigyopt")

    def stepper(self, model: nn.Module) -> Stepper:
        """Returns a prodigyopt.Prodigy, whose estimate d of the distance is the learning rate."""
        # The weight decay goes into the group, because the constructor prints a line about its own argument.
        group = {"params": list(model.parameters()), "weight_decay": self.weight_decay}
        optimizer = self.imported().Prodigy([group])
        return PackageStepper(optimizer, lr=lambda optimizer: optimizer.param_groups[0]["d"], scheduled=True)

    def graph_stepper(self, model: nn.Module) -> Stepper:
        """Returns a GraphProdigy."""
        return GraphProdigy(model, **self.filled())


class DAdaptationOptions(FactorOptions):
    """Adam with D-Adaptation (Defazio and Mishchenko, 2023, arXiv 2301.07733); weight decay is decoupled."""

    optimizer_name: ClassVar[str] = "d-adaptation"
    package: ClassVar[Package | None] = needed("pytorch-optimizer", "pytorch_optimizer")

    def stepper(self, model: nn.Module) -> Stepper:
        """Returns a pytorch_optimizer.DAdaptAdam, whose estimate d of the distance is the learning rate."""
        optimizer = self.imported().DAdaptAdam(model.parameters(), weight_decouple=True, **self.filled())
        return PackageStepper(optimizer, lr=lambda optimizer: optimizer.param_groups[0]["d"], scheduled=True)

    def graph_stepper(self, model: nn.Module) -> Stepper:
        """Returns a GraphDAdaptation."""
        return GraphDAdaptation(model, **self.filled())


class MechanicOptions(FactorOptions):
    """Mechanic with the package's defaults (Cutkosky et al., 2023, arXiv 2306.00144) around `base` with a rate of 1."""

    optimizer_name: ClassVar[str] = "mechanic"
    package: ClassVar[Package | None] = needed("mechanic-pytorch", "mechanic_pytorch")

    base: Literal["adamw", "sgd"] = "adamw"

    def stepper(self, model: nn.Module) -> Stepper:
        """Returns mechanize(AdamW) or mechanize(SGD), whose learning rate is the sum of its scales s."""
        base = {"adamw": torch.optim.AdamW, "sgd": torch.optim.SGD}[self.base]
        optimizer = self.imported().mechanize(base)(model.parameters(), lr=1.0, weight_decay=self.weight_decay)
        return PackageStepper(optimizer, lr=lambda optimizer: optimizer.state["_mechanic"]["s"].sum(), scheduled=True)


class DogOptions(TuningFreeOptions):
    """DoG with polynomial-decay averaging (Ivgi, Hinder, Carmon, 2023, arXiv 2302.12022) and an L2 penalty in the gradient.

    `initial_distance`, the package's `reps_rel`, is the length of the first step over 1 + |x₀|.  Null means what the
    package suggests: 1e-4 for a model with batch normalisation, 1e-6 for any other.
    """

    optimizer_name: ClassVar[str] = "dog"
    package: ClassVar[Package | None] = needed("dog-optimizer", "dog")
    optimizer_class: ClassVar[str] = "DoG"

    initial_distance: float | None = Field(default=None, gt=0)

    def stepper(self, model: nn.Module) -> Stepper:
        """Returns a dog.DoG with its PolynomialDecayAverager.  The learning rate is η; for L-DoG, its mean over tensors."""
        dog, distance = self.imported(), self._distance(model)
        make, averager = getattr(dog, self.optimizer_class), dog.PolynomialDecayAverager(model)
        optimizer = make(trained_parameters(model), reps_rel=distance, weight_decay=self.weight_decay)
        show = partial(fill, trained_parameters(model), trained_parameters(averager.averaged_model))
        return PackageStepper(
            optimizer, lr=_mean_eta, follow=averager.step, show=show, noted=((optimizer, "_first_step"), (averager, "t")),
            averages=averager.averaged_model.state_dict().values(),
        )  # fmt: skip

    def graph_stepper(self, model: nn.Module) -> Stepper:
        """Returns a GraphDog."""
        is_layerwise = self.optimizer_class == "LDoG"
        return GraphDog(model, initial_distance=self._distance(model), is_layerwise=is_layerwise, **self.filled())

    def _distance(self, model: nn.Module) -> float:
        normalised = any("BatchNorm" in type(module).__name__ for module in model.modules())
        return self.initial_distance or (1e-4 if normalised else 1e-6)


def _mean_eta(optimizer: torch.optim.Optimizer) -> Tensor:
    return torch.stack(optimizer.param_groups[0]["eta"]).mean()


class LayerwiseDogOptions(DogOptions):
    """L-DoG, which is DoG for each parameter tensor by itself."""

    optimizer_name: ClassVar[str] = "ldog"
    optimizer_class: ClassVar[str] = "LDoG"


class WeightedGradientsOptions(TuningFreeOptions):
    """DoWG (Khaled, Mishchenko, Jin, 2023, arXiv 2305.16284) with an L2 penalty in the gradient.

    `square_distance` is the first estimate of the squared distance to the solution.
    """

    optimizer_name: ClassVar[str] = "dowg"

    square_distance: float = Field(default=1e-4, gt=0)

    def stepper(self, model: nn.Module) -> Stepper:
        """Returns a DistanceOverWeightedGradients."""
        return DistanceOverWeightedGradients(model, square_distance=self.square_distance, **self.filled())


class ScheduleFreeOptions(TuningFreeOptions):
    """Schedule-free SGD (Defazio et al., 2024, arXiv 2405.15682) with an L2 penalty in the gradient.

    `beta` says where gradients are taken: 1 is the average, 0 is the point that SGD alone would train.
    """

    optimizer_name: ClassVar[str] = "schedule-free-sgd"
    square_decay: ClassVar[float | None] = None
    """The decay of AdamW's second moment."""
    package: ClassVar[Package | None] = needed("schedulefree", "schedulefree")

    lr: float | None = Field(default=None, gt=0)
    beta: float = Field(default=0.9, gt=0, lt=1)
    warmup_steps: int = Field(default=0, ge=0)

    def stepper(self, model: nn.Module) -> Stepper:
        """Returns a schedulefree.SGDScheduleFree or AdamWScheduleFree."""
        optimizer = self._make(model.parameters(), warmup_steps=self.warmup_steps, **self.filled())
        return PackageStepper(optimizer, show=optimizer.eval, hide=optimizer.train)

    def graph_stepper(self, model: nn.Module) -> Stepper:
        """Returns a GraphScheduleFree."""
        own: dict[str, Any] = {"beta": self.beta, "warmup_steps": self.warmup_steps, "square_decay": self.square_decay}
        return GraphScheduleFree(model, **own, **self.filled())

    def _make(self, parameters: Iterable[nn.Parameter], **common: Any) -> Any:
        return self.imported().SGDScheduleFree(parameters, momentum=self.beta, **common)


class ScheduleFreeAdamWOptions(ScheduleFreeOptions):
    """Schedule-free AdamW, with decoupled weight decay."""

    optimizer_name: ClassVar[str] = "schedule-free-adamw"
    square_decay: ClassVar[float | None] = 0.999

    def _make(self, parameters: Iterable[nn.Parameter], **common: Any) -> Any:
        return self.imported().AdamWScheduleFree(parameters, betas=(self.beta, self.square_decay), **common)


PRODIGY = self_tuning_entry("Adam that estimates the distance to the solution", "Prodigy", ProdigyOptions, captures=True)
D_ADAPTATION = self_tuning_entry(
    "Adam that bounds the distance to the solution from below", "D-Adaptation", DAdaptationOptions, captures=True
)
DOWG = self_tuning_entry("distance over weighted gradients", "DoWG", WeightedGradientsOptions, captures=True)
SCHEDULE_FREE_SGD = self_tuning_entry(
    "SGD evaluated at an average of its iterates", "Schedule-Free SGD", ScheduleFreeOptions, captures=True
)
SCHEDULE_FREE_ADAMW = self_tuning_entry(
    "AdamW evaluated at an average of its iterates", "Schedule-Free AdamW", ScheduleFreeAdamWOptions, captures=True
)
DOG = self_tuning_entry("distance over gradients, averaged", "DoG", DogOptions, captures=True)
LDOG = self_tuning_entry(
    "distance over gradients for each parameter tensor, averaged", "L-DoG", LayerwiseDogOptions, captures=True
)
MECHANIC = self_tuning_entry("AdamW or SGD with a learned scale", "Mechanic", MechanicOptions)
