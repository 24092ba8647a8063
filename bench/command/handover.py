"""What one command has done so far, told from a process of it that died to the one that goes on in its place.

Lines of a file that only these processes have, in memory where the system can:

    parent 4711          the process that watches over the others
    device cuda          what `auto` was when the command began
    planned DIGEST       of the runs to be made
    in ID SINCE, out     the process works for a run, whose last outcome, if any, is of that moment; no longer
    tried ID             a run has ended, well or not: the command does not try it again
    died ID 9            the process died of that signal, within the run
    settled ID           the run's outcome says so, or what another runner made of it
    told stopped         the user has read that the command was stopped
"""

from __future__ import annotations

import fcntl
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO

NEVER = "never"


class Journal:
    """Append-only; every process reads the whole of it."""

    def __init__(self, descriptor: int):
        self.descriptor = descriptor

    @classmethod
    def new(cls) -> Journal:
        """An empty one."""
        with _unnamed_file() as file:
            descriptor = fcntl.fcntl(file, fcntl.F_DUPFD_CLOEXEC, 3)  # not a standard stream that was closed
        fcntl.fcntl(descriptor, fcntl.F_SETFL, os.O_APPEND)
        return cls(descriptor)

    def note(self, *words: object) -> None:
        """Adds a line."""
        os.write(self.descriptor, " ".join(map(str, words)).encode() + b"\n")

    @contextmanager
    def within(self, identity: str, since: str) -> Iterator[None]:
        """What kills the process inside the block is laid to the run; `since` is the moment of the outcome that it had."""
        self.note("in", identity, since)
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
    def unsettled(self) -> dict[str, int]:
        """Runs in which a process died, of which signal, where that has not been looked into yet."""
        lines = self._lines()
        settled = {line[1] for line in lines if line[0] == "settled"}
        return {line[1]: int(line[2]) for line in lines if line[0] == "died" and line[1] not in settled}

    def since(self, identity: str) -> str:
        """Of what moment the run's last outcome was when a process entered it last."""
        return [line[2] for line in self._lines() if line[:2] == ["in", identity]][-1]

    def last(self, event: str) -> str | None:
        """What was noted last of an event; None if nothing was."""
        return next((line[1] for line in reversed(self._lines()) if line[0] == event), None)

    def _lines(self) -> list[list[str]]:
        content = os.pread(self.descriptor, os.fstat(self.descriptor).st_size, 0)
        return [line.split() for line in content.decode().splitlines() if line.strip()]


def _unnamed_file() -> IO[bytes]:
    return os.fdopen(os.memfd_create("oho-bench"), "r+b") if hasattr(os, "memfd_create") else tempfile.TemporaryFile()
