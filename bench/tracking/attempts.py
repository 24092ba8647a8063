"""Asks a tracker for something without letting it fail, end or hold up the run."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

TIMEOUT_SECONDS = 20
"""The longest that a run waits for a tracker."""


def attempt(action: Callable[..., Any], *arguments: Any) -> str:
    """Runs `action` for at most `TIMEOUT_SECONDS`; returns in one line why it failed, or an empty text."""
    error: list[BaseException] = []

    def run() -> None:
        try:
            action(*arguments)
        except BaseException as caught:  # whatever a tracker raises, the run goes on
            error.append(caught)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(TIMEOUT_SECONDS)
    if error:
        return f"{type(error[0]).__name__}: {' '.join(str(error[0]).split())}"
    return f"no answer in {TIMEOUT_SECONDS} s" if thread.is_alive() else ""
