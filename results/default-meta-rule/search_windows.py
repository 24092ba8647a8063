"""Measures trainings of which not every step is tuned: from every start, on three data sets, at equal time.

    python results/default-meta-rule/search_windows.py --task digits-mlp [--names "NAME;NAME"] [--units 4000]

Appends one line an evaluation of every run to windows.csv; what is found there is not run again.  The starts and seeds of a
candidate are members of one batch.  Candidates are compared on validation loss; test losses are there for the report.

The budget is the time of so many plain steps of SGD: a candidate makes as many steps as fit, by the times of COSTS.
"""

from __future__ import annotations

import argparse
import csv
import math
import time
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import torch
from search_averaged import EVALUATIONS, FIELDS, RULES, STARTS, _task

import oho
from bench.protocol import Stacked, StackedBatches

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
        tuned_steps=candidate.tuned, update_every=candidate.every,
        first_updates=candidate.haste,
    )  # fmt: skip


def measure(
    name: str, candidate: Candidate, task_name: str, *, units: int, runs: list[tuple[float, int]]
) -> list[dict[str, object]]:
    """Trains all runs (start, seed) of a candidate; returns a row for each evaluation of each of them."""
    task, test = _task(task_name)
    stacked = Stacked([task] * len(runs), [task.model(seed) for _, seed in runs])
    optimizer = optimizer_of(candidate, stacked.tensors, torch.tensor([start for start, _ in runs]))
    batches = StackedBatches([task.train_batches(seed) for _, seed in runs])
    held = StackedBatches([task.validation_batches(seed, None) for _, seed in runs])
    steps, rows, began, count = candidate.steps(units), [], time.perf_counter(), EVALUATIONS[task_name]
    evaluated = {round(steps * i / count): round(units * i / count) for i in range(1, count + 1)}
    for step in range(steps):
        batch = batches.at(step)
        first = batch[0].shape[1] // 4
        optimizer.step(
            partial(stacked.losses, batch),
            lambda step=step: stacked.losses(held.at(step)),
            curvature_closure=None if candidate.constant else partial(stacked.losses, [part[:, :first] for part in batch]),
        )
        if step + 1 not in evaluated:
            continue
        with optimizer.averaged():
            validation, tested = (stacked.evaluate([split] * len(runs)) for split in (task.validation, test))
        for i, (start, seed) in enumerate(runs):
            rows.append({
                "candidate": name, "task": task_name, "start": start, "seed": seed, "units": evaluated[step + 1],
                "step": step + 1, "validation_loss": f"{validation[i].loss:.6g}", "test_loss": f"{tested[i].loss:.6g}",
                "lr": f"{float(optimizer.hyper['lr'][i]):.4g}",
                "weight_decay": f"{float(optimizer.hyper['weight_decay'][i]):.4g}",
                "shortened": int(optimizer.shortened[i]), "skipped": sum(int(n[i]) for n in optimizer.skipped.values()),
                "seconds": round(time.perf_counter() - began, 1), "budget": units,
            })  # fmt: skip
    return rows


def candidates() -> dict[str, Candidate]:
    """Returns all that were tried, by name: the first is what `oho.averaged` did before."""
    found = {}
    for rule in ("sgd", "adamw"):
        root = partial(Candidate, rule, Root(100))
        found |= {
            f"every step, {rule}": Candidate(rule, every=4),
            f"windows, {rule}": Candidate(rule, oho.Windows(), every=4),
            f"windows, {rule}, haste": Candidate(rule, oho.Windows(), every=4, haste=100),
            f"windows, {rule}, haste, first 100": Candidate(rule, oho.Windows(100), every=4, haste=100),
            f"windows, {rule}, first 100": Candidate(rule, oho.Windows(100), every=4),
            f"windows, {rule}, first 100, meta 2": Candidate(rule, oho.Windows(100), every=2),
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
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--names", type=partial(str.split, sep=";"), default=list(candidates()))
    parser.add_argument("--task", default="digits-mlp")
    parser.add_argument("--units", type=int, default=4000)
    parser.add_argument("--seeds", type=lambda text: [int(part) for part in text.split(",")], default=[100, 101])
    parser.add_argument("--starts", type=lambda text: [float(part) for part in text.split(",")], default=STARTS)
    given = parser.parse_args()
    torch.set_num_threads(1)
    done = set()
    if TABLE.exists():
        with open(TABLE, encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        done = {
            (row["candidate"], row["task"], float(row["start"]), int(row["seed"]))
            for row in rows
            if int(row["budget"]) == given.units
        }
    with open(TABLE, "a", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        if file.tell() == 0:
            writer.writeheader()
        for name in given.names:
            candidate = candidates()[name]
            highest = math.inf if candidate.constant else RULES[candidate.rule][1]
            runs = [run for run in product(given.starts, given.seeds) if run[0] <= highest]
            runs = [run for run in runs if (name, given.task, *run) not in done]
            if runs:
                writer.writerows(measure(name, candidate, given.task, units=given.units, runs=runs))
                file.flush()
                print(name, given.task, time.strftime("%H:%M:%S"), flush=True)


if __name__ == "__main__":
    main()
