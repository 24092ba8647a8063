"""Measures candidates for the default meta-rule: from every start, on three data sets, for several seeds.

    python results/default-meta-rule/search.py [--candidates "NAME;NAME"] [--tasks NAME,...] [--seeds 0,1,2] [--workers 2]

Appends one line an epoch of every run to trajectories.csv; runs found there are not run again.  Candidates are compared on
validation loss; test losses are in the table for the report alone.
"""

from __future__ import annotations

import argparse
import csv
import math
import multiprocessing
import os
import time
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path

import torch

import oho
from bench.experiment.registries import TASKS
from bench.protocol.task import Batches, evaluate
from bench.tasks.entry import build_task

HERE = Path(__file__).parent
TABLE = HERE / "trajectories.csv"
STARTS = (1e-4, 1e-3, 1e-2, 1e-1, 3e-1)
EPOCHS = {"digits-mlp": 300, "mnist-mlp": 15, "fashion-mnist-mlp": 15}
EVALUATIONS = 15
FIELDS = (
    "candidate", "task", "start", "seed", "epoch", "validation_loss", "test_loss", "lr", "weight_decay",
    "largest_influence_norm", "skipped", "seconds",
)  # fmt: skip


@dataclass(frozen=True)
class Candidate:
    """A meta-rule, a discount, and how the validation batches are used."""

    meta: oho.MetaRule
    discount: float
    validation_batch: int = 100
    update_every: int = 1
    limit: float | None = None


def adam(rate: float, **options) -> oho.MetaAdam:
    """Adam on logarithms."""
    return oho.MetaAdam(rate, transform="log", **options)


RAW = oho.MetaSGD(
    {"lr": 1e-5, "weight_decay": 1e-7}, transform="raw", bounds={"lr": (0.0, math.inf), "weight_decay": (0.0, 2e-4)}
)
CANDIDATES = {
    "published": Candidate(RAW, 1.0),
    "adam .003, .999": Candidate(adam(0.003), 0.999),
    "adam .003, .99": Candidate(adam(0.003), 0.99),
    "adam .01, .999": Candidate(adam(0.01), 0.999),
    "adam .003, .999, 1000": Candidate(adam(0.003), 0.999, 1000),
    "adam .03, .999, 1000 every 10": Candidate(adam(0.03), 0.999, 1000, 10),
    "adam .1, .999, 1000 every 10": Candidate(adam(0.1), 0.999, 1000, 10),
    "adam .005, .999": Candidate(adam(0.005), 0.999),
    "adam .01, .998": Candidate(adam(0.01), 0.998),
    "adam .003, .999, limit 1": Candidate(adam(0.003), 0.999, limit=1.0),
    "adam .005, .999, limit 1": Candidate(adam(0.005), 0.999, limit=1.0),
    "adam .01, .999, limit 1": Candidate(adam(0.01), 0.999, limit=1.0),
    "adam .01, .999, limit .3": Candidate(adam(0.01), 0.999, limit=0.3),
    "adam .01, 1, limit 1": Candidate(adam(0.01), 1.0, limit=1.0),
    "sign .003, .999": Candidate(oho.MetaSign(0.003), 0.999),
}


def measure(name: str, task_name: str, start: float, seed: int) -> list[dict[str, object]]:
    """One training; a row for each of its evaluations."""
    torch.set_num_threads(1)
    candidate = CANDIDATES[name]
    task, test = _task(task_name)
    model = task.model(seed)
    optimizer = oho.OHO(
        model.parameters(), oho.SGD(start, 1e-5),
        meta=candidate.meta, discount=candidate.discount, influence_limit=candidate.limit,
        update_every=candidate.update_every,
    )  # fmt: skip
    batches = task.train_batches(seed)
    held = Batches(task.validation, min(candidate.validation_batch, len(task.validation.targets)), seed, "validation")
    rows, largest, began = [], 0.0, time.perf_counter()
    epochs = EPOCHS[task_name]
    for step in range(epochs * task.steps_per_epoch):
        train, valid = batches.at(step), held.at(step // candidate.update_every)
        optimizer.step(
            lambda train=train: task.loss(model(train.inputs), train.targets),
            lambda valid=valid: task.loss(model(valid.inputs), valid.targets),
        )
        if step % 100 == 99:
            largest = max(largest, float(optimizer.influence_norm()["lr"]))
        epoch, rest = divmod(step + 1, task.steps_per_epoch)
        if rest == 0 and epoch % (epochs // EVALUATIONS) == 0:
            rows.append({
                "candidate": name, "task": task_name, "start": start, "seed": seed, "epoch": epoch,
                "validation_loss": evaluate(model, task.validation).loss, "test_loss": evaluate(model, test).loss,
                "lr": float(optimizer.hyper["lr"]), "weight_decay": float(optimizer.hyper["weight_decay"]),
                "largest_influence_norm": largest, "skipped": sum(optimizer.skipped.values()),
                "seconds": round(time.perf_counter() - began, 1),
            })  # fmt: skip
    return rows


def _task(name: str):
    root = Path(os.environ.get("OHO_DATA", "data"))
    return build_task(name, TASKS[name], TASKS[name].defaults, device=torch.device("cpu"), root=root)


def _measure(job: tuple) -> list[dict[str, object]]:
    return measure(*job)


def main() -> None:
    """Runs what the table lacks."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    split = partial(str.split, sep=",")
    parser.add_argument("--candidates", type=partial(str.split, sep=";"), default=list(CANDIDATES))
    parser.add_argument("--tasks", type=split, default=list(EPOCHS))
    parser.add_argument("--starts", type=split, default=list(map(str, STARTS)))
    parser.add_argument("--seeds", type=split, default=["0", "1", "2"])
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    given = parser.parse_args()
    done = set()
    if TABLE.exists():
        with open(TABLE, encoding="utf-8") as file:
            done = {(row["candidate"], row["task"], float(row["start"]), int(row["seed"])) for row in csv.DictReader(file)}
    jobs = [
        job
        for job in product(given.candidates, given.tasks, map(float, given.starts), map(int, given.seeds))
        if job not in done
    ]
    with open(TABLE, "a", encoding="utf-8", newline="") as file, multiprocessing.Pool(given.workers) as pool:
        writer = csv.DictWriter(file, FIELDS, lineterminator="\n")
        if file.tell() == 0:
            writer.writeheader()
        for rows in pool.imap_unordered(_measure, jobs):
            writer.writerows(rows)
            file.flush()
            print(*(rows[-1][key] for key in FIELDS), flush=True)


if __name__ == "__main__":
    main()
