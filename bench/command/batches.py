"""Which planned runs are trained together, and making them so: see `bench.run.population`."""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from collections.abc import Collection, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

from bench.command.one_run import Assignment, Turn, opener
from bench.command.planning import Planned
from bench.command.work import Work
from bench.experiment.spec import Spec, data_set_of
from bench.protocol import CannotStackError
from bench.records import Outcome
from bench.run.batch_key import MOST_MEMBERS, batch_key, most_members
from bench.run.population import run_together
from bench.tasks.data_sets import data_root as folder_of_data

ALONE = "no other run differs from it in seed, values, schedule or shock alone"


@dataclass(frozen=True)
class Batches:
    """Runs that are made together, and why each of the others is made alone, by its id."""

    together: tuple[tuple[Planned, ...], ...]
    alone: dict[str, str]

    @cached_property
    def places(self) -> dict[str, str]:
        """Where a run is made, in a word or two; without an entry it is made alone."""
        return {item.id: f"batch {number}" for number, batch in enumerate(self.together, start=1) for item in batch}

    def describe(self) -> list[str]:
        """Returns lines that say how many runs are made together, and why the others are not."""
        sizes = Counter(len(batch) for batch in self.together)
        told = ", ".join(f"{count} × {size}" for size, count in sorted(sizes.items(), reverse=True))
        lines = [f"trained together, with seconds in common: {told} runs"] if told else []
        counts = Counter(self.alone.values())
        return lines + [f"trained alone: {count} {'run' if count == 1 else 'runs'}: {why}" for why, count in counts.items()]


def batches_of(todo: Sequence[Planned], data_root: Path | None, *, apart: Collection[str] = (), largest: int = sys.maxsize
               ) -> Batches:  # fmt: skip
    """Returns the batches of runs that are to be made, at most the `largest` number in each.

    Runs in `apart` died in a batch, and are made alone.
    """
    alike: dict[str, list[Planned]] = {}
    alone: dict[str, str] = {}
    keys = _Keys()
    for item in todo:
        try:
            if item.experiment.population == "off":
                raise CannotStackError("as `population: off` says")
            if item.id in apart:
                raise CannotStackError("the process of its batch died")
            alike.setdefault(f"{item.experiment.name} {keys.of(item.spec)}", []).append(item)
        except CannotStackError as error:
            alone[item.id] = str(error)
    together: list[tuple[Planned, ...]] = []
    most = _Most(data_root)
    for items in alike.values():
        try:
            if len(items) == 1:
                raise CannotStackError(ALONE)
            asked, possible = items[0].experiment.population, most.of(items[0].spec)
            for batch in _divided(items, min(largest, asked if isinstance(asked, int) else possible)):
                if len(batch) > 1:
                    together.append(batch)
                else:
                    alone[batch[0].id] = "its batches are full"
        except CannotStackError as error:
            alone |= dict.fromkeys([item.id for item in items], str(error))
    return Batches(tuple(together), alone)


class _Keys:
    """What runs have to share, worked out once for specs whose parts are the same objects, as an experiment's are."""

    def __init__(self) -> None:
        self._known: dict[tuple[Any, ...], str | CannotStackError] = {}

    def of(self, spec: Spec) -> str:
        """Returns the run's key as a text, or raises CannotStackError."""
        parts = tuple(
            id(value) if isinstance(value, dict | list) else value
            for name, value in spec.items() if name not in ("seed", "shock")
        )  # fmt: skip
        if parts not in self._known:
            try:
                self._known[parts] = json.dumps(batch_key(spec), sort_keys=True)
            except CannotStackError as error:
                self._known[parts] = error
        return _found(self._known[parts])


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
        return _found(self._known[key])


def _found(known: Any) -> Any:
    if isinstance(known, CannotStackError):
        raise known
    return known


def _divided(items: Sequence[Planned], limit: int) -> list[tuple[Planned, ...]]:
    """Returns the runs in batches of nearly equal sizes, none above the limit."""
    count = -(-len(items) // limit)
    ends = [len(items) * part // count for part in range(count + 1)]
    return [tuple(items[start:stop]) for start, stop in pairwise(ends)]


class Together:
    """Makes batches of runs."""

    def __init__(self, work: Work):
        self.work = work

    def make(self, waiting: Sequence[tuple[int, Planned]]) -> list[tuple[int, Planned]]:
        """Makes all batches of the runs that wait, and returns the runs that are left, with their numbers."""
        numbers, journal = {item.id: number for number, item in waiting}, self.work.journal
        with journal.within_batch(list(numbers)):  # networks are made, for which memory may not suffice
            batches = batches_of([item for _, item in waiting], self.work.data_root, apart=journal.apart)
        for batch in batches.together:
            self.work.pause()
            with ExitStack() as claims:
                ours = [item for item in batch if claims.enter_context(self.work.turn(item)) is Turn.OURS]
                if len(ours) > 1:
                    for item, outcome in self._make(ours, numbers):
                        if outcome is not None:
                            self.work.counts[outcome.status] += 1
                            del numbers[item.id]
        return [(number, item) for number, item in waiting if item.id in numbers]

    def _make(self, items: Sequence[Planned], numbers: dict[str, int]) -> list[tuple[Planned, Outcome | None]]:
        work, begun = self.work, time.monotonic()
        work.display.start(numbers[items[0].id], items[0].spec, beside=len(items) - 1)
        specs: list[Spec] = [item.spec for item in items]
        with work.journal.within_batch([item.id for item in items]):
            outcomes = run_together(
                specs, work.root, data_root=work.data_root, open_sink=opener(Assignment.of(items[0])),
                progress=work.display.progress, stopper=work.stopper,
            )  # fmt: skip
        for item, outcome in zip(items, outcomes, strict=True):
            if outcome is not None:
                work.journal.note("tried", item.id)
                work.display.start(numbers[item.id], item.spec, begun=begun)
                work.display.end(outcome)
                begun = time.monotonic()
        return list(zip(items, outcomes, strict=True))
