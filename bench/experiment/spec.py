"""A run's spec, and the task and method it describes."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch

from bench.experiment.method_registry import build_method
from bench.protocol import Method, Split, Task
from bench.protocol.space import Space
from bench.tasks.task_registry import TASKS, build_task

Spec = dict[str, Any]
"""All that affects a run's result, as plain JSON values: task, method, seed, budget, space, device, threads, shock."""


def task_of(spec: Spec, device: torch.device, data_root: Path | None) -> tuple[Task, Split]:
    """The task and, apart from it, its test split."""
    name, content = _named(spec["task"])
    return build_task(name, type(TASKS[name].defaults)(**content), device=device, root=data_root)


def method_of(spec: Spec) -> Method:
    """The method, before its first run."""
    name, content = _named(spec["method"])
    return build_method(name, content, Space.model_validate(spec["space"]))


def set_threads(spec: Spec) -> int:
    """Gives PyTorch the spec's number of threads, all cores if it names none, and returns it."""
    threads = spec["threads"] or os.cpu_count() or 1
    torch.set_num_threads(threads)
    return threads


def _named(part: Spec) -> tuple[str, Spec]:
    """A part's name, and its options without name and label."""
    return part["name"], {key: value for key, value in part.items() if key not in ("name", "label")}
