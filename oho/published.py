"""The published recursion, defect by defect: for comparison, not for training.

    symbol  name             shape        meaning
    M       members          ()           independent trainings side by side; without a population 1, and users see no axis
    θ       parameters       (*p.shape)   one tensor for each parameter; with members its first axis is theirs
    η, λ    hyperparameters  (M, S)       learning rate and L2 coefficient, one for each set
    g, v    gradients        (*p.shape)   of the training loss before the step, of the validation loss after it
    Z, Y    tangents         (*p.shape)   in place of dθ/dη and dθ/dλ; one of each for all sets
    m, κ    meta-rates       ()           of η, and of λ relative to it

One step at time t:

    θ' = θ − η (g + λ θ)
    Z' = (1 − 2 λ η) Z − η H'Z − g − 2 λ θ'               η' = max(0, η − m v'·Z')
    Y' = (1 − 2 λ η') Y − η' H'Y − 2 η' θ'                λ' = clip(λ − κ m v'·Y', 0, ceiling)

This is not the derivative of the update: the curvature H' and the parameters in it are taken after the step; λ
counts twice; Y uses the new η; one tangent serves all sets; H' is a finite difference over r = max(0.001, √ε (1 +
max|θ₁|) / max|Z₁|), scaled by the first tensor alone, far outside the neighbourhood of θ' once the tangents are long.
In the layer-wise variant, moreover, the step decays no biases, the tangents of group i read λ at entry i, and no bias
entry of λ ever changes.  `oho.OHO` is the recursion without these defects.

One defect is left out: where `n` does not divide the number of layers, the published recursion and its optimizer cut the
groups in different places; here both have the groups of `oho.Layerwise`.

Source: arXiv 2102.07813 and its code, github.com/jiwoongim/OHO, commit 1c0bdd1.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from oho.argument_checks import unknown_name
from oho.bounds import check_bounds, check_finite
from oho.engines.curvature import Closure, gradient_of
from oho.flat_parameters import FlatParameters, Given, flat_parameters
from oho.hyper_view import HyperView
from oho.member import Member, joined
from oho.saved_state import copied, load_tensors, require
from oho.sets import Layerwise, resolve_sets
from oho.training_loss import Phase
from oho.training_step import silent

CEILINGS = {"global": 2e-4, "full": 5e-4, "layerwise": 3e-3}
"""Largest λ of each variant, as in the published scripts for MNIST."""
SMALLEST_STEP = 0.001

Tensors = list[Tensor]


class PublishedOHO:
    """The published algorithm, with the `step`, `hyper` and `hypergradient` of `oho.OHO`.

    Args:
        parameters: `model.parameters()` or `model.named_parameters()`.
        variant: "global" (one η and λ), "full" (one of each for each tensor) or "layerwise" (one of each for the weights
            and for the biases of each of `n` groups).
        n: the number of groups; for "layerwise" only.
        lr: the initial learning rate η.
        weight_decay: the initial λ.
        meta_lr: the meta-rate m.
        weight_decay_max: the ceiling of λ; None is the published one of the variant, for MNIST.
        weight_decay_meta_scale: κ, the meta-rate of λ relative to m.
        members: as in `oho.OHO`.
        on_phase: as in `oho.OHO`.

    Raises:
        ValueError: for an unknown variant, `n` missing or given where it has no meaning, a meta-rate below 0, or an initial
            value that `set_hyper` refuses.
    """

    def __init__(
        self,
        parameters: Given,
        variant: str = "global",
        n: int | None = None,
        *,
        lr: float,
        weight_decay: float = 0.0,
        meta_lr: float,
        weight_decay_max: float | None = None,
        weight_decay_meta_scale: float = 0.01,
        members: int | None = None,
        on_phase: Callable[[str], Any] | None = None,
    ):
        if variant not in CEILINGS:
            raise ValueError(f"variant={variant!r}: allowed are {', '.join(map(repr, CEILINGS))}")
        if (variant == "layerwise") != (n is not None):
            raise ValueError(f"n={n}: the number of groups belongs to variant='layerwise', and only to it")
        for name, rate in {"meta_lr": meta_lr, "weight_decay_meta_scale": weight_decay_meta_scale}.items():
            if not rate >= 0:
                raise ValueError(f"{name}={rate}: must be a number, 0 or more")
        self.variant, self.meta_lr, self.weight_decay_meta_scale = variant, meta_lr, weight_decay_meta_scale
        self.on_phase = on_phase or silent
        self.weight_decay_max = CEILINGS[variant] if weight_decay_max is None else weight_decay_max
        self._flat: FlatParameters = flat_parameters(parameters, members)
        self.set_map = resolve_sets(variant if n is None else Layerwise(n), self._flat)
        if n is not None and self.set_map.count != 2 * n:
            what = "each group must have weights and biases; choose 'global' or 'full'"
            raise ValueError(f"variant='layerwise', n={n}: {what}")
        like = self._flat.tensors[0].detach()
        shape = self._flat.rows, self.set_map.count
        self._hyper = {name: like.new_zeros(shape) for name in ("lr", "weight_decay")}
        self.set_hyper("lr", lr)
        self.set_hyper("weight_decay", weight_decay)
        self._hypergradient = {name: torch.zeros_like(value) for name, value in self._hyper.items()}
        self._tangents = {name: [torch.zeros_like(p) for p in self._flat.tensors] for name in self._hyper}
        self.steps = 0

    average = None
    """None, as in an `oho.OHO` without an average of the weights."""

    def labels_of(self, name: str) -> tuple[Hashable, ...]:
        """Returns what the values of a hyperparameter are called: the sets."""
        return self.set_map.labels

    def is_meta_step(self, step: int) -> bool:
        """Returns True: a meta-step follows every step."""
        return True

    @property
    def hyper(self) -> HyperView:
        """Present values by name: copies of shape (S,), or (M, S) with members.  Assigning to an entry is `set_hyper`."""
        return HyperView(
            lambda: {name: self._flat.per_member(value) for name, value in self._hyper.items()}, self.set_hyper
        )

    @property
    def hypergradient(self) -> dict[str, Tensor]:
        """What hyperparameters followed at the last step, by name: copies of shape (S,), or (M, S) with members."""
        return {name: self._flat.per_member(value).clone() for name, value in self._hypergradient.items()}

    def set_hyper(self, name: str, value: float | Tensor) -> None:
        """Sets a hyperparameter from outside: one number, one for each set (S,), or (M, S) with members.

        Raises:
            ValueError: for another name, a value that is not finite or below 0, or a weight decay above its ceiling.
        """
        if name not in self._hyper:
            raise ValueError(unknown_name(name, self._hyper))
        old = self._hyper[name]
        values = torch.as_tensor(value, dtype=old.dtype, device=old.device).expand_as(old).clone()
        check_finite(name, values)
        check_bounds(name, values, (0.0, self.weight_decay_max if name == "weight_decay" else math.inf))
        old.copy_(values)

    def step(self, train_closure: Closure, valid_closure: Closure) -> Tensor:
        """Makes one update of parameters, tangents and hyperparameters.  Returns the training loss at θ, detached:
        a scalar, or (M,) with members.

        `train_closure` is called five times (the gradient, and two probes for each product), `valid_closure` once.
        """
        loss = self._step(train_closure, valid_closure, self.on_phase)
        self.steps += 1
        return loss

    def uncounted_step(self, train_closure: Closure, valid_closure: Closure) -> Tensor:
        """Makes a step that a graph can repeat: it names no phase, and who calls it adds to `steps`."""
        return self._step(train_closure, valid_closure, silent)

    def _step(self, train_closure: Closure, valid_closure: Closure, phase: Phase) -> Tensor:
        phase("train")
        loss, gradient = self._gradient(train_closure)
        rate, decay = self._per_tensor("lr"), self._per_tensor("weight_decay")
        of_step, of_tangent = self._step_decay(decay), self._tangent_decay(decay)
        with torch.no_grad():
            for p, g, η, λ in zip(self._flat.tensors, gradient, rate, of_step, strict=True):
                p.sub_(η * (g + λ * p))
        phase("hypergradient")
        products = {name: self._product(train_closure, self._tangents[name]) for name in self._hyper}
        vector = self._gradient(valid_closure)[1]
        with torch.no_grad():
            self._move_tangents("lr", products, rate, of_tangent, gradient)
            moved = self._hyper["lr"] - self.meta_lr * self._read("lr", vector)
            self._hyper["lr"].copy_(moved.clamp(min=0))
            self._move_tangents("weight_decay", products, self._per_tensor("lr"), of_tangent, gradient)
            moved = self._hyper["weight_decay"] - self._read("weight_decay", vector) * (
                self.weight_decay_meta_scale * self.meta_lr
            )
            self._hyper["weight_decay"].copy_(self._published_entries(moved.clamp(0, self.weight_decay_max)))
        phase("train")
        return loss

    @property
    def skipped(self) -> dict[str, Any]:
        """Always empty: the published code takes every meta-step."""
        return {}

    @property
    def shortened(self) -> Any:
        """Always 0, or with members (M,) zeros: the published code limits nothing."""
        return 0 if self._flat.members is None else torch.zeros(self._flat.rows, dtype=torch.long)

    @torch.no_grad()
    def influence_norm(self) -> dict[str, Tensor]:
        """Returns the norm of each tangent: (), or (M,) with members."""
        return {name: self._flat.per_member(norm) for name, norm in self.norms_of(slice(None)).items()}

    def norms_of(self, rows: slice) -> dict[str, Tensor]:
        """Returns the norms of some members' tangents, (M,)."""
        shape, dtype = (self._flat.rows, -1), self._flat.dtype
        flat = {
            name: torch.cat([part.reshape(shape)[rows].to(dtype) for part in tangents], dim=-1)
            for name, tangents in self._tangents.items()
        }
        return {name: torch.linalg.vector_norm(tangents, dim=-1) for name, tangents in flat.items()}

    def member(self, index: int) -> Member:
        """Returns one member of a population, as `OHO.member` does."""
        return Member(self, index, members=self._flat.members)

    def load_members(self, states: Sequence[Mapping[str, Any]]) -> None:
        """Continues from the `state_dict`s of optimizers with one member each, as `OHO.load_members` does."""
        self.load_state_dict(joined(states))

    def state_dict(self) -> dict[str, Any]:
        """Returns all but the parameters and the options."""
        tangents = {name: self._flat.flatten(value) for name, value in self._tangents.items()}
        return {
            "steps": self.steps,
            "hyper": copied(self._hyper),
            "hypergradient": copied(self._hypergradient),
            "tangents": copied(tangents),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continues from the `state_dict` of an optimizer built with the same arguments."""
        require(state, ("steps", "hyper", "hypergradient", "tangents"))
        device = self._flat.tensors[0].device
        mine = {name: self._flat.flatten(value) for name, value in self._tangents.items()}
        tangents = load_tensors("tangents", state, mine, device)
        hypergradient = load_tensors("hypergradient", state, self._hypergradient, device)
        self._hyper = load_tensors("hyper", state, self._hyper, device)
        self._hypergradient = hypergradient
        self._tangents = {name: [t.clone() for t in self._flat.split(flat)] for name, flat in tangents.items()}
        self.steps = int(state["steps"])

    def _gradient(self, closure: Closure) -> tuple[Tensor, Tensors]:
        loss, gradients = gradient_of(closure, self._flat)
        return loss, self._flat.split(self._flat.flatten(gradients))

    def _product(self, closure: Closure, tangent: Tensors) -> Tensors:
        """Returns H' times a tangent as published: central differences at the parameters after the step."""
        longest, first = self._largest(tangent[0]), self._flat.tensors[0].detach()
        r = torch.finfo(first.dtype).eps ** 0.5 * (1 + self._largest(first)) / longest
        r = torch.where(longest == 0, 0, r.clamp(min=SMALLEST_STEP)).unsqueeze(-1)
        theta, direction, sides = self._flat.gather(), self._flat.flatten(tangent), []
        try:
            for sign in (r, -r):
                self._flat.write(theta + sign * direction)
                sides.append(self._flat.flatten(self._gradient(closure)[1]))
        finally:
            self._flat.write(theta)
        return self._flat.split(torch.where(r == 0, 0, (sides[0] - sides[1]) / (2 * r)))

    def _largest(self, part: Tensor) -> Tensor:
        """Returns each member's largest magnitude, (M,)."""
        return part.reshape(self._flat.rows, -1).abs().amax(dim=1)

    def _move_tangents(
        self, name: str, products: dict[str, Tensors], rate: Tensors, decay: Tensors, gradient: Tensors
    ) -> None:
        pieces = zip(self._tangents[name], products[name], rate, decay, gradient, self._flat.tensors, strict=True)
        for z, h, η, λ, g, p in pieces:
            z.mul_(1 - 2 * λ * η).sub_(η * h).sub_(g + 2 * λ * p if name == "lr" else 2 * η * p)

    def _read(self, name: str, vector: Tensors) -> Tensor:
        """Returns each set's slice of v' · tangent, (M, S)."""
        sums = torch.zeros_like(self._hyper[name])
        for s, v, tangent in zip(self.set_map.of_tensor, vector, self._tangents[name], strict=True):
            sums[:, s] += (v * tangent).reshape(len(sums), -1).sum(1)
        self._hypergradient[name].copy_(sums)
        return sums

    def _per_tensor(self, name: str) -> Tensors:
        return self._spread(name, self.set_map.of_tensor)

    def _spread(self, name: str, sets: Sequence[int]) -> Tensors:
        """Returns for each parameter the values of the set that is given for it, shaped so that they broadcast over it."""
        values = self._flat.per_member(self._hyper[name])
        pairs = zip(sets, self._own_axes, strict=True)
        return [values[..., s].reshape(*values.shape[:-1], *[1] * axes) for s, axes in pairs]

    @property
    def _own_axes(self) -> list[int]:
        """The number of axes of each parameter, without that of members."""
        return [p.ndim - (self._flat.members is not None) for p in self._flat.tensors]

    def _step_decay(self, decay: Tensors) -> Tensors:
        if self.variant != "layerwise":
            return decay
        return [λ if axes > 1 else torch.zeros_like(λ) for λ, axes in zip(decay, self._own_axes, strict=True)]

    def _tangent_decay(self, decay: Tensors) -> Tensors:
        if self.variant != "layerwise":
            return decay
        return self._spread("weight_decay", [s // 2 for s in self.set_map.of_tensor])

    def _published_entries(self, decay: Tensor) -> Tensor:
        """Returns the new λ, whose bias entries stay as they were in the layer-wise variant."""
        if self.variant == "layerwise":
            decay[:, 1::2] = self._hyper["weight_decay"][:, 1::2]
        return decay
