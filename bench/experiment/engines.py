"""The engine that an experiment's runs have: the one that its file asks for, if device and methods allow it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from bench.experiment.methods import options_of
from bench.experiment.plugins import entry_of
from bench.experiment.yaml_file import Key, YamlFile
from bench.protocol import MethodEntry
from bench.protocol.engine import EAGER, GRAPH


def engine_of(
    file: YamlFile, asked: str, methods: Sequence[Mapping[str, Any]], *, device: str
) -> tuple[str, list[str]]:
    """Returns the engine of all runs, and a line that says why it is not a graph where the file leaves the choice to us.

    Raises:
        ConfigError: for a graph that the device or a method cannot have.
    """
    if asked == EAGER:
        return EAGER, []
    on_gpu = device.partition(":")[0] == "cuda"
    reasons = list(_reasons(methods))
    if asked == GRAPH:
        if not on_gpu:
            raise file.error(("engine",), f"engine: graph needs a GPU (--device {device}); allowed here are eager and auto")
        for key, reason in reasons:
            raise file.error(key, f"engine: graph: {reason}; auto makes every method's steps eagerly then")
        return GRAPH, []
    if not on_gpu:
        return EAGER, []
    return (EAGER, [f"engine: eager for every method: {reasons[0][1]}"]) if reasons else (GRAPH, [])


def _reasons(methods: Sequence[Mapping[str, Any]]) -> Iterator[tuple[Key, str]]:
    """Yields why steps cannot be captured, and the key of what is to blame."""
    for place, method in enumerate(methods):
        if reason := why_eager(method):
            yield ("methods", place, "name"), f"{method['label']} cannot be captured: {reason}"


def why_eager(part: Mapping[str, Any]) -> str:
    """Returns why the steps of a method, as a spec has it, cannot be captured; nothing if they can."""
    entry: MethodEntry = entry_of("method", part)
    if isinstance(entry.captures, bool):
        if entry.captures and part.get("over"):
            return why_eager(part["over"])
        return "" if entry.captures else "its method has no captured step"
    return entry.captures(options_of(dict(part)))
