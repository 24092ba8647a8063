"""Standard output and its like, which may be closed, full, or a pipe whose reader has gone."""

from __future__ import annotations

import errno
import os
import sys
from contextlib import suppress

UNWRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EPIPE, errno.EBADF)
"""Why the system may refuse what is printed."""


def open_closed() -> None:
    """Opens the null device for each standard stream that the process was started without.

    Otherwise the next file to be opened, such as a run's records, would get the stream's number and what is written to it.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # the lowest free number is this one
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(number, "w" if number else "r", closefd=False))


def flush() -> None:
    """Writes out what was printed.  Raises OSError, which Python would otherwise print with a traceback at its end."""
    if sys.stdout is not None:
        sys.stdout.flush()


def discard_output() -> None:
    """Drops what could not be printed and whatever follows."""
    with suppress(OSError, ValueError):  # ValueError: it is closed
        number, descriptor = sys.stdout.fileno(), os.open(os.devnull, os.O_WRONLY)
        os.dup2(descriptor, number)
        os.close(descriptor)


def say(text: str) -> None:
    """Prints to standard output what a command can do without: if nobody reads it, the command goes on."""
    try:
        print(text, flush=True)
    except OSError:
        discard_output()
