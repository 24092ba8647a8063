"""Estimates with intervals.

    symbol  name      shape  meaning
    n       runs      ()     independent runs, one for each seed
    x_(k)   ordered   ()     the k-th lowest value
    j       rank      ()     largest rank with P(Binomial(n, 1/2) < j) ≤ 2.5 %

A median's interval is [x_(j), x_(n+1−j)]: it covers the true median with at least 95 %, whatever the law of the values,
and takes infinite ones.  A bootstrap of a median has no such guarantee, least of all with few runs.  Of fewer than six runs
even the lowest and the highest cover it less often: they are a range, and are called so.  Shares have a percentile
bootstrap from an explicit generator, stratified by task.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import binom

RESAMPLES = 2_000
CONFIDENCE = 0.95
FEWEST_WITH_INTERVAL = 6
"""Of fewer runs there is a range at most: of 5, lowest and highest cover the median with 94 %, of 3 with 75 %."""
SEED = 20210215
"""Fixed, so that the same records give the same report."""


class Estimate(NamedTuple):
    """A statistic with the ends of its 95 % interval or, below FEWEST_WITH_INTERVAL runs, of their range; infinite values
    are allowed, and a single run has neither: NaN."""

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


def median_of(values: ArrayLike) -> Estimate:
    """Returns the median of `values` (n,) with its interval.  NaN, a run without a result, counts as infinite."""
    sample = np.asarray(values, dtype=float)
    if not len(sample):
        return Estimate(float("nan"), float("nan"), float("nan"))
    return Estimate(*(float(part[0]) for part in medians_of(sample[:, None])))


def medians_of(values: np.ndarray) -> tuple[np.ndarray, ...]:
    """Returns the median over runs of curves (n, points), and both ends of its pointwise interval: each (points,).

    NaN counts as infinite; one run has no interval: NaN.
    """
    ordered = np.sort(np.where(np.isnan(values), np.inf, values), axis=0)
    value, count = median(ordered.T), len(ordered)
    if count < 2:
        return value, np.full_like(value, np.nan), np.full_like(value, np.nan)
    rank = max(1, int(binom.ppf((1 - CONFIDENCE) / 2, count, 0.5)))
    return value, ordered[rank - 1], ordered[count - rank]


def bootstrapped_shares(values: np.ndarray, *, strata: Sequence[Hashable] | None = None) -> tuple[np.ndarray, ...]:
    """Returns the mean over runs of curves (n, points), and both ends of its pointwise interval: each (points,).

    Runs are drawn with replacement as whole curves, with `strata` (n,) as many from each as it has, so that a task keeps
    its weight (Agarwal et al., 2021).  Fewer than FEWEST_WITH_INTERVAL runs have no interval: NaN.
    """
    value = values.mean(0)
    if len(values) < FEWEST_WITH_INTERVAL:
        return value, np.full_like(value, np.nan), np.full_like(value, np.nan)
    picks = _picks([0] * len(values) if strata is None else strata, np.random.default_rng(SEED))
    ordered = np.sort(np.stack([column.take(picks).mean(-1) for column in values.T]), axis=-1)
    tail = (1 - CONFIDENCE) / 2
    low, high = (ordered[:, round(fraction * (RESAMPLES - 1))] for fraction in (tail, 1 - tail))
    return value, low, high


def bootstrapped(
    values: ArrayLike, statistic: Callable[[np.ndarray], np.ndarray], *, strata: Sequence[Hashable]
) -> Estimate:  # fmt: skip
    """Returns a statistic of `values` (n,), taken over the last axis, with its percentile interval.

    As many runs are drawn from each of the `strata` (n,) as it has.  Below FEWEST_WITH_INTERVAL runs the ends are those of
    their range.
    """
    sample = np.asarray(values, dtype=float)
    value = float(statistic(sample))
    if len(sample) < FEWEST_WITH_INTERVAL:
        return Estimate(value, *((sample.min(), sample.max()) if len(sample) > 1 else (np.nan, np.nan)))
    ordered = np.sort(statistic(sample[_picks(strata, np.random.default_rng(SEED))]))
    tail = (1 - CONFIDENCE) / 2
    low, high = (float(ordered[round(fraction * (RESAMPLES - 1))]) for fraction in (tail, 1 - tail))
    return Estimate(value, low, high)


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
    return bootstrapped_shares(within, strata=strata)


def at_most_from(values: ArrayLike, target: float) -> int | None:
    """Returns the index from which on no value is above the target; None for a miss.  NaN is above it."""
    reached = np.asarray(values, dtype=float) <= target
    above = np.flatnonzero(~reached)
    start = int(above[-1]) + 1 if len(above) else 0
    return start if start < len(reached) else None
