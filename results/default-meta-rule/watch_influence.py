"""Asks what other limits and discounts of the influence would have said along one and the same training.

    python results/default-meta-rule/watch_influence.py --seed 101 --start 1e-3 --steps 1500 [--driver 2] > watched.csv

All members of a population make the same training, that of Averaged OHO over AdamW on Fashion-MNIST with the limit and the
discount of one of them, the driver: the same start, the same batches, and its hypergradients.  Each member has an influence
of its own.  Prints a line for each tuned step and member:

    ratio     the norm of d(parameters)/d(log lr) before it is shortened, over what the limit allows
    fresh     the length of the step, which is what it adds to that norm, over the same
    cosine    of the influence with that of the tuned step before
    present   at meta-steps, the hypergradient of log lr at the present weights; positive says that the rate is too high
    judged    the same where it is taken: halfway between the average and the present weights
"""

from __future__ import annotations

import argparse
from functools import partial
from typing import Any

import torch
from search_averaged import StackedBatches, task_of
from search_short import Candidate, optimizer_of
from torch import Tensor

import oho
from bench.protocol import Stacked
from oho.found_settings import CURVATURE_FRACTION

SETTINGS = ((1.0, 0.999), (0.3, 0.999), (0.1, 0.999), (0.03, 0.999), (0.01, 0.999), (1.0, 0.99), (1.0, 0.95))
"""The limit and the discount of each member."""


class Watch:
    """Stands between an optimizer and its recursion: applies each member's own setting, and prints what it sees."""

    def __init__(self, optimizer: oho.OHO, stacked: Stacked, driver: int):
        self.optimizer, self.stacked, self.driver = optimizer, stacked, driver
        self.recursion: Any = optimizer._recursion
        self.limits, self.discounts = (torch.tensor(column) for column in zip(*SETTINGS, strict=True))
        self.before: Tensor | None = None
        self.weights = stacked.theta.clone()
        self.found: list[list[float]] = []
        self.said = ["", ""] * len(SETTINGS)
        self.move, self.shorten = self.recursion.tuning.step, self.recursion.shorten_influence
        self.recursion.shorten_influence, self.recursion.meta_step = self._shorten, self._meta_step

    def begin(self, held: tuple[Tensor, Tensor]) -> None:
        """Prepares a step; applies what the discounts are beyond .999 if it is tuned."""
        self.held, self.weights = held, self.stacked.theta.clone()
        if self.optimizer.is_tuned:
            for tangent in self.recursion.influence.tensors:
                tangent.mul_((self.discounts / 0.999).view(1, -1, 1))

    def _shorten(self, _: float, theta: Tensor) -> None:
        allowed = self.limits * theta.norm(dim=-1)
        row = self.recursion.influence.theta[0]
        lr = self.recursion.tuning.values["lr"][:, 0]
        cosine = torch.zeros(len(row)) if self.before is None else torch.cosine_similarity(row, self.before, dim=-1)
        fresh = (theta - self.weights).norm(dim=-1)
        self.found = torch.stack([lr * row.norm(dim=-1) / allowed, fresh / allowed, cosine]).T.tolist()
        self.before = row.clone()
        self.shorten(self.limits, theta)

    def _meta_step(self, vector: Tensor, *, one_step: Any, on_nonfinite: str) -> None:
        with torch.enable_grad():
            tensors = list(self.stacked.tensors.values())
            gradients = torch.autograd.grad(self.stacked.losses(self.held).sum(), tensors)
        present = torch.cat([gradient.flatten(1) for gradient in gradients], -1)
        recursion, lr = self.recursion, self.recursion.tuning.values["lr"]
        of = partial(recursion.directions.hypergradients, set_map=recursion.set_map)
        judged = of(recursion.influence.judged(recursion.present_share), vector)
        at_present = of(recursion.influence.theta, present)["lr"]
        self.said = [f"{value:.4g}" for value in torch.cat([at_present, judged["lr"]], -1).mul(lr).flatten().tolist()]
        self.move({name: value[self.driver].expand_as(value).clone() for name, value in judged.items()}, hostless=False)

    def show(self, step: int) -> None:
        """Prints the lines of a step, if it was a tuned one."""
        lr = float(self.optimizer.hyper["lr"][0])
        for i, (limit, discount) in enumerate(SETTINGS if self.found else ()):
            seen = ",".join(f"{value:.4g}" for value in self.found[i])
            print(f"{step},{limit},{discount},{lr:.4g},{seen},{self.said[2 * i]},{self.said[2 * i + 1]}", flush=True)
        self.found, self.said = [], ["", ""] * len(SETTINGS)


def main() -> None:
    """Makes the training."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=101)
    parser.add_argument("--start", type=float, default=1e-3)
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--driver", type=int, default=0, help="the place in SETTINGS of the member that moves all")
    given = parser.parse_args()
    torch.set_num_threads(1)
    task, _ = task_of("fashion-mnist-mlp")
    count = len(SETTINGS)
    stacked = Stacked([task] * count, [task.model(given.seed) for _ in range(count)])
    candidate = Candidate("adamw", oho.Windows(400, 50, 200))
    optimizer = optimizer_of(candidate, stacked.tensors, torch.full((count,), given.start))
    batches = StackedBatches([task.train_batches(given.seed)] * count)
    held = StackedBatches([task.validation_batches(given.seed, None)] * count)
    watch = Watch(optimizer, stacked, given.driver)
    print("step,limit,discount,lr,ratio,fresh,cosine,present,judged")
    for step in range(given.steps):
        batch, validation = batches.at(step), held.at(step)
        part = round(batch[0].shape[1] * CURVATURE_FRACTION)
        watch.begin(validation)
        optimizer.step(
            partial(stacked.losses, batch), partial(stacked.losses, validation),
            curvature_closure=partial(stacked.losses, (batch[0][:, :part], batch[1][:, :part])),
        )  # fmt: skip
        watch.show(step + 1)
    print(f"# largest difference between members: {float((stacked.theta - stacked.theta[:1]).abs().max()):.3g}")


if __name__ == "__main__":
    main()
