"""When the runner interrupts its work: to write checkpoints, and to show progress."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from bench.process.signals import Stopper
from bench.protocol.ledger import Ledger

if TYPE_CHECKING:
    from bench.run.loop import Loop

CHECKPOINT_SHARE = 0.02
"""The share of a run's time that checkpoints may take: large ones are written less often."""
SHOWN_EVERY_SECONDS = 0.1
"""The time between two looks of the display at a run."""


class Pace:
    """Says when checkpoints are due, and when progress is to be shown."""

    def __init__(self, ledger: Ledger, checkpoint_seconds: float):
        self._ledger, self._least = ledger, checkpoint_seconds
        self._shown, self._saved, self._pause = -1.0, ledger.wall(), checkpoint_seconds

    def checkpoint(self, stopper: Stopper, loops: Sequence[Loop]) -> None:
        """Writes checkpoints if they are due or a signal came, and raises `Interrupted` in the second case."""
        if stopper.asked is None and self._ledger.wall() - self._saved <= self._pause:
            return
        begun = self._ledger.wall()
        with self._ledger.account("checkpoint"):
            for loop in loops:
                loop.checkpoint(is_last=stopper.asked is not None)
        self._saved = self._ledger.wall()
        self._pause = max(self._least, (self._saved - begun) / CHECKPOINT_SHARE)
        stopper.check()

    def is_time_to_show(self) -> bool:
        """Returns whether some time has passed since this was last true."""
        moment = self._ledger.wall()
        if moment - self._shown <= SHOWN_EVERY_SECONDS:
            return False
        self._shown = moment
        return True
