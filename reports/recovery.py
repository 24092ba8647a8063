"""What a shock costs a run beside its twin: the run of the same method and seed that was spared it.

    symbol  name        shape  unit              equation
    L, L'   losses      (n,)   the task's        validation loss of the present model, of the run and of its twin
    t0      shock       ()     epochs            where the shock is
    T       end         ()     epochs            the twin's last evaluation
    a       apart       (n,)   1                 what 90 % of pairs of unshocked runs of a method, of two seeds each, differ
                                                 by at most: the higher loss over the lower, less 1
    b       band        (n,)   1                 max(5 %, a), with the lower median of a over methods
    t1      recovery    ()     epochs            first evaluation from which on L <= (1 + b) L' for good, if for 3 or more
    R       time        ()     epochs            t1 - t0; 0 where L is never above (1 + b) L', infinite where there is no t1
                                                 or L is not finite at T
    E       excess      ()     loss · epochs     integral of max(0, L - L') from t0 to T

A run that touches the band and leaves it again has not recovered, nor has one that diverged, even if its twin did as well.
The band is never narrower than noise: two unshocked runs that differ in their seed alone are often further apart than 5 %,
and would not count as recovered either.  All methods have the same band, that of the middle one, so that a method whose own
runs lie far apart does not recover more easily.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

WITHIN = 0.05
"""The least half-width of the band."""
PAIRS = 0.9
"""The share of pairs of unshocked runs that the band has room for."""
FOR_GOOD = 3
"""Evaluations, the last ones of a run, that must all lie within the band: at the very end, one could be luck."""


class Recovery(NamedTuple):
    """How one run recovers: epochs until then, infinite where it does not, and excess in the loss' unit · epochs."""

    epochs: float
    excess: float


def band(unshocked: Sequence[np.ndarray]) -> np.ndarray:
    """Returns the band's half-width (n,) as a part of the twin's loss, from unshocked losses (seeds, n) of each method.

    A method of a single seed has no part in it.
    """
    points = unshocked[0].shape[1]
    apart = [_apart(losses) for losses in unshocked if len(losses) > 1]
    if not apart:
        return np.full(points, WITHIN)
    return np.maximum(WITHIN, np.quantile(apart, 0.5, axis=0, method="inverted_cdf"))


def _apart(losses: np.ndarray) -> np.ndarray:
    """Returns what PAIRS of all pairs of runs differ by at most (n,), from their losses (seeds, n)."""
    one, other = np.triu_indices(len(losses), 1)
    losses = np.where(np.isnan(losses), np.inf, losses)
    low, high = np.minimum(losses[one], losses[other]), np.maximum(losses[one], losses[other])
    with np.errstate(invalid="ignore", divide="ignore"):  # two infinities do not differ, nor do two zeros
        gaps = np.nan_to_num((high - low) / np.abs(low), nan=0.0, posinf=np.inf)
    return np.quantile(gaps, PAIRS, axis=0, method="inverted_cdf")


def recovery(losses: np.ndarray, twin: np.ndarray, *, epochs: np.ndarray, shock: float, width: np.ndarray) -> Recovery:
    """Compares the `losses` (n,) of a run with those of its `twin` (n,) at `epochs` (n,) from the shock on.

    `width` (n,) is the band's half-width.  NaN is infinitely bad; the losses of a run that ended before its twin are NaN
    from there on.
    """
    losses, twin = (np.where(np.isnan(values), np.inf, values) for values in (losses, twin))
    with np.errstate(invalid="ignore"):  # two infinities do not differ
        gap = np.nan_to_num(np.maximum(losses - twin, 0), nan=0.0, posinf=np.inf)
    excess = float(np.trapezoid(gap, epochs))
    outside = np.flatnonzero((losses > (1 + width) * twin) | np.isinf(losses))
    if len(losses) and not len(outside):
        return Recovery(0.0, excess)
    back = outside[-1] + 1 if len(losses) else 0
    return Recovery(float(epochs[back] - shock) if len(epochs) - back >= FOR_GOOD else np.inf, excess)
