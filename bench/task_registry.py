"""The tasks by name: one entry each, options owned by the entry."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path

import torch
from pydantic import Field
from torch import nn

from bench import data
from bench.protocol import Options
from bench.tasks import Split, Task

SPLIT_SEED = 0
"""The validation split is the same for all runs, so that seeds differ in training alone."""


class TaskOptions(Options):
    """Sizes are numbers of examples; `selection_epochs` is the time between two validations that select."""

    batch_size: int = Field(default=100, ge=1)
    validation_size: int = Field(ge=1)
    validation_batch_size: int = Field(default=100, ge=1)
    selection_epochs: int = Field(default=1, ge=1)
    width: int = Field(default=128, ge=1)
    hidden_layers: int = Field(default=3, ge=0)


@dataclass(frozen=True)
class TaskEntry:
    """A data set with a model and the options' defaults."""

    description: str
    data: str
    defaults: TaskOptions


def multilayer_perceptron(features: int, width: int, hidden_layers: int, classes: int) -> nn.Sequential:
    """Linear layers with tanh between them, torch's default initialisation."""
    sizes = [features] + [width] * hidden_layers
    layers: list[nn.Module] = []
    for fan_in, fan_out in pairwise(sizes):
        layers += [nn.Linear(fan_in, fan_out), nn.Tanh()]
    return nn.Sequential(*layers, nn.Linear(sizes[-1], classes))


TASKS: dict[str, TaskEntry] = {
    "digits-mlp": TaskEntry(
        "digits, tanh network 64-32-32-10, 359 held out for validation",
        "digits",
        TaskOptions(validation_size=359, width=32, hidden_layers=2, selection_epochs=5),
    ),
    "mnist-mlp": TaskEntry(
        "MNIST, tanh network 784-128-128-128-10, 10,000 held out for validation",
        "mnist",
        TaskOptions(validation_size=10_000),
    ),
    "fashion-mnist-mlp": TaskEntry(
        "Fashion-MNIST, tanh network 784-128-128-128-10, 10,000 held out for validation",
        "fashion-mnist",
        TaskOptions(validation_size=10_000),
    ),
}


def build_task(name: str, options: TaskOptions, *, device: torch.device, root: Path | None = None) -> tuple[Task, Split]:
    """A task and, apart from it, its test split.  Whole splits are moved to the device."""
    entry = TASKS[name]
    whole, test = data.load(entry.data, root)
    train, validation = data.hold_out(whole, options.validation_size, SPLIT_SEED)
    train, validation, test = (Split(*(part.to(device) for part in split)) for split in (train, validation, test))
    classes = int(whole.targets.max()) + 1
    make_model: Callable[[], nn.Module] = partial(
        multilayer_perceptron, whole.inputs[0].numel(), options.width, options.hidden_layers, classes
    )
    steps_per_epoch = max(1, len(train.targets) // options.batch_size)
    task = Task(
        name, train, validation, make_model,
        batch_size=options.batch_size,
        validation_batch_size=options.validation_batch_size,
        selection_period=options.selection_epochs * steps_per_epoch,
        device=device,
    )  # fmt: skip
    return task, test
