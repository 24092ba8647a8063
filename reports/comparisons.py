"""Pairs of methods: paired differences over seeds, Holm-corrected tests, probability of improvement, and power.

The test is Wilcoxon's signed-rank test, exact: it counts the assignments of signs to the ranks of the differences, so that
it takes infinite losses (a run that selected no model) and assumes no law.  With n seeds no p can be below 2^(1 - n): few
seeds separate nothing, whatever the difference.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from reports.statistics import Estimate, bootstrap

SIGNIFICANCE, POWER = 0.05, 0.8
EXACT_UP_TO = 16
"""Pairs whose 2^n assignments of signs are all counted; beyond, as many are drawn."""
SEED = 20210215


class Comparison(NamedTuple):
    """Compares method `first` with `second`, on the seeds both have; losses are better where they are lower."""

    first: str
    second: str
    n: int
    difference: Estimate
    """Median of loss(first) − loss(second), in the task's unit."""
    improvement: float
    """Probability that a run of `first` is better than a run of `second`, ties counting half (Agarwal et al., 2021)."""
    p: float
    corrected: float
    """Holm's correction over all comparisons made together (Holm, 1979)."""


def compare(losses: Mapping[str, Mapping[int, float]], reference: str) -> list[Comparison]:
    """Compares `reference` with every other method; `losses` maps a method to its losses by seed.  Smallest p first.

    A method that shares no seed with it is left out.
    """
    found = []
    for other in (name for name in losses if name != reference):
        seeds = sorted(losses[reference].keys() & losses[other].keys())
        if not seeds:
            continue
        ours, theirs = ([_number(losses[name][seed]) for seed in seeds] for name in (reference, other))
        differences = _differences(ours, theirs)
        found.append(
            Comparison(
                reference, other, len(seeds), bootstrap(differences), probability_of_improvement(ours, theirs),
                signed_rank(differences), math.nan,
            )
        )  # fmt: skip
    corrected = holm([comparison.p for comparison in found])
    found = [comparison._replace(corrected=p) for comparison, p in zip(found, corrected, strict=True)]
    return sorted(found, key=lambda comparison: (comparison.p, comparison.second))


def to_separate(losses: Mapping[str, Mapping[int, float]], first: str, second: str) -> int | None:
    """Returns `seeds_needed` for two methods, less the seeds that both have; None where it cannot be told."""
    seeds = sorted(losses[first].keys() & losses[second].keys())
    ours, theirs = ([_number(losses[name][seed]) for seed in seeds] for name in (first, second))
    needed = seeds_needed(_differences(ours, theirs))
    return None if needed is None else max(0, needed - len(seeds))


def _number(loss: float) -> float:
    return math.inf if math.isnan(loss) else loss


def _differences(ours: Sequence[float], theirs: Sequence[float]) -> np.ndarray:
    """Returns the differences, of which that of two infinite losses is 0."""
    return np.array([0.0 if a == b else a - b for a, b in zip(ours, theirs, strict=True)])


def signed_rank(differences: ArrayLike) -> float:
    """Returns the two-sided p of the hypothesis that differences (n,) are as often below 0 as above; 1 if all are 0."""
    values = np.asarray(differences, dtype=float)
    values = values[values != 0]
    if not len(values):
        return 1.0
    ranks = pd.Series(np.abs(values)).rank().to_numpy()
    observed = abs(ranks @ np.sign(values))
    count = len(values)
    if count <= EXACT_UP_TO:
        signs = 1 - 2 * ((np.arange(2**count)[:, None] >> np.arange(count)) & 1)
    else:
        drawn = np.random.default_rng(SEED).choice((-1, 1), size=(2**EXACT_UP_TO - 1, count))
        signs = np.vstack([np.sign(values), drawn])
    return float(np.mean(np.abs(signs @ ranks) >= observed - 1e-9))


def holm(p: Sequence[float]) -> list[float]:
    """Returns Holm's step-down correction, which controls the probability of any false claim."""
    corrected, largest = [0.0] * len(p), 0.0
    for place, index in enumerate(sorted(range(len(p)), key=lambda index: p[index])):
        largest = max(largest, min(1.0, (len(p) - place) * p[index]))
        corrected[index] = largest
    return corrected


def probability_of_improvement(ours: ArrayLike, theirs: ArrayLike) -> float:
    """Returns the share of all pairs of runs, not of seeds, in which ours has the lower loss; ties count half."""
    first, second = np.asarray(ours, dtype=float)[:, None], np.asarray(theirs, dtype=float)[None, :]
    return float(np.mean((first < second) + 0.5 * (first == second)))


def seeds_needed(differences: ArrayLike) -> int | None:
    """Returns how many seeds would separate two methods with a probability of 80 %, if differences go on as they are.

    Normal approximation of the paired test at 5 %, not corrected, and at least as many as the exact test needs to reach
    5 % at all.  None where that cannot be told: fewer than two differences, infinite ones, or a mean of 0.
    """
    values = np.asarray(differences, dtype=float)
    if len(values) < 2 or not np.isfinite(values).all() or values.mean() == 0:
        return None
    normal = NormalDist()
    quantiles = normal.inv_cdf(1 - SIGNIFICANCE / 2) + normal.inv_cdf(POWER)
    least = math.ceil(1 + math.log2(1 / SIGNIFICANCE))
    return max(least, math.ceil((quantiles * values.std(ddof=1) / values.mean()) ** 2))
