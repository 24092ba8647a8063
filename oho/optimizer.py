"""`OHO`: an optimizer that tunes its own hyperparameters on a validation loss while it trains.

    symbol  name             shape    meaning
    θ       parameters       (N,)     all tuned parameters, flattened in the order given
    Z       influence        (K, N)   dθ/dh; K = tuned hyperparameters × sets (exact), or tuned hyperparameters (collapsed)
    v       validation       (N,)     gradient of the validation loss at the new θ
    d       hypergradient    (S,)     v · Z for each set: d(validation loss)/dh

Each step: training gradient and H Z on one batch; update of θ and Z together; then, if a meta-step is due, v on a
validation batch, d = v · Z, and a step of the meta-rule.  Source: arXiv 2102.07813.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from oho.curvature import Closure, double_backward, flatten, gradient_of, unflatten
from oho.influence import Influence, selectors, transition
from oho.meta import MetaRule, MetaSGD, bounds_of, meta_step, transform_of
from oho.rules import Rule, Slots
from oho.sets import Sets, resolve_sets

Parameters = Iterable[nn.Parameter] | Iterable[tuple[str, nn.Parameter]]


class OHO:
    """Online hyperparameter optimization around an update rule.

    Args:
        parameters: `model.parameters()` or, for a map from names to sets, `model.named_parameters()`; frozen ones are left
            out.  All of one dtype and device.
        rule: `SGD`, `Momentum`, `Adam` or `AdamW`; its `tune` names what is tuned online.
        sets: "global", "full", `Layerwise(n)`, or a map from parameter name to set.
        meta: how hyperparameters follow their hypergradient.
        influence: "exact" (a tangent for each hyperparameter and set) or "collapsed" (one for each hyperparameter, read
            set by set: cheap and, with more than one set, biased).
        discount: factor in [0, 1] on the tangents before each step; 1 is OHO, 0 the one-step hypergradient.
        reset_every: steps after which the influence is set to zero; 0 is never.
        update_every: steps between two meta-steps; the influence follows every step all the same.
        on_phase: called with "train" and "hypergradient" as `step` enters them.

    Raises:
        ValueError: for arguments out of range; the message says what is allowed.
    """

    def __init__(
        self,
        parameters: Parameters,
        rule: Rule,
        *,
        sets: Sets = "global",
        meta: MetaRule | None = None,
        influence: str = "exact",
        discount: float = 1.0,
        reset_every: int = 0,
        update_every: int = 1,
        on_phase: Callable[[str], Any] | None = None,
    ):
        self._names, self._parameters = _named(parameters)
        if influence not in ("exact", "collapsed"):
            raise ValueError(f"influence={influence!r}: allowed are 'exact' and 'collapsed'")
        if not 0 <= discount <= 1 or reset_every < 0 or update_every < 1:
            raise ValueError("discount must lie in [0, 1], reset_every be 0 or more, update_every 1 or more")
        if unknown := [name for name in rule.tune if name not in rule.names]:
            raise ValueError(f"tune: {type(rule).__name__} has no {', '.join(unknown)}; it has {', '.join(rule.names)}")
        self.rule, self.meta = rule, meta or MetaSGD(1e-5)
        self.discount, self.reset_every, self.update_every = discount, reset_every, update_every
        self.on_phase = on_phase
        self.set_map = resolve_sets(sets, self._names, self._parameters)
        self.exact = influence == "exact"
        like = flatten(self._parameters, self._parameters).detach()
        self.hyper: dict[str, Tensor] = {}
        for name in rule.names:
            self.hyper[name] = like.new_full((self.set_map.count,), self._initial(name))
        self.hypergradient = {name: like.new_zeros(self.set_map.count) for name in rule.tune}
        self.steps, self.skipped = 0, 0
        self._memory: dict[str, dict[str, Tensor]] = {name: {} for name in rule.tune}
        self._slots: Slots = {name: torch.zeros_like(like) for name in rule.slot_names if name != "step"}
        self._selectors = selectors(rule, self.set_map, exact=self.exact, like=like)
        rows = self._selectors[rule.names[0]].shape[0]
        self._influence = Influence(
            like.new_zeros(rows, len(like)), {name: like.new_zeros(rows, len(like)) for name in self._slots}
        )
        if "step" in rule.slot_names:
            self._slots["step"] = like.new_zeros(1)

    def step(self, train_closure: Closure, valid_closure: Closure | None = None) -> Tensor:
        """One update of parameters, influence and, if due, hyperparameters.  Returns the training loss, detached.

        Each closure computes a scalar loss of the model; `valid_closure` is called only when a meta-step is due, and
        without it none is made.
        """
        self._phase("train")
        if not self.rule.tune:
            loss, gradients = gradient_of(train_closure, self._parameters)
            products = self._influence.theta
        elif self.discount == 0:
            loss, gradients = gradient_of(train_closure, self._parameters)
            self._influence.clear()
            products = torch.zeros_like(self._influence.theta)
        else:
            if self.discount < 1:
                self._influence.scale(self.discount)
            loss, gradients, products = double_backward(
                train_closure, self._parameters, self._influence.theta, on_products=lambda: self._phase("hypergradient")
            )
        with torch.no_grad():
            self._update(gradients, products)
        self._phase("hypergradient")
        self.steps += 1
        if valid_closure is not None and self.rule.tune and self.steps % self.update_every == 0:
            self._meta_step(valid_closure)
        if self.reset_every and self.steps % self.reset_every == 0:
            self._influence.clear()
        self._phase("train")
        return loss

    @torch.no_grad()
    def influence_norm(self) -> dict[str, Tensor]:
        """Frobenius norm of dθ/dh for each tuned hyperparameter, over all its sets."""
        blocks = self._influence.theta.view(len(self.rule.tune), -1) if self.rule.tune else ()
        return {name: block.norm() for name, block in zip(self.rule.tune, blocks, strict=True)}

    @torch.no_grad()
    def set_hyper(self, name: str, value: float | Tensor) -> None:
        """Sets a hyperparameter from outside, all sets alike or one value a set."""
        if name not in self.hyper:
            raise ValueError(f"{type(self.rule).__name__} has no {name!r}; it has {', '.join(self.hyper)}")
        self.hyper[name].copy_(torch.as_tensor(value))

    def state_dict(self) -> dict[str, Any]:
        """Everything but the parameters: hyperparameters, influence, slots, meta-state, counters."""
        return {
            "steps": self.steps,
            "skipped": self.skipped,
            "hyper": _copied(self.hyper),
            "hypergradient": _copied(self.hypergradient),
            "slots": _copied(self._slots),
            "influence": self._influence.theta.clone(),
            "slot_influence": _copied(self._influence.slots),
            "memory": {name: _copied(memory) for name, memory in self._memory.items()},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continues from a `state_dict` of an optimizer built with the same arguments."""
        given, expected = tuple(state["influence"].shape), tuple(self._influence.theta.shape)
        if given != expected or set(state["hyper"]) != set(self.hyper):
            raise ValueError(f"the state is of another optimizer: influence {given}, here {expected}")
        self.steps, self.skipped = state["steps"], state["skipped"]
        self.hyper, self.hypergradient = _copied(state["hyper"]), _copied(state["hypergradient"])
        self._slots = _copied(state["slots"])
        self._influence = Influence(state["influence"].clone(), _copied(state["slot_influence"]))
        self._memory = {name: _copied(memory) for name, memory in state["memory"].items()}

    def _update(self, gradients: list[Tensor | None], products: Tensor) -> None:
        theta, gradient = flatten(self._parameters, self._parameters), flatten(gradients, self._parameters)
        unused = [i for i, g in enumerate(gradients) if g is None]
        if unused and "step" in self._slots:
            self._slots["step"] = self._slots["step"].expand_as(theta).clone()
        hyper = {name: self.set_map.spread(values) for name, values in self.hyper.items()}
        before, slots_before = self._influence, self._slots
        if self.rule.tune:
            theta_next, self._slots, self._influence = transition(
                self.rule, theta, gradient, self._slots, hyper,
                influence=before, products=products, selectors=self._selectors,
            )  # fmt: skip
        else:
            theta_next, self._slots = self.rule(theta, gradient, self._slots, hyper)
        for i in unused:  # as torch.optim: no gradient, no update, no decay
            part = slice(sum(self.set_map.sizes[:i]), sum(self.set_map.sizes[: i + 1]))
            theta_next[part] = theta[part]
            self._influence.theta[:, part] = before.theta[:, part]
            for name, slot in self._slots.items():
                slot[part] = slots_before[name][part]
            for name, tangent in self._influence.slots.items():
                tangent[:, part] = before.slots[name][:, part]
        for parameter, value in zip(self._parameters, unflatten(theta_next, self._parameters), strict=True):
            parameter.copy_(value)

    def _meta_step(self, valid_closure: Closure) -> None:
        _, gradients = gradient_of(valid_closure, self._parameters)
        with torch.no_grad():
            products = flatten(gradients, self._parameters) * self._influence.theta
            per_name = len(products) // len(self.rule.tune)
            for index, name in enumerate(self.rule.tune):
                block = products[index * per_name : (index + 1) * per_name]
                self.hypergradient[name] = block.sum(-1) if self.exact else self.set_map.collect(block[0])
            if not all(bool(torch.isfinite(values).all()) for values in self.hypergradient.values()):
                self.skipped += 1
                self._influence.clear()
                return
            for name, values in self.hypergradient.items():
                self.hyper[name] = meta_step(self.meta, name, self.hyper[name], values, self._memory[name])

    def _initial(self, name: str) -> float:
        value = getattr(self.rule, name)
        if name not in self.rule.tune:
            return value
        low, high = bounds_of(self.meta, name)
        if value == 0 and transform_of(self.meta, name) == "log":
            return low
        if not low <= value <= high:
            raise ValueError(f"{name}={value:g}: the meta-rule's bounds allow [{low:g}, {high:g}]; change its `bounds`")
        return value

    def _phase(self, name: str) -> None:
        if self.on_phase is not None:
            self.on_phase(name)


def _named(parameters: Parameters) -> tuple[list[str], list[nn.Parameter]]:
    given = list(parameters)
    pairs = [item if isinstance(item, tuple) else (str(index), item) for index, item in enumerate(given)]
    pairs = [(name, parameter) for name, parameter in pairs if parameter.requires_grad]
    if not pairs:
        raise ValueError("no parameters that require a gradient were given")
    for what in ("dtype", "device"):
        kinds = {str(getattr(parameter, what)) for _, parameter in pairs}
        if len(kinds) > 1:
            raise ValueError(f"all parameters must have one {what}, given {', '.join(sorted(kinds))}")
    return [name for name, _ in pairs], [parameter for _, parameter in pairs]


def _copied(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in tensors.items()}
