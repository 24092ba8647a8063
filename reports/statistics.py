"""Estimates with intervals.  Every interval is a percentile bootstrap over runs, from an explicit generator."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

RESAMPLES = 2_000
CONFIDENCE = 0.95
LEAST_RUNS = 3
"""Below it there is no interval: of two runs, a resampled one is what lies between them, and says no more."""
SEED = 20210215
"""Fixed, so that the same records give the same report."""

Statistic = Callable[[np.ndarray], np.ndarray]
"""(..., n) -> (...): a statistic over the last axis."""


class Estimate(NamedTuple):
    """A statistic with the ends of its 95 % interval: infinite values are allowed, intervals of one or two runs are NaN."""

    value: float
    low: float
    high: float


def median(values: np.ndarray) -> np.ndarray:
    """Returns the median over the last axis; for an even count the mean of the middle two, infinite if one of them is."""
    ordered = np.sort(values, axis=-1)
    count = ordered.shape[-1]
    lower, upper = ordered[..., (count - 1) // 2], ordered[..., count // 2]
    with np.errstate(invalid="ignore"):  # the middle of both infinities is no number
        return 0.5 * (lower + upper)


def interquartile_mean(values: np.ndarray) -> np.ndarray:
    """Returns the mean of the middle half over the last axis (Agarwal et al., 2021), a quarter cut at either end."""
    ordered = np.sort(values, axis=-1)
    cut = ordered.shape[-1] // 4
    return ordered[..., cut : ordered.shape[-1] - cut].mean(-1)


def bootstrap(values: ArrayLike, statistic: Statistic = median, *, seed: int = SEED) -> Estimate:
    """Returns the statistic of `values` (n,) and its interval.  NaN, a run without a result, counts as infinite."""
    sample = np.asarray(values, dtype=float)
    if not len(sample):
        return Estimate(float("nan"), float("nan"), float("nan"))
    return Estimate(*(float(part[0]) for part in bootstrap_curves(sample[:, None], statistic, seed=seed)))


def bootstrap_curves(
    values: np.ndarray, statistic: Statistic = median, *, strata: Sequence[Hashable] | None = None, seed: int = SEED
) -> tuple[np.ndarray, ...]:
    """Returns the statistic over runs of curves (n, points), and both ends of its pointwise interval: each (points,).

    Runs are drawn with replacement as whole curves, with `strata` (n,) as many from each as it has, so that a task keeps
    its weight (Agarwal et al., 2021).  NaN counts as infinite; one run or two have no interval: NaN.
    """
    sample = np.where(np.isnan(values), np.inf, values)
    value = statistic(sample.T)
    if len(sample) < LEAST_RUNS:
        return value, np.full_like(value, np.nan), np.full_like(value, np.nan)
    picks = _picks([0] * len(sample) if strata is None else strata, np.random.default_rng(seed))
    ordered = np.sort(np.stack([statistic(column.take(picks)) for column in sample.T]), axis=-1)
    tail = (1 - CONFIDENCE) / 2
    low, high = (ordered[:, round(fraction * (RESAMPLES - 1))] for fraction in (tail, 1 - tail))
    return value, low, high


def _picks(strata: Sequence[Hashable], generator: np.random.Generator) -> np.ndarray:
    """Returns numbers of runs (RESAMPLES, n), drawn stratum by stratum."""
    members: dict[Hashable, list[int]] = {}
    for number, stratum in enumerate(strata):
        members.setdefault(stratum, []).append(number)
    drawn = [np.array(own)[generator.integers(len(own), size=(RESAMPLES, len(own)))] for own in members.values()]
    return np.concatenate(drawn, axis=1)


def performance_profile(
    ratios: np.ndarray, factors: np.ndarray, strata: Sequence[Hashable] | None = None
) -> tuple[np.ndarray, ...]:
    """Returns the share of `ratios` (n,) up to each of `factors` (points,), with both ends of its pointwise interval."""
    within = (ratios[:, None] <= factors * (1 + 1e-12)).astype(float)
    return bootstrap_curves(within, lambda values: values.mean(-1), strata=strata)


def first_at_most(values: ArrayLike, target: float) -> int | None:
    """Returns the index of the first value not above the target; None for a miss."""
    hits = np.flatnonzero(np.asarray(values, dtype=float) <= target)
    return int(hits[0]) if len(hits) else None
