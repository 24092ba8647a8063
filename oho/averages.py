"""Averages of the weights: they accompany a training and have an influence of their own.

    symbol  name       shape      meaning
    t       step       ()         steps made, this one included
    w       weight     ()         share of the newest weights in the average
    θ       weights    (M, N)     what the update rule moves
    θ̄       average    (M, N)     θ̄_t = θ̄_(t-1) + w_t (θ_t − θ̄_(t-1))
    Z̄       influence  (K, M, N)  dθ̄/dh, by the same recursion from dθ/dh
    φ       model      (M, N)     where gradients are taken: θ, or between θ and θ̄ (Schedule-Free)
    s       share      ()         validation gradients are taken at θ̄ + s (φ − θ̄)

At the present weights, a smaller learning rate always looks better at once, since it quiets the noise of the last steps.
The average has quieted that noise already.  So at s = 0 a tuned rate has no reason to vanish, but also hardly any to come
down where it is far too high.  In between, the noise counts s² times as much as at the present weights.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from numbers import Real
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from oho.flat_parameters import FlatParameters
from oho.saved_state import copied, load_tensors


class Average(Protocol):
    """A kind of average; any frozen dataclass with these members may stand in for ours."""

    @property
    def interpolation(self) -> float | None:
        """The share of the average in the weights at which gradients are taken; None takes them at θ itself."""
        ...

    def weight(self, step: int) -> float:
        """Returns w of a step, counted from 1; that of step 1 is 1."""
        ...


@dataclass(frozen=True)
class Exponential:
    """An exponential average with its bias corrected: w_t = (1 − β) / (1 − β^t), β = 1 − 1/horizon.

    `horizon` is a number of steps, 1 or more; ValueError is raised for a smaller one.
    """

    horizon: float = 1000.0
    interpolation: None = None

    def __post_init__(self) -> None:
        """Raises ValueError for a horizon below 1."""
        if not (isinstance(self.horizon, Real) and 1 <= self.horizon < math.inf):
            raise ValueError(f"horizon={self.horizon!r}: must be a number of steps, 1 or more")

    def weight(self, step: int) -> float:
        """Returns the share of a step's weights."""
        if step == 1 or self.horizon == 1:
            return 1.0
        return 1 / self.horizon / -math.expm1(step * math.log1p(-1 / self.horizon))


@dataclass(frozen=True)
class Uniform:
    """The mean of the weights after step `start`; up to then, the weights themselves (Polyak and Juditsky, 1992).

    `start` is a number of steps, 0 or more; ValueError is raised for a smaller one.
    """

    start: int = 0
    interpolation: None = None

    def __post_init__(self) -> None:
        """Raises ValueError for a start below 0."""
        if not (isinstance(self.start, Real) and self.start >= 0):
            raise ValueError(f"start={self.start!r}: must be a number of steps, 0 or more")

    def weight(self, step: int) -> float:
        """Returns the share of a step's weights."""
        return 1 / max(1, step - self.start)


@dataclass(frozen=True)
class Recent:
    """An average of about the last `part` of all steps, however many: w_t = 1 / (1 + part (t − 1)), part in (0, 1].

    Its horizon grows with the training, so that the training's length need not be known.  Part 1 is the mean of all steps;
    ValueError is raised for a part out of (0, 1].  Source: polynomial-decay averaging (Shamir and Zhang, arXiv 1212.1824)
    with γ = 1/part − 1.
    """

    part: float = 0.1
    interpolation: None = None

    def __post_init__(self) -> None:
        """Raises ValueError for a part out of (0, 1]."""
        if not (isinstance(self.part, Real) and 0 < self.part <= 1):
            raise ValueError(f"part={self.part!r}: must lie in (0, 1]")

    def weight(self, step: int) -> float:
        """Returns the share of a step's weights."""
        return 1 / (1 + self.part * (step - 1))


@dataclass(frozen=True)
class ScheduleFree:
    """Schedule-Free learning (Defazio et al., arXiv 2405.15682): gradients at (1 − β) θ + β θ̄, θ̄ the mean of all θ.

    `interpolation` is β, in [0, 1); ValueError is raised for another.  What the rule adds to a gradient, such as weight
    decay, is taken at θ.
    """

    interpolation: float = 0.9

    def __post_init__(self) -> None:
        """Raises ValueError for an interpolation out of [0, 1)."""
        if not (isinstance(self.interpolation, Real) and 0 <= self.interpolation < 1):
            raise ValueError(f"interpolation={self.interpolation!r}: must lie in [0, 1)")

    def weight(self, step: int) -> float:
        """Returns the share of a step's weights."""
        return 1 / step


def resolve_average(given: Average | str | None) -> Average | None:
    """Returns the average that was asked for; "schedule-free" is `ScheduleFree()`.

    Raises:
        TypeError, ValueError: for another word, or anything that is no average.
    """
    if given == "schedule-free":
        return ScheduleFree()
    if isinstance(given, str):
        raise ValueError(f"average={given!r}: allowed are 'schedule-free', oho.Exponential(1000), oho.Recent(0.1) and None")
    if given is not None and (isinstance(given, type) or not hasattr(given, "weight")):
        kind = given.__name__ if isinstance(given, type) else type(given).__name__
        raise TypeError(f"average: oho.Exponential(1000), oho.Recent(), 'schedule-free' or None is expected; given {kind}")
    return given


def check_present_share(share: float, average: Average | None) -> None:
    """Raises ValueError for a share out of [0, 1], or one without an average."""
    if not (isinstance(share, Real) and 0 <= share <= 1):
        raise ValueError(f"present_share={share}: must lie in [0, 1]")
    if share and average is None:
        raise ValueError(f"present_share={share}: there is no average; give average=, such as oho.Recent(0.1)")


class _Weights(NamedTuple):
    """The weights of one step: w, the share μ (1 − w) that Z̄ keeps, and the share dθ/dh gains in plain steps before."""

    newest: Any
    kept: Any
    missed: Any


class AveragedWeights:
    """The average θ̄ of one training and, where gradients are taken between θ and θ̄, θ itself (`iterate`)."""

    def __init__(self, average: Average, theta: Tensor):
        self.kind = average
        self.average = theta.clone()
        self.iterate = None if average.interpolation is None else theta.clone()
        self._weights = _Weights(1.0, 0.0, 0.0)
        self._on_device = _Weights(*(theta.new_zeros(()) for _ in self._weights))

    def start_at(self, theta: Tensor) -> None:
        """Begins the average at θ (M, N), before the first step."""
        self.average.copy_(theta)
        if self.iterate is not None:
            self.iterate.copy_(theta)

    def empty_influence(self, like: Tensor) -> dict[str, Tensor]:
        """Returns Z̄ = 0 and, if θ is kept, dθ/dh = 0, by name."""
        return {name: torch.zeros_like(like) for name in self._named()}

    def begin(self, step: int, *, plain: int, discount: float, hostless: bool) -> None:
        """Sets the weights of a step, counted from 1, after `plain` plain ones; if `hostless`, on the device."""
        newest = self.kind.weight(step)
        self._weights = _Weights(newest, discount * (1 - newest), self.missed(step, plain=plain))
        if hostless:
            for place, number in zip(self._on_device, self._weights, strict=True):
                place.fill_(number)
            self._weights = self._on_device

    def share_of_newest(self, step: int, present_share: float) -> float:
        """Returns ∂(θ̄ + s (φ − θ̄))/∂θ of a step, where s is the `present_share`."""
        weight = self.kind.weight(step)
        of_model = 1.0 if self.kind.interpolation is None else 1 + self.kind.interpolation * (weight - 1)
        return present_share * of_model + (1 - present_share) * weight

    def missed(self, step: int, *, plain: int) -> float:
        """Returns the share of dθ/dh in Z̄ once it has followed the `plain` steps before a step."""
        return 1 - math.prod(1 - self.kind.weight(before) for before in range(step - plain, step))

    def follow(self, theta: Tensor) -> Tensor:
        """Moves θ̄ towards the θ (M, N) that the step begun by `begin` has reached; returns φ (M, N)."""
        weight, interpolation = self._weights.newest, self.kind.interpolation
        self.average.lerp_(theta, weight)
        if interpolation is None:
            return theta
        if isinstance(weight, Tensor) and self.iterate is not None:
            self.iterate.copy_(theta)
        else:
            self.iterate = theta
        return torch.lerp(theta, self.average, interpolation)

    def judged_ahead(self, theta: Tensor, present_share: float) -> Tensor:
        """Returns θ̄ + s (φ − θ̄), (M, N), as it will be once `follow` has been given θ (M, N)."""
        weight, interpolation = self._weights.newest, self.kind.interpolation
        average = torch.lerp(self.average, theta, weight)
        if present_share == 0:
            return average
        model = theta if interpolation is None else torch.lerp(theta, average, interpolation)
        return model if present_share == 1 else torch.lerp(average, model, present_share)

    def follow_influence(self, influence: Tensor, beside: Mapping[str, Tensor], *, discount: float) -> None:
        """Moves Z̄ towards the dθ/dh of the step begun by `begin`, once Z̄ has been multiplied by the discount.

        `influence` (K, M, N) is dφ/dh, and dθ/dh where both are the same; `beside` has what `empty_influence` returned.
        """
        weight, kept, _ = self._weights
        newest = beside.get("iterate", influence)
        if discount == 1:
            beside["average"].lerp_(newest, weight)
        elif isinstance(weight, Tensor):
            beside["average"].mul_(kept).addcmul_(newest, weight)  # gives the same bits as the next branch
        else:
            beside["average"].mul_(kept).add_(newest, alpha=weight)
        self._between(influence, beside)

    def catch_up(self, influence: Tensor, beside: Mapping[str, Tensor]) -> None:
        """Moves Z̄ over the plain steps before the step begun by `begin`, in which dθ/dh stayed as it was."""
        missed = self._weights.missed
        if isinstance(missed, Tensor) or missed:
            self.move_over(missed, influence, beside)

    def move_over(self, missed: Tensor | float, influence: Tensor, beside: Mapping[str, Tensor]) -> None:
        """Moves Z̄ towards dθ/dh, whose share in it becomes `missed`."""
        beside["average"].lerp_(beside.get("iterate", influence), missed)
        self._between(influence, beside)

    def _between(self, influence: Tensor, beside: Mapping[str, Tensor]) -> None:
        """Computes dφ/dh from dθ/dh and Z̄, where φ lies between θ and θ̄."""
        if self.kind.interpolation is not None:
            torch.lerp(beside["iterate"], beside["average"], self.kind.interpolation, out=influence)

    def state(self) -> dict[str, dict[str, Tensor]]:
        """Returns copies of θ̄ and `iterate`."""
        return {"averaged": copied(self._named())}

    def loaded(self, state: Mapping[str, Any]) -> AveragedWeights:
        """Returns an average of the same kind with what `state` holds.

        Raises:
            ValueError: for other names, shapes or dtypes.
        """
        tensors = load_tensors("averaged", state, self._named(), self.average.device)
        found = AveragedWeights(self.kind, tensors["average"])
        found.iterate = tensors.get("iterate")
        return found

    def _named(self) -> dict[str, Tensor]:
        return {"average": self.average} | ({} if self.iterate is None else {"iterate": self.iterate})


@contextmanager
def in_place_of(parameters: FlatParameters, theta: Tensor, *, present: Tensor | None = None) -> Iterator[None]:
    """Puts θ (M, N) into the model for a block; afterwards its tensors are what they were, bit for bit.

    `present` is what `parameters.gather()` returned, if it is known.
    """
    present = parameters.gather() if present is None else present
    parameters.write(theta)
    try:
        yield
    finally:
        parameters.write(present)
