"""A package's optimizer as a stepper, with the state and the averages that it keeps besides its own."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from baselines.optimizers import Closure, Stepper, TorchStepper
from bench.protocol import packed, unpacked


def _nothing() -> None:
    pass


class PackageStepper(Stepper):
    """A stepper for a package's optimizer, which is used like one of torch.

    `lr` finds the learning rate that the optimizer adapts, if it adapts one.  If `scheduled`, the learning rate passed to
    `step` is a factor on that one.

    `noted` are attributes of objects, and `averages` are tensors, that hold state besides the optimizer's own.

    If the optimizer returns an average of what it trains, `follow` updates that average after an update, `show` puts it
    into the model, and `hide` ends this.  The trained parameters are kept in the meantime and put back bit by bit, so that
    a training does not depend on how often it is evaluated.
    """

    def __init__(
        self, optimizer: Any, *, lr: Callable[[Any], Any] | None = None, follow: Callable[[], object] = _nothing,
        show: Callable[[], object] | None = None, hide: Callable[[], object] = _nothing, scheduled: bool = False,
        noted: Sequence[tuple[Any, str]] = (), averages: Iterable[Tensor] = (),
    ):  # fmt: skip
        self._scheduled = scheduled
        self._torch, self._lr, self._follow, self._show, self._hide = TorchStepper(optimizer), lr, follow, show, hide
        self._noted, self._averages = noted, list(averages)
        self._parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        self._trained: list[Tensor] = []

    def begin(self, lr: float | None) -> None:
        """Sets the learning rate, if a schedule multiplies it."""
        self._torch.begin(lr if self._scheduled else None)

    def update(self, loss: Closure) -> Tensor:
        """Makes one update."""
        value = self._torch.update(loss)
        self._follow()
        return value

    def training(self) -> None:
        """Puts the trained parameters back into the model."""
        self._hide()
        if self._trained:
            fill(self._parameters, self._trained)

    def evaluation(self) -> None:
        """Puts the average, if there is one, into the model."""
        if self._show:
            self._trained = [parameter.detach().clone() for parameter in self._parameters]
            self._show()

    def hyper(self) -> dict[str, float]:
        """Returns the learning rate that the optimizer found."""
        return {"lr": float(self._lr(self._torch.optimizer))} if self._lr else {}

    def assign(self, name: str, value: float) -> None:
        """Sets the value in every parameter group that has the hyperparameter."""
        self._torch.assign(name, value)

    def saved(self) -> dict[str, Any]:
        """Returns the optimizer's state and what is kept besides."""
        return {
            "optimizer": self._torch.saved(), "trained": packed(self._trained), "averages": packed(self._averages),
            "noted": [getattr(owner, name) for owner, name in self._noted],
        }  # fmt: skip

    def restore(self, saved: dict[str, Any]) -> None:
        """Restores what `saved` returned."""
        self._torch.restore(saved["optimizer"])
        self._trained = unpacked(saved["trained"])
        fill(self._averages, saved["averages"])
        for (owner, name), value in zip(self._noted, saved["noted"], strict=True):
            setattr(owner, name, value)


@torch.no_grad()
def fill(parameters: Iterable[Tensor], values: Iterable[Tensor]) -> None:
    """Copies values into parameters."""
    for parameter, value in zip(parameters, values, strict=True):
        parameter.copy_(value)
