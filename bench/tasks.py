"""A task: data, model and loss.  What a method sees of it (`Task`) holds no test split; only the runner has that."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from bench.streams import seeded, stream

EVALUATION_BATCH = 5_000


class Split(NamedTuple):
    """One split on the device: inputs (n, ...) float, targets (n,) int64."""

    inputs: Tensor
    targets: Tensor


@dataclass(frozen=True)
class Task:
    """What a method may see.  `selection_period` is the number of steps between two validations that select."""

    name: str
    train: Split
    validation: Split
    make_model: Callable[[], nn.Module]
    batch_size: int
    validation_batch_size: int
    selection_period: int
    device: torch.device

    @property
    def steps_per_epoch(self) -> int:
        """Full batches in the training split; the remainder of each shuffled epoch is dropped."""
        return max(1, len(self.train.targets) // self.batch_size)

    def model(self, seed: int, trial: int = 0) -> nn.Module:
        """A freshly initialised model on the device: a function of (seed, trial) alone."""
        with seeded(seed, "init", trial):
            return self.make_model().to(self.device)

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Mean cross-entropy in nats per example."""
        return functional.cross_entropy(outputs, targets)

    def train_batches(self, seed: int) -> Batches:
        """Training batches in the order of `seed`."""
        return Batches(self.train, min(self.batch_size, len(self.train.targets)), seed, "batches")

    def validation_batches(self, seed: int) -> Batches:
        """Validation batches, shuffled anew in every pass."""
        size = min(self.validation_batch_size, len(self.validation.targets))
        return Batches(self.validation, size, seed, "validation batches")


class Batches:
    """Shuffled batches as a function of (seed, step): nothing has to be saved to continue at any step."""

    def __init__(self, split: Split, size: int, seed: int, purpose: str):
        self._split, self._size, self._seed, self._purpose = split, size, seed, purpose
        self._per_epoch = len(split.targets) // size
        self._epoch, self._order = -1, torch.empty(0)

    def at(self, step: int) -> Split:
        """The batch of step `step` (0-based): inputs (batch, ...), targets (batch,)."""
        epoch, position = divmod(step, self._per_epoch)
        if epoch != self._epoch:
            generator = stream(self._seed, self._purpose, epoch)
            order = torch.randperm(len(self._split.targets), generator=generator)
            self._epoch, self._order = epoch, order.to(self._split.targets.device)
        chosen = self._order[position * self._size : (position + 1) * self._size]
        return Split(self._split.inputs[chosen], self._split.targets[chosen])


class Evaluation(NamedTuple):
    """Mean cross-entropy in nats per example, and the fraction of wrong answers."""

    loss: float
    error: float


@torch.no_grad()
def evaluate(model: nn.Module, split: Split) -> Evaluation:
    """Loss and error of a model over a whole split, dropout off; leaves the model's mode as it was."""
    was_training = model.training
    model.eval()
    loss = torch.zeros((), dtype=torch.float64, device=split.targets.device)
    wrong = torch.zeros_like(loss)
    chunks = zip(split.inputs.split(EVALUATION_BATCH), split.targets.split(EVALUATION_BATCH), strict=True)
    for inputs, targets in chunks:
        outputs = model(inputs)
        loss += functional.cross_entropy(outputs, targets, reduction="sum")
        wrong += (outputs.argmax(1) != targets).sum()
    model.train(was_training)
    count = len(split.targets)
    return Evaluation(float(loss) / count, float(wrong) / count)
