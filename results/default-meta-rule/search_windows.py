"""Measures trainings of which not every step is tuned: from every start, on three data sets, at equal time.

    python results/default-meta-rule/search_windows.py --task digits-mlp [--names "NAME;NAME"] [--units 4000]

Appends one line an evaluation of every run to windows.csv; what is found there is not run again.  The starts and seeds of a
candidate are members of one batch.  Candidates are compared on validation loss; test losses are there for the report.

The budget is the time of so many plain steps of SGD: a candidate makes as many steps as fit, by the times of COSTS.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from search_averaged import FIELDS, RULES, search, trained

import oho
from oho.found_settings import CURVATURE_FRACTION

COLUMNS = (*FIELDS, "budget")
TABLE = Path(__file__).parent / "windows.csv"
COSTS = {"sgd": (1.42, 3.97, 5.0, 1.3), "adamw": (1.67, 4.68, 6.03, 1.55)}
"""Times in plain SGD steps (MNIST's network, batches of 100, one thread of a busy machine, variants taking turns): a step
between tuned ones, a tuned one with a meta-step in four, a tuned one with its own, and a constant rate with an average."""


@dataclass(frozen=True)
class Doublings:
    """All of the first steps, and then a window after each doubling of them: t to 1.25 t."""

    all_of: int = 100

    def count(self, step: int) -> int:
        """Returns how many of the first `step` steps are tuned."""
        tuned, begin = min(step, self.all_of), 2 * self.all_of
        while begin < step:
            tuned += min(step - begin, begin // 4)
            begin *= 2
        return tuned


@dataclass(frozen=True)
class Root:
    """All of the first steps, and then single ones that become rarer: √(first t) of the first t."""

    all_of: int = 100

    def count(self, step: int) -> int:
        """Returns how many of the first `step` steps are tuned."""
        return step if step <= self.all_of else math.isqrt(self.all_of * step)


@dataclass(frozen=True)
class Logarithmic:
    """All of the first steps, and then as many tuned ones in each doubling of the training."""

    all_of: int = 100

    def count(self, step: int) -> int:
        """Returns how many of the first `step` steps are tuned."""
        return step if step <= self.all_of else int(self.all_of * (1 + math.log(step / self.all_of)))


@dataclass(frozen=True)
class Every:
    """One step of so many."""

    period: int = 4

    def count(self, step: int) -> int:
        """Returns how many of the first `step` steps are tuned."""
        return step // self.period


@dataclass(frozen=True)
class Candidate:
    """A rule, which steps are tuned, and where, how far and how often hyperparameters move."""

    rule: str = "sgd"
    tuned: Any = None
    every: int = 1
    haste: int = 0
    rate: float = 0.04
    present: float = 0.5
    constant: bool = False

    def steps(self, units: int) -> int:
        """Returns how many steps take the time of so many plain ones."""
        plain, tuned_in_four, tuned, constant = COSTS[self.rule]
        if self.constant or self.tuned is None:
            return round(units / (constant if self.constant else tuned_in_four))
        own = tuned_in_four + (tuned - tuned_in_four) * (4 / self.every - 1) / 3  # a validation gradient in so many
        spent, step = 0.0, 0
        while spent < units:
            step += 1
            in_window = own if step > self.haste else tuned
            spent += in_window if self.tuned.count(step) > self.tuned.count(step - 1) else plain
        return step - 1


def optimizer_of(candidate: Candidate, tensors: dict[str, torch.Tensor], lr: torch.Tensor) -> oho.OHO:
    """Returns the population that a candidate stands for."""
    kind, own = RULES[candidate.rule][0], {"tune": ()} if candidate.constant else {}
    return oho.averaged(
        tensors.items(), kind(lr, 1e-5, clip_norm=None if candidate.constant else 1.0, **own), members=len(lr), check=None,
        meta=replace(oho.averaged_meta(), rate=candidate.rate), present_share=candidate.present,
        tuned_steps=candidate.tuned, update_every=candidate.every, first_updates=candidate.haste,
        influence_limit=oho.DEFAULT_LIMIT,
    )  # fmt: skip


def measure(
    name: str, candidate: Candidate, task_name: str, *, units: int, runs: list[tuple[float, int]]
) -> list[dict[str, object]]:
    """Trains all runs (start, seed) of a candidate; returns a row for each evaluation of each of them."""
    rows = trained(
        name, partial(optimizer_of, candidate), task_name, steps=candidate.steps(units), units=units, runs=runs,
        fraction=CURVATURE_FRACTION, constant=candidate.constant,
    )  # fmt: skip
    return [row | {"budget": units} for row in rows]


def candidates() -> dict[str, Candidate]:
    """Returns all that were tried, by name: the first is what `oho.averaged` did before."""
    found = {}
    for rule in ("sgd", "adamw"):
        root = partial(Candidate, rule, Root(100))
        found |= {
            f"every step, {rule}": Candidate(rule, every=4),
            f"windows, {rule}": Candidate(rule, oho.Windows(400, 50, 200), every=4),
            f"windows, {rule}, haste": Candidate(rule, oho.Windows(400, 50, 200), every=4, haste=100),
            f"doublings 100, {rule}": Candidate(rule, Doublings(100)),
            f"root 100, {rule}": root(),
            f"root 100, {rule}, rate .02": root(rate=0.02),
            f"root 100, {rule}, average": root(present=0.0),
            f"root 100, {rule}, share 1": root(present=1.0),
            f"root 200, {rule}, meta 2": Candidate(rule, Root(200), every=2),
            f"root 50, {rule}": Candidate(rule, Root(50)),
            f"logarithm 100, {rule}": Candidate(rule, Logarithmic(100)),
            f"one in 8, {rule}": Candidate(rule, Every(8)),
            f"constant, {rule}": Candidate(rule, constant=True),
        }
    return found


def main() -> None:
    """Runs what the table lacks."""
    search(TABLE, COLUMNS, candidates(), measure, description=__doc__)


if __name__ == "__main__":
    main()
