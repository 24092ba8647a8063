"""The engine of a run: how the steps of a training are made.

    eager    each operation is started by the host
    graph    a step is captured once as a CUDA graph, and replayed

What an engine changes is time, and numbers to the rounding of other kernels.  All methods of an experiment have the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor

import oho
from bench.protocol.ledger import Ledger
from bench.protocol.noise import ReplayedNoise
from bench.protocol.task import Batch, Task

EAGER, GRAPH = "eager", "graph"
Closure = Callable[[], Tensor]
"""Computes a training loss, without a backward pass."""


def uses_stand_in(task: Task) -> bool:
    """Returns whether a stand-in takes the place of graphs: on a CPU, which experiments refuse and tests ask for."""
    return task.device.type != "cuda"


class Capturing:
    """Makes what is entered around a capture: an account that is not counted, as for all that is made ready once."""

    def __init__(self, ledger: Ledger):
        self.ledger = ledger
        """The ledger that the last call of `advance` was given."""

    @contextmanager
    def __call__(self) -> Iterator[None]:
        """Books the capture as set-up.  Raises NotCapturableError with a remedy if it fails."""
        with self.ledger.account("setup"):
            try:
                yield
            except oho.NotCapturableError as error:
                raise oho.NotCapturableError(f"{error}; write `engine: eager` in the experiment") from error


class CapturedFunction:
    """A function of tensors as a CUDA graph: each call copies its inputs to where the graph reads them.

    Inputs keep their shapes, and may lie in the host's memory.  `generators` are those that the function draws from.
    """

    def __init__(
        self, function: Callable[..., Tensor], task: Task, ledger: Ledger, *, generators: Sequence[torch.Generator] = ()
    ):
        self._function, self._task, self._generators = function, task, generators
        self._capturing = Capturing(ledger)
        self._inputs: oho.StaticInputs | None = None
        self._captured: oho.Captured | None = None

    def book_on(self, ledger: Ledger) -> None:
        """Books captures on this ledger from now on."""
        self._capturing.ledger = ledger

    def __call__(self, *inputs: Tensor) -> Tensor:
        """Returns the function's result, which the next call overwrites."""
        if self._inputs is None or self._captured is None:
            self._inputs = oho.StaticInputs(inputs, self._task.device)
            self._captured = oho.Captured(
                partial(self._function, *self._inputs.tensors), self._task.device, generators=self._generators,
                around=self._capturing, stand_in=uses_stand_in(self._task),
            )  # fmt: skip
        else:
            self._inputs.fill(inputs)
        return self._captured()


class CapturedUpdates:
    """The updates of a model as a CUDA graph, which copies each batch to where it reads it.

    `update` makes one from a function that computes the training loss, and returns the detached loss before it.  What it
    reads and writes stays in its place, and what changes from update to update is in tensors, which the host has filled.
    """

    def __init__(self, task: Task, model: torch.nn.Module, update: Callable[[Closure], Tensor], ledger: Ledger):
        self._task, self._model, self._make = task, model, update
        self._noise = ReplayedNoise(task.device)
        self._captured = CapturedFunction(self._update, task, ledger, generators=self._noise.generators)

    def book_on(self, ledger: Ledger) -> None:
        """Books captures on this ledger from now on."""
        self._captured.book_on(ledger)

    def step(self, batch: Batch) -> Tensor:
        """Makes one update; returns the detached loss before it."""
        assert isinstance(batch.noise, int)
        self._noise.begin(batch.noise)
        return self._captured(batch.inputs, batch.targets)

    def _update(self, inputs: Tensor, targets: Tensor) -> Tensor:
        return self._make(partial(self._task.training_loss, self._model, Batch(inputs, targets, self._noise)))


def make_capturable(optimizer: torch.optim.Optimizer) -> None:
    """Lets an optimizer of `torch.optim` be captured: its kernels are the fused ones, and its learning rates tensors."""
    for group in optimizer.param_groups:
        device = group["params"][0].device
        lr = torch.full((), float(group["lr"]), dtype=torch.float32, device=device)
        group.update(lr=lr, fused=True, foreach=False)
        if "capturable" in group:
            group["capturable"] = device.type == "cuda"


def descend(optimizer: torch.optim.Optimizer, loss: Closure) -> Tensor:
    """Makes an update along the gradient of a loss; returns the loss before it, detached."""
    value = loss()
    optimizer.zero_grad()
    value.backward()
    optimizer.step()
    return value.detach()
