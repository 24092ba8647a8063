"""Trackers of a batch, which follow it from a thread of their own, so that the batch does not wait for them.

A tracker takes a millisecond for a record, most of it waiting for another process: as long as a run of a large batch takes
for some of its steps.  Runs whose seconds count have their trackers called in turn, for a second thread would disturb
their clock.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from bench.records import Outcome
from bench.tracking.sink import Sink

Ask = Callable[..., Future[Any]]
"""(action, *arguments) -> what the thread of trackers will answer, after all that it was asked to do before."""


class TrailingSink:
    """A sink that is opened, told of records and closed by the thread that `ask` asks."""

    def __init__(self, opening: Callable[[], Sink], ask: Ask):
        self._ask, self._opened = ask, ask(opening)

    def record(self, record: Mapping[str, Any]) -> None:
        """Has the sink told of a record."""
        self._ask(lambda: self._opened.result().record(dict(record)))

    def caught_up(self) -> None:
        """Does nothing: `opening` returns a sink that has caught up."""

    def close(self, outcome: Outcome) -> None:
        """Has the sink closed."""
        self._ask(lambda: self._opened.result().close(outcome))


class Trailing:
    """The thread of a batch's trackers."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="trackers")
        self._asked: deque[Future[Any]] = deque()

    def sink(self, opening: Callable[[], Sink]) -> Sink:
        """Returns a sink that stands for the one that `opening` returns."""
        return TrailingSink(opening, self._ask)

    def _ask(self, action: Callable[..., Any], *arguments: Any) -> Future[Any]:
        """Has the thread do something; raises what it has raised since the last call."""
        while self._asked and self._asked[0].done():
            self._asked.popleft().result()
        self._asked.append(self._thread.submit(action, *arguments))
        return self._asked[-1]

    def close(self) -> None:
        """Waits until trackers know all, and raises what the thread has raised."""
        self._thread.shutdown()
        for each in self._asked:
            each.result()
