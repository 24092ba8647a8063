"""A command's journal, by which a process that died tells the process that replaces it what has been done so far.

It consists of lines in a file that only these processes have, which is in memory if the system supports that:

    parent 4711          this process watches over the others
    device cuda          the device that `auto` meant when the command began
    planned DIGEST       the digest of the planned runs
    in ID SINCE, out     the process starts or stops working on a run; SINCE is the time of the run's last outcome
    batch ID ID ..., out the process starts or stops working on runs that are made together
    apart ID ID ...      the process died in the batch of these runs, which are now made alone
    tried ID             a run has ended, successfully or not, and the command does not try it again
    died ID 9            the process died of this signal within the run
    settled ID           the run's outcome says that its process died, or another runner has taken it over
    told stopped         the message that the command was stopped has been printed
"""

from __future__ import annotations

import fcntl
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import IO

NEVER = "never"


class Journal:
    """An append-only journal; every process reads the whole of it."""

    def __init__(self, descriptor: int):
        self.descriptor = descriptor

    @classmethod
    def new(cls) -> Journal:
        """Returns an empty journal."""
        with _unnamed_file() as file:
            descriptor = fcntl.fcntl(file, fcntl.F_DUPFD_CLOEXEC, 3)  # not a standard stream that was closed
        fcntl.fcntl(descriptor, fcntl.F_SETFL, os.O_APPEND)
        return cls(descriptor)

    def note(self, *words: object) -> None:
        """Adds a line."""
        os.write(self.descriptor, " ".join(map(str, words)).encode() + b"\n")

    @contextmanager
    def within(self, identity: str, since: str) -> Iterator[None]:
        """Attributes to the run what kills the process inside the block; `since` is the time of the run's last outcome."""
        self.note("in", identity, since)
        try:
            yield
        finally:
            self.note("out")

    @contextmanager
    def within_batch(self, identities: Sequence[str]) -> Iterator[None]:
        """Attributes to a batch of runs what kills the process inside the block."""
        self.note("batch", *identities)
        try:
            yield
        finally:
            self.note("out")

    @property
    def batch(self) -> list[str]:
        """The runs of the batch that the process works on, or worked on when it died; usually none."""
        entered = [line for line in self._lines() if line[0] in ("in", "batch", "out")]
        return entered[-1][1:] if entered and entered[-1][0] == "batch" else []

    @property
    def apart(self) -> set[str]:
        """The runs of batches in which a process died."""
        return {identity for line in self._lines() if line[0] == "apart" for identity in line[1:]}

    @property
    def present(self) -> str | None:
        """The run that the process works on, or worked on when it died."""
        entered = [line[1:] for line in self._lines() if line[0] in ("in", "out")]
        return entered[-1][0] if entered and entered[-1] else None

    @property
    def tried(self) -> set[str]:
        """The runs that ended or in which a process died."""
        return {line[1] for line in self._lines() if line[0] in ("tried", "died")}

    @property
    def unsettled(self) -> dict[str, int]:
        """The runs in which a process died and whose outcome does not say so yet, with the signal of each."""
        lines = self._lines()
        settled = {line[1] for line in lines if line[0] == "settled"}
        return {line[1]: int(line[2]) for line in lines if line[0] == "died" and line[1] not in settled}

    def since(self, identity: str) -> str:
        """Returns the time of the outcome that the run had when a process last started working on it."""
        return [line[2] for line in self._lines() if line[:2] == ["in", identity]][-1]

    def last(self, event: str) -> str | None:
        """Returns what was last noted about an event, or None."""
        return next((line[1] for line in reversed(self._lines()) if line[0] == event), None)

    def _lines(self) -> list[list[str]]:
        content = os.pread(self.descriptor, os.fstat(self.descriptor).st_size, 0)
        return [line.split() for line in content.decode().splitlines() if line.strip()]


def _unnamed_file() -> IO[bytes]:
    return os.fdopen(os.memfd_create("oho-bench"), "r+b") if hasattr(os, "memfd_create") else tempfile.TemporaryFile()
