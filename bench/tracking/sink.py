"""The interface of a tracker."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from bench.records import Outcome


class Sink(Protocol):
    """A receiver of what the records receive.  It handles its own exceptions and time-outs."""

    def record(self, record: Mapping[str, Any]) -> None:
        """Receives one line of the records."""
        ...

    def caught_up(self) -> None:
        """Is called once the sink has received all records of earlier processes."""
        ...

    def close(self, outcome: Outcome) -> None:
        """Receives the outcome at the run's end."""
        ...
