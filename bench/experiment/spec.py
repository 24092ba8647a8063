"""A run's spec, and the task and method that it describes."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch

from bench.experiment.plugins import entry_of
from bench.protocol import Method, MethodEntry, Space, Split, Task
from bench.tasks.task_registry import TaskEntry, build_task

Spec = dict[str, Any]
"""All that affects a run's result, as plain JSON values: task, method, seed, budget, space, device, threads, shock."""

ABOUT = ("name", "label", "family", "origin")
"""Keys of a spec's task or method that are not its options."""


def task_of(spec: Spec, device: torch.device, data_root: Path | None, results: Path | None = None) -> tuple[Task, Split]:
    """Returns the task and, separately, its test split; plug-ins come from the folder `results`, if given."""
    part = spec["task"]
    entry: TaskEntry = entry_of("task", part, results)
    options = type(entry.defaults)(**options_in(part))
    return build_task(part["name"], entry, options, device=device, root=data_root)


def method_of(spec: Spec, results: Path | None = None) -> Method:
    """Returns the method, which has not run yet; plug-ins come from the folder `results`, if given."""
    return build_method(spec["method"], Space.model_validate(spec["space"]), results)


def build_method(part: Spec, space: Space, results: Path | None = None) -> Method:
    """Returns the method that one part of a spec describes."""
    entry: MethodEntry = entry_of("method", part, results)
    options = options_in(part)
    if entry.repeats is None:
        return entry.build(entry.options.model_validate(options), space)
    over = build_method(options["over"], space, results)
    return entry.build(entry.options.model_validate({**options, "over": None}), over)


def options_in(part: Spec) -> Spec:
    """Returns the options of a spec's task or method."""
    return {key: value for key, value in part.items() if key not in ABOUT}


def set_threads(spec: Spec) -> int:
    """Sets PyTorch's number of threads to the spec's, or to all cores if it names none, and returns it."""
    threads = spec["threads"] or os.cpu_count() or 1
    torch.set_num_threads(threads)
    return threads
