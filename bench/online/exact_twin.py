"""How far a run's hypergradients are from the derivative, step by step: an exact influence is carried beside it.

Before each step the twin takes over the run's parameters and hyperparameters, then makes the same step: the same rule on
the same batches, with the same noise, whose slots therefore stay those of the run.  It carries the exact influence of the
whole run, undiscounted, with a tangent for each hyperparameter and set.
"""

from __future__ import annotations

import copy
from collections import deque
from collections.abc import Callable, Mapping
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn

import oho

WINDOW = 100
"""Steps over which errors are summed up."""


class ExactTwin:
    """The exact hypergradient at every step of a run, whatever its update rule."""

    def __init__(
        self, model: nn.Module, optimizer: oho.OHO | oho.PublishedOHO, sets: oho.Sets, loss: oho.LossHyper | None = None
    ):
        self.model, self._run = copy.deepcopy(model), optimizer
        self._parameters = list(model.parameters())
        tune = tuple(optimizer.hypergradient)
        rule = optimizer.rule if isinstance(optimizer, oho.OHO) else oho.SGD(0.0, 0.0, tune=tune)
        noise = [torch.Generator().set_state(state) for state in optimizer.state_dict().get("generators", ())]
        self.optimizer: Any = oho.OHO(
            self.model.named_parameters(), rule, loss=loss, sets=sets, meta=oho.MetaSGD(0.0), generator=noise or None,
            average=optimizer.average if isinstance(optimizer, oho.OHO) else None,
            present_share=optimizer.present_share if isinstance(optimizer, oho.OHO) else 0.0,
        )  # fmt: skip
        self._errors: dict[str, deque[float]] = {name: deque(maxlen=WINDOW) for name in tune}
        self._wrong: dict[str, deque[float]] = {name: deque(maxlen=WINDOW) for name in tune}
        self.is_lost = False

    @torch.no_grad()
    def follow(self) -> None:
        """Goes where the run stands before its step; if hyperparameters are not finite, it follows no more."""
        self.is_lost = self.is_lost or not all(bool(value.isfinite().all()) for value in self._run.hyper.values())
        if self.is_lost:
            return
        for own, parameter in zip(self.model.parameters(), self._parameters, strict=True):
            own.copy_(parameter)
        for name, value in self._run.hyper.items():
            self.optimizer.set_hyper(name, value)

    def compare(self, train_closure: Callable[..., Tensor], held_closure: Callable[[], Tensor]) -> None:
        """Makes the twin's step after the run's, on closures of `self.model`, and notes the run's errors.

        There are none to note where the run's step was without a meta-step.
        """
        if self.is_lost:
            return
        self.optimizer.step(train_closure, held_closure)
        if not self._run.is_meta_step(self._run.steps):
            return
        for name, exact in self.optimizer.hypergradient.items():
            found = self._run.hypergradient[name]
            self.note(name, _relative_error(found, exact), float((found * exact < 0).double().mean()))

    def note(self, name: str, error: float, wrong: float) -> None:
        """Notes a hypergradient's relative error and its share of wrong signs, unless there is nothing to follow."""
        if not self.is_lost:
            self._errors[name].append(error)
            self._wrong[name].append(wrong)

    def saved(self) -> dict[str, Any]:
        """Returns the exact influence, and the errors so far."""
        kept = {key: {name: list(values) for name, values in found.items()} for key, found in self._found().items()}
        return {"optimizer": self.optimizer.state_dict(), "lost": self.is_lost, **kept}

    def restore(self, saved: Mapping[str, Any]) -> None:
        """Takes over what another twin has `saved`."""
        self.optimizer.load_state_dict(saved["optimizer"])
        self.is_lost = saved["lost"]
        for key, found in self._found().items():
            for name, values in found.items():
                values.extend(saved[key][name])

    def _found(self) -> dict[str, dict[str, deque[float]]]:
        return {"errors": self._errors, "wrong": self._wrong}

    def scalars(self) -> dict[str, float]:
        """Returns, over the last steps, the median relative error of the hypergradient and the share of wrong signs.

        There are none where there is nothing to follow.
        """
        if self.is_lost:
            return {}
        found = {f"hypergradient_error_{name}": median(values) for name, values in self._errors.items() if values}
        wrong = {f"hypergradient_wrong_sign_{name}": sum(v) / len(v) for name, v in self._wrong.items() if v}
        return found | wrong


def _relative_error(found: Tensor, exact: Tensor) -> float:
    """|found − exact| / |exact|; 0 where both are 0, as is a momentum's at its first step."""
    error = torch.linalg.vector_norm((found - exact).double())
    return float(error / torch.linalg.vector_norm(exact.double())) if float(error) else 0.0
