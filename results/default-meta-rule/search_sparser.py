"""Measures windows that tune fewer steps, in trainings of about the same time.

    python results/default-meta-rule/search_sparser.py [--tasks TASK ...] [--rule RULE] [--time N] [--start LR] ...
    python results/default-meta-rule/search_sparser.py --table

A training has as many steps as fit into the time of so many plain steps of the rule with an average, by COSTS.  Appends
one line a run to sparser.csv; what is found there is not run again.  Candidates are compared on validation loss, that of
the selected model; test losses are there for the report.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple
from unittest import mock

from averaged_runs import FOUND, made, measure, parser, table

import oho
from bench.online.default_options import AveragedOptions
from oho import found_settings

DRAWN = "drawn"
TABLE = Path(__file__).parent / "sparser.csv"
TASKS = ("mnist-mlp", "fashion-mnist-mlp", "digits-mlp", "fashion-cnn")
COSTS = {"with a meta-step": 4.0, "tuned": 3.3, "plain": 1.15}
"""What a step costs in plain steps of AdamW with an average, about, on one thread of a 2-core AMD EPYC: one of the first
ones, of which each makes a meta-step, a later tuned one, and one between windows.  Over SGD it costs a little more."""


@dataclass(frozen=True)
class Rarer:
    """Tunes the `first` steps and then the last 50 of each period, which has a fifth of all steps made, 200 at least."""

    first: int

    def count(self, step: int) -> int:
        """Returns how many of the first `step` steps are tuned."""
        begin, tuned = self.first, min(step, self.first)
        while step > begin:
            end = begin + max(200, begin // 5)
            begin, tuned = end, tuned + max(0, min(step, end) - (end - 50))
        return tuned


class Candidate(NamedTuple):
    """What is tuned, how many first steps make a meta-step each, and the meta-rate of the weight decay."""

    windows: oho.Windows | Rarer
    first_updates: int = found_settings.FIRST_UPDATES
    decay_rate: float = 0.04


CANDIDATES: dict[str, Candidate] = {
    f"{first}, {length} of {period}": Candidate(oho.Windows(first, length, period))
    for first in (100, 200, 400)
    for length, period in ((50, 200), (50, 400), (50, 800))
}
CANDIDATES |= {f"{name}, decay .1": each._replace(decay_rate=0.1) for name, each in CANDIDATES.items()}
CANDIDATES |= {f"{first}, rarer": Candidate(Rarer(first)) for first in (200, 400)}
CANDIDATES["200 each, rarer"] = Candidate(Rarer(200), first_updates=200)
CANDIDATES["200 each, 50 of 800"] = Candidate(oho.Windows(200, 50, 800), first_updates=200)
CANDIDATES["300, 50 of 800"] = Candidate(oho.Windows(300, 50, 800))
ALIKE = ("task", "rule", "time", "start", "candidate")
KEYS = (*ALIKE, "seed")


def steps_of(candidate: str, time: int) -> int:
    """Returns how many steps fit into the time."""
    windows, updates, _ = CANDIDATES[candidate]
    spent, steps = 0.0, 0
    while spent < time:
        steps += 1
        is_tuned = windows.count(steps) > windows.count(steps - 1)
        spent += COSTS["plain" if not is_tuned else "with a meta-step" if steps <= updates else "tuned"]
    return steps


def measured(task: str, rule: str, time: int, start: str, candidate: str, seed: int) -> list[object]:
    """Makes one run and returns its line."""
    steps, (windows, updates, rate) = steps_of(candidate, time), CANDIDATES[candidate]
    meta = found_settings.averaged_meta()
    meta = replace(meta, rate={"lr": meta.rate, "weight_decay": rate})
    given = "" if start == DRAWN else f", lr: {start}, weight_decay: 1e-4"
    with (  # neither is an option of the bench's method
        mock.patch.object(found_settings, "averaged_meta", return_value=meta),
        mock.patch.object(AveragedOptions, "tuned_steps", windows),
    ):
        found = made(task, rule, steps=steps, seed=seed, options={"first_updates": updates}, given=given)
    return [task, rule, time, start, candidate, seed, steps, *found]


def described() -> str:
    """Returns a line for each task and candidate: medians over seeds, and the range of the last learning rates."""
    head = (
        "task", "over", "plain steps' time", "start", "windows", "seeds", "steps", "validation: median, worst", "test",
        "last learning rates",
    )  # fmt: skip
    return table(TABLE, ALIKE, head, "lr", beside=["steps"])


def main() -> None:
    """Reads the command line."""
    options = parser(__doc__, tasks=TASKS, usual=TASKS, seeds=[30, 31, 32, 33])
    options.add_argument("--rule", choices=("sgd", "momentum", "adamw"), default="adamw")
    options.add_argument("--time", type=int, default=6400, help="in plain steps of the rule with an average")
    options.add_argument("--start", default=DRAWN, help="the first learning rate")
    options.add_argument("--names", nargs="+", choices=list(CANDIDATES), default=list(CANDIDATES))
    given = options.parse_args()
    if given.table:
        print(described())
        return
    alike = given.rule, given.time, given.start
    wanted = [(task, *alike, name, seed) for seed in given.seeds for task in given.tasks for name in given.names]
    measure(TABLE, KEYS, wanted, measured, (*KEYS, "steps", *FOUND))


if __name__ == "__main__":
    main()
