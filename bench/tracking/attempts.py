"""Asks a tracker for something without letting it fail, end or hold up the run."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any

TIMEOUT_SECONDS = 20
"""The longest that a run waits for a tracker."""


class _Worker:
    """A thread that does what it is given, one thing after another: beginning one for each row costs as much as the row."""

    def __init__(self) -> None:
        self.tasks: SimpleQueue[Callable[[], None]] = SimpleQueue()
        threading.Thread(target=self._work, daemon=True).start()

    def _work(self) -> None:
        while True:
            self.tasks.get()()


_idle: list[_Worker] = []
os.register_at_fork(after_in_child=_idle.clear)  # which has none of the threads


def attempt(action: Callable[..., Any], *arguments: Any) -> str:
    """Runs `action` for at most `TIMEOUT_SECONDS`; returns in one line why it failed, or an empty text."""
    error: list[BaseException] = []
    ended = threading.Event()

    def run() -> None:
        try:
            action(*arguments)
        except BaseException as caught:  # whatever a tracker raises, the run goes on
            error.append(caught)
        ended.set()

    try:
        worker = _idle.pop()
    except IndexError:
        worker = _Worker()
    worker.tasks.put(run)
    if not ended.wait(TIMEOUT_SECONDS):
        return f"no answer in {TIMEOUT_SECONDS} s"  # the worker is left to it
    _idle.append(worker)
    return f"{type(error[0]).__name__}: {' '.join(str(error[0]).split())}" if error else ""
