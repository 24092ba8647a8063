"""A task's entry in the registry, which stands in the task's own file, and the task that is built from it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from bench.protocol.augmentation import CropAndFlip
from bench.protocol.loss_hyper import LossHyperparameter
from bench.protocol.objective import Objective
from bench.protocol.task import Split, Task
from bench.protocol.world import World
from bench.records.errors import DataError
from bench.records.schema import RESERVED
from bench.tasks.data_sets import DataSet, Loaded, hold_out, hold_out_end, load
from bench.tasks.models import channel_moments
from bench.tasks.objectives import CLASSIFICATION, INPUT_NOISE
from bench.tasks.options import TaskOptions

SPLIT_SEED = 0
"""The validation split is the same for all runs, so that seeds differ in training alone."""


@dataclass(frozen=True)
class Facts:
    """The facts about its data that a model needs."""

    input_shape: tuple[int, ...]
    """The shape of one example's input."""
    outputs: int
    """The number of classes, characters, or numbers to predict."""
    mean: Tensor | None = None
    deviation: Tensor | None = None
    """The mean and the deviation of each channel (channels,) over the training images, if inputs are bytes."""

    @property
    def features(self) -> int:
        """How many numbers an example's input has."""
        return math.prod(self.input_shape)


USUAL_OPTIONS = TaskOptions()


@dataclass(frozen=True, kw_only=True)
class TaskEntry:
    """A task: data, a model, a loss and a metric, and the defaults of its options.

    `model(options, facts)` returns a freshly initialised model, whose draws come from torch's global generator.  It must
    compute a function of its parameters and inputs alone.  `data`, and `objective` likewise, may be a function of the
    options.  Such a function should return the same `DataSet` object for the same options, for example by
    `functools.cache`, because data are read once for each object.  Give `defaults` an options class of your own to have
    more options than `TaskOptions`.
    """

    description: str
    data: DataSet | Callable[[Any], DataSet]
    model: Callable[[Any, Facts], nn.Module]
    objective: Objective | Callable[[Any], Objective] = CLASSIFICATION
    defaults: TaskOptions = USUAL_OPTIONS
    images: bool = False
    """Whether the model takes images (n, channels, height, width): flattened square images are given that shape."""
    augmentation: CropAndFlip | None = None
    """The augmentation of training batches; other batches have none."""
    noisy: bool = False
    """Whether the model's `forward` takes a generator as its second argument; without one it computes without noise."""
    evaluation_examples: int | None = None
    """The number of examples evaluated at once; if it is None, it depends on the size of the inputs."""

    def __post_init__(self) -> None:
        if taken := [name for name in type(self.defaults).model_fields if name in RESERVED]:
            raise ValueError(f"an option of a task cannot be called {taken[0]!r}; choose another name")

    @property
    def required_options(self) -> list[str]:
        """The names of the options that have no default."""
        return [name for name in type(self.defaults).model_fields if name not in vars(self.defaults)]

    def objective_for(self, options: TaskOptions) -> Objective:
        """Returns the loss and the metric."""
        return self.objective if isinstance(self.objective, Objective) else self.objective(options)

    def data_for(self, options: TaskOptions) -> DataSet:
        """Returns the task's own data set."""
        return self.data if isinstance(self.data, DataSet) else self.data(options)

    def tunable(self, options: TaskOptions, data: DataSet) -> tuple[LossHyperparameter, ...]:
        """Returns the hyperparameters of the training loss that methods may tune: the objective's, and noise on images."""
        own = self.objective_for(options).tunable
        return (*own, INPUT_NOISE) if data.images else own

    def refusal(self, options: TaskOptions, data: DataSet) -> str | None:
        """Returns why the task cannot use a data set, or None if it can."""
        wanted = self.objective_for(options).kind
        if data.kind != wanted:
            return f"it is for {data.kind}, and the task is one of {wanted}"
        if not data.images and (self.images or options.drift):
            return "it has no images, which the task needs" if self.images else "it has no images, and `drift` turns images"
        return None


class _Splits(NamedTuple):
    train: Split
    validation: Split
    test: Split


def build_task(
    name: str, entry: TaskEntry, options: TaskOptions, *, device: torch.device, root: Path | None = None,
    data: DataSet | None = None,
) -> tuple[Task, Split]:  # fmt: skip
    """Returns a task and, separately, its test split.  Whole splits are moved to the device.

    `data` replaces the entry's own data set.  Raises `DataError` for data that cannot be read or standardised.
    """
    data, objective = data or entry.data_for(options), entry.objective_for(options)
    loaded = load(data, root)
    splits = _split(data, options, loaded)
    splits = _standardised(splits, loaded.measured)
    if objective.standardises_targets:
        splits = _with_standard_targets(splits)
    if loaded.columns:
        splits = _in_single_precision(splits, loaded)
    if entry.images:
        splits = _Splits(*(Split(_as_images(split.inputs), split.targets) for split in splits))
    facts = _facts(splits.train, loaded)
    train, validation, test = (Split(*(part.to(device) for part in split)) for split in splits)
    trained = len(train.targets)
    drift = options.drift.degrees_per_epoch if options.drift else 0.0
    task = Task(
        name, loaded.label, train, validation, partial(entry.model, options, facts),
        objective=objective,
        outputs=facts.outputs,
        batch_size=options.batch_size,
        validation_batch_size=options.validation_batch_size,
        selection_period=options.selection_period(trained),
        device=device,
        augmentation=entry.augmentation,
        noisy=entry.noisy,
        tunable=entry.tunable(options, data),
        evaluation_examples=entry.evaluation_examples,
        world=World(drift, options.steps_per_epoch(trained)),
    )  # fmt: skip
    return task, test


def _split(data: DataSet, options: TaskOptions, loaded: Loaded) -> _Splits:
    count = options.held_out(len(loaded.train.targets))
    held = hold_out_end(loaded.train, count) if data.ordered else hold_out(loaded.train, count, SPLIT_SEED)
    return _Splits(*held, loaded.test)


def _standardised(splits: _Splits, measured: int) -> _Splits:
    """Returns the splits with each input's first `measured` numbers standardised by the training examples."""
    if not measured:
        return splits
    mean, deviation = _moments(splits.train.inputs[:, :measured])
    return _Splits(*(
        Split(torch.cat([(split.inputs[:, :measured] - mean) / deviation, split.inputs[:, measured:]], 1), split.targets)
        for split in splits
    ))  # fmt: skip


def _with_standard_targets(splits: _Splits) -> _Splits:
    """Returns the splits with targets standardised by the training examples."""
    mean, deviation = _moments(splits.train.targets)
    return _Splits(*(Split(split.inputs, (split.targets - mean) / deviation) for split in splits))


def _moments(values: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the mean and the deviation of each column: of a constant column 1, and NaN where it is out of range."""
    mean, deviation = values.mean(0), values.std(0, correction=0)
    found = torch.where(deviation > 0, deviation, torch.ones_like(deviation))
    return mean, found.masked_fill(deviation.isinf(), math.nan)  # divided by infinity, a column would be zeros


def _in_single_precision(splits: _Splits, loaded: Loaded) -> _Splits:
    """Returns a table's splits in float32.  Raises `DataError` for a column with a number that is not finite there."""
    found = _Splits(*(
        Split(inputs.float(), targets.float() if targets.is_floating_point() else targets) for inputs, targets in splits
    ))  # fmt: skip
    for inputs, targets in found:
        finite = torch.cat([inputs, targets.view(len(targets), 1)], 1).isfinite().all(0)
        if not finite.all():
            name, remedy = loaded.columns[int(finite.int().argmin())], "correct or rescale its largest numbers"
            raise DataError(f"{loaded.label}: column {name!r} is not finite in single precision; {remedy}")
    return found


def _as_images(inputs: Tensor) -> Tensor:
    """Returns images (n, channels, height, width); flattened square images get one channel."""
    if inputs.dim() != 2:
        return inputs
    side = math.isqrt(inputs.shape[1])
    return inputs.view(-1, 1, side, side)


def _facts(train: Split, loaded: Loaded) -> Facts:
    shape = tuple(train.inputs.shape[1:])
    outputs = loaded.outputs
    if outputs is None and loaded.train.targets.is_floating_point():
        outputs = train.targets[0].numel()
    elif outputs is None:
        outputs = int(loaded.train.targets.max()) + 1
    if train.inputs.dtype != torch.uint8:
        return Facts(shape, outputs)
    return Facts(shape, outputs, *channel_moments(train.inputs))
