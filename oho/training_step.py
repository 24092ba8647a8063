"""One step of a training as the device makes it: plain, tuned, or tuned with a meta-step.

    symbol  name           shape      meaning
    M       members        ()         independent trainings side by side; 1 without a population
    S       sets           ()         values of one hyperparameter
    θ       parameters     (M, N)     all tuned parameters, flattened in the order given
    μ       discount       ()         factor on the influence before each step
    Z       influence      (K, M, N)  dθ/dh; K rows: tuned hyperparameters × S (exact) or tuned hyperparameters (collapsed),
                                      and one for each component of what is tuned of the training loss
    v       validation     (M, N)     gradient of the validation loss at the new θ
    d       hypergradient  (M, S)     v · Z for each set: d(validation loss)/dh

A tuned step takes the gradient and the products H (μ Z), with ∂g/∂h in the rows of the loss, on one training batch, and
then updates θ and Z together.  A meta-step takes v on a validation batch, computes d = v · Z, and applies the meta-rule.
With an average of the weights, v is taken at the average, or between it and θ, and Z is the influence of that point.

Source: arXiv 2102.07813.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from oho.engines.curvature import Closure, Derivatives
from oho.lookahead import Lookahead
from oho.recursion import Recursion
from oho.training_loss import OneStep, Phase, TrainingLoss


class StepClosures(NamedTuple):
    """The closures of one step, of each kind one for each micro-batch.

    `curvature` computes the training loss of a part of the batch; if it is empty, products are taken from `train`.
    """

    train: list[Closure]
    valid: list[Closure]
    curvature: list[Closure]


def silent(phase: str) -> None:
    """Ignores the phase: a graph cannot call the host."""


def plain_step(loss: TrainingLoss, recursion: Recursion, train: list[Closure], *, phase: Phase) -> Tensor:
    """Makes a step that the influence does not follow; returns the training loss, detached, () or (M,)."""
    phase("train")
    found = loss.gradient(train)
    with torch.no_grad():
        recursion.advance_plainly(found)
    return found.losses


@dataclass(frozen=True)
class TunedStep:
    """A step that the influence follows; its options are those of `OHO`, which says what they mean.

    `held` names the hyperparameters that are not tuned yet, whose influence stays zero.
    `phase` is called with "train" where the gradient is taken and with "hypergradient" where the rest begins.  With a
    `lookahead`, the validation gradient is taken while products are computed, where the engine allows that.
    """

    loss: TrainingLoss
    recursion: Recursion
    closures: StepClosures
    discount: float
    influence_limit: float | None
    curvature_factor: Mapping[str, float]
    held: tuple[str, ...]
    on_nonfinite: str
    phase: Phase
    lookahead: Lookahead | None = None

    def make(self, *, is_meta: bool) -> Tensor:
        """Makes the step, with a meta-step if it `is_meta`; returns the training loss, detached, () or (M,).

        Raises:
            FloatingPointError: for a hypergradient that is not finite, if `on_nonfinite` is "raise".
        """
        if self.recursion.is_between:  # products are those of dφ/dh, which depends on the average's influence
            self.recursion.catch_up()
        one_step = OneStep(self.loss, self.recursion, self.closures.train) if is_meta and self.loss.one_step else None
        if self.lookahead is not None:
            self.lookahead.reset()
        looks_ahead = is_meta and one_step is None and self.lookahead is not None
        found = self._derivatives(self.closures.train if one_step is None else one_step.closures, looks_ahead=looks_ahead)
        self.phase("hypergradient")
        if not self.recursion.is_between:  # only now, for a closure that raises changes nothing
            self.recursion.catch_up()
        with torch.no_grad():
            if one_step is not None:
                one_step.begin(found.gradient)
            self._weigh(found.products)
            if self.lookahead is not None:
                self.lookahead.wait_for_weights()
            theta = self.recursion.advance(found, discount=self.discount or 1.0)
            self.recursion.influence.clear_rows(map(self.recursion.directions.rows_of, self.held))
            if self.influence_limit is not None:
                self.recursion.shorten_influence(self.influence_limit, theta)
        if is_meta:
            self._meta_step(one_step)
        return found.losses

    def _derivatives(self, train: Sequence[Closure], *, looks_ahead: bool) -> Derivatives:
        """Returns loss, gradient, and products of the influence, not yet discounted, each a mean over closures."""
        influence = self.recursion.influence
        if self.discount == 0:
            influence.clear()
        return self.loss.differentiate(
            train, influence.theta, discount=self.discount, phase=self.phase, curvature=self.closures.curvature,
            on_gradient=self._look_ahead if looks_ahead else None,
        )  # fmt: skip

    def _look_ahead(self, gradient: Tensor) -> None:
        """Begins to compute the validation gradient after a step with g (M, N)."""
        assert self.lookahead is not None
        self.lookahead.begin(
            lambda: self.recursion.judged_ahead(gradient), lambda: self.loss.validation_gradient(self.closures.valid)
        )

    def _weigh(self, products: Tensor) -> None:
        """Multiplies the products of each hyperparameter by its factor, in place."""
        for name, factor in self.curvature_factor.items():
            products[self.recursion.directions.rows_of(name)].mul_(factor)

    def _meta_step(self, one_step: OneStep | None) -> None:
        vector = None if self.lookahead is None else self.lookahead.take()
        if vector is None:
            with self.recursion.at_judged_weights():
                vector = self.loss.validation_gradient(self.closures.valid)
        greedy = {} if one_step is None else one_step.hypergradients(vector)
        with torch.no_grad():
            self.recursion.meta_step(vector, one_step=greedy, on_nonfinite=self.on_nonfinite)
