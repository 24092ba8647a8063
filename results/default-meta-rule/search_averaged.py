"""Measures candidates for a default over averaged weights: from every start, on three data sets, at equal cost.

    python results/default-meta-rule/search_averaged.py --task digits-mlp --round 1 [--names "NAME;NAME"] [--units 6000]

Appends one line an evaluation of every run to averaged.csv; what is found there is not run again.  The starts and seeds of
a candidate are members of one batch.  Candidates are compared on validation loss; test losses are there for the report.

The budget is in plain steps of SGD: a candidate makes as many steps as have their multiply-adds (see `Candidate.cost`).
"""

from __future__ import annotations

import argparse
import csv
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from itertools import product
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import oho
from bench.experiment.registries import TASKS
from bench.protocol import Stacked, StackedBatches
from bench.tasks.entry import build_task

HERE = Path(__file__).parent
TABLE = HERE / "averaged.csv"
STARTS = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0)
RULES = {"sgd": (oho.SGD, 1.0), "momentum": (oho.Momentum, 1.0), "adamw": (oho.AdamW, 0.1)}
"""The rules by name, each with its highest start."""
EVALUATIONS = {"digits-mlp": 10, "diabetes-mlp": 10, "mnist-mlp": 5, "fashion-mnist-mlp": 8, "fashion-cnn": 2}
FIELDS = (
    "candidate", "task", "start", "seed", "units", "step", "validation_loss", "test_loss", "lr", "weight_decay",
    "shortened", "skipped", "seconds",
)  # fmt: skip


@dataclass(frozen=True)
class Candidate:
    """A rule, an average, where validation gradients are taken, a meta-rule, and what is saved."""

    rule: str = "momentum"
    average: Any = None
    present: float | str = 0.0
    """The share of the present weights in the point at which validation gradients are taken, or "alternate"."""
    rate: float = 0.04
    beta2: float = 0.99
    beta1: float = 0.9
    decay: float = 0.0
    discount: float = 0.999
    limit: float = 1.0
    fraction: float | None = 0.25
    every: int = 4
    clip: float | None = None
    constant: bool = False

    @property
    def cost(self) -> float:
        """Multiply-adds of a step in plain steps: gradient, validation gradient, and products of two tangents."""
        return 1.0 if self.constant else 1 + 1 / self.every + 2.7 * (self.fraction or 1.0)


class Alternating(oho.OHO):
    """Takes every other validation gradient at the present weights."""

    def _step(self, *closures: Any) -> Tensor:
        self._recursion.present_share = float((self.steps + 1) // self.update_every % 2)
        return super()._step(*closures)


@dataclass(frozen=True)
class Decaying(oho.MetaAdam):
    """Adam whose rate falls with the root of its steps, from `steps` on."""

    steps: float = 100.0

    def step(self, name: str, gradient: Tensor, memory: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """Makes a step of Adam, shorter than the one before."""
        change, memory = super().step(name, gradient, memory)
        return change / (1 + memory["count"].to(change.dtype) / self.steps).sqrt(), memory


def optimizer_of(candidate: Candidate, tensors: dict[str, Tensor], lr: Tensor) -> oho.OHO:
    """Returns the population that a candidate stands for."""
    options: dict[str, Any] = {"rate": candidate.rate, "beta1": candidate.beta1, "beta2": candidate.beta2}
    meta: oho.MetaAdam = oho.MetaAdam(**options)
    if candidate.decay:
        meta = Decaying(**options, steps=candidate.decay)
    tune = {"tune": ()} if candidate.constant else {}
    kind = Alternating if candidate.present == "alternate" else oho.OHO
    share = 0.0 if isinstance(candidate.present, str) else candidate.present
    return kind(
        tensors.items(), RULES[candidate.rule][0](lr, 1e-5, clip_norm=candidate.clip, **tune), members=len(lr), meta=meta,
        discount=candidate.discount, influence_limit=candidate.limit, average=candidate.average, present_share=share,
        update_every=candidate.every, check=None,
    )  # fmt: skip


def measure(
    name: str, candidate: Candidate, task_name: str, *, units: int, runs: list[tuple[float, int]]
) -> list[dict[str, object]]:
    """Trains all runs (start, seed) of a candidate; returns a row for each evaluation of each of them."""
    return trained(
        name, partial(optimizer_of, candidate), task_name, steps=round(units / candidate.cost), units=units, runs=runs,
        fraction=candidate.fraction, constant=candidate.constant,
    )  # fmt: skip


def trained(
    name: str, make: Callable[[dict[str, Tensor], Tensor], oho.OHO], task_name: str, *, steps: int, units: int,
    runs: list[tuple[float, int]], fraction: float | None, constant: bool,
) -> list[dict[str, object]]:  # fmt: skip
    """Trains runs by the optimizer that `make` makes of tensors and rates; returns a row for each evaluation of each run.

    Products are taken from a fraction of each batch, if there is one and the rate is not constant.
    """
    task, test = task_of(task_name)
    stacked = Stacked([task] * len(runs), [task.model(seed) for _, seed in runs])
    optimizer = make(stacked.tensors, torch.tensor([start for start, _ in runs]))
    batches = StackedBatches([task.train_batches(seed) for _, seed in runs])
    held = StackedBatches([task.validation_batches(seed, None) for _, seed in runs])
    rows, began, count = [], time.perf_counter(), EVALUATIONS[task_name]
    evaluated = {round(steps * i / count): round(units * i / count) for i in range(1, count + 1)}
    for step in range(steps):
        batch = batches.at(step)
        optimizer.step(
            partial(stacked.losses, batch),
            None if constant else lambda step=step: stacked.losses(held.at(step)),
            curvature_closure=None if constant or fraction is None else _part(fraction, stacked, batch),
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
                "seconds": round(time.perf_counter() - began, 1),
            })  # fmt: skip
    return rows


def _part(fraction: float, stacked: Stacked, batch: tuple[Tensor, Tensor]) -> Callable[[], Tensor]:
    """Returns the loss of the first examples of a batch."""
    first = round(batch[0].shape[1] * fraction)
    return partial(stacked.losses, (batch[0][:, :first], batch[1][:, :first]))


@cache
def task_of(name: str) -> Any:
    """Returns a task as methods see it, and its test split."""
    root = Path(os.environ.get("OHO_DATA", "data"))
    return build_task(name, TASKS[name], TASKS[name].defaults, device=torch.device("cpu"), root=root)


def candidates() -> dict[str, Candidate]:
    """Returns all that were tried, by name."""
    base = Candidate(average=oho.Recent(0.1))
    change = partial(replace, base)
    clipped = partial(replace, replace(base, present=0.5, clip=1.0))
    sgd = partial(replace, replace(base, rule="sgd", present=0.5))
    found = {
        "default, 1": Candidate("sgd", rate=0.01, beta2=0.999, fraction=None, every=1),
        "default, 1, momentum": Candidate("momentum", rate=0.01, beta2=0.999, fraction=None, every=1),
        "default, 1, averaged": Candidate("sgd", oho.Recent(0.1), 1.0, rate=0.01, beta2=0.999, fraction=None, every=1),
        "default, 1, thrifty": Candidate("sgd", rate=0.04, beta2=0.999),
        "constant sgd": Candidate("sgd", oho.Recent(0.1), constant=True),
        "constant momentum": Candidate("momentum", oho.Recent(0.1), constant=True),
        "constant momentum, clipped": Candidate("momentum", oho.Recent(0.1), constant=True, clip=1.0),
        "constant adamw": Candidate("adamw", oho.Recent(0.1), constant=True),
        "average": base,
        "alternate": change(present="alternate"),
        "share 1": change(present=1.0),
        "share .5": change(present=0.5),
        "share .3": change(present=0.3),
        "share .7": change(present=0.7),
        "average, clipped": change(clip=1.0),
        "alternate, clipped": change(present="alternate", clip=1.0),
        "share .5, clipped": clipped(),
        "share .5, clipped, decay 100": clipped(decay=100.0),
        "share .5, clipped, rate .1, decay 100": clipped(rate=0.1, decay=100.0),
        "share .5, clipped, beta2 .999": clipped(beta2=0.999),
        "share .5, clipped, beta2 .9": clipped(beta2=0.9),
        "share .5, clipped, rate .02": clipped(rate=0.02),
        "share .5, clipped, rate .08": clipped(rate=0.08),
        "share .5, clipped, limit .3": clipped(limit=0.3),
        "share .5, clipped, discount .99": clipped(discount=0.99),
        "share .5, clipped, horizon 200": clipped(average=oho.Exponential(200)),
        "share .5, clipped, horizon 1000": clipped(average=oho.Exponential(1000)),
        "share .5, clipped, last .3": clipped(average=oho.Recent(0.3)),
        "average, sgd": sgd(present=0.0),
        "alternate, sgd": sgd(present="alternate"),
        "share .3, sgd": sgd(present=0.3),
        "share .5, sgd": sgd(),
        "share .7, sgd": sgd(present=0.7),
        "share 1, sgd": sgd(present=1.0),
        "share .5, sgd, rate .02": sgd(rate=0.02),
        "share .5, sgd, rate .08": sgd(rate=0.08),
        "share .5, sgd, rate .1, decay 100": sgd(rate=0.1, decay=100.0),
        "share .5, sgd, beta2 .999": sgd(beta2=0.999),
        "share .5, sgd, beta2 .9": sgd(beta2=0.9),
        "share .5, sgd, horizon 200": sgd(average=oho.Exponential(200)),
        "share .5, sgd, horizon 1000": sgd(average=oho.Exponential(1000)),
        "share .5, sgd, last .3": sgd(average=oho.Recent(0.3)),
        "share .5, sgd, limit .3": sgd(limit=0.3),
        "share .5, sgd, discount .99": sgd(discount=0.99),
        "share .5, sgd, clipped": sgd(clip=1.0),
        "average, sgd, clipped": sgd(present=0.0, clip=1.0),
        "share .5, sgd, 1/8 every 8": sgd(fraction=0.125, every=8, rate=0.08),
        "average, adamw": change(rule="adamw"),
        "share .5, adamw": change(rule="adamw", present=0.5),
        "share .5, adamw, clipped": change(rule="adamw", present=0.5, clip=1.0),
    }
    return found


def main() -> None:
    """Runs what the table lacks."""
    search(TABLE, FIELDS, candidates(), measure, description=__doc__)


def search(
    table: Path, fields: Sequence[str], candidates: Mapping[str, Any], measure: Callable[..., list[dict[str, object]]],
    *, description: str | None,
) -> None:  # fmt: skip
    """Reads the command line, and appends to a table the rows of what it lacks."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--names", type=partial(str.split, sep=";"), default=list(candidates))
    parser.add_argument("--task", default="digits-mlp")
    parser.add_argument("--units", type=int, default=4000)
    parser.add_argument("--seeds", type=lambda text: [int(part) for part in text.split(",")], default=[100, 101])
    parser.add_argument("--starts", type=lambda text: [float(part) for part in text.split(",")], default=STARTS)
    given = parser.parse_args()
    torch.set_num_threads(1)
    done = set()
    if table.exists():
        with open(table, encoding="utf-8") as file:
            rows = [row for row in csv.DictReader(file) if int(row.get("budget", given.units)) == given.units]
        done = {(row["candidate"], row["task"], float(row["start"]), int(row["seed"])) for row in rows}
    with open(table, "a", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, fields, lineterminator="\n")
        if file.tell() == 0:
            writer.writeheader()
        for name in given.names:
            candidate = candidates[name]
            starts = [start for start in given.starts if start <= RULES[candidate.rule][1]]
            runs = [run for run in product(starts, given.seeds) if (name, given.task, *run) not in done]
            if runs:
                writer.writerows(measure(name, candidate, given.task, units=given.units, runs=runs))
                file.flush()
                print(name, given.task, time.strftime("%H:%M:%S"), flush=True)


if __name__ == "__main__":
    main()
