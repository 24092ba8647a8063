"""Pairs of methods: paired differences over seeds, Holm-corrected tests, probability of improvement, and power.

A test answers a question that was asked before the runs were looked at: is the method under test better than this one?
The test is Wilcoxon's signed-rank test, exact: it counts the assignments of signs to the ranks of the differences, so that
it takes infinite losses (a run that selected no model) and assumes no law.  With n seeds no p can be below 2^(1 - n): few
seeds separate nothing, whatever the difference.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import cache
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from reports.statistics import SEED, Estimate, median_of

SIGNIFICANCE, POWER = 0.05, 0.8
SIMULATED, MOST_SEEDS = 2_000, 200
EXACT_UP_TO = 16
"""Pairs whose 2^n assignments of signs are all counted; beyond, as many are drawn."""


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
                reference, other, len(seeds), median_of(differences), probability_of_improvement(ours, theirs),
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


def fewest_seeds(comparisons: int) -> int:
    """Returns the fewest seeds with which a test of so many comparisons can be below 5 % after Holm's correction."""
    return math.floor(1 + math.log2(comparisons / SIGNIFICANCE)) + 1


def probability_of_improvement(ours: ArrayLike, theirs: ArrayLike) -> float:
    """Returns the share of all pairs of runs, not of seeds, in which ours has the lower loss; ties count half."""
    first, second = np.asarray(ours, dtype=float)[:, None], np.asarray(theirs, dtype=float)[None, :]
    return float(np.mean((first < second) + 0.5 * (first == second)))


def seeds_needed(differences: ArrayLike) -> int | None:
    """Returns how many seeds would separate two methods with a probability of 80 %, if differences go on as they are.

    The same test at 5 %, not corrected, on normal differences of the mean and the deviation of these, drawn SIMULATED times
    from an explicit generator.  None where that cannot be told: fewer than two differences, infinite ones, a mean of 0, or
    more than MOST_SEEDS.
    """
    values = np.asarray(differences, dtype=float)
    if len(values) < 2 or not np.isfinite(values).all() or values.mean() == 0:
        return None
    effect = abs(values.mean()) / max(values.std(ddof=1), 1e-9 * abs(values.mean()))
    enough, few = MOST_SEEDS, fewest_seeds(1)
    if _power(effect, enough) < POWER:
        return None
    while few < enough:  # power grows with seeds
        middle = (few + enough) // 2
        few, enough = (few, middle) if _power(effect, middle) >= POWER else (middle + 1, enough)
    return enough


def _power(effect: float, count: int) -> float:
    """Returns how often the test is below 5 % on `count` normal differences of mean `effect` and deviation 1."""
    drawn = np.random.default_rng(SEED).normal(effect, 1.0, size=(SIMULATED, count))
    ranks = np.abs(drawn).argsort(axis=1).argsort(axis=1) + 1
    sums = np.abs((ranks * np.sign(drawn)).sum(axis=1))
    return float(np.mean(sums >= _least_significant(count)))


@cache
def _least_significant(count: int) -> float:
    """Returns the least |sum of signed ranks 1 to n| whose exact two-sided p is below 5 %, infinite if none is."""
    ways = np.ones(1)
    for rank in range(1, count + 1):  # the law of the sum of the positive ranks, one rank after the other
        wider = np.zeros(len(ways) + rank)
        wider[: len(ways)] += ways / 2
        wider[rank:] += ways / 2
        ways = wider
    total = count * (count + 1) // 2
    tails = 2 * np.cumsum(ways)  # p of a sum of positive ranks up to k, for k up to the middle
    significant = np.flatnonzero(tails[: total // 2 + 1] < SIGNIFICANCE)
    return float(total - 2 * significant[-1]) if len(significant) else math.inf
