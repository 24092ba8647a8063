"""The steps of an OHO optimizer as a graph, of one training or of all members of a batch.

Losses are functions of a batch's inputs and targets and, where something of the loss is tuned, of its values.  They draw
from `noises`, which share their list of generators, and which are seeded before each step.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Protocol

import torch
from torch import Tensor

import oho
from bench.online.averaged_state import Optimizer
from bench.protocol import CapturedFunction, Capturing, Ledger, ReplayedNoise, Task, uses_stand_in

Inputs = Sequence[Tensor]
Loss = Callable[..., Tensor]


class CapturedSteps(Protocol):
    """Steps as a graph."""

    def book_on(self, ledger: Ledger) -> None:
        """Books captures on this ledger from now on."""
        ...

    def step(self, batch: Inputs, held_out: Callable[[], Inputs] | None = None, *, seeds: Sequence[int]) -> Tensor:
        """Makes one step; returns the training loss before it, detached, which the next step overwrites.

        `held_out` returns the validation batch of a meta-step, and `seeds` has one for each noise.
        """
        ...


def captured_steps(
    task: Task, optimizer: Optimizer, train: Loss, valid: Loss | None = None, *, ledger: Ledger,
    noises: Sequence[ReplayedNoise], curvature: Loss | None = None, look_ahead: bool = False,
) -> CapturedSteps:  # fmt: skip
    """Returns the optimizer's steps, whose curvature is taken from the loss `curvature` where that is not the batch's.

    `look_ahead` is that of `oho.CapturedStep`; losses of views of the parameters cannot have it.
    """
    if isinstance(optimizer, oho.PublishedOHO):
        assert valid is not None
        return _Published(task, optimizer, train, valid, ledger=ledger, noises=noises)
    return _Steps(
        task, optimizer, train, valid, ledger=ledger, noises=noises, curvature=curvature, look_ahead=look_ahead
    )  # fmt: skip


class _Steps:
    """Makes the steps of an `oho.OHO` as graphs."""

    def __init__(
        self, task: Task, optimizer: oho.OHO, train: Loss, valid: Loss | None, *, ledger: Ledger,
        noises: Sequence[ReplayedNoise], curvature: Loss | None, look_ahead: bool,
    ):  # fmt: skip
        self._noises, self._capturing = noises, Capturing(ledger)
        self._captured = oho.CapturedStep(
            optimizer, train, valid, curvature=curvature, generators=_generators(noises), around=self._capturing,
            stand_in=uses_stand_in(task), look_ahead=look_ahead,
        )  # fmt: skip

    def book_on(self, ledger: Ledger) -> None:
        self._capturing.ledger = ledger

    def step(self, batch: Inputs, held_out: Callable[[], Inputs] | None = None, *, seeds: Sequence[int]) -> Tensor:
        _begin(self._noises, seeds)
        return self._captured(batch, held_out)


class _Published:
    """Makes the steps of an `oho.PublishedOHO` as graphs; each has a meta-step."""

    def __init__(
        self, task: Task, optimizer: oho.PublishedOHO, train: Loss, valid: Loss, *, ledger: Ledger,
        noises: Sequence[ReplayedNoise],
    ):  # fmt: skip
        self._optimizer, self._train, self._valid, self._noises = optimizer, train, valid, noises
        self._captured = CapturedFunction(self._make, task, ledger, generators=_generators(noises))

    def book_on(self, ledger: Ledger) -> None:
        self._captured.book_on(ledger)

    def step(self, batch: Inputs, held_out: Callable[[], Inputs] | None = None, *, seeds: Sequence[int]) -> Tensor:
        assert held_out is not None
        _begin(self._noises, seeds)
        loss = self._captured(*batch, *held_out())
        self._optimizer.steps += 1
        return loss

    def _make(self, inputs: Tensor, targets: Tensor, *held_out: Tensor) -> Tensor:
        return self._optimizer.uncounted_step(partial(self._train, inputs, targets), partial(self._valid, *held_out))


def _generators(noises: Sequence[ReplayedNoise]) -> list[torch.Generator]:
    return noises[0].generators if noises else []


def _begin(noises: Sequence[ReplayedNoise], seeds: Sequence[int]) -> None:
    for noise, seed in zip(noises, seeds, strict=True):
        noise.begin(seed)
