"""How long a plain step takes on this device, by which a budget of plain steps is a budget of counted seconds.

A plain step is one of SGD, without momentum or schedule, on the task's own batches, network and loss.  Several trainings
take turns with blocks of such steps, so that neither the place of one in memory nor one slow moment decides; the time of a
step is the median of the blocks.  Runs of one process share it, whatever their seeds and methods.  None of this is counted.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from itertools import count
from statistics import quantiles

import torch

from bench.protocol import Task
from bench.protocol.ledger import Cuda, Ledger
from bench.records import run_id
from bench.run.disturbances import LEAST_RUNNING, processor_clock

TRAININGS, ROUNDS = 3, 5
BLOCK_SECONDS = 0.02
"""The least length of a block: 15 of them, and the first steps before them, take 0.4 s, or 30 steps where one is longer."""
WARM_UP_STEPS = 3
TRIES = 3
"""How often all is measured if the process is not given a processor."""
LR = 0.01


@dataclass(frozen=True)
class PlainStep:
    """The time of a plain step: the blocks' median and quartiles, in seconds a step, and how they were measured.

    `running` is the fraction of the time for which the process had a processor.
    """

    seconds: float
    lower_quartile: float
    upper_quartile: float
    blocks: int
    steps_per_block: int
    running: float


Clock = Callable[[], float]
_known: dict[tuple[str, str, int, Clock], PlainStep] = {}


def plain_step(task: Task, spec: dict, now: Clock = time.perf_counter) -> dict[str, float]:
    """Returns the time of a plain step of a spec's task as `PlainStep` has it, measured once for all runs of the process.

    A measurement that was disturbed is not used again: the next run makes its own.
    """
    key = run_id(spec["task"]), spec["device"], torch.get_num_threads(), now
    if key in _known:
        return asdict(_known[key])
    tries: list[PlainStep] = []
    while len(tries) < TRIES and not any(each.running >= LEAST_RUNNING for each in tries):
        tries.append(measured(task, now))
    best = max(tries, key=lambda each: each.running)
    if best.running >= LEAST_RUNNING:
        _known[key] = best
    return asdict(best)


def disturbed_calibration(found: dict[str, float] | None) -> list[str]:
    """Returns, as a sentence, why a budget of plain steps is void; nothing if it is not."""
    if found is None or found["running"] >= LEAST_RUNNING:
        return []
    return [f"it had a processor for {found['running']:.0%} of the time in which its budget was calibrated"]


def measured(task: Task, now: Clock = time.perf_counter) -> PlainStep:
    """Measures the time of a plain step on the task's device."""
    ledger = Ledger(Cuda() if task.device.type == "cuda" else None, now)
    trainings = [_training(task, seed) for seed in range(TRAININGS)]
    for training in trainings:
        _seconds(training, WARM_UP_STEPS, ledger)
    one = _seconds(trainings[0], WARM_UP_STEPS, ledger) / WARM_UP_STEPS
    steps = max(1, math.ceil(BLOCK_SECONDS / one)) if one else 1
    processor, clock = processor_clock(task.device), time.perf_counter
    started, begun = processor(), clock()
    blocks = [_seconds(training, steps, ledger) / steps for _ in range(ROUNDS) for training in trainings]
    running = min(1.0, (processor() - started) / (clock() - begun))
    lower, median, upper = quantiles(blocks, n=4, method="inclusive")
    return PlainStep(median, lower, upper, len(blocks), steps, running)


def _training(task: Task, seed: int) -> Callable[[], None]:
    """Returns a function that makes the next step of a training of its own."""
    model, batches, steps = task.model(seed), task.train_batches(seed), count()
    optimizer = torch.optim.SGD(model.parameters(), lr=LR)

    def step() -> None:
        optimizer.zero_grad()
        task.training_loss(model, batches.at(next(steps))).backward()
        optimizer.step()

    return step


def _seconds(step: Callable[[], None], count: int, ledger: Ledger) -> float:
    """Returns the seconds that so many steps take."""
    before = ledger.seconds["train"]
    with ledger.account("train"):
        for _ in range(count):
            step()
    return ledger.seconds["train"] - before
