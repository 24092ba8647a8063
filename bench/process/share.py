"""How much of the machine this process has: all of it or, while several workers make runs side by side, a part."""

from __future__ import annotations

import os
from dataclasses import dataclass


@dataclass
class _Share:
    workers: int = 1


_own = _Share()


def begin_as_one_of(workers: int) -> None:
    """Notes that this process is one of so many that work side by side."""
    _own.workers = workers


def workers() -> int:
    """Returns the number of processes that work side by side, this one among them; usually 1."""
    return _own.workers


def processors() -> int:
    """Returns the number of processors that this process is meant to use."""
    return max(1, machine_processors() // _own.workers)


def machine_processors() -> int:
    """Returns the number of the machine's processors."""
    return os.cpu_count() or 1
