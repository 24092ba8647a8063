"""What one command has done so far, told from a process of it that died to the one that goes on in its place.

Lines of a file that only these processes have, in memory where the system can:

    parent 4711          the process that watches over the others
    device cuda          what `auto` was when the command began
    planned DIGEST       of the runs to be made
    in ID, out           the process works for a run; no longer
    tried ID             a run has ended, well or not: the command does not try it again
    died ID 9            the process died of that signal, within the run
    booked ID            the run's outcome says so
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager


class Journal:
    """Append-only; every process reads the whole of it."""

    def __init__(self, descriptor: int):
        self.descriptor = descriptor

    @classmethod
    def new(cls) -> Journal:
        """An empty one."""
        if hasattr(os, "memfd_create"):
            return cls(os.memfd_create("oho-bench"))
        with tempfile.TemporaryFile() as file:
            return cls(os.dup(file.fileno()))

    def note(self, *words: object) -> None:
        """Adds a line."""
        os.lseek(self.descriptor, 0, os.SEEK_END)
        os.write(self.descriptor, " ".join(map(str, words)).encode() + b"\n")

    @contextmanager
    def within(self, identity: str) -> Iterator[None]:
        """What kills the process inside the block is laid to the run."""
        self.note("in", identity)
        try:
            yield
        finally:
            self.note("out")

    @property
    def present(self) -> str | None:
        """The run that the process works for, or did when it died."""
        entered = [line[1:] for line in self._lines() if line[0] in ("in", "out")]
        return entered[-1][0] if entered and entered[-1] else None

    @property
    def tried(self) -> set[str]:
        """Runs that ended, or in which a process died."""
        return {line[1] for line in self._lines() if line[0] in ("tried", "died")}

    @property
    def unbooked(self) -> dict[str, int]:
        """Runs in which a process died, of which signal, where their outcomes do not say so yet."""
        booked = {line[1] for line in self._lines() if line[0] == "booked"}
        return {line[1]: int(line[2]) for line in self._lines() if line[0] == "died" and line[1] not in booked}

    def last(self, event: str) -> str | None:
        """What was noted last of an event; None if nothing was."""
        return next((line[1] for line in reversed(self._lines()) if line[0] == event), None)

    def _lines(self) -> list[list[str]]:
        content = os.pread(self.descriptor, os.fstat(self.descriptor).st_size, 0)
        return [line.split() for line in content.decode().splitlines()]
