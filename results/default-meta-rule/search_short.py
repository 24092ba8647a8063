"""Measures windows for trainings of a few hundred steps: from every start, on five data sets and networks, at equal time.

    python results/default-meta-rule/search_short.py --task digits-mlp --units 1000 [--names "NAME;NAME"]
    python results/default-meta-rule/search_short.py --costs digits-mlp

Appends one line an evaluation of every run to short.csv; what is found there is not run again.  Candidates are compared on
validation loss; test losses are there for the report.

The budget is the time of so many plain steps of SGD: a candidate makes as many steps as fit, by the times of COSTS, which
`--costs` measures for the network of a task.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import accumulate, count, product, takewhile
from pathlib import Path
from typing import Any

import torch
from search_averaged import EVALUATIONS, RULES, Decaying, search, task_of, trained
from search_windows import COLUMNS
from torch import Tensor
from tried_windows import Growing, LateKinds, Scaled, Tried

import oho
from bench.protocol import Task
from oho.found_settings import CURVATURE_FRACTION, PRESENT_SHARE
from oho.meta import DEFAULT_DISCOUNT, DEFAULT_LIMIT
from oho.step_kinds import StepKinds

TABLE = Path(__file__).parent / "short.csv"
NETWORKS = {"fashion-mnist-mlp": "mnist-mlp"}
"""Tasks whose network is that of another one, whose times they have."""
COSTS: dict[tuple[str, str], tuple[float, float, float, float]] = {
    ("digits-mlp", "sgd"): (1.52, 4.24, 6.36, 1.53),
    ("digits-mlp", "adamw"): (1.63, 4.72, 6.58, 1.68),
    ("diabetes-mlp", "sgd"): (1.58, 4.38, 6.42, 1.56),
    ("diabetes-mlp", "adamw"): (1.77, 4.65, 6.46, 1.79),
    ("mnist-mlp", "sgd"): (1.39, 3.22, 4.54, 1.35),
    ("mnist-mlp", "adamw"): (1.57, 3.91, 5.69, 1.61),
    ("fashion-cnn", "sgd"): (1.08, 2.49, 3.52, 1.07),
    ("fashion-cnn", "adamw"): (1.11, 2.53, 3.49, 1.12),
}
"""Times in plain SGD steps by task and rule: a step between tuned ones, a tuned one, a tuned one with a meta-step, and a
constant rate with an average."""
TURNS, BLOCK = 40, 20


@dataclass(frozen=True)
class Falling(oho.MetaAdam):
    """Adam whose rate is `first` at the beginning and falls with the root of its steps to `rate`, where it stays."""

    first: float = 0.1
    steps: float = 30.0

    def step(self, name: str, gradient: Tensor, memory: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """Makes a step of Adam, longer than usual among the first ones."""
        change, memory = super().step(name, gradient, memory)
        longer = self.first / self.rate / (1 + memory["count"].to(change.dtype) / self.steps).sqrt()
        return change * longer.clamp_min(1.0), memory


@dataclass(frozen=True)
class Candidate:
    """A rule, which steps are tuned, and how often hyperparameters move: in each of the `haste` first steps at least."""

    rule: str
    tuned: Any = None
    every: int = 4
    haste: int = 100
    falls: float | None = None
    """Meta-steps after which the meta-rate has come down by the root of 2; None is .04 throughout."""
    first: float = 0.1
    """The meta-rate that falls."""
    stays: bool = False
    """Whether it stays at .04 once it is there."""
    reset: int = 0
    """The number of steps after which the influence is set to zero."""
    gap: float = 1.0
    """The factor on the influence for each step between windows."""
    share: float = PRESENT_SHARE
    """How far from the average towards the present weights validation gradients are taken."""
    limit: float = DEFAULT_LIMIT
    """The longest influence over the parameters, as `influence_limit`."""
    discount: float = DEFAULT_DISCOUNT
    late: bool = False
    """Whether meta-steps are made in the second half of each window alone, the first window excepted."""

    @property
    def constant(self) -> bool:
        """Whether the rate stays as it was at the start."""
        return self.tuned is None

    def steps(self, task: str, units: int) -> int:
        """Returns how many steps take the time of so many plain ones."""
        plain, tuned, meta, constant = COSTS[NETWORKS.get(task, task), self.rule]
        if self.constant:
            return round(units / constant)
        kinds = (LateKinds if self.late else StepKinds)(self.tuned, self.every, self.haste, ("lr",))
        costs = (meta if kinds.is_meta(step) else tuned if kinds.is_tuned(step) else plain for step in count(1))
        return sum(1 for _ in takewhile(lambda spent: spent <= units, accumulate(costs)))


def optimizer_of(candidate: Candidate, tensors: dict[str, Tensor], lr: Tensor | float) -> oho.OHO:
    """Returns the population, or the one training, that a candidate stands for."""
    kind, own = RULES[candidate.rule][0], {"tune": ()} if candidate.constant else {}
    meta = oho.averaged_meta()
    if candidate.falls is not None:
        faster = partial(Falling, meta.rate, first=candidate.first) if candidate.stays else partial(Decaying, 0.1)
        meta = faster(transform=meta.transform, beta2=meta.beta2, steps=candidate.falls)
    optimizer = oho.averaged(
        tensors.items(), kind(lr, 1e-5, **own), check=None, meta=meta,
        members=len(lr) if isinstance(lr, Tensor) else None, tuned_steps=candidate.tuned,
        update_every=candidate.every, first_updates=candidate.haste, reset_every=candidate.reset,
        present_share=candidate.share, influence_limit=candidate.limit, discount=candidate.discount,
    )  # fmt: skip
    optimizer.__class__ = Tried
    optimizer.gap, optimizer.kinds = candidate.gap, LateKinds if candidate.late else StepKinds
    return optimizer


def measure(
    name: str, candidate: Candidate, task_name: str, *, units: int, runs: list[tuple[float, int]]
) -> list[dict[str, object]]:
    """Trains all runs (start, seed) of a candidate; returns a row for each evaluation of each of them."""
    steps, make = candidate.steps(task_name, units), partial(optimizer_of, candidate)
    if task_name == "fashion-cnn":
        rows = [row for run in runs for row in trained_alone(name, make, task_name, steps=steps, units=units, run=run)]
    else:
        rows = trained(
            name, make, task_name, steps=steps, units=units, runs=runs, fraction=CURVATURE_FRACTION,
            constant=candidate.constant,
        )  # fmt: skip
    return [row | {"budget": units} for row in rows]


class Alone:
    """One training of one model, whose batches are called for step by step: convolutions gain nothing from a population."""

    def __init__(self, task: Task, make: Callable[[dict[str, Tensor], float], oho.OHO], lr: float, seed: int):
        self.task, self.model = task, task.model(seed)
        self.optimizer = make(dict(self.model.named_parameters()), lr)
        self._batches, self._held = task.train_batches(seed), task.validation_batches(seed, None)

    def step(self, step: int) -> None:
        """Makes step `step`, counted from 0."""
        batch = self._batches.at(step)
        part = batch.part(CURVATURE_FRACTION)
        constant = not self.optimizer.rule.tune
        self.optimizer.step(
            lambda: self.task.training_loss(self.model, batch),
            None if constant else lambda: self.task.validation_loss(self.model, self._held.at(step)),
            curvature_closure=None if constant else lambda: self.task.training_loss(self.model, part),
        )


def trained_alone(
    name: str, make: Callable[[dict[str, Tensor], float], oho.OHO], task_name: str, *, steps: int, units: int,
    run: tuple[float, int],
) -> Iterator[dict[str, object]]:  # fmt: skip
    """Trains one run; yields a row for each evaluation."""
    task, test = task_of(task_name)
    training, began, evaluations = Alone(task, make, *run), time.perf_counter(), EVALUATIONS[task_name]
    evaluated = {round(steps * i / evaluations): round(units * i / evaluations) for i in range(1, evaluations + 1)}
    for step in range(steps):
        training.step(step)
        if step + 1 not in evaluated:
            continue
        with training.optimizer.averaged():
            validation, tested = task.evaluate(training.model, task.validation, test)
        optimizer = training.optimizer
        yield {
            "candidate": name, "task": task_name, "start": run[0], "seed": run[1], "units": evaluated[step + 1],
            "step": step + 1, "validation_loss": f"{validation.loss:.6g}", "test_loss": f"{tested.loss:.6g}",
            "lr": f"{float(optimizer.hyper['lr']):.4g}", "weight_decay": f"{float(optimizer.hyper['weight_decay']):.4g}",
            "shortened": int(optimizer.shortened), "skipped": sum(map(int, optimizer.skipped.values())),
            "seconds": round(time.perf_counter() - began, 1),
        }  # fmt: skip


def candidates() -> dict[str, Candidate]:
    """Returns all that were tried, by name; the first of each rule is what `oho.averaged` did before."""
    found = {}
    for rule in ("sgd", "adamw"):
        usual = partial(Candidate, rule, oho.Windows(100, 50, 200))
        found |= {
            f"400, 50 of 200, {rule}": Candidate(rule, oho.Windows(400, 50, 200)),
            f"200, 50 of 200, {rule}": Candidate(rule, oho.Windows(200, 50, 200), haste=200),
            f"100, 50 of 200, {rule}": usual(),
            f"100, 50 of 200, {rule}, each": usual(every=1),
            f"100, 25 of 100, {rule}, each": Candidate(rule, oho.Windows(100, 25, 100), every=1),
            f"50, 25 of 100, {rule}, each": Candidate(rule, oho.Windows(50, 25, 100), every=1),
            f"100, 25 of 200, {rule}, each": Candidate(rule, oho.Windows(100, 25, 200), every=1),
            f"100, 50 of 400, {rule}, each": Candidate(rule, oho.Windows(100, 50, 400), every=1),
            f"200, 25 of 200, {rule}, each": Candidate(rule, oho.Windows(200, 25, 200), every=1),
            f"100, 25 of 100, {rule}, one in 2": Candidate(rule, oho.Windows(100, 25, 100), every=2),
            f"200, 25 of 200, {rule}, one in 2": Candidate(rule, oho.Windows(200, 25, 200), every=2, haste=200),
            f"100, 50 of 100 to 200, {rule}, each": Candidate(rule, Growing(100, 50, 200), every=1),
            f"100, 50 of 100 to 200, {rule}": Candidate(rule, Growing(100, 50, 200)),
            f"100, 50 of 200, {rule}, reset": usual(reset=100),
            f"100, 50 of 200, {rule}, each, reset": usual(every=1, reset=100),
            f"100, 50 of 200, {rule}, falling": usual(falls=100),
            f"100, 50 of 200, {rule}, to .04": usual(falls=30, stays=True),
            f"100, 50 of 200, {rule}, slowly to .04": usual(falls=100, stays=True),
            f"100, 50 of 200, {rule}, .2 to .04": usual(falls=10, stays=True, first=0.2),
            f"100, 50 of 400, {rule}, to .04": Candidate(rule, oho.Windows(100, 50, 400), falls=30, stays=True),
            f"50, 50 of 200, {rule}, to .04": Candidate(rule, oho.Windows(50, 50, 200), falls=30, stays=True),
            f"400, 50 of 200, {rule}, to .04": Candidate(rule, oho.Windows(400, 50, 200), falls=30, stays=True),
            f"100, 50 of 200, {rule}, gap .999": usual(gap=0.999),
            f"100, scaled .1, {rule}, gap .999": Candidate(rule, Scaled(0.1), gap=0.999),
            f"100, 50 of 200, {rule}, share 1": usual(share=1.0),
            f"100, 50 of 200, {rule}, share 1, to .04": usual(share=1.0, falls=30, stays=True),
            f"100, scaled .1, {rule}, share 1": Candidate(rule, Scaled(0.1), share=1.0),
            f"100, scaled .1, {rule}, gap .99, late": Candidate(rule, Scaled(0.1), gap=0.99, late=True),
            f"constant, {rule}": Candidate(rule),
        }
        windows = {
            "400, 50 of 200": oho.Windows(400, 50, 200),
            "100, 50 of 200": oho.Windows(100, 50, 200),
            "100, scaled .1": Scaled(0.1),
        }
        for (name, tuned), share in product(windows.items(), (0.5, 1.0)):
            shared = f"{name}, {rule}, share 1" if share == 1 else f"{name}, {rule}"
            own = partial(Candidate, rule, tuned, share=share)
            found |= {f"{shared}, limit {text}": own(limit=float(text)) for text in (".3", ".1", ".03", ".01")}
            faster = partial(own, falls=30, stays=True)
            found |= {f"{shared}, limit {text}, to .04": faster(limit=float(text)) for text in (".3", ".1")}
            found |= {f"{shared}, discount {text}": own(discount=float(text)) for text in (".99", ".95")}
    return found


def costs(task_name: str) -> None:
    """Prints the times of the kinds of steps, medians of blocks that took turns, each over the plain blocks beside it."""
    torch.set_num_threads(1)
    task, _ = task_of(task_name)

    class All:
        count = staticmethod(lambda step: step)

    class Start:
        count = staticmethod(lambda step: min(step, 1))

    steps: dict[str, Callable[[int], object]] = {"sgd": _plain_sgd(task)}
    for rule in ("sgd", "adamw"):
        kinds = (Candidate(rule, Start()), Candidate(rule, All(), 10**9, 0), Candidate(rule, All(), 1), Candidate(rule))
        for place, kind in enumerate(kinds):
            steps[f"{rule} {place}"] = Alone(task, partial(optimizer_of, kind), 1e-3, 100).step
    times: dict[str, list[float]] = {name: [] for name in steps}
    for turn in range(-2, TURNS):
        for name, step in steps.items():
            began = time.perf_counter()
            for index in range(BLOCK):
                step((turn + 2) * BLOCK + index)
            if turn >= 0:
                times[name].append(time.perf_counter() - began)
    print(task_name, f"plain {1e3 * statistics.median(times['sgd']) / BLOCK:.3f} ms")
    for rule in ("sgd", "adamw"):
        ratios = [
            statistics.median(own / plain for own, plain in zip(times[f"{rule} {place}"], times["sgd"], strict=True))
            for place in range(4)
        ]
        print(f"    (\"{task_name}\", \"{rule}\"): ({', '.join(f'{ratio:.2f}' for ratio in ratios)}),")


def _plain_sgd(task: Task) -> Callable[[int], None]:
    model, batches = task.model(100), task.train_batches(100)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, weight_decay=1e-5)

    def step(index: int) -> None:
        optimizer.zero_grad()
        task.training_loss(model, batches.at(index)).backward()
        optimizer.step()

    return step


def main() -> None:
    """Runs what the table lacks, or measures times."""
    if "--costs" in sys.argv:
        return costs(sys.argv[sys.argv.index("--costs") + 1])
    return search(TABLE, COLUMNS, candidates(), measure, description=__doc__)


if __name__ == "__main__":
    main()
