"""The published values, read off the paper's figures by eye, and the tasks and methods that they are of.

A value stands beside ours only where the task is the paper's own: its network on its data, which do not drift.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import pandas as pd

SOURCE = "arXiv 2102.07813, read off its figures by eye"
TASKS = {"mnist-mlp": "MNIST", "cifar10-resnet18": "CIFAR-10"}
"""The paper's tasks, and what it calls their data."""
NETWORKS: dict[str, dict[str, Any]] = {"mnist-mlp": {"width": 128, "hidden_layers": 3}, "cifar10-resnet18": {"width": 64}}
"""The options of its networks in each."""
OPTIMIZERS = {
    "fixed": "sgd", "step": "sgd", "exponential": "sgd", "cosine": "sgd", "adam": "adam", "oho-global": "sgd",
    "oho-layerwise": "sgd",
}  # fmt: skip
"""The paper's trainings, with the optimizer that it has in each."""

DISTRIBUTION: dict[str, dict[str, float]] = {
    "mnist-mlp": {"fixed": 0.118, "cosine": 0.113, "step": 0.115, "exponential": 0.102, "oho-global": 0.068,
                  "oho-layerwise": 0.068},
    "cifar10-resnet18": {"fixed": 0.56, "cosine": 0.60, "step": 0.59, "exponential": 0.58, "oho-global": 0.42,
                         "oho-layerwise": 0.37},
}  # fmt: skip
"""Median final test loss by task and method, nats per example (figure 1)."""

PERFORMANCE: dict[str, dict[str, tuple[float, float]]] = {
    "random-search": {"fixed": (139, 137), "adam": (136, 135), "step": (139, 142), "cosine": (129, 127),
                      "exponential": (28, 27), "oho-global": (1, 6)},
    "bayesian-search": {"fixed": (84, 98), "adam": (42, 40), "step": (84, 101), "cosine": (84, 107),
                        "exponential": (17, 17), "oho-global": (1, 10)},
}  # fmt: skip
"""Trials, and hours, that a search over a training needs to reach Global OHO's test loss (figure 2)."""

SETS: dict[str, dict[int, float]] = {
    "mnist-mlp": {1: 0.076, 2: 0.077, 3: 0.074, 4: 0.073, 6: 0.067},
    "cifar10-resnet18": {1: 0.58, 2: 0.57, 3: 0.54, 4: 0.50, 62: 0.35},
}
"""Median test loss by task and number of sets, collapsed influence (figure 4)."""

SOURCES = (
    ("Validation against training batch", "validation is below"),
    ("Validation batch of 100, 500, 1000", "the larger, the lower"),
)
"""What can be read off figure 6: an order, no number."""

RECOVERY = {"cifar10-resnet18": "20 to 60 epochs"}
"""How soon OHO recovers from a kick of the learning rate, by task (figure 7, in words)."""

KICKED_TO, KICKED_AT = {"lr": 0.2}, (30, 50, 90, 180, 270)
"""What that kick sets, and at which epochs."""

NORMS = {"lr": "100 to 10000", "weight_decay": "1000 to 4·10⁵"}
"""Ranges of the influence's norm by hyperparameter, over both tasks (figure 8)."""

RESET: dict[str, dict[int, float]] = {"cifar10-resnet18": {1: 0.46, 100: 0.44, 1000: 0.425, 0: 0.39}}
"""Median test loss by task and steps between resets, 0 for never (figure 10)."""


def has_training(method: Mapping[str, Any]) -> bool:
    """Returns whether a spec's method is one of the paper's trainings, with the paper's optimizer."""
    name = method["name"]
    if name not in OPTIMIZERS:
        return False
    usual = OPTIMIZERS[name]
    return (method.get("optimizer") or {"name": usual})["name"] == usual


def has_search(method: Mapping[str, Any]) -> bool:
    """Returns whether a spec's method is one of the paper's searches over one of its trainings; it has no pruner."""
    over = method.get("over")
    return (
        over is not None and method["name"] in PERFORMANCE and method.get("pruner", "none") == "none" and has_training(over)
    )


def has_task(task: Mapping[str, Any], data: object) -> bool:
    """Returns whether a spec's task, on data of this label, is the paper's.  Data without a label are the task's own."""
    name = task["name"]
    if name not in TASKS or task.get("drift") or (isinstance(data, str) and data != TASKS[name]):
        return False
    return all(task.get(option, usual) == usual for option, usual in NETWORKS[name].items())


def has_shock(events: Sequence[Mapping[str, Any]]) -> bool:
    """Returns whether these events are the paper's kick of the learning rate, and nothing else."""
    return len(events) == 1 and events[0].get("set") == KICKED_TO and events[0]["epoch"] in KICKED_AT


def own_tasks(runs: pd.DataFrame) -> frozenset[str]:
    """Returns the names of the runs' tasks if all are the paper's own, else none."""
    are_own = all(has_task(*pair) for pair in zip(runs["task_options"], runs["data"], strict=True))
    return frozenset(runs["task"]) if are_own else frozenset()


def of_task(values: Mapping[str, Any], tasks: Collection[str]) -> Any:
    """Returns the published values of the one task among `tasks`; an empty mapping where the paper has none, or if there
    are several."""
    return values.get(next(iter(tasks)), {}) if len(tasks) == 1 else {}
