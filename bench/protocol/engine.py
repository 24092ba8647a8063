"""The engine of a run: how the steps of a training are made.

    eager    each operation is started by the host
    graph    a step is captured once as a CUDA graph, and replayed

What an engine changes is time, and numbers to the rounding of other kernels.  All methods of an experiment have the same.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor

import oho
from bench.protocol.ledger import Ledger
from bench.protocol.task import Batch, Task

EAGER, GRAPH = "eager", "graph"


def uses_stand_in(task: Task) -> bool:
    """Returns whether a stand-in takes the place of graphs: on a CPU, which experiments refuse and tests ask for."""
    return task.device.type != "cuda"


class Capturing:
    """Makes what is entered around a capture: an account that is not counted, as for all that is made ready once."""

    def __init__(self, ledger: Ledger):
        self.ledger = ledger
        """That of the last call of `advance`."""

    def __call__(self) -> AbstractContextManager[None]:
        """Books the capture as set-up."""
        return self.ledger.account("setup")


class CapturedUpdates:
    """The updates of a model by an optimizer of `torch.optim`, as a CUDA graph.

    The optimizer's kernels are the fused ones, and its learning rate a tensor, as a graph needs them.
    """

    def __init__(self, task: Task, model: torch.nn.Module, optimizer: torch.optim.Optimizer, ledger: Ledger):
        self._task, self._model, self._optimizer = task, model, optimizer
        self.capturing = Capturing(ledger)
        self._lr = torch.zeros((), dtype=torch.float32, device=task.device)
        for group in optimizer.param_groups:
            _make_capturable(group, self._lr, task.device)
        self._inputs: oho.StaticInputs | None = None
        self._captured = oho.Captured(self._update, task.device, around=self.capturing, stand_in=uses_stand_in(task))

    def step(self, batch: Batch, lr: float | None) -> Tensor:
        """Makes one update and returns the detached loss before it; `lr` is None if the rate stays."""
        inputs = batch.inputs, batch.targets
        if self._inputs is None:
            self._inputs = oho.StaticInputs(inputs, self._task.device)
        self._inputs.fill(inputs)
        if lr is not None:
            self._lr.fill_(lr)
        return self._captured()

    def _update(self) -> Tensor:
        assert self._inputs is not None
        inputs, targets = self._inputs.tensors
        loss = self._task.training_loss(self._model, Batch(inputs, targets, noise=0))
        self._optimizer.zero_grad()
        loss.backward()
        self._optimizer.step()
        return loss.detach()


def _make_capturable(group: dict[str, Any], lr: Tensor, device: torch.device) -> None:
    lr.fill_(float(group["lr"]))
    group.update(lr=lr, fused=True, foreach=False)
    if "capturable" in group:
        group["capturable"] = device.type == "cuda"
