"""Bounds and transforms of hyperparameters, and checks of the values that are given for them.

    symbol  name        shape    meaning
    M       members     ()       independent trainings side by side
    S       sets        ()       values of one hyperparameter
    h       value       (M, S)   a hyperparameter's value, one for each set and member
    u       coordinate  (M, S)   u = T(h), in which a meta-step moves h; T is raw, log or logit, as in `oho.meta`
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

if TYPE_CHECKING:
    from oho.meta import MetaRule

Bounds = tuple[float, float]

LOSS_BOUNDS: dict[str, Bounds] = {
    "label_smoothing": (0.0, 1.0),
    "class_weights": (0.0, math.inf),
    "example_weights": (0.0, math.inf),
    "mixup": (0.0, 1.0),
    "l2": (0.0, math.inf),
}
"""Bounds of those hyperparameters of the loss that have the names used in `oho.losses`."""
DEFAULT_BOUNDS: dict[str, Bounds] = {
    "lr": (0.0, math.inf),
    "weight_decay": (0.0, math.inf),
    "momentum": (0.0, 0.999),
    "beta1": (0.0, 0.999),
    "beta2": (0.0, 0.99999),
    **LOSS_BOUNDS,
}
LOWEST_POSITIVE = 1e-8
"""Lower bound under log and logit, where 0 is infinitely far."""
START_OF_ZERO = 1e-5
"""Where a value given as 0 starts under log and logit, if its bounds allow it."""
HIGHEST_FRACTION = 1 - 1e-6
"""Upper bound under logit, where 1 is infinitely far."""
FIXED_BOUNDS: dict[str, Bounds] = {
    "lr": (0.0, math.inf),
    "momentum": (0.0, math.inf),
    "beta1": (0.0, HIGHEST_FRACTION),
    "beta2": (0.0, HIGHEST_FRACTION),
}
"""Bounds of hyperparameters that are not tuned: elsewhere no training works, and `torch.optim` refuses it."""


def transform_of(meta: MetaRule, name: str) -> str:
    """Returns raw, log or logit."""
    if not isinstance(meta.transform, str | Mapping):
        raise TypeError(f"transform={meta.transform!r}: a word is expected, or a mapping from name to word")
    kind = meta.transform if isinstance(meta.transform, str) else meta.transform.get(name, "raw")
    if kind not in ("raw", "log", "logit"):
        raise ValueError(f"transform={kind!r} of {name}: allowed are 'raw', 'log' and 'logit'")
    return kind


def bounds_of(meta: MetaRule, name: str) -> Bounds:
    """Returns the closed interval that a hyperparameter stays in."""
    given = meta.bounds.get(name, DEFAULT_BOUNDS.get(name, (-math.inf, math.inf)))
    try:
        low, high = map(float, given)
    except (TypeError, ValueError):
        raise TypeError(f"bounds of {name}: two numbers are expected, (low, high); given {given!r}") from None
    if transform_of(meta, name) != "raw":
        low = max(low, LOWEST_POSITIVE)
    if transform_of(meta, name) == "logit":
        high = min(high, HIGHEST_FRACTION)
    if not low <= high:
        raise ValueError(f"bounds of {name}: low {low:g} exceeds high {high:g} (log and logit need values above 0)")
    return low, high


def check_finite(name: str, values: Tensor) -> None:
    """Raises ValueError unless all values of a hyperparameter are finite."""
    if not bool(values.isfinite().all()):
        raise ValueError(f"{name}={_listed(values)}: must be finite")


def check_bounds(name: str, values: Tensor, bounds: Bounds, remedy: str = "") -> None:
    """Raises ValueError unless all values of a hyperparameter are within the bounds."""
    # A bound such as 0.999 is rounded to the values' own dtype before it is compared.
    low, high = torch.tensor(bounds, dtype=torch.float64).to(values)
    if not bool(((values >= low) & (values <= high)).all()):
        raise ValueError(f"{name}={_listed(values)}: allowed is [{bounds[0]:g}, {bounds[1]:g}]{remedy}")


def _listed(values: Tensor) -> str:
    return ", ".join(f"{value:g}" for value in values.flatten().tolist())


def admit(meta: MetaRule, name: str, values: Tensor) -> Tensor:
    """Returns values from outside as they are used: under log and logit, where 0 is infinitely far, START_OF_ZERO for 0.

    Raises:
        ValueError: for a value outside the bounds.
    """
    low, high = bounds_of(meta, name)
    if transform_of(meta, name) != "raw":
        values = torch.where(values == 0, min(max(low, START_OF_ZERO), high), values)
    remedy = (
        f"; change the value, or `bounds` of the meta-rule ({type(meta).__name__}(..., bounds={{{name!r}: (low, high)}}))"
    )
    check_bounds(name, values, (low, high), remedy)
    return values


def check_fixed(name: str, values: Tensor) -> None:
    """Raises ValueError for values that no meta-step moves and that no training can have."""
    if name in FIXED_BOUNDS:
        check_bounds(name, values, FIXED_BOUNDS[name])


class Coordinate(NamedTuple):
    """The transform under which a hyperparameter moves (raw, log or logit), and its bounds."""

    kind: str
    bounds: Bounds


def coordinate_of(meta: MetaRule, name: str) -> Coordinate:
    """Returns the results of `transform_of` and `bounds_of`, to be computed once for many steps."""
    return Coordinate(transform_of(meta, name), bounds_of(meta, name))
