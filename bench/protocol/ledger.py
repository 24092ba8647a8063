"""The ledger: every second of a run is in one named account, and the accounts sum to its wall time.

A method is billed for the counted accounts, and only they spend the budget.  Between counted and uncounted work a GPU is
synchronised, so that queued work is booked on the account that asked for it.  Between two counted accounts it is not,
because a method that has several would pay for the waiting.  A mark is queued instead, and the seconds up to the next
synchronisation are divided in proportion to the device's own times between marks.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol

import torch

COUNTED = ("train", "hypergradient", "selection", "search")
"""Parameter updates; tangents, validation gradients and meta-steps; validation that a method asks for; proposing trials."""

UNCOUNTED = ("setup", "evaluation", "tracking", "checkpoint", "runner", "lost")
"""Data, model and warm-up; the runner's own evaluations on validation and test; trackers; checkpoints; records, progress
and loop; work between the last checkpoint and the end of a process that was killed."""


class Device(Protocol):
    """A device that works through a queue."""

    def synchronise(self) -> None:
        """Waits until the queue is empty."""
        ...

    def mark(self) -> Any:
        """Queues a mark and returns it."""
        ...

    def between(self, first: Any, second: Any) -> float:
        """Returns the device's time between two marks that it has reached."""
        ...


class Cuda:
    """The current CUDA device and stream."""

    def synchronise(self) -> None:
        """Waits for all streams."""
        torch.cuda.synchronize()

    def mark(self) -> torch.cuda.Event:
        """Records an event with a time and returns it."""
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def between(self, first: torch.cuda.Event, second: torch.cuda.Event) -> float:
        """Returns the seconds between two events."""
        return first.elapsed_time(second) / 1e3


class Ledger:
    """A book of wall time, which runs from its construction on; `seconds` maps each account to its total so far."""

    def __init__(self, device: Device | None = None, now: Callable[[], float] = time.perf_counter):
        self.seconds = dict.fromkeys((*COUNTED, *UNCOUNTED), 0.0)
        self._device = device
        self._now = now
        self._account = "setup"
        self._marks: list[tuple[str, Any]] = []
        self._started = self._since = now()

    def resume(self, seconds: Mapping[str, float], lost: float) -> None:
        """Continues from the accounts of an earlier process, which had worked `lost` seconds more than they say."""
        for account, spent in seconds.items():
            self.seconds[account] += spent
        self.seconds["lost"] += lost
        self._started -= sum(seconds.values()) + lost

    def switch(self, account: str) -> str:
        """Ends the running account, starts another, and returns the name of the one that ended."""
        previous = self._account
        if account == previous:
            return previous
        if self._device is not None and account in COUNTED and previous in COUNTED:
            self._marks.append((account, self._device.mark()))
        else:
            self._book()
            self._begin(account)
        self._account = account
        return previous

    def _begin(self, account: str) -> None:
        if self._device is not None and account in COUNTED:
            self._marks = [(account, self._device.mark())]

    def _book(self) -> None:
        """Books the time since the last booking, divided among the accounts that were marked."""
        marks, self._marks = self._marks, []
        shares = {self._account: 1.0}
        if self._device is not None:
            end = self._device.mark()
            self._device.synchronise()
            shares = self._shares(marks, end) or shares
        instant = self._now()
        for account, share in shares.items():
            self.seconds[account] += share * (instant - self._since)
        self._since = instant

    def _shares(self, marks: list[tuple[str, Any]], end: Any) -> dict[str, float]:
        """Returns each account's share of the device's time, or nothing if there was only one account, or no time."""
        assert self._device is not None
        if len(marks) < 2:
            return {}
        times: dict[str, float] = {}
        for (account, mark), after in zip(marks, [mark for _, mark in marks[1:]] + [end], strict=True):
            times[account] = times.get(account, 0.0) + self._device.between(mark, after)
        whole = sum(times.values())
        return {account: time / whole for account, time in times.items()} if whole else {}

    @contextlib.contextmanager
    def account(self, name: str) -> Iterator[None]:
        """Books the block under `name`, then returns to the account that was running."""
        previous = self.switch(name)
        try:
            yield
        finally:
            self.switch(previous)

    def counted(self) -> float:
        """Returns the seconds billed to the method so far, including the running account."""
        self._settle()
        return sum(self.seconds[account] for account in COUNTED)

    def wall(self) -> float:
        """Returns the seconds since the ledger was opened."""
        self._settle()
        return self._since - self._started

    def _settle(self) -> None:
        self._book()
        self._begin(self._account)
