"""Options of the methods with the library's meta-rules: the optimizer, what is tuned, the average, the kinds of steps."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator

import oho
from bench.online.options import OnlineOptions
from bench.protocol import WithOptimizer
from bench.protocol.averages import AnyAverage, RecentAverage, left_out
from bench.protocol.optimizers import AnyOptimizer, Momentum
from bench.protocol.settings import Settings
from oho.averages import Average
from oho.bounds import DEFAULT_BOUNDS, Bounds, bounds_of
from oho.found_settings import (
    CLIP_NORM,
    CURVATURE_FRACTION,
    DECAY_AFTER,
    DECAY_FACTOR,
    FIRST_UPDATES,
    PRESENT_SHARE,
    UPDATE_EVERY,
    averaged_limit,
)
from oho.rules import Rule

Tunable = Literal["lr", "weight_decay", "momentum", "beta1", "beta2"]
RULES = {"sgd": oho.SGD, "momentum": oho.Momentum, "adam": oho.Adam, "adamw": oho.AdamW}


class TunedWindows(Settings):
    """The `first` steps are tuned, and then the last `length` of every `period` steps."""

    first: int = Field(default=oho.Windows.first, ge=1)
    length: int = Field(default=oho.Windows.length, ge=1)
    period: int = Field(default=oho.Windows.period, ge=1)

    @model_validator(mode="after")
    def _fits(self) -> TunedWindows:
        if self.length > self.period:
            raise ValueError(f"length {self.length} is more than period {self.period}")
        return self


class DefaultOptions(WithOptimizer, OnlineOptions):
    """An update rule, and `tune`, the names of its hyperparameters that follow their hypergradients.

    Hypergradients are those of the loss on validation batches of `validation_batch_size`, or of the task's own size if
    that is left out; with `source: training`, of the loss on the step's own training batch.  With `compare_exact` an exact
    influence is carried beside the run, uncounted, and the errors of the run's hypergradients are recorded; with
    `bounded_twin` it has the run's own discount and limit, so that only what the run saves is an error.

    `tune_loss` names hyperparameters of the training loss that are tuned as well, each with one value: `label_smoothing`
    where targets are classes or characters, `input_noise` where inputs are images, and what a task of your own offers.
    They start at the task's values.  No validation or test loss has them.

    With an `average` of the weights hyperparameters follow the validation loss of the average, which is also what is
    validated, selected and tested; with a `present_share`, the loss of weights so far from the average to the present ones.
    `curvature_fraction` is the part of a training batch from which curvature products are taken, and a meta-step is made
    every `update_every` tuned steps: both save time.  The `first_updates` steps make a meta-step each.  `windows` saves
    most: the first steps are tuned and then, of each period, the last ones; the others are plain training.  `windows: {}`
    has the library's numbers of steps.  With `validation_precision: bfloat16` the loss whose hypergradients are followed
    saves time, too, on devices that have such matrix units; `oho-bench audit` shows the error.
    """

    tune: tuple[Tunable, ...] = Field(default=("lr", "weight_decay"), min_length=1)
    tune_loss: tuple[str, ...] = Field(default=(), exclude_if=lambda names: not names)
    bounded_twin: bool = Field(default=False, exclude_if=lambda bounded: not bounded)
    average: AnyAverage = Field(default=None, exclude_if=left_out)
    present_share: float = Field(default=0.0, ge=0, le=1, exclude_if=lambda share: share == 0)
    curvature_fraction: float | None = Field(default=None, gt=0, lt=1, exclude_if=left_out)
    update_every: int = Field(default=1, ge=1, exclude_if=lambda steps: steps == 1)
    first_updates: int = Field(default=0, ge=0, exclude_if=lambda steps: steps == 0)
    windows: TunedWindows | None = Field(default=None, exclude_if=left_out)
    validation_precision: Literal["float32", "bfloat16"] = Field(
        default="float32", exclude_if=lambda kind: kind == "float32"
    )

    @field_validator("tune")
    @classmethod
    def _of_the_optimizer(cls, tune: tuple[Tunable, ...], info: ValidationInfo) -> tuple[Tunable, ...]:
        optimizer = info.data.get("optimizer")
        if optimizer is None:  # has a mistake of its own
            return tune
        _check_names(tune, optimizer)
        if len(set(tune)) < len(tune):
            raise ValueError("each name once")
        for name in set(tune) & set(optimizer.own):
            (low, high), value = DEFAULT_BOUNDS[name], getattr(optimizer, name)
            if value is not None and not low <= value <= high:
                raise ValueError(f"{name}={value:g} is out of bounds; allowed is [{low:g}, {high:g}] where it is tuned")
        return tune

    @field_validator("present_share")
    @classmethod
    def _of_an_average(cls, share: float, info: ValidationInfo) -> float:
        if share and "average" in info.data and info.data["average"] is None:
            raise ValueError("it needs an average, such as average: recent")
        return share

    @field_validator("bounded_twin")
    @classmethod
    def _of_a_twin(cls, bounded: bool, info: ValidationInfo) -> bool:
        if bounded and not info.data.get("compare_exact", True):
            raise ValueError("it needs an exact twin: compare_exact: true")
        return bounded

    @field_validator("tune_loss")
    @classmethod
    def _each_once(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(names)) < len(names):
            raise ValueError("each name once")
        return names

    @property
    def tuned_of_loss(self) -> tuple[str, ...]:
        """The hyperparameters of the training loss that are tuned."""
        return self.tune_loss

    def details(self) -> list[str]:
        """Returns the optimizer's label unless it is the usual one, the average's, and what is tuned of the loss."""
        average = () if self.average is None else (self.average.label,)
        narrow = ("bfloat16 validation",) if self.validates_narrowly else ()
        return [*super().details(), *average, *(name.replace("_", " ") for name in self.tune_loss), *narrow]

    @property
    def kind_of_average(self) -> Average | None:
        """The library's average, if there is one."""
        return None if self.average is None else self.average.kind()

    @property
    def mode(self) -> str:
        """The influence's: with one set exact and collapsed are the same."""
        return "exact"

    @property
    def tuned_steps(self) -> oho.Windows | None:
        """The steps that are tuned; None is all of them."""
        return None if self.windows is None else oho.Windows(**self.windows.model_dump())

    @property
    def curvature_part(self) -> float | None:
        """The part of a batch from which products are taken; None is all of it."""
        return self.curvature_fraction

    @property
    def has_bounded_twin(self) -> bool:
        """Whether the exact influence beside the run has the run's own discount and limit."""
        return self.bounded_twin

    @property
    def bounds(self) -> Mapping[str, Bounds]:
        """The library's, in which what is tuned on a logarithm or logit stays away from 0, or from 0 and 1."""
        tuned: dict[str, Bounds] = {name: bounds_of(oho.default_meta(), name) for name in self.tune}
        return {**super().bounds, **tuned}

    @property
    def validates_narrowly(self) -> bool:
        """Whether the loss whose hypergradients are followed is computed in bfloat16."""
        return self.validation_precision == "bfloat16"

    def rule(self, values: Mapping[str, float], *, tune: tuple[str, ...], temperature: float = 0.0) -> Rule:
        """Returns the update rule with these hyperparameters, of which those in `tune` are tuned."""
        others = {"nesterov": self.optimizer.nesterov} if isinstance(self.optimizer, Momentum) else {}
        return RULES[self.optimizer.name](**values, **others, tune=tune, temperature=temperature)


class AveragedOptions(DefaultOptions):
    """OHO with an average of the weights and thrifty steps: `oho.averaged`, whose meta-rule has nothing to set.

    The average covers about the last tenth of all steps.  Windows of steps are tuned: each of the first 100 steps makes a
    meta-step, and then every fourth tuned one does.  Validation gradients are taken half-way between the average and the
    present weights, and products from a quarter of each training batch.  Gradients longer than `clip_norm` are shortened
    to it, so that a run survives a first rate that is far too high; null is no clipping, and `windows: null` tunes every
    step.  With `groups` the weights and the biases of each group of layers have values of their own, and `influence`
    says whether each set has a tangent of its own (exact) or all share one (collapsed).  `influence_limit` is how long the
    change of the parameters under a relative change of a hyperparameter may become, over the parameters themselves: 1, and
    .1 over momentum, Adam and AdamW, unless it is given.  `curvature_factor` says, by hyperparameter, how much the Hessian
    counts in its influence, 1 being the derivative; `tuned_after` says after how many steps a hyperparameter is tuned.
    Names that are left out have 1 and 0.
    """

    average: AnyAverage = RecentAverage()
    present_share: float = Field(default=PRESENT_SHARE, ge=0, le=1, validate_default=True)
    curvature_fraction: float | None = Field(default=CURVATURE_FRACTION, gt=0, lt=1)
    update_every: int = Field(default=UPDATE_EVERY, ge=1)
    first_updates: int = Field(default=FIRST_UPDATES, ge=0)
    windows: TunedWindows | None = TunedWindows()
    clip_norm: float | None = Field(default=CLIP_NORM, gt=0)
    groups: int | None = Field(default=None, ge=1, exclude_if=left_out)
    influence: Literal["exact", "collapsed"] = Field(default="exact", exclude_if=lambda kind: kind == "exact")
    influence_limit: float | None = Field(default=None, gt=0, validate_default=True, exclude_if=left_out)
    curvature_factor: Mapping[Tunable, Annotated[float, Field(ge=0, le=1)]] = Field(
        default={"weight_decay": DECAY_FACTOR}
    )
    tuned_after: Mapping[Tunable, Annotated[int, Field(ge=0)]] = Field(default={"weight_decay": DECAY_AFTER})

    @field_validator("curvature_factor", "tuned_after")
    @classmethod
    def _names_of_the_optimizer(cls, given: Mapping[Tunable, Any], info: ValidationInfo) -> Mapping[Tunable, Any]:
        if "optimizer" in info.data:  # else it has a mistake of its own
            _check_names(given, info.data["optimizer"])
        return given

    @field_validator("influence_limit")
    @classmethod
    def _or_the_usual(cls, limit: float | None, info: ValidationInfo) -> float | None:
        """Returns the limit; None, which a spec leaves out, stands for DEFAULT_LIMIT where that is the usual one."""
        if "optimizer" not in info.data:  # it has a mistake of its own
            return limit
        usual = _usual_limit(info.data["optimizer"].name)
        return None if usual is None and limit == oho.DEFAULT_LIMIT else usual if limit is None else limit

    @property
    def limit(self) -> float:
        """The influence's limit."""
        return oho.DEFAULT_LIMIT if self.influence_limit is None else self.influence_limit

    @property
    def sets(self) -> oho.Sets:
        """Weights and biases of each group, or all of the network."""
        return "global" if self.groups is None else oho.Layerwise(self.groups)

    @property
    def mode(self) -> str:
        """The influence's."""
        return self.influence

    def rule(self, values: Mapping[str, float], *, tune: tuple[str, ...], temperature: float = 0.0) -> Rule:
        """Returns the update rule, with a bound of its gradients: to one without, `oho.averaged` gives its own."""
        rule: Any = super().rule(values, tune=tune, temperature=temperature)
        return replace(rule, clip_norm=math.inf if self.clip_norm is None else self.clip_norm)

    def details(self) -> list[str]:
        """Returns what is not usual: the optimizer's label, the average's, what is tuned of the loss, and the sets."""
        usual = self.average == type(self).model_fields["average"].default
        details = [text for text in super().details() if not (usual and text == RecentAverage.label)]
        if self.groups is not None:
            details += [f"groups {self.groups}", *(["collapsed"] if self.influence == "collapsed" else [])]
        if self.influence_limit != _usual_limit(self.optimizer_name):
            details.append(f"limit {self.limit:g}")
        for name in ("curvature_factor", "tuned_after"):
            if (given := getattr(self, name)) != type(self).model_fields[name].default:
                shown = " ".join(f"{key} {value:g}" for key, value in given.items()) or "none"
                details.append(f"{name} {shown}".replace("_", " "))
        return details


def _check_names(given: Iterable[str], optimizer: AnyOptimizer) -> None:
    """Raises ValueError for names of hyperparameters that an optimizer lacks."""
    names = ("lr", "weight_decay", *optimizer.own)
    if unknown := [name for name in given if name not in names]:
        raise ValueError(f"{optimizer.name} has no {', '.join(unknown)}; it has {', '.join(names)}")


def _usual_limit(optimizer: str) -> float | None:
    """Returns the limit that `oho.averaged` has over an optimizer; None is DEFAULT_LIMIT."""
    limit = averaged_limit(RULES[optimizer])
    return None if limit == oho.DEFAULT_LIMIT else limit
