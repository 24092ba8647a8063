"""Our tasks: an entry each, options owned by the entry."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from pydantic import Field
from torch import nn

from bench.protocol import Options
from bench.protocol.augmentation import CropAndFlip
from bench.protocol.task import Split, Task
from bench.tasks.data_sets import CIFAR10, DIGITS, FASHION_MNIST, MNIST, DataSet, hold_out, load
from bench.tasks.models import channel_moments, multilayer_perceptron, residual_network

SPLIT_SEED = 0
"""The validation split is the same for all runs, so that seeds differ in training alone."""

ModelMaker = Callable[[], nn.Module]


class TaskOptions(Options):
    """Sizes are numbers of examples; `selection_epochs` is the time between two validations that select."""

    batch_size: int = Field(default=100, ge=1)
    validation_size: int = Field(ge=1)
    validation_batch_size: int = Field(default=100, ge=1)
    selection_epochs: int = Field(default=1, ge=1)

    def steps_per_epoch(self, trained: int) -> int:
        """Full batches in so many training examples."""
        return max(1, trained // self.batch_size)


class PerceptronOptions(TaskOptions):
    """Units in a hidden layer, and the number of these layers."""

    width: int = Field(default=128, ge=1)
    hidden_layers: int = Field(default=3, ge=0)


class DropoutOptions(PerceptronOptions):
    """`dropout` is the fraction of each hidden layer's units that a training step leaves out."""

    dropout: float = Field(default=0.2, gt=0, lt=1)


class ResidualOptions(TaskOptions):
    """`width` is the number of channels after the stem."""

    width: int = Field(default=64, ge=1)


@dataclass(frozen=True)
class TaskEntry:
    """A data set with a model and the options' defaults."""

    description: str
    data: DataSet
    defaults: TaskOptions
    model: Callable[[Any, Split, int], ModelMaker]
    """(options, training split, number of classes) -> what makes a freshly initialised model."""
    augmentation: CropAndFlip | None = None
    noisy: bool = False


def _perceptron(options: PerceptronOptions, train: Split, classes: int) -> ModelMaker:
    return partial(multilayer_perceptron, train.inputs[0].numel(), options.width, options.hidden_layers, classes)


def _dropout_perceptron(options: DropoutOptions, train: Split, classes: int) -> ModelMaker:
    features = train.inputs[0].numel()
    return partial(
        multilayer_perceptron, features, options.width, options.hidden_layers, classes, dropout=options.dropout
    )


def _residual(depth: int) -> Callable[[ResidualOptions, Split, int], ModelMaker]:
    def maker(options: ResidualOptions, train: Split, classes: int) -> ModelMaker:
        mean, deviation = channel_moments(train.inputs)
        return partial(residual_network, depth, width=options.width, classes=classes, mean=mean, deviation=deviation)

    return maker


def _cifar10(depth: int, description: str) -> TaskEntry:
    options = ResidualOptions(validation_size=10_000, validation_batch_size=1_000)
    return TaskEntry(description, CIFAR10, options, _residual(depth), augmentation=CropAndFlip(padding=4))


DIGITS_MLP = TaskEntry(
    "digits, tanh network 64-32-32-10, 359 held out for validation",
    DIGITS,
    PerceptronOptions(validation_size=359, width=32, hidden_layers=2, selection_epochs=5),
    _perceptron,
)
MNIST_MLP = TaskEntry(
    "MNIST, tanh network 784-128-128-128-10, 10,000 held out for validation",
    MNIST,
    PerceptronOptions(validation_size=10_000),
    _perceptron,
)
MNIST_MLP_DROPOUT = TaskEntry(
    "the same with a fifth of the hidden units left out at each training step",
    MNIST,
    DropoutOptions(validation_size=10_000),
    _dropout_perceptron,
    noisy=True,
)
FASHION_MNIST_MLP = TaskEntry(
    "Fashion-MNIST, tanh network 784-128-128-128-10, 10,000 held out for validation",
    FASHION_MNIST,
    PerceptronOptions(validation_size=10_000),
    _perceptron,
)
CIFAR10_RESNET18 = _cifar10(
    18, "CIFAR-10, ResNet-18 with a 3x3 stem, random crops and flips, 10,000 held out for validation"
)
CIFAR10_RESNET50 = _cifar10(50, "the same with ResNet-50")


def build_task(
    name: str, entry: TaskEntry, options: TaskOptions, *, device: torch.device, root: Path | None = None
) -> tuple[Task, Split]:
    """Returns a task and, apart from it, its test split.  Whole splits are moved to the device."""
    whole, test, label = load(entry.data, root)
    train, validation = hold_out(whole, options.validation_size, SPLIT_SEED)
    make_model = entry.model(options, train, int(whole.targets.max()) + 1)
    train, validation, test = (Split(*(part.to(device) for part in split)) for split in (train, validation, test))
    task = Task(
        name, label, train, validation, make_model,
        batch_size=options.batch_size,
        validation_batch_size=options.validation_batch_size,
        selection_period=options.selection_epochs * options.steps_per_epoch(len(train.targets)),
        device=device,
        augmentation=entry.augmentation,
        noisy=entry.noisy,
    )  # fmt: skip
    return task, test
