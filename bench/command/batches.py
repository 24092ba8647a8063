"""Which planned runs are trained together, and making them so: see `bench.run.population`."""

from __future__ import annotations

import json
import logging
import time
from collections import Counter
from collections.abc import Collection, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

from bench.command.handover import Journal
from bench.command.one_run import Assignment, opener
from bench.command.planning import Planned
from bench.command.progress import Display
from bench.experiment.spec import Spec, data_set_of
from bench.process.run_lock import claimed
from bench.process.signals import Stopper
from bench.protocol import CannotStackError
from bench.records import Outcome, Status, read_outcome
from bench.records.files import storing
from bench.run.population import MOST_MEMBERS, batch_key, most_members, run_together
from bench.tasks.data_sets import data_root as folder_of_data

ALONE = "no other run differs from it in seed, values, schedule or shock alone"
log = logging.getLogger("oho-bench")


@dataclass(frozen=True)
class Batches:
    """Runs that are made together, and why each of the others is made alone, by its id."""

    together: tuple[tuple[Planned, ...], ...]
    alone: dict[str, str]

    def place_of(self, identity: str) -> str:
        """Returns where a run is made, in a word or two."""
        found = (n for n, batch in enumerate(self.together, start=1) if any(item.id == identity for item in batch))
        return next((f"batch {number}" for number in found), "alone")

    def describe(self) -> list[str]:
        """Returns lines that say how many runs are made together, and why the others are not."""
        sizes = ", ".join(str(len(batch)) for batch in self.together)
        lines = [f"trained together: batches of {sizes} runs, which share their seconds"] if sizes else []
        counts = Counter(self.alone.values())
        return lines + [f"trained alone: {count} {'run' if count == 1 else 'runs'}: {why}" for why, count in counts.items()]


def batches_of(todo: Sequence[Planned], data_root: Path | None, *, apart: Collection[str] = ()) -> Batches:
    """Returns the batches of runs that are to be made; runs in `apart` died in one, and are made alone."""
    alike: dict[str, list[Planned]] = {}
    alone: dict[str, str] = {}
    for item in todo:
        try:
            if item.experiment.population == "off":
                raise CannotStackError("as `population: off` says")
            if item.id in apart:
                raise CannotStackError("the process of its batch died")
            key = json.dumps([item.experiment.name, batch_key(item.spec)], sort_keys=True, default=str)
            alike.setdefault(key, []).append(item)
        except CannotStackError as error:
            alone[item.id] = str(error)
    together: list[tuple[Planned, ...]] = []
    most = _Most(data_root)
    for items in alike.values():
        try:
            if len(items) == 1:
                raise CannotStackError(ALONE)
            asked, possible = items[0].experiment.population, most.of(items[0].spec)
            for batch in _divided(items, asked if isinstance(asked, int) else possible):
                if len(batch) > 1:
                    together.append(batch)
                else:
                    alone[batch[0].id] = "its batches are full"
        except CannotStackError as error:
            alone |= dict.fromkeys([item.id for item in items], str(error))
    return Batches(tuple(together), alone)


class _Most:
    """How many runs of a task a batch may have, looked at once for each task, if its data are there."""

    def __init__(self, data_root: Path | None):
        self._data_root = data_root
        self._known: dict[str, int | CannotStackError] = {}

    def of(self, spec: Spec) -> int:
        """Returns the number, or raises CannotStackError."""
        key = json.dumps(spec["task"], sort_keys=True)
        if key not in self._known:
            try:
                is_there = data_set_of(spec["task"]).present(folder_of_data(self._data_root))
                self._known[key] = most_members(spec, self._data_root) if is_there else MOST_MEMBERS
            except CannotStackError as error:
                self._known[key] = error
            except Exception:  # the run reports it
                self._known[key] = CannotStackError("its task cannot be made")
        found = self._known[key]
        if isinstance(found, CannotStackError):
            raise found
        return found


def _divided(items: Sequence[Planned], limit: int) -> list[tuple[Planned, ...]]:
    """Returns the runs in batches of nearly equal sizes, none above the limit."""
    count = -(-len(items) // limit)
    ends = [len(items) * part // count for part in range(count + 1)]
    return [tuple(items[start:stop]) for start, stop in pairwise(ends)]


@dataclass
class Together:
    """What making batches takes, and what has become of their runs."""

    root: Path
    data_root: Path | None
    journal: Journal
    stopper: Stopper
    display: Display
    counts: Counter[Status] = field(default_factory=Counter)

    def make(self, waiting: Sequence[tuple[int, Planned]]) -> list[tuple[int, Planned]]:
        """Makes all batches of the runs that wait, and returns the runs that are left, with their numbers."""
        numbers = {item.id: number for number, item in waiting}
        with self.journal.within_batch(list(numbers)):  # networks are made, for which memory may not suffice
            batches = batches_of([item for _, item in waiting], self.data_root, apart=self.journal.apart)
        for batch in batches.together:
            self.stopper.rest()
            self.stopper.check()
            with ExitStack() as claims, storing(self.root):
                claimed_ones = [item for item in batch if claims.enter_context(claimed(self.root / item.id))]
                ours = [item for item in claimed_ones if self._is_open(item)]
                if len(ours) > 1:
                    for item, outcome in self._make(ours, numbers):
                        if outcome is not None:
                            self.counts[outcome.status] += 1
                            del numbers[item.id]
        return [(number, item) for number, item in waiting if item.id in numbers]

    def _is_open(self, item: Planned) -> bool:
        """Returns whether the run has not been worked on since it was planned."""
        return read_outcome(self.root / item.id) == item.outcome

    def _make(self, items: Sequence[Planned], numbers: dict[str, int]) -> list[tuple[Planned, Outcome | None]]:
        begun = time.monotonic()
        self.display.start(numbers[items[0].id], items[0].spec, beside=len(items) - 1)
        specs: list[Spec] = [item.spec for item in items]
        with self.journal.within_batch([item.id for item in items]):
            outcomes = run_together(
                specs, self.root, data_root=self.data_root, open_sink=opener(Assignment.of(items[0])),
                progress=self.display.progress, stopper=self.stopper,
            )  # fmt: skip
        for item, outcome in zip(items, outcomes, strict=True):
            if outcome is not None:
                self.journal.note("tried", item.id)
                self.display.start(numbers[item.id], item.spec, begun=begun)
                self.display.end(outcome)
                begun = time.monotonic()
        return list(zip(items, outcomes, strict=True))
