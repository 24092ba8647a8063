"""What methods have in common whose optimizer finds values by itself: options, packages, entries.

A package is imported only when it is needed; `pip install 'oho-bench[baselines]'` installs them all.
"""

from __future__ import annotations

import importlib
from typing import Any, ClassVar, Literal

from pydantic import Field
from torch import nn

from baselines import schedules
from baselines.optimizers import Stepper
from baselines.training import Training
from bench.protocol import Batching, MethodEntry, Package


def needed(distribution: str, module: str) -> Package:
    """Returns a package that the extra `baselines` installs."""
    return Package(distribution, module, extra="baselines")


class TuningFreeOptions(schedules.Constant):
    """A weight decay and, for some methods, an initial learning rate; null is drawn from the space by the seed."""

    package: ClassVar[Package | None] = None

    weight_decay: float | None = Field(default=None, ge=0)

    @property
    def initial_lr(self) -> float | None:
        """None: optimizers receive their initial learning rate when they are made, and nothing is scheduled."""
        return None

    def values(self) -> dict[str, float | None]:
        """Returns the weight decay and, if there is one to choose, the learning rate."""
        fields = type(self).model_fields
        return {name: getattr(self, name) for name in ("lr", "weight_decay") if name in fields}

    def stepper(self, model: nn.Module) -> Stepper:
        """Returns the optimizer, for which no value may be open.  Raises ValueError if its package is not installed."""
        raise NotImplementedError

    def graph_stepper(self, model: nn.Module) -> Stepper:
        """Returns the optimizer as a graph can repeat its updates, if the method's entry says that one can."""
        return self.stepper(model)

    def imported(self) -> Any:
        """Returns the package's module."""
        assert self.package is not None
        if self.package.missing:
            raise ValueError(self.package.missing)
        return importlib.import_module(self.package.module)

    def filled(self) -> dict[str, Any]:
        """Returns `values`, none of which may be open."""
        return dict(self.values())


class FactorOptions(TuningFreeOptions):
    """Options of a method that finds a learning rate, with an optional schedule that multiplies it, as its authors advise.

    The schedule is constant by default, because a cosine depends on the budget.
    """

    schedule: Literal["constant", "cosine"] = "constant"

    @property
    def spans_budget(self) -> bool:  # type: ignore[override]
        """Whether the schedule depends on the budget."""
        return self.schedule == "cosine"

    def details(self) -> list[str]:
        """Returns the schedule, unless it is constant."""
        return [] if self.schedule == "constant" else [self.schedule]

    @property
    def initial_lr(self) -> float | None:
        """The factor 1."""
        return 1.0

    def factor(self, place: schedules.Place) -> float:
        """Returns 1, or half a cosine from 1 to 0."""
        return schedules.falling(place.progress) if self.schedule == "cosine" else 1.0


def self_tuning_entry(
    description: str, label: str, options: type[TuningFreeOptions], family: str = "tuning-free",
    batching: Batching | None = None, *, captures: bool = False,
) -> MethodEntry:  # fmt: skip
    """Returns the entry of a training with such options."""
    return MethodEntry(
        description=description, label=label, family=family, options=options, build=Training, takes_kicks=True,
        package=options.package, batching=batching, captures=captures,
    )  # fmt: skip
