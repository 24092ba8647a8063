"""Follows the weight decay's influence through trainings of Averaged OHO on MNIST, one for each candidate.

    python results/default-meta-rule/watch_decay.py --seed 31 "before" "factor .2, after 400"

Prints for the tuned steps after the first 1,000: the median growth of the row from one to the next, before it is shortened,
and its length over what the limit allows; and for meta-steps, in the first 400 steps and after the first 1,000, in how
many the hypergradient says that the decay is too low, and its mean over its root mean square.
"""

from __future__ import annotations

import argparse
import tempfile
from itertools import pairwise
from math import sqrt
from pathlib import Path
from statistics import fmean, median
from typing import Any

import torch
from averaged_runs import CONFIG
from search_decay import CANDIDATES
from torch import Tensor

from bench.experiment.expansion import load_experiment
from bench.run.runner import run
from bench.tracking.wandb_sink import NoSink
from oho.recursion import Recursion

STEPS, EARLY, LATE = 4000, 400, 1000
NAME = "weight_decay"


class Watched(Recursion):
    """Notes what the influence of the weight decay is at each tuned step, and its hypergradient at each meta-step."""

    def __init__(self, *given: Any, **options: Any):
        super().__init__(*given, **options)
        self.lengths: list[tuple[int, float, float]] = []
        self.hypergradients: list[tuple[int, float]] = []
        MADE.append(self)

    def shorten_influence(self, limit: float, theta: Tensor) -> None:
        """Notes the row's length over what is allowed, before and after it is shortened."""
        before = self._length(theta) / limit
        super().shorten_influence(limit, theta)
        self.lengths.append((self.steps, before, self._length(theta) / limit))

    def meta_step(self, *given: Any, **options: Any) -> None:
        """Notes the hypergradient."""
        super().meta_step(*given, **options)
        self.hypergradients.append((self.steps, float(self.tuning.hypergradients[NAME])))

    def _length(self, theta: Tensor) -> float:
        row = self.influence.theta[self.directions.rows_of(NAME)]
        return float(self.tuning.values[NAME] * row.norm() / theta.norm())


MADE: list[Watched] = []


def line(watched: Watched) -> str:
    """Returns what is printed of a training."""
    grown = [now / then for (step, _, then), (_, now, _) in pairwise(watched.lengths) if step > LATE and then > 0]
    lengths = [before for step, before, _ in watched.lengths if step > LATE]
    parts = [f"growth {median(grown):.3f}", f"length over the limit {median(lengths):.2g}"]
    for words, chosen in (("early", lambda step: step <= EARLY), ("late", lambda step: step > LATE)):
        found = [value for step, value in watched.hypergradients if chosen(step)]
        size = sqrt(fmean(value * value for value in found))
        too_low = fmean(value < 0 for value in found)
        parts.append(f"{words}: too low in {too_low:.0%} of {len(found)}, {fmean(found) / size if size else 0:.2f}")
    return "; ".join(parts)


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("candidates", nargs="+", choices=list(CANDIDATES))
    parser.add_argument("--seed", type=int, default=31)
    given = parser.parse_args()
    torch.set_num_threads(1)
    import oho.optimizer

    oho.optimizer.Recursion = Watched  # type: ignore[misc]
    for candidate in given.candidates:
        with tempfile.TemporaryDirectory() as name:
            path = Path(name) / "decay.yaml"
            config = CONFIG.format(task="mnist-mlp", rule="sgd", seed=given.seed, steps=STEPS, given="")
            path.write_text(config, encoding="utf-8")
            (spec,) = load_experiment(path).specs
            method = {**spec["method"], **CANDIDATES[candidate]}
            run({**spec, "method": method}, Path(name), data_root=None, open_sink=lambda *unused: NoSink())
        print(f"{candidate}: {line(MADE[-1])}", flush=True)


if __name__ == "__main__":
    main()
