"""Handles Ctrl-C, SIGTERM, and the SIGHUP of a terminal that closes.

After one signal the run ends after its step and can be continued later; after a second one the process ends at once.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

from bench.process.stopped_parent import POLL_SECONDS, is_stopped

WATCHED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
ECHO_SECONDS = 0.2
"""A signal that comes so soon after the first does not count as a second one: job schedulers send theirs to every process,
and we pass them on to our child; systems that shut down send two kinds at once."""


def tell(line: str) -> None:
    """Writes to standard error, if it is still open."""
    with suppress(OSError):
        print(line, file=sys.stderr, flush=True)


@contextmanager
def held() -> Iterator[None]:
    """Holds signals back until the end of the block, or until `release_signals` in a process that is started inside it."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, WATCHED)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def release_signals() -> None:
    """Lets signals end the process at once until a `Stopper` listens, because an exception would break an import."""
    for number in WATCHED:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, WATCHED)


@contextmanager
def handling(handlers: Mapping[int, Any]) -> Iterator[None]:
    """Handles the signals inside the block; a signal that was ignored before stays ignored."""
    heard = {number: handler for number, handler in handlers.items() if signal.getsignal(number) is not signal.SIG_IGN}
    previous = {number: signal.signal(number, handler) for number, handler in heard.items()}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


class Interrupted(BaseException):
    """The exception of a run that the signal `number` asked to stop."""

    def __init__(self, number: int):
        super().__init__(signal.Signals(number).name)
        self.number = number


class Stopper:
    """A receiver of signals; `asked` is the first that came.

    With patience, the code that works calls `check`; without it, a signal raises `Interrupted` at once.  `parent` is the
    process that watches over this one, if any: `rest` waits while that is stopped.  Without `tells`, another process tells
    the user what a signal does.
    """

    def __init__(self, parent: int | None = None, *, tells: bool = True) -> None:
        self.asked: int | None = None
        self._parent, self._tells = parent, tells
        self._patient = False

    @contextmanager
    def patience(self) -> Iterator[None]:
        """Has patience in the block, which is short or often calls `check` at places where it can be left without loss."""
        before, self._patient = self._patient, True
        try:
            yield
        finally:
            self._patient = before

    @contextmanager
    def impatience(self) -> Iterator[None]:
        """Suspends patience in the block, which can be left anywhere without loss."""
        before, self._patient = self._patient, False
        try:
            self.check()
            yield
        finally:
            self._patient = before

    def check(self) -> None:
        """Raises `Interrupted` if a signal came."""
        if self.asked is not None:
            raise Interrupted(self.asked)

    def rest(self) -> float:
        """Waits while the parent is stopped, unless a signal comes, and returns for how many seconds."""
        if self._parent is None or not is_stopped(self._parent):
            return 0.0
        begun = time.monotonic()
        while self.asked is None and is_stopped(self._parent):
            time.sleep(POLL_SECONDS)
        return time.monotonic() - begun

    @contextmanager
    def listening(self, *more: int) -> Iterator[None]:
        """Handles the signals, and `more` of them, inside the block."""
        with handling(dict.fromkeys((*WATCHED, *more), self._handle)), _leaving_at_the_second():
            yield

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.asked is not None:
            return
        self.asked = number
        if not self._patient:
            raise Interrupted(number)
        if self._tells:
            tell("\noho-bench: stopping after this step; a second signal ends it at once")


@contextmanager
def _leaving_at_the_second() -> Iterator[None]:
    """Starts a thread that ends the process at the second signal.

    Signal handlers would wait until the current call into PyTorch returns.
    """
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    previous = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    watcher = threading.Thread(target=_watch, args=(reading,), daemon=True)
    watcher.start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(previous)
        os.close(writing)
        watcher.join()
        os.close(reading)


def _watch(reading: int) -> None:
    first: float | None = None
    while content := os.read(reading, 1):
        if content[0] in WATCHED:
            first = first or time.monotonic()
            if time.monotonic() - first > ECHO_SECONDS:
                tell("\noho-bench: left at once; repeat the command to continue from the last checkpoint")
                os._exit(128 + content[0])  # each line of the records has been written, and checkpoints are whole
