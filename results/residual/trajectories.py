"""Follows OHO's first steps on a narrow ResNet-18 and CIFAR-10: where does the influence explode, and what stops it?

    python results/residual/trajectories.py [--steps 40] [--width 8] [--seeds 0,1] [--variants "NAME;NAME"]

Appends one line a step of every run to trajectories.csv; runs found there are not run again.
"""

from __future__ import annotations

import argparse
import csv
import math
import os
import time
from collections.abc import Callable
from itertools import product
from pathlib import Path

import torch

import oho
from bench.experiment.registries import TASKS
from bench.protocol.task import Batches
from bench.tasks.entry import build_task

HERE = Path(__file__).parent
TABLE = HERE / "trajectories.csv"
FIELDS = (
    "variant", "lr_start", "width", "seed", "step", "training_loss", "validation_loss", "lr", "weight_decay",
    "elasticity_lr", "hypergradient_lr", "shortened", "seconds",
)  # fmt: skip
"""`elasticity_lr` is the norm of lr dθ/dlr over that of θ."""
CEILING = 3e-4
"""Of the weight decay, as published for ResNets."""


def published(model: torch.nn.Module, start: float) -> oho.PublishedOHO:
    """The published recursion with its settings."""
    return oho.PublishedOHO(
        model.parameters(), lr=start, meta_lr=1e-5, weight_decay_max=CEILING, weight_decay_meta_scale=1.0
    )


def exact(*, rate: float = 1e-5, **options) -> Callable[[torch.nn.Module, float], oho.OHO]:
    """The exact recursion with the published meta-rule, and options of `oho.OHO`."""

    def make(model: torch.nn.Module, start: float) -> oho.OHO:
        bounds = {"lr": (0.0, math.inf), "weight_decay": (0.0, CEILING)}
        return oho.OHO(model.parameters(), oho.SGD(start), meta=oho.MetaSGD(rate, bounds=bounds), check=None, **options)

    return make


def default(**options) -> Callable[[torch.nn.Module, float], oho.OHO]:
    """The default meta-rule, over SGD."""
    return lambda model, start: oho.OHO(model.parameters(), oho.SGD(start, 1e-5), check=None, **options)


MAKERS: dict[str, Callable] = {
    "published recursion": published,
    "exact": exact(),
    "exact, meta-rate 0": exact(rate=0.0),
    "exact, limit 1": exact(influence_limit=1.0),
    "exact, limit .1": exact(influence_limit=0.1),
    "exact, discount .99": exact(discount=0.99),
    "exact, discount .9": exact(discount=0.9),
    "exact, reset every 10": exact(reset_every=10),
    "default": default(),
    "default, limit .1": default(influence_limit=0.1),
    "constant": lambda model, start: oho.OHO(model.parameters(), oho.SGD(start, tune=()), check=None),
    "one-step": exact(discount=0.0),
}
STARTS = (0.1, 0.02)


def follow(name: str, start: float, *, seed: int, steps: int, width: int, validation: int) -> list[dict[str, object]]:
    """One training; a row for each of its steps, up to the first loss that is not finite."""
    torch.set_num_threads(1)
    task = build_task(
        "cifar10-resnet18", TASKS["cifar10-resnet18"],
        TASKS["cifar10-resnet18"].defaults.model_copy(update={"width": width, "validation_batch_size": validation}),
        device=torch.device("cpu"), root=Path(os.environ.get("OHO_DATA", "data")),
    )[0]  # fmt: skip
    model = task.model(seed)
    optimizer = MAKERS[name](model, start)
    batches, held = task.train_batches(seed), Batches(task.validation, validation, seed, "validation")
    rows, began, losses = [], time.perf_counter(), {}

    def loss(which: str, batch) -> torch.Tensor:
        result = task.loss(model(batch.inputs), batch.targets)
        losses[which] = result.item()
        return result

    for step in range(steps):
        train, valid = batches.at(step), held.at(step)
        optimizer.step(
            lambda train=train: loss("training", train), lambda valid=valid: loss("validation", valid)
        )
        tuned = "lr" in optimizer.hypergradient
        rows.append({
            "variant": name, "lr_start": start, "width": width, "seed": seed, "step": step + 1,
            "training_loss": losses["training"],
            "validation_loss": losses.get("validation", ""),
            "lr": float(optimizer.hyper["lr"]), "weight_decay": float(optimizer.hyper["weight_decay"]),
            "elasticity_lr": elasticity(optimizer, model) if tuned else "",
            "hypergradient_lr": float(optimizer.hypergradient["lr"]) if tuned else "",
            "shortened": int(getattr(optimizer, "shortened", 0)),
            "seconds": round(time.perf_counter() - began, 2),
        })  # fmt: skip
        if not math.isfinite(rows[-1]["training_loss"]):
            break
    return rows


def elasticity(optimizer: oho.OHO | oho.PublishedOHO, model: torch.nn.Module) -> float:
    """Returns |lr dθ/dlr| / |θ|."""
    norm = torch.linalg.vector_norm(torch.cat([p.detach().flatten() for p in model.parameters()]))
    return float(optimizer.influence_norm()["lr"] * optimizer.hyper["lr"] / norm)


def main() -> None:
    """Measures what the table lacks."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--width", type=int, default=8)
    parser.add_argument("--validation", type=int, default=100)
    parser.add_argument("--seeds", default="0")
    parser.add_argument("--variants", default=";".join(MAKERS))
    parser.add_argument("--starts", default=",".join(map(str, STARTS)))
    given = parser.parse_args()
    found = set()
    if TABLE.exists():
        with TABLE.open() as file:
            found = {
                (row["variant"], float(row["lr_start"]), int(row["width"]), int(row["seed"]))
                for row in csv.DictReader(file)
            }
    seeds, starts = map(int, given.seeds.split(",")), map(float, given.starts.split(","))
    for seed, start, name in product(seeds, starts, given.variants.split(";")):
        if (name, start, given.width, seed) in found:
            continue
        rows = follow(name, start, seed=seed, steps=given.steps, width=given.width, validation=given.validation)
        is_new = not TABLE.exists()
        with TABLE.open("a", newline="") as file:
            writer = csv.DictWriter(file, FIELDS)
            if is_new:
                writer.writeheader()
            writer.writerows(rows)
        last = rows[-1]
        print(f"{name:<24} from {start:g}, seed {seed}: {last['step']} steps, loss {last['training_loss']:.3g}, "
              f"lr {last['lr']:.3g}, elasticity {last['elasticity_lr']}, {last['seconds']} s", flush=True)


if __name__ == "__main__":
    main()
