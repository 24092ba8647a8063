"""What an experiment must have so that any of its runs can be in a figure.

Each function takes the experiment's resolved configuration, before anything is run, and returns what it lacks, as the rest
of a sentence that begins with the figure's name; an empty text where it lacks nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

Need = Callable[[Mapping[str, Any]], str]
EVENTS = ("shift_labels", "rotate")
"""The events of shocks that change the world for all methods."""


def shocks(config: Mapping[str, Any]) -> str:
    """Returns what an experiment without shocks lacks."""
    return "" if config["shocks"] else "shows how runs recover from shocks, and there are none under `shocks:`"


def changing_world(config: Mapping[str, Any]) -> str:
    """Returns what an experiment lacks in which neither inputs turn nor labels shift."""
    if turns(config["task"]) or any(changes(shock["events"]) for shock in config["shocks"]):
        return ""
    return f"shows a world that changes; the task needs `drift`, or an event under `shocks:` {' or '.join(EVENTS)}"


def turns(task: Mapping[str, Any]) -> bool:
    """Returns whether a task's inputs turn during training."""
    return bool(task.get("drift"))


def changes(events: Sequence[Mapping[str, Any]]) -> bool:
    """Returns whether events change the world."""
    return any(event.get(name) for event in events for name in EVENTS)


def option(name: str, what: str) -> Need:
    """Returns the check that some method has an option, and not false: `what` says of which methods the figure is."""

    def lacking(config: Mapping[str, Any]) -> str:
        values = [method.get(name) for method in config["methods"]]
        has_one = any(value is not None and value is not False for value in values)
        return "" if has_one else f"shows {what}, and there are none"

    return lacking
