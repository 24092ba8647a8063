"""A run's spec, and the task and method it describes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from bench.method_registry import METHODS, build_method
from bench.protocol import Method, Split, Task
from bench.space import Space
from bench.task_registry import TASKS, build_task

Spec = dict[str, Any]
"""All that affects a run's result, as plain JSON values: task, method, seed, budget, space, device, threads."""


def task_of(spec: Spec, device: torch.device, data_root: Path | None) -> tuple[Task, Split]:
    """The task and, apart from it, its test split."""
    name = spec["task"]["name"]
    options = {key: value for key, value in spec["task"].items() if key != "name"}
    return build_task(name, type(TASKS[name].defaults)(**options), device=device, root=data_root)


def method_of(spec: Spec) -> Method:
    """The method, before its first run."""
    space = Space.model_validate(spec["space"])
    content = {key: value for key, value in spec["method"].items() if key not in ("name", "label")}
    name, over = spec["method"]["name"], content.get("over")
    if over is not None:
        inner = {key: value for key, value in over.items() if key not in ("name", "label")}
        content["over"] = None
        options = METHODS[name].options(**content)
        options = options.model_copy(update={"over": METHODS[over["name"]].options(**inner)})
        return build_method(name, options, space)
    return build_method(name, METHODS[name].options(**content), space)
