"""What a process needs to make the runs of one command, and what has become of them."""

from __future__ import annotations

import os
from collections import Counter
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path

from bench.command.handover import Journal
from bench.command.one_run import Turn, turn
from bench.command.planning import Planned
from bench.command.progress import Display
from bench.process.signals import Stopper
from bench.records import Status


@dataclass
class Work:
    """A results folder, data, and what notes, stops and shows runs; `counts` has the statuses that they ended in."""

    root: Path
    was: os.stat_result
    """The results folder as the command found it."""
    data_root: Path | None
    journal: Journal
    stopper: Stopper
    display: Display
    counts: Counter[Status] = field(default_factory=Counter)

    def turn(self, item: Planned) -> AbstractContextManager[Turn]:
        """Claims a run for a block, and says whose turn it is: see `bench.command.one_run.turn`."""
        return turn(self.root, self.was, item.id, repr(item.outcome))

    def pause(self) -> None:
        """Waits while the command is stopped; raises `Interrupted` after a signal."""
        self.stopper.rest()
        self.stopper.check()
