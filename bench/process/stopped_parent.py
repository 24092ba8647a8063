"""Notices that the command is stopped, so that its work stops, too.

`kill -STOP` cannot be caught, and the command's child, which does the work, is in a session of its own.  So the child looks
at the state of its parent, in Linux's `/proc`.  Elsewhere it does not notice, and only Ctrl-Z stops it.
"""

from __future__ import annotations

from pathlib import Path

PROCESSES = Path("/proc")
POLL_SECONDS = 0.05
"""The time between two looks of a child that waits."""


def can_be_seen() -> bool:
    """Returns whether this system tells the states of processes."""
    return (PROCESSES / "self/stat").exists()


def is_stopped(process: int) -> bool:
    """Returns whether a process is stopped; one that is not there or cannot be seen is not.  Takes about 20 µs."""
    try:
        status = (PROCESSES / f"{process}/stat").read_bytes()
    except OSError:
        return False
    return status.rpartition(b")")[2].split()[0] == b"T"  # the name, in parentheses, may have any characters
