"""Ctrl-C and SIGTERM: once, the run ends after its step and can go on later; twice, the process leaves at once."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

WATCHED = (signal.SIGINT, signal.SIGTERM)


class Interrupted(BaseException):
    """A run was asked to stop by the signal `number`."""

    def __init__(self, number: int):
        super().__init__(signal.Signals(number).name)
        self.number = number


class Stopper:
    """`asked` is the signal that came.  While `patient`, who works looks at it; else the signal raises `Interrupted`."""

    def __init__(self) -> None:
        self.asked: int | None = None
        self._patient = False

    @contextmanager
    def patience(self) -> Iterator[None]:
        """The block calls `check` often, where it can be left without loss."""
        self._patient = True
        try:
            yield
        finally:
            self._patient = False

    def check(self) -> None:
        """Raises `Interrupted` if a signal came."""
        if self.asked is not None:
            raise Interrupted(self.asked)

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Handles the signals inside the block; one that was ignored before still is."""
        heard = [number for number in WATCHED if signal.getsignal(number) is not signal.SIG_IGN]
        previous: dict[int, Any] = {number: signal.signal(number, self._handle) for number in heard}
        try:
            yield
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.asked is not None:
            os._exit(128 + number)  # records are on the disk line by line, checkpoints are whole
        self.asked = number
        if not self._patient:
            raise Interrupted(number)
        print("\noho-bench: stopping after this step; once more leaves at once", file=sys.stderr, flush=True)
