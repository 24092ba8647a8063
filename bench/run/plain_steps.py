"""How long a plain step takes on this device, by which a budget of plain steps is a budget of counted seconds.

A plain step is one of SGD, without momentum or schedule, on the task's own batches, network and loss, made by the engine of
the runs.  Several trainings take turns with blocks of such steps, so that neither the place of one in memory nor one slow
moment decides; the time of a step is the median of the blocks.  A process measures before each of its runs and takes the
newest blocks of several runs together: a processor that others use, too, changes its speed, and one slow moment would else
be in the budget of all runs.  A GPU, which one run has for itself, is measured once.  None of this is counted.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from itertools import count
from statistics import quantiles
from typing import NamedTuple

import torch

from bench.protocol import GRAPH, CapturedUpdates, Task, descend, make_capturable
from bench.protocol.ledger import Cuda, Ledger
from bench.records import run_id
from bench.run.disturbances import LEAST_RUNNING, processor_clock

TRAININGS, FIRST_ROUNDS, LATER_ROUNDS = 3, 5, 2
"""A process measures 15 blocks before its first run, and six before each later one."""
NEWEST = 45
"""The blocks that count: those before the last six runs or so."""
BLOCK_SECONDS = (0.02, 0.1)
"""The least length of a block: 15 of them, and the first steps before them, take 0.4 s, or 30 steps where one is longer.

A process that is not given the processor measures again in longer blocks, each of which has its part of the pauses.
"""
WARM_UP_STEPS, TIMED_STEPS = 4, 5
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


class Measurement(NamedTuple):
    """Blocks, in seconds a step, with their length and the fraction of the time for which the process had a processor."""

    blocks: tuple[float, ...]
    steps_per_block: int
    running: float


Clock = Callable[[], float]
_newest: dict[tuple[str, str, str, int, Clock], deque[Measurement]] = {}
"""What this process has measured last, by task, device, engine, number of threads and clock."""


def plain_step(task: Task, spec: dict, now: Clock = time.perf_counter) -> dict[str, float]:
    """Returns the time of a plain step of a spec's task as `PlainStep` has it, by the newest measurements of this process.

    Those that were disturbed count only where there are no others.
    """
    key = run_id(spec["task"]), spec["device"], task.engine, torch.get_num_threads(), now
    known = _newest.setdefault(key, deque())
    if task.device.type == "cpu" or not undisturbed(known):
        rounds = LATER_ROUNDS if known else FIRST_ROUNDS
        for block_seconds in BLOCK_SECONDS:
            found = measured(task, block_seconds, now, rounds)
            if found.running >= LEAST_RUNNING:
                break
        known.append(found)
    while len(known) > 1 and sum(len(each.blocks) for each in known) > NEWEST:
        known.popleft()
    return asdict(summed_up(undisturbed(known) or known))


def undisturbed(measurements: Iterable[Measurement]) -> list[Measurement]:
    """Returns the measurements during which the process had a processor."""
    return [each for each in measurements if each.running >= LEAST_RUNNING]


def summed_up(measurements: Sequence[Measurement]) -> PlainStep:
    """Returns the time of a plain step by the blocks of all measurements; the last one says how they were made."""
    last = measurements[-1]
    blocks = [block for each in measurements for block in each.blocks]
    lower, median, upper = quantiles(blocks, n=4, method="inclusive")
    return PlainStep(median, lower, upper, len(blocks), last.steps_per_block, last.running)


def disturbed_calibration(found: dict[str, float] | None) -> list[str]:
    """Returns, as a sentence, why a budget of plain steps is void; nothing if it is not."""
    if found is None or found["running"] >= LEAST_RUNNING:
        return []
    return [f"it had a processor for {found['running']:.0%} of the time in which its budget was calibrated"]


def measured(
    task: Task, block_seconds: float = BLOCK_SECONDS[0], now: Clock = time.perf_counter, rounds: int = FIRST_ROUNDS
) -> Measurement:
    """Measures plain steps on the task's device, in so many blocks of each training."""
    ledger = Ledger(Cuda() if task.device.type == "cuda" else None, now)
    trainings = [_training(task, seed, ledger) for seed in range(TRAININGS)]
    for training in trainings:
        _seconds(training, WARM_UP_STEPS, ledger)
    shortest = min(_seconds(trainings[0], 1, ledger) for _ in range(TIMED_STEPS))
    steps = max(1, math.ceil(block_seconds / shortest)) if shortest else 1
    processor = processor_clock(task.device)
    started = processor()
    blocks = [_seconds(training, steps, ledger) for _ in range(rounds) for training in trainings]
    running = min(1.0, (processor() - started) / sum(blocks))
    return Measurement(tuple(seconds / steps for seconds in blocks), steps, running)


def _training(task: Task, seed: int, ledger: Ledger) -> Callable[[], object]:
    """Returns a function that makes the next step of a training of its own."""
    model, batches, steps = task.model(seed), task.train_batches(seed), count()
    optimizer = torch.optim.SGD(model.parameters(), lr=LR)
    update = partial(descend, optimizer)
    if task.engine == GRAPH:
        make_capturable(optimizer)
        updates = CapturedUpdates(task, model, update, ledger)

        def replay() -> None:
            optimizer.param_groups[0]["lr"].fill_(LR)  # as before each step of a run
            updates.step(batches.at(next(steps)))

        return replay

    return lambda: update(partial(task.training_loss, model, batches.at(next(steps))))


def _seconds(step: Callable[[], object], count: int, ledger: Ledger) -> float:
    """Returns the seconds that so many steps take."""
    before = ledger.seconds["train"]
    with ledger.account("train"):
        for _ in range(count):
            step()
    return ledger.seconds["train"] - before
