"""A run's spec, and the task and method that it describes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from bench.experiment.plugins import entry_of
from bench.process.share import processors
from bench.protocol import Method, MethodEntry, Package, Space, Split, Task
from bench.records.errors import DataError
from bench.records.schema import RESERVED
from bench.tasks.data_sets import DataSet, content_of
from bench.tasks.entry import TaskEntry, build_task
from bench.tasks.options import TaskOptions

Spec = dict[str, Any]
"""All that affects a run's result, as plain JSON values: task, method, seed, budget, space, device, threads, shock."""


def task_of(spec: Spec, device: torch.device, data_root: Path | None, results: Path | None = None) -> tuple[Task, Split]:
    """Returns the task and, separately, its test split; plug-ins come from the folder `results`, if given.

    Raises:
        DataError: if the data are not there, or are no longer those of the spec.
    """
    part = spec["task"]
    entry, options, data = _task_parts(part, results)
    if "content" in part and (present := content_of(data, data_root)) != part["content"]:
        raise DataError(f"{data.description} was changed (its hash is {present}, the run's {part['content']})")
    task, test = build_task(part["name"], entry, options, device=device, root=data_root, data=data)
    return replace(task, engine=spec.get("engine", task.engine)), test


def data_set_of(part: Spec, results: Path | None = None) -> DataSet:
    """Returns the data set of a spec's task."""
    return _task_parts(part, results)[2]


def _task_parts(part: Spec, results: Path | None) -> tuple[TaskEntry, TaskOptions, DataSet]:
    entry: TaskEntry = entry_of("task", part, results)
    given = options_in(part)
    replacing = given.pop("data", None)
    options = type(entry.defaults)(**given)
    data = entry_of("data set", replacing, results) if replacing else entry.data_for(options)
    return entry, options, data


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


def packages_of(spec: Spec, results: Path | None = None) -> tuple[Package, ...]:
    """Returns the packages that the run's method needs, and that the method which it repeats needs."""
    parts = [part for part in (spec["method"], spec["method"].get("over")) if part]
    entries: list[MethodEntry] = [entry_of("method", part, results) for part in parts]
    return tuple(entry.package for entry in entries if entry.package)


def options_in(part: Spec) -> Spec:
    """Returns the options of a spec's task or method."""
    return {key: value for key, value in part.items() if key not in RESERVED}


def set_threads(spec: Spec) -> int:
    """Sets PyTorch's number of threads to the spec's, else to all that the process may use, and returns it."""
    threads = spec["threads"] or processors()
    torch.set_num_threads(threads)
    return threads
