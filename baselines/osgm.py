"""OSGM: HDM with a heavy ball whose rates follow an estimate of the loss's smoothness, and nothing left to choose.

After `OSGMOptimizer` of the authors' code (Gao, Chu, Ye, Udell, 2025, arXiv 2505.23081 and 2509.11007), which is their
current form of the method in `baselines.hypergradient`.  Its symbols are used here: x, g, f, x⁻, P, β, x⁺, g⁺.

    symbol  name         shape      equation
    L       smoothness   ()         first |∇f(x + δ) − g| / |δ|, the largest of three random δ; later C
    C       curvature    ()         mean of |g⁺ − g| / |x⁺ − x| over the steps that were taken and longer than 1e-3
    P       scale        () or (N,) from 0, by AdaGrad with the rate 1/L, in [0, 1e5/L]
    β       momentum     ()         from 0.95, by AdaGrad with the rate min(1, L), in [0, 0.9995]
    q       denominator  ()         of both hypergradients: |g|² and, once L is C, + L² |x − x⁻|² / 4

As long as L is the first estimate, P's rate falls by a fifth every 50 steps, down to a thousandth.  Once more than 200
steps were taken, of which each refused one takes back two, L becomes C, and P's AdaGrad starts anew.  From then on a trial
whose gradient is more than twice as long as g is followed by a line search along P g⁺.

The authors treat deterministic functions.  Here every quantity of a step is that of its own batch.  Random displacements
see the mean of a network's curvatures and not the largest: the first L is far too low, and many first steps are refused.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from baselines.flat_model import FlatStepper, Place
from baselines.hypergradient import MOMENTUM_LIMIT, MOMENTUM_START, SMALL, Scaling
from baselines.optimizers import Closure

PROBES, PROBE_LENGTH = 3, 1e-4
TAKEN_UNTIL_CURVATURE, SHORTEST_MEASURED = 200, 1e-3
PERIOD, DECAY, LEAST_RATE = 50, 0.8, 1e-3
"""Steps between two decays of P's rate, their factor, and the rate's floor in units of 1/L."""
LARGEST_SCALE, LOOKAHEAD_RATIO = 1e5, 2.0
LINE_SEARCH_FACTOR, SHORTEST_SEARCHED = 0.8, 1e-6


class ScaledGradientMethod(FlatStepper):
    """OSGM with its heavy ball, and an L2 penalty in the loss."""

    carried = (
        "_before", "_scale", "_scale_squares", "_momentum", "_momentum_squares", "_smoothness", "_rate", "_taken", "_steps",
        "_curvatures", "_measured", "_is_measured",
    )  # fmt: skip

    def __init__(self, model: nn.Module, *, weight_decay: float, scaling: Scaling):
        super().__init__(model, weight_decay)
        self._is_diagonal = scaling == "diagonal"
        self._before = self.flat.point()
        self._scale = torch.zeros_like(self._before) if self._is_diagonal else self._before.new_zeros(())
        self._scale_squares = torch.zeros_like(self._scale)
        self._momentum = self._before.new_tensor(MOMENTUM_START)
        self._momentum_squares = torch.zeros_like(self._momentum)
        self._smoothness = self._rate = 0.0
        self._taken = self._steps = self._measured = 0
        self._curvatures, self._is_measured = 0.0, False

    def update(self, loss: Closure) -> Tensor:
        """Makes one trial, which takes two forward and two backward passes, and more for probes and line searches."""
        here = self.flat.here(loss)
        if self._steps == 0:
            self._set_smoothness(self._probed(loss, here))
        moved = here.point - self._before
        self.flat.move(here.point - self._scale * here.gradient + self._momentum * moved)
        trial = self.flat.here(loss)
        end, value = trial.point, trial.value
        if self._is_measured and trial.gradient.norm() > LOOKAHEAD_RATIO * here.gradient.norm():
            end, value = self._searched(loss, trial)
        is_taken = bool(value <= here.value)
        if trial.value.isfinite() and trial.gradient.isfinite().all():
            self._adapt(here, trial, moved)
        self._before = here.point
        self.flat.move(end if is_taken else here.point)
        self._follow_curvature(here, trial, is_taken=is_taken)
        self._steps += 1
        return here.loss

    def _probed(self, loss: Closure, here: Place) -> float:
        """Returns the largest change of the gradient over short random displacements, in units of their length."""
        generator, found = torch.Generator().manual_seed(0), 0.0
        for _ in range(PROBES):
            direction = torch.randn(here.point.shape, generator=generator, dtype=here.point.dtype).to(here.point.device)
            self.flat.move(here.point + PROBE_LENGTH * direction / direction.norm())
            change = (self.flat.here(loss).gradient - here.gradient).norm()
            found = max(found, float(change) / PROBE_LENGTH)
        self.flat.move(here.point)
        return found if 0 < found < torch.inf else 1e-5

    def _set_smoothness(self, smoothness: float) -> None:
        self._smoothness, self._rate = smoothness, 1 / smoothness

    def _adapt(self, here: Place, trial: Place, moved: Tensor) -> None:
        """Updates P and β along their normalised hypergradients."""
        square = here.gradient.square().sum()
        square = square + (0.25 * self._smoothness**2 * moved.square().sum() if self._is_measured else SMALL)
        by_scale = -trial.gradient * here.gradient / square
        by_scale = by_scale if self._is_diagonal else by_scale.sum()
        by_momentum = (trial.gradient @ moved) / square
        self._scale_squares = self._scale_squares + by_scale.square()
        self._momentum_squares = self._momentum_squares + by_momentum.square()
        scale = self._scale - self._rate * by_scale / (self._scale_squares.sqrt() + SMALL)
        self._scale = scale.clamp(0, LARGEST_SCALE / self._smoothness)
        rate = min(1.0, self._smoothness)
        momentum = self._momentum - rate * by_momentum / (self._momentum_squares.sqrt() + SMALL)
        self._momentum = momentum.clamp(0, MOMENTUM_LIMIT)

    def _searched(self, loss: Closure, trial: Place) -> tuple[Tensor, Tensor]:
        """Returns the first point along P g⁺ that descends as much as Armijo's rule asks, or the trial, and its value."""
        direction = self._scale * trial.gradient
        slope, length = trial.gradient @ direction, 1.0
        while length > SHORTEST_SEARCHED:
            self.flat.move(trial.point - length * direction)
            with torch.no_grad():
                point = self.flat.point()
                value = loss() + 0.5 * self.flat.weight_decay * (point @ point)
            if value <= trial.value - 0.5 * length * slope:
                return point, value
            length *= LINE_SEARCH_FACTOR
        return trial.point, trial.value

    def _follow_curvature(self, here: Place, trial: Place, *, is_taken: bool) -> None:
        """Counts the step, and lets L become C once there were enough."""
        self._taken = self._taken + 1 if is_taken else max(0, self._taken - 2)
        length = float((trial.point - here.point).norm())
        if is_taken and length > SHORTEST_MEASURED:
            self._curvatures += float((trial.gradient - here.gradient).norm()) / length
            self._measured += 1
        if self._is_measured:
            return
        if self._taken > TAKEN_UNTIL_CURVATURE and self._curvatures > 0:
            self._set_smoothness(self._curvatures / self._measured)
            self._is_measured, self._scale_squares = True, torch.zeros_like(self._scale_squares)
        elif self._steps % PERIOD == PERIOD - 2:
            self._rate = max(DECAY * self._rate, LEAST_RATE / self._smoothness)

    def hyper(self) -> dict[str, float]:
        """Returns the mean of P as the learning rate, and the momentum."""
        return {"lr": float(self._scale.mean()), "momentum": float(self._momentum)}
