"""The ledger: every second of a run is in one named account, and the accounts sum to its wall time.

Counted accounts are what a method is billed for; the budget is spent by them alone.  At every switch the device is
synchronised, so that work queued on a GPU is booked where it was asked for.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator

COUNTED = ("train", "hypergradient", "selection", "search")
"""Parameter updates; tangents, validation gradients and meta-steps; validation a method asks for; proposing trials."""

UNCOUNTED = ("setup", "evaluation", "tracking", "runner")
"""Data, model and warm-up; the runner's own look at validation and test; trackers; records, progress, loop."""


class Ledger:
    """Books wall time.  `seconds` maps each account to what it has so far; time runs from construction on."""

    def __init__(
        self,
        synchronise: Callable[[], None] | None = None,
        now: Callable[[], float] = time.perf_counter,
    ):
        self.seconds = dict.fromkeys((*COUNTED, *UNCOUNTED), 0.0)
        self._synchronise = synchronise
        self._now = now
        self._account = "setup"
        self._started = self._since = now()

    def switch(self, account: str) -> str:
        """Ends the running account, starts another, and returns the name of the one ended."""
        if self._synchronise is not None:
            self._synchronise()
        instant = self._now()
        self.seconds[self._account] += instant - self._since
        previous, self._account, self._since = self._account, account, instant
        return previous

    @contextlib.contextmanager
    def account(self, name: str) -> Iterator[None]:
        """Books the block under `name`, then returns to the account that was running."""
        previous = self.switch(name)
        try:
            yield
        finally:
            self.switch(previous)

    def counted(self) -> float:
        """Seconds billed to the method so far, the running account included."""
        self.switch(self._account)
        return sum(self.seconds[account] for account in COUNTED)

    def wall(self) -> float:
        """Seconds since the ledger was opened."""
        self.switch(self._account)
        return self._since - self._started
