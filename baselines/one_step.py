"""Methods whose learning rate follows the hypergradient of one step, or of a discounted trace of steps.

Their recursions are in `baselines.hypergradient`, `baselines.osgm` and `baselines.meta_optimize`.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field
from torch import nn

from baselines.batched_hypergradient import DESCENT, HEAVY_BALL
from baselines.hypergradient import HeavyBallHypergradient, HypergradientDescent, Scaling, UltimateStepper
from baselines.meta_optimize import MetaOptimize
from baselines.optimizers import Stepper
from baselines.osgm import ScaledGradientMethod
from baselines.self_tuning import TuningFreeOptions, needed, self_tuning_entry
from bench.protocol import Package


class UltimateOptions(TuningFreeOptions):
    """Gradient descent, the ultimate optimizer (Chandra et al., 2022, arXiv 1909.13371): SGD tunes `base`.

    The L2 penalty is part of the loss.  `meta_rate` is the learning rate of the upper SGD; null means its authors' rate on
    MNIST: 1e-5 above Adam, 0.01 above SGD.
    """

    optimizer_name: ClassVar[str] = "gdtuo"
    package: ClassVar[Package | None] = needed(
        "gradient-descent-the-ultimate-optimizer", "gradient_descent_the_ultimate_optimizer.gdtuo"
    )

    lr: float | None = Field(default=None, gt=0)
    base: Literal["sgd", "adam"] = "adam"
    meta_rate: float | None = Field(default=None, gt=0)

    def stepper(self, model: nn.Module) -> Stepper:
        """Returns a gdtuo.ModuleWrapper around gdtuo.SGD or gdtuo.Adam."""
        gdtuo = self.imported()
        base, usual = {"sgd": (gdtuo.SGD, 0.01), "adam": (gdtuo.Adam, 1e-5)}[self.base]
        tuned = base(alpha=self.lr, optimizer=gdtuo.SGD(self.meta_rate or usual))
        return UltimateStepper(gdtuo.ModuleWrapper(model, optimizer=tuned), self.filled()["weight_decay"])


class HypergradientDescentOptions(TuningFreeOptions):
    """SGD-HD; the default `meta_rate` is the published one for SGD on MNIST (Baydin et al., 2018)."""

    optimizer_name: ClassVar[str] = "hypergradient-descent"

    lr: float | None = Field(default=None, gt=0)
    meta_rate: float = Field(default=1e-3, ge=0)

    def stepper(self, model: nn.Module) -> Stepper:
        """Returns a HypergradientDescent."""
        return HypergradientDescent(model, meta_rate=self.meta_rate, **self.filled())


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
        return HeavyBallHypergradient(model, meta_rate=self.meta_rate, scaling=self.scaling, **self.filled())


class ScaledGradientOptions(TuningFreeOptions):
    """OSGM, the current form of HDM, which chooses its rates by itself.

    `scaling` chooses one learning rate, or one for each parameter.
    """

    optimizer_name: ClassVar[str] = "osgm"

    scaling: Scaling = "diagonal"

    def stepper(self, model: nn.Module) -> Stepper:
        """Returns a ScaledGradientMethod."""
        return ScaledGradientMethod(model, scaling=self.scaling, **self.filled())


class MetaOptimizeOptions(TuningFreeOptions):
    """MetaOptimize with AdamW and Lion; the defaults are those of its authors' code.

    `meta_rate` is the change of the learning rate's logarithm in a step.  `discount` is that of the trace through which
    earlier learning rates act.
    """

    optimizer_name: ClassVar[str] = "meta-optimize"

    lr: float | None = Field(default=None, gt=0)
    meta_rate: float = Field(default=1e-3, ge=0)
    discount: float = Field(default=0.9999, ge=0, le=1)

    def stepper(self, model: nn.Module) -> Stepper:
        """Returns a MetaOptimize."""
        return MetaOptimize(model, meta_rate=self.meta_rate, discount=self.discount, **self.filled())


GDTUO = self_tuning_entry(
    "gradient descent, the ultimate optimizer: SGD tunes Adam or SGD", "GDTUO", UltimateOptions, "one-step"
)
HYPERGRADIENT_DESCENT = self_tuning_entry(
    "SGD-HD, one-step hypergradients", "Hypergradient descent", HypergradientDescentOptions, "one-step", DESCENT,
    captures=True,
)
HDM = self_tuning_entry(
    "HDM with a heavy ball and normalised hypergradients on each batch", "HDM", HeavyBallOptions, "one-step",
    HEAVY_BALL, captures=True,
)
OSGM = self_tuning_entry(
    "HDM whose rates follow an estimate of the smoothness, with line searches", "OSGM", ScaledGradientOptions, "one-step"
)
META_OPTIMIZE = self_tuning_entry(
    "AdamW whose learning rate Lion tunes along a trace without curvature", "MetaOptimize", MetaOptimizeOptions, "one-step",
    captures=True,
)
