"""How far a run's hypergradients are from the derivative, step by step: an exact influence is carried beside it.

Before each step the twin takes over the run's parameters and hyperparameters, then makes the same step: the same rule on
the same batches, with the same noise, whose slots therefore stay those of the run.  It carries the exact influence of the
whole run, with a tangent for each hyperparameter and set: undiscounted and without a limit or, if it is `bounded`, with the
run's own discount, limit, factors of the curvature, and first steps that tune nothing.  Against a bounded twin, only what
the run saves shows: products from a part of each batch, and steps that its influence does not follow.
"""

from __future__ import annotations

import copy
import math
from collections import deque
from collections.abc import Callable, Collection, Mapping
from statistics import median
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

import oho

WINDOW = 100
"""Steps over which errors are summed up."""


class Comparison(NamedTuple):
    """A hypergradient g of a run beside the exact one e."""

    error: float
    """|g − e| / |e|; 0 where both are 0, as is a momentum's at its first step."""
    wrong: float
    """The share of components with the wrong sign."""
    along: float
    """g · e"""
    exact: float
    """e · e"""
    found: float
    """g · g"""


class ExactTwin:
    """The exact hypergradient at every step of a run, whatever its update rule."""

    def __init__(
        self, model: nn.Module, optimizer: oho.OHO | oho.PublishedOHO, sets: oho.Sets, loss: oho.LossHyper | None = None,
        *, bounded: bool = False,
    ):  # fmt: skip
        self.model, self._run = copy.deepcopy(model), optimizer
        self._parameters = list(model.parameters())
        tune = tuple(optimizer.hypergradient)
        rule: Any = oho.SGD(0.0, 0.0, tune=tune)
        own: dict[str, Any] = {}
        if isinstance(optimizer, oho.OHO):
            rule, own = optimizer.rule, {"average": optimizer.average, "present_share": optimizer.present_share}
            if bounded:
                own |= {
                    "discount": optimizer.discount, "influence_limit": optimizer.influence_limit,
                    "curvature_factor": optimizer.curvature_factor, "tuned_after": optimizer.tuned_after,
                }  # fmt: skip
        saved, device = optimizer.state_dict().get("generators", ()), self._parameters[0].device
        noise = [torch.Generator(device if rule.temperature else "cpu").set_state(state) for state in saved]
        self.optimizer: Any = oho.OHO(
            self.model.named_parameters(), rule, loss=loss, sets=sets, meta=oho.MetaSGD(0.0), generator=noise or None, **own
        )
        self._compared: dict[str, deque[Comparison]] = {name: deque(maxlen=WINDOW) for name in tune}
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
            if not held_in_last_step(self._run, name):
                (found,) = compared(self._run.hypergradient[name], exact)
                self.note(name, found)

    def note(self, name: str, found: Comparison) -> None:
        """Notes a comparison, unless there is nothing to follow."""
        if not self.is_lost:
            self._compared[name].append(found)

    def errors(self, name: str) -> list[float]:
        """Returns the relative errors of a hyperparameter's hypergradients at the last meta-steps, oldest first."""
        return [each.error for each in self._compared[name]]

    def saved(self) -> dict[str, Any]:
        """Returns the exact influence, and the last comparisons."""
        found = {name: [list(each) for each in values] for name, values in self._compared.items()}
        return {"optimizer": self.optimizer.state_dict(), "lost": self.is_lost, "compared": found}

    def restore(self, saved: Mapping[str, Any]) -> None:
        """Takes over what another twin has `saved`."""
        self.optimizer.load_state_dict(saved["optimizer"])
        self.is_lost = saved["lost"]
        for name, values in self._compared.items():
            values.extend(Comparison(*each) for each in saved["compared"][name])

    def scalars(self) -> dict[str, float]:
        """Returns how the hypergradients of the last steps compare; nothing where there is nothing to follow.

        There are the median relative error, the share of wrong signs, and the bias and the noise: see `bias_and_noise`.
        """
        scalars: dict[str, float] = {}
        for name, values in self._compared.items():
            if not values or self.is_lost:
                continue
            scalars[f"hypergradient_error_{name}"] = median(self.errors(name))
            scalars[f"hypergradient_wrong_sign_{name}"] = sum(each.wrong for each in values) / len(values)
            bias, noise = bias_and_noise(values)
            if math.isfinite(noise):
                scalars |= {f"hypergradient_bias_{name}": bias, f"hypergradient_noise_{name}": noise}
        return scalars


def held_in_last_step(optimizer: oho.OHO | oho.PublishedOHO, name: str) -> bool:
    """Returns whether the last step left a hyperparameter without influence, so that there is nothing to compare."""
    return isinstance(optimizer, oho.OHO) and optimizer.steps <= optimizer.tuned_after.get(name, 0)


def compared(found: Tensor, exact: Tensor, members: int = 1) -> list[Comparison]:
    """Compares the hypergradients of each member, (M, S) with S sets, or (S,) of a single training, with exact ones."""
    found, exact = (value.reshape(members, -1).double() for value in (found, exact))
    error = torch.linalg.vector_norm(found - exact, dim=1)
    relative = torch.where(error == 0, error, error / torch.linalg.vector_norm(exact, dim=1))
    along = found * exact
    columns = [relative, (along < 0).double().mean(1), along.sum(1), exact.square().sum(1), found.square().sum(1)]
    return [Comparison(*row) for row in torch.stack(columns, 1).tolist()]


def bias_and_noise(values: Collection[Comparison]) -> tuple[float, float]:
    """Returns the bias β − 1 and the noise |g − βe| / |e| of hypergradients g ≈ βe, by least squares over all steps.

    Both are relative to the exact hypergradients.  An estimate without bias has β = 1, however noisy it is.  They are NaN
    where all exact hypergradients are zero.
    """
    along, exact, found = (math.fsum(getattr(each, name) for each in values) for name in ("along", "exact", "found"))
    if exact == 0:
        return math.nan, math.nan
    slope = along / exact
    return slope - 1, math.sqrt(max(0.0, (found - slope * along) / exact))
