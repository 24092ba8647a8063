"""How far a run's hypergradients are from the derivative, step by step: an exact influence is carried beside it.

The twin stands where the run stands before each step and makes the same step with the same hyperparameters on the same
batches.  It carries the exact influence of the whole run, undiscounted, with a tangent for each hyperparameter and set.
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
    """The exact hypergradient at every step of a run of SGD."""

    def __init__(self, model: nn.Module, optimizer: oho.OHO | oho.PublishedOHO, sets: oho.Sets):
        self.model, self._run = copy.deepcopy(model), optimizer
        self._parameters = list(model.parameters())
        rule = oho.SGD(0.0, 0.0, tune=tuple(optimizer.hypergradient))
        self._optimizer = oho.OHO(self.model.named_parameters(), rule, sets=sets, meta=oho.MetaSGD(0.0))
        self._errors: dict[str, deque[float]] = {name: deque(maxlen=WINDOW) for name in rule.tune}
        self._wrong: dict[str, deque[float]] = {name: deque(maxlen=WINDOW) for name in rule.tune}
        self._lost = False

    @torch.no_grad()
    def follow(self) -> None:
        """Before the run's step: the same point, the same hyperparameters; if these are not finite, it follows no more."""
        self._lost = self._lost or not all(bool(value.isfinite().all()) for value in self._run.hyper.values())
        if self._lost:
            return
        for own, parameter in zip(self.model.parameters(), self._parameters, strict=True):
            own.copy_(parameter)
        for name, value in self._run.hyper.items():
            self._optimizer.set_hyper(name, value)

    def compare(self, train_closure: Callable[[], Tensor], held_closure: Callable[[], Tensor]) -> None:
        """After the run's step: the twin's, on closures of `self.model`."""
        if self._lost:
            return
        self._optimizer.step(train_closure, held_closure)
        for name, exact in self._optimizer.hypergradient.items():
            found = self._run.hypergradient[name]
            error = torch.linalg.vector_norm((found - exact).double()) / torch.linalg.vector_norm(exact.double())
            self._errors[name].append(float(error))
            self._wrong[name].append(float((found * exact < 0).double().mean()))

    def saved(self) -> dict[str, Any]:
        """The exact influence, and the errors so far."""
        kept = {key: {name: list(values) for name, values in found.items()} for key, found in self._found().items()}
        return {"optimizer": self._optimizer.state_dict(), "lost": self._lost, **kept}

    def restore(self, saved: Mapping[str, Any]) -> None:
        """The same."""
        self._optimizer.load_state_dict(saved["optimizer"])
        self._lost = saved["lost"]
        for key, found in self._found().items():
            for name, values in found.items():
                values.extend(saved[key][name])

    def _found(self) -> dict[str, dict[str, deque[float]]]:
        return {"errors": self._errors, "wrong": self._wrong}

    def scalars(self) -> dict[str, float]:
        """Over the last steps: median relative error of the hypergradient, and the share of its entries of the wrong sign.

        Nothing where there is nothing to follow.
        """
        if self._lost:
            return {}
        found = {f"hypergradient_error_{name}": median(values) for name, values in self._errors.items() if values}
        wrong = {f"hypergradient_wrong_sign_{name}": sum(v) / len(v) for name, v in self._wrong.items() if v}
        return found | wrong
