"""The keys of an experiment's file: names, types and bounds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from bench.experiment.shocks import Shock
from bench.protocol import Options

MOST_THREADS = 512


class Budget(BaseModel):
    """What every run of an experiment gets: exactly one of counted seconds, steps, epochs."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    seconds: float | None = Field(default=None, gt=0)
    steps: int | None = Field(default=None, ge=1)
    epochs: float | None = Field(default=None, gt=0)

    @model_validator(mode="after")
    def _one_unit(self) -> Budget:
        if len(self.model_dump(exclude_none=True)) != 1:
            raise ValueError("exactly one of seconds, steps, epochs is needed")
        return self

    @property
    def unit(self) -> str:
        """seconds | steps | epochs."""
        return next(iter(self.model_dump(exclude_none=True)))

    @property
    def amount(self) -> float:
        """The budget in its unit."""
        return self.model_dump()[self.unit]


class Tracking(Options):
    """Where runs are logged beside the records."""

    mode: Literal["online", "offline", "disabled"] = "offline"
    project: str = Field(default="oho-bench", min_length=1, pattern=r"^[\w.-]+$")


class ExperimentFields(Options):
    """The keys of an experiment's file."""

    experiment: str = Field(min_length=1, max_length=100, pattern=r"^[a-z0-9-]+$")
    figures: tuple[str, ...] = ()
    plugins: tuple[str, ...] = Field(default=(), description="files or modules that register methods, tasks, figures")
    task: Mapping[str, Any]
    budget: Budget
    seeds: tuple[Annotated[int, Field(ge=0)], ...] = Field(min_length=1)
    space: str
    methods: tuple[Mapping[str, Any], ...] = Field(min_length=1)
    shocks: tuple[Shock, ...] = ()
    evaluations: int = Field(default=40, ge=1, description="evaluations spread evenly over the budget")
    gradient_batches: int | None = Field(default=None, ge=2, description="whose gradients are compared at evaluations")
    threads: int | None = Field(default=None, ge=1, le=MOST_THREADS)
    tracking: Tracking = Tracking()
