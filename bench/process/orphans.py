"""Ends a process when its parent dies, so that nobody's work goes on after a command that was killed."""

from __future__ import annotations

import ctypes
import os
import signal
import sys

SET_PARENT_DEATH_SIGNAL = 1
"""An option of Linux's `prctl`."""


def die_with(parent: int) -> None:
    """Has the system kill this process when its parent dies, on Linux; elsewhere the process works on."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(SET_PARENT_DEATH_SIGNAL, signal.SIGKILL)
        if os.getppid() != parent:  # the parent died before that
            os._exit(1)
