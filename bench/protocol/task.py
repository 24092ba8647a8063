"""A task: data, model, loss and metric.  `Task`, which methods see, has no test split; only the runner has that."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import NamedTuple

import torch
from torch import Tensor, nn

from bench.protocol.augmentation import CropAndFlip
from bench.protocol.batch_norm import estimate_statistics, has_batch_norm
from bench.protocol.loss_hyper import LossHyperparameter, changed_inputs, of_objective
from bench.protocol.noise import Noise, generator_of
from bench.protocol.objective import Evaluation, Objective
from bench.protocol.streams import seeded, stream, stream_seed
from bench.protocol.world import World

EVALUATION_ELEMENTS = 5_000 * 784
"""How many input numbers are evaluated at once: 5,000 images of MNIST, 1,276 of CIFAR-10."""
STATISTICS_EXAMPLES = 2_000
"""Training examples from which a model's batch-norm statistics are estimated before an evaluation."""
NONE_TUNED: Mapping[str, Tensor] = MappingProxyType({})


def memory_format(device: torch.device) -> torch.memory_format:
    """Returns how the weights of convolutions over images, and with them what these return, lie in memory on a device.

    The fast kernels of GPUs read channels last, and would convert other tensors before and after each call.
    """
    return torch.channels_last if device.type == "cuda" else torch.contiguous_format


def laid_out(model: nn.Module, device: torch.device) -> nn.Module:
    """Returns the model, in which the weights of convolutions over images now lie as a device reads them."""
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
            layer.to(memory_format=memory_format(device))  # type: ignore[call-overload]
    return model


class Split(NamedTuple):
    """One split on the device: inputs (n, ...) and targets (n, ...).

    Inputs are floats, uint8 for images or int64 for characters; targets are int64 for classes and characters, else floats.
    """

    inputs: Tensor
    targets: Tensor


class Batch(NamedTuple):
    """The examples of one step, and the noise that the model draws for them: usually its seed."""

    inputs: Tensor
    targets: Tensor
    noise: Noise

    def part(self, fraction: float) -> Batch:
        """Returns the first examples of the batch, at least one, which is in random order."""
        count = max(1, round(fraction * len(self.targets)))
        return self._replace(inputs=self.inputs[:count], targets=self.targets[:count])


@dataclass(frozen=True)
class Task:
    """A task as methods see it.

    `selection_period` is the number of steps between two validations that select; `selection_seconds`, unless it is None,
    takes its place: the counted seconds of a training between them.
    """

    name: str
    data: str
    """The data's name in records and reports: a re-encoded copy of a data set has a name of its own."""
    train: Split
    validation: Split
    make_model: Callable[[], nn.Module]
    objective: Objective
    outputs: int
    """The number of classes, characters, or numbers to predict."""
    batch_size: int
    validation_batch_size: int
    selection_period: int
    device: torch.device
    augmentation: CropAndFlip | None = None
    """The augmentation of training batches; other batches have none."""
    noisy: bool = False
    """Whether the model's `forward` takes a generator as its second argument; without one it computes without noise."""
    tunable: tuple[LossHyperparameter, ...] = ()
    """The hyperparameters of the training loss that methods may tune."""
    evaluation_examples: int | None = None
    """The number of examples evaluated at once; if it is None, it depends on the size of the inputs."""
    engine: str = "eager"
    """How the steps of a training are made: see `bench.protocol.engine`."""
    selection_seconds: float | None = None
    world: World = field(default_factory=World)
    """The world of batches and evaluations at the run's current step."""

    @property
    def steps_per_epoch(self) -> int:
        """The number of full batches in the training split; the rest of each shuffled epoch is dropped."""
        return max(1, len(self.train.targets) // self.batch_size)

    def model(self, seed: int, trial: int = 0) -> nn.Module:
        """Returns a freshly initialised model on the device, which depends only on (seed, trial)."""
        with seeded(seed, "init", trial):
            return laid_out(self.make_model().to(self.device), self.device)

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Returns the objective's loss of a batch, differentiable."""
        return self.objective.loss(outputs, targets)

    def training_loss(self, model: nn.Module, batch: Batch, hyper: Mapping[str, Tensor] = NONE_TUNED) -> Tensor:
        """Returns the loss to train on; all noise is the batch's, however often this is called.

        `hyper` has values () of some of the `tunable` hyperparameters, by name, in which the loss is differentiable; the
        others are not applied.
        """
        inputs = changed_inputs(batch.inputs, batch.noise, self.tunable, hyper)
        noise = (generator_of(batch.noise, self.device),) if self.noisy else ()
        outputs, of_loss = model(inputs, *noise), of_objective(self.tunable, hyper)
        if of_loss and self.objective.tuned_loss is not None:
            return self.objective.tuned_loss(outputs, batch.targets, **of_loss)
        return self.loss(outputs, batch.targets)

    def validation_loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Returns the loss without noise, differentiable; batch-norm layers use the batch's own statistics."""
        return self.loss(model(batch.inputs), batch.targets)

    def evaluate(self, model: nn.Module, *splits: Split) -> list[Evaluation]:
        """Returns loss and metric over each split, after estimating batch-norm statistics from the training split."""
        if has_batch_norm(model):  # turning the sample takes time
            estimate_statistics(model, self.world.seen(self.train.inputs[:STATISTICS_EXAMPLES]), self.batch_size)
        return [self.evaluate_as_is(model, split) for split in splits]

    @torch.no_grad()
    def evaluate_as_is(self, model: nn.Module, split: Split) -> Evaluation:
        """Returns loss and metric over a whole split, with the batch-norm statistics estimated last.

        The model computes without noise, and its mode is left as it was.
        """
        was_training = model.training
        model.eval()
        loss = torch.zeros((), dtype=torch.float64, device=split.targets.device)
        error = torch.zeros_like(loss)
        size = self.evaluation_examples or max(1, EVALUATION_ELEMENTS // split.inputs[0].numel())
        for inputs, targets in zip(split.inputs.split(size), split.targets.split(size), strict=True):
            batch_loss, batch_error = self.objective.totals(model(self.world.seen(inputs)), targets)
            loss += batch_loss
            error += batch_error
        model.train(was_training)
        return self.objective.evaluation(float(loss), float(error), split.targets.numel())

    def train_batches(self, seed: int) -> Batches:
        """Returns the training batches in the order of `seed`, augmented if the task says so."""
        size = min(self.batch_size, len(self.train.targets))
        return Batches(self.train, size, seed, "batches", augmentation=self.augmentation, world=self.world)

    def validation_batches(self, seed: int, size: int | None = None) -> Batches:
        """Returns validation batches of `size` examples, or of the task's own size, reshuffled in every pass."""
        size = min(size or self.validation_batch_size, len(self.validation.targets))
        return Batches(self.validation, size, seed, "validation batches", world=self.world)


class Batches:
    """Shuffled batches as a function of (seed, step), so that nothing has to be saved to continue at any step."""

    def __init__(
        self, split: Split, size: int, seed: int, purpose: str, *, augmentation: CropAndFlip | None = None,
        world: World | None = None,
    ):  # fmt: skip
        self.split, self._size, self._seed, self._purpose = split, size, seed, purpose
        self._augmentation, self.world = augmentation, world or World()
        self._per_epoch = len(split.targets) // size
        self._epoch, self._order, self._choices = -1, torch.empty(0), torch.empty(0)

    def at(self, step: int) -> Batch:
        """Returns the batch of step `step` (0-based) in the current world: inputs (batch, ...), targets (batch, ...)."""
        epoch, place = self.place(step)
        if epoch != self._epoch:
            self._open(epoch)
        chosen = self._order[place]
        inputs = self.world.seen(self.split.inputs[chosen])
        if self._augmentation:
            inputs = self._augmentation.apply(inputs, self._choices[place])
        return Batch(inputs, self.split.targets[chosen], self.noise(step))

    def noise(self, step: int) -> int:
        """Returns the seed of the noise that is drawn for the batch of step `step`."""
        return stream_seed(self._seed, f"{self._purpose}: noise", step)

    @property
    def is_plain(self) -> bool:
        """Whether batches are examples of the split as the world shows them, without augmentation."""
        return self._augmentation is None

    def place(self, step: int) -> tuple[int, slice]:
        """Returns a step's epoch, and where its examples stand in the epoch's order."""
        epoch, position = divmod(step, self._per_epoch)
        return epoch, slice(position * self._size, (position + 1) * self._size)

    def order(self, epoch: int) -> Tensor:
        """Returns an epoch's order (n,), on the device."""
        count = len(self.split.targets)
        return torch.randperm(count, generator=stream(self._seed, self._purpose, epoch)).to(self.split.targets.device)

    def _open(self, epoch: int) -> None:
        """Draws an epoch's order and augmentation at once, so that a step waits for no copy to the device."""
        count, device = len(self.split.targets), self.split.targets.device
        self._epoch, self._order = epoch, self.order(epoch)
        if self._augmentation:
            generator = stream(self._seed, f"{self._purpose}: augmentation", epoch)
            self._choices = self._augmentation.draw(count, generator).to(device)
