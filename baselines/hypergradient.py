"""One-step hypergradients: the learning rate follows the derivative of the loss that its last update led to.

    symbol  name         shape      equation
    x       point        (N,)       all trained parameters, concatenated
    f       value        ()         loss of the current batch + λ/2 |x|², where λ is the weight decay
    g       gradient     (N,)       ∇f(x)
    α       lr           ()         SGD-HD: α_t = max(0, α_{t-1} + r g_t · g_{t-1}),  x_t = x_{t-1} − α_t g_t
    x⁻      before       (N,)       the point before x
    P       scale        () or (N,) HDM: learning rate, either one for all parameters or one for each
    β       momentum     ()         HDM: momentum of the heavy ball
    x⁺      trial point  (N,)       x − P g + β (x − x⁻)
    g⁺      its gradient (N,)       ∇f(x⁺), on the same batch
    r       meta-rate    ()         step size with which α, or P, is adapted
"""

from __future__ import annotations

import math
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from baselines.flat_model import FlatStepper
from baselines.optimizers import Closure, Stepper
from bench.protocol import packed, unpacked

MOMENTUM_START, MOMENTUM_LIMIT, MOMENTUM_RATE = 0.95, 0.9995, 1.0
"""HDM's heavy ball: its start and its limit, as in the authors' code, and its AdaGrad rate, the smallest that they try."""
Scaling = Literal["scalar", "diagonal"]
"""Shape of P: one learning rate for all parameters, or one for each."""
TOWER = ("cache", "state", "num_stepments")
"""Attributes of the package's optimizers that hold state."""
SMALL = 1e-12
"""Added to denominators so that none is zero."""


class HypergradientDescent(FlatStepper):
    """SGD-HD: SGD whose learning rate grows by r g_t · g_{t-1} (Baydin et al., 2018, arXiv 1703.04782).

    The product g_t · g_{t-1} is −d f_t / d α_{t-1}.  The rule is the published additive one; a learning rate that would
    fall below 0 is set to 0.
    """

    carried = ("lr", "previous")

    def __init__(self, model: nn.Module, *, lr: float, weight_decay: float, meta_rate: float):
        super().__init__(model, weight_decay)
        self._meta_rate = meta_rate
        start = self.flat.point()
        self.previous = torch.zeros_like(start)
        # float64, because float32 would round away increments far below the learning rate.
        self.lr = start.new_tensor(lr, dtype=torch.float64)

    def update(self, loss: Closure) -> Tensor:
        """Makes one update at the adapted learning rate; the first update uses the initial rate."""
        place = self.flat.here(loss)
        self.lr.add_(self._meta_rate * (place.gradient @ self.previous)).clamp_(min=0)
        self.flat.move(place.point - self.lr * place.gradient)
        self.previous.copy_(place.gradient)
        return place.loss

    def hyper(self) -> dict[str, float]:
        """Returns the current learning rate."""
        return {"lr": float(self.lr)}

    def assign(self, name: str, value: float) -> None:
        """Sets the learning rate, which is adapted from there on, or the weight decay."""
        if name == "lr":
            self.lr.fill_(value)
        else:
            super().assign(name, value)


class Feedback(NamedTuple):
    """Derivatives of f(x⁺) divided by |g|²: with respect to P, one element per parameter (N,), and with respect to β ()."""

    scale: Tensor
    momentum: Tensor


def feedback(*, gradient: Tensor, trial_gradient: Tensor, difference: Tensor) -> Feedback:
    """Returns −g⁺ g / |g|² and g⁺ · (x − x⁻) / |g|², given g, g⁺ and x − x⁻, each (N,) (arXiv 2502.11229)."""
    square = gradient @ gradient + SMALL
    return Feedback(-trial_gradient * gradient / square, (trial_gradient @ difference) / square)


class AdaGrad:
    """A value that descends along its derivatives d: value ← clip(value − r d / √Σd²), in place; `squares` is Σd²."""

    def __init__(self, value: Tensor, *, rate: Tensor | float, high: float = math.inf):
        self.value, self._rate, self._high = value, rate, high
        self.squares = torch.zeros_like(value)

    def step(self, derivative: Tensor) -> None:
        """Makes one update and keeps the value in [0, high]."""
        self.squares += derivative.square()
        self.value -= self._rate * derivative / (self.squares.sqrt() + SMALL)
        self.value.clamp_(0, self._high)

    def saved(self) -> list[Tensor]:
        """Returns the value and Σd²."""
        return packed([self.value, self.squares])

    def restore(self, saved: list[Tensor]) -> None:
        """Restores what `saved` returned."""
        self.value, self.squares = unpacked(saved)


class HeavyBallHypergradient(FlatStepper):
    """HDM-HB: both P and β follow hypergradients normalised by |g|² (Chu, Gao, Ye, Udell, 2025, arXiv 2502.11229).

    Every step tries x⁺, updates P and β by AdaGrad from the gradient there, and moves only if f is lower at x⁺ than at x.
    Otherwise, or if f or g⁺ is not finite, the parameters stay where they are (the null step) and the heavy ball loses its
    speed.

    The paper treats deterministic convex functions and starts at P = 0.  Applying it to mini-batches is our adaptation:
    both gradients, the feedback and the comparison use the step's own batch.  So is starting P at `lr`.
    `baselines.osgm` has what became of the method since.
    """

    carried = ("before",)

    def __init__(self, model: nn.Module, *, lr: float, weight_decay: float, meta_rate: float, scaling: Scaling):
        super().__init__(model, weight_decay)
        self.is_diagonal = scaling == "diagonal"
        self.before = self.flat.point()
        scale = self.before.new_full(self.before.shape if self.is_diagonal else (), lr)
        self.scale = AdaGrad(scale, rate=meta_rate)
        self.momentum = AdaGrad(scale.new_tensor(MOMENTUM_START), rate=MOMENTUM_RATE, high=MOMENTUM_LIMIT)

    def update(self, loss: Closure) -> Tensor:
        """Makes one trial, which takes two forward and two backward passes."""
        place = self.flat.here(loss)
        difference = place.point - self.before
        self.flat.move(place.point - self.scale.value * place.gradient + self.momentum.value * difference)
        trial = self.flat.here(loss)
        finite = trial.value.isfinite() & trial.gradient.isfinite().all()
        # The device makes the choices, so that its queue never has to wait for the host.
        seen = torch.where(finite, trial.gradient, torch.zeros_like(trial.gradient))
        found = feedback(gradient=place.gradient, trial_gradient=seen, difference=difference)
        self.scale.step(found.scale if self.is_diagonal else found.scale.sum())
        self.momentum.step(found.momentum)
        better = finite & (trial.value < place.value)
        self.flat.move(torch.where(better, trial.point, place.point))
        self.before.copy_(place.point)
        return place.loss

    def hyper(self) -> dict[str, float]:
        """Returns the mean of P as the learning rate, and the momentum."""
        return {"lr": float(self.scale.value.mean()), "momentum": float(self.momentum.value)}

    def assign(self, name: str, value: float) -> None:
        """Sets all of P, which is adapted from there on, or the weight decay."""
        if name == "lr":
            self.scale.value.fill_(value)
        else:
            super().assign(name, value)

    def saved(self) -> dict[str, Any]:
        """Returns P and β, too."""
        return super().saved() | {"adapted": [self.scale.saved(), self.momentum.saved()]}

    def restore(self, saved: dict[str, Any]) -> None:
        """Restores what `saved` returned."""
        super().restore(saved)
        for adapted, values in zip((self.scale, self.momentum), saved["adapted"], strict=True):
            adapted.restore(values)


class UltimateStepper(Stepper):
    """A stepper whose SGD or Adam is itself tuned by SGD (Chandra et al., 2022, arXiv 1909.13371).

    `wrapper` is a gdtuo.ModuleWrapper, from which frozen parameters are taken out.  The model's other parameters are
    replaced with the results of the update, through which the next loss reaches the hyperparameters; the L2 penalty is part
    of that loss.  The package's example asks for a backward pass that is itself differentiable.  Since every gradient is
    detached before use, a plain backward pass gives the same numbers with less time and memory.

    Because the next step differentiates through the last one, `saved` returns the state before the last step, and `restore`
    repeats that step.
    """

    def __init__(self, wrapper: Any, weight_decay: float):
        self._wrapper, self._weight_decay = wrapper, weight_decay
        wrapper.parameters = {name: own for name, own in wrapper.parameters.items() if own.requires_grad}
        names = {own: name for name, own in wrapper.parameters.items()}
        self._places = [
            (module._parameters, key, names[own])
            for module in wrapper.module.modules() for key, own in module._parameters.items() if own in names
        ]  # fmt: skip
        """Where the model has each trained parameter, which may be in several places, and its name in the wrapper."""
        self._before: list[dict[str, Any]] = []
        self._assigned: float | None = None

    def update(self, loss: Closure) -> Tensor:
        """Updates the hyperparameters, then the parameters."""
        self._wrapper.begin()
        value = loss()
        self._wrapper.zero_grad()
        squares = [parameter.square().sum() for parameter in self._wrapper.parameters.values()]
        (value + 0.5 * self._weight_decay * torch.stack(squares).sum()).backward()
        self._before, self._assigned = [_noted(level) for level in self._levels()], None
        self._move()
        return value.detach()

    def hyper(self) -> dict[str, float]:
        """Returns the learning rate and, for Adam, both decay factors, which the package's `clamp` maps into (0, 1)."""
        tuned = self._wrapper.optimizer
        found = {name: value.detach() for name, value in tuned.parameters.items()}
        decays = {name: float(type(tuned).clamp(found[name])) for name in ("beta1", "beta2") if name in found}
        return {"lr": float(found["alpha"]), **decays}

    def assign(self, name: str, value: float) -> None:
        """Sets the learning rate, which is adapted from there on, or the weight decay."""
        if name == "lr":
            self._assigned = value
            tuned = self._wrapper.optimizer.parameters
            tuned["alpha"] = torch.full_like(tuned["alpha"].detach(), value)
        elif name == "weight_decay":
            self._weight_decay = value

    def saved(self) -> dict[str, Any]:
        """Returns the state before the last step, with its gradients."""
        return {"before": packed(self._before), "assigned": self._assigned, "weight_decay": self._weight_decay}

    def restore(self, saved: dict[str, Any]) -> None:
        """Restores what `saved` returned by repeating the last step."""
        self._weight_decay, self._before = saved["weight_decay"], unpacked(saved["before"])
        if self._before:
            for level, noted in zip(self._levels(), self._before, strict=True):
                _take_back(level, noted)
            self._move()
        if saved["assigned"] is not None:
            self.assign("lr", saved["assigned"])

    def _move(self) -> None:
        """Makes the wrapper's step, whose own form fails with frozen parameters, and with one in several places."""
        trained = self._wrapper.parameters
        self._wrapper.optimizer.step(trained)
        for parameters, key, name in self._places:
            parameters[key] = trained[name]

    def _levels(self) -> list[Any]:
        """Returns the model, its optimizer, and the optimizer that tunes that one."""
        levels, level = [], self._wrapper
        while hasattr(level, "parameters"):
            levels.append(level)
            level = level.optimizer
        return levels


def _noted(level: Any) -> dict[str, Any]:
    """Returns the state of one level of the package's stack.  Steps replace tensors, so none has to be copied."""
    tensors = {name: [value, value.grad] for name, value in level.parameters.items()}
    own = {name: _shallow(getattr(level, name)) for name in TOWER if hasattr(level, name)}
    return {"tensors": tensors, "own": own}


def _shallow(value: Any) -> Any:
    return {key: _shallow(item) for key, item in value.items()} if isinstance(value, dict) else value


def _take_back(level: Any, noted: dict[str, Any]) -> None:
    for name, (value, gradient) in noted["tensors"].items():
        level.parameters[name] = value.requires_grad_()
        level.parameters[name].grad = gradient
    for name, value in noted["own"].items():
        setattr(level, name, _shallow(value))
