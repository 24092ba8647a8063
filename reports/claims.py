"""The paper's claims, the rule by which each is decided, and the verdicts that the runs give.

A rule reads estimates alone: medians with their 95 % intervals, of fewer than six runs nothing.  It is written down beside
the claim, so that whoever doubts a verdict knows what to look at.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from typing import Any, NamedTuple

import numpy as np

from reports.statistics import FEWEST_WITH_INTERVAL
from reports.words import loss_text


class Outcome(StrEnum):
    """What becomes of a claim."""

    REPRODUCED = "reproduced"
    NOT_REPRODUCED = "not reproduced"
    UNDECIDED = "undecided"
    NOT_TESTED = "not tested"


class Verdict(NamedTuple):
    """An outcome, and the numbers or the reason that it rests on."""

    outcome: Outcome
    evidence: str


class Claim(NamedTuple):
    """A claim, and the rule by which it counts as reproduced.

    It is not reproduced where intervals lie apart the other way, and undecided where they overlap.
    """

    text: str
    rule: str


CLAIMS: Mapping[str, Sequence[Claim]] = {
    "distribution": (
        Claim(
            "From random starts, Global OHO ends at a lower test loss than fixed and scheduled learning rates.",
            "The interval of its median lies below that of each of SGD's Fixed, Step, Exponential and Cosine.",
        ),
        Claim(
            "With Global OHO the loss depends less on the start.",
            "A run is off the median loss of its method by some factor; the interval of the median factor lies below those "
            "of the same.",
        ),
    ),
    "performance": (
        Claim(
            "Random search and Bayesian optimization need longer than one Global OHO run to be as good.",
            "For each search over the paper's trainings, the interval of the time to Global OHO's loss lies above its own, "
            "and none made too few trials to be more than random search.",
        ),
    ),
    "convergence": (
        Claim(
            "Learning rates end at the same values wherever they start.",
            "The last learning rates of a seed's runs are some factor apart, the largest of all groups of layers; the "
            "interval of its median over seeds ends below 2.",
        ),
    ),
    "sets": (
        Claim(
            "More sets give a lower test loss.",
            "With collapsed influence, the interval of the median at the most sets lies below that at the fewest.",
        ),
    ),
    "source": (
        Claim(
            "Hypergradients of the validation batch give a lower test loss than those of the training batch.",
            "The interval of the median with the smallest validation batch lies below that with the training batch.",
        ),
        Claim(
            "Larger validation batches give a lower test loss.",
            "The interval of the median with the largest lies below that with the smallest.",
        ),
    ),
    "resiliency": (
        Claim(
            "Global OHO recovers from a kick of the learning rate, and fixed settings do not.",
            "For each such kick, the interval of the median epochs to recover lies below that of Fixed.",
        ),
    ),
    "tangents": (
        Claim(
            "The norms of the influence stay bounded.",
            "Later than halfway, no interval of a median norm reaches above the highest one before.",
        ),
    ),
    "stability": (
        Claim(
            "The influence explodes at large meta-rates.",
            "The interval of its largest norm at the largest meta-rate lies above ten times that at the smallest.",
        ),
    ),
    "reset": (
        Claim(
            "Forgetting the influence costs.",
            "The interval of the median without resets lies below that with the most frequent ones.",
        ),
    ),
}  # fmt: skip
"""By the figure that decides them."""


NOT_VALID = "the clock of too many runs was disturbed"


class Measured(NamedTuple):
    """A median of `n` runs with the ends of its interval."""

    name: str
    n: int
    value: float
    low: float
    high: float

    @classmethod
    def of(cls, name: str, row: Any, value: str = "median", prefix: str = "") -> Measured:
        """Reads a row of a summary; a method that returns the untrained model has an infinite loss."""
        if value == "median" and row.get("untrained", False):
            return cls(name, int(row["n"]), np.inf, np.inf, np.inf)
        return cls(name, int(row["n"]), *(float(row[column]) for column in (value, f"{prefix}low", f"{prefix}high")))

    def __str__(self) -> str:
        ends = "" if np.isnan(self.low) else f" [{loss_text(self.low)}, {loss_text(self.high)}]"
        return f"{self.name}: {loss_text(self.value)}{ends}"


def below(ours: Measured | None, others: Sequence[Measured], *, missing: str, factor: float = 1.0) -> Verdict:
    """Decides whether the interval of `ours`, times `factor`, lies below those of all others, of which the nearest is told.

    It certainly does not if it lies above one of them, or at infinity.  `missing` says what was not run where there is
    nothing to compare.
    """
    if ours is None or not others:
        return not_tested(f"{missing} not run")
    if few := too_few([ours.n, *(other.n for other in others)]):
        return few
    nearest = min(others, key=lambda other: (other.low, other.value))
    more = f", the nearest of {len(others)}" if len(others) > 1 else ""
    fails = np.isinf(ours.low) or any(factor * ours.low > other.high for other in others)
    return decided(factor * ours.high < nearest.low, fails, f"{ours} against {nearest}{more}")


def too_few(counts: Iterable[int]) -> Verdict | None:
    """Returns the verdict on estimates of which one is of too few runs; None where there are enough."""
    fewest = min(counts)
    enough = fewest >= FEWEST_WITH_INTERVAL
    return None if enough else not_tested(f"too few runs: {fewest}, where {FEWEST_WITH_INTERVAL} are needed")


def decided(holds: bool, fails: bool, evidence: str) -> Verdict:
    """Returns the verdict on a rule that could be applied: it may hold for certain, fail for certain, or neither."""
    return Verdict(Outcome.REPRODUCED if holds else Outcome.NOT_REPRODUCED if fails else Outcome.UNDECIDED, evidence)


def not_tested(reason: str) -> Verdict:
    """Returns the verdict on a rule that could not be applied."""
    return Verdict(Outcome.NOT_TESTED, reason)


def worst(verdicts: Sequence[Verdict]) -> Verdict:
    """Returns the verdict on a claim that must hold several times: the first that fails, is not tested, or is undecided."""
    order = (Outcome.NOT_REPRODUCED, Outcome.NOT_TESTED, Outcome.UNDECIDED, Outcome.REPRODUCED)
    first = min(verdicts, key=lambda verdict: order.index(verdict.outcome))
    more = sum(verdict.outcome is first.outcome for verdict in verdicts) - 1
    times = f" (and {more} more)" if more and first.outcome is not Outcome.REPRODUCED else ""
    return first._replace(evidence=f"{first.evidence}{times}")
