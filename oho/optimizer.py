"""`OHO`: an optimizer that tunes its own hyperparameters on a validation loss while it trains.

    symbol  name             shape      meaning
    M       members          ()         independent trainings side by side; without a population 1, and no public axis
    N       size             ()         tuned elements of one member
    S       sets             ()         values of one hyperparameter
    K       tangents         ()         tuned hyperparameters × S (exact), or tuned hyperparameters (collapsed)
    θ       parameters       (M, N)     all tuned parameters, flattened in the order given
    μ       discount         ()         factor on the influence before each step
    Z       influence        (K, M, N)  dθ/dh
    v       validation       (M, N)     gradient of the validation loss at the new θ
    d       hypergradient    (M, S)     v · Z for each set: d(validation loss)/dh

Each step: gradient and products H (μ Z) on one training batch; update of θ and Z together; then, if a meta-step is due,
v on a validation batch, d = v · Z, and a step of the meta-rule.  Source: arXiv 2102.07813.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from oho.ambient import outside_autocast
from oho.argument_checks import Made, check_influence, check_rule, noise_generators
from oho.engines.answering import Curvature
from oho.engines.curvature import Closure, Derivatives, Engine
from oho.flat_parameters import Given, flat_parameters
from oho.freed_memory import keep_freed_memory
from oho.hyper_view import HyperView
from oho.influence import Directions, Influence, transition
from oho.master_copy import MasterCopy
from oho.meta import DEFAULT_DISCOUNT, DEFAULT_LIMIT, MetaRule, default_meta
from oho.rules import Rule, Slots
from oho.saved_state import copied, load_tensors, require
from oho.sets import Sets, resolve_sets
from oho.tuned_values import Tuning

STATE_KEYS = (
    "steps", "skipped", "shortened", "hyper", "hypergradient", "memory", "slots", "influence", "slot_influence",
    "generators",
)  # fmt: skip


class OHO:
    """Online hyperparameter optimization around an update rule.

    Args:
        parameters: `model.parameters()` or, for a map from names to sets, `model.named_parameters()`; frozen ones are
            left out.  All of one dtype and device.
        rule: `SGD`, `Momentum`, `Adam` or `AdamW`; its `tune` names what is tuned online.
        sets: "global", "full", `Layerwise(n)`, or a map (mapping or function) from parameter name to set;
            `optimizer.set_map.labels` says which entry of a value is which set.
        meta: how hyperparameters follow their hypergradient; None is `default_meta()`.
        influence: "exact" (a tangent for each hyperparameter and set) or "collapsed" (one for each hyperparameter, read
            set by set: cheap and, with more than one set, biased).
        discount: μ in [0, 1] on the tangents before each step; 1 is OHO, 0 the one-step hypergradient, which needs no
            curvature.  None is 1, or DEFAULT_DISCOUNT if `meta` is None.
        influence_limit: c; a row of the influence in which the norm of d(parameters)/d(log h) exceeds c times that of the
            parameters is shortened to that: where it would be longer, training is unstable and the row grows without
            bound.  None is no limit, or DEFAULT_LIMIT if `meta` is None; math.inf is no limit in any case.
        reset_every: steps after which the influence is set to zero; 0 is never.
        update_every: steps between two meta-steps; the influence follows every step all the same.
        curvature: "pearlmutter" (products of layered networks by sweeps over a tape, of all other models as the next),
            "double_backward", "forward_over_reverse", "finite_difference", or a function of their signature.  Where an
            operation has no second derivative, finite differences take over, with a warning; `engine` says which answers.
        check: "first" compares one product with central differences of gradients before the first step, and raises if
            the second derivative is wrong (see `oho.check`); None does not.  It changes nothing but the time of that step.
        members: M, if each parameter has a leading axis of M independent trainings; closures then return M losses.
        generator: source of the noise of a rule with a temperature; with members, one for each.
        on_nonfinite: what happens when a hypergradient is not finite.  The meta-step is skipped and counted in
            `skipped`, for the members concerned alone; "reset" (default) also sets their influence to zero if it is not
            finite, "skip" leaves it, "raise" raises FloatingPointError instead.  Parameters are never touched by it.
        on_phase: called inside `step` with "train" where it begins, "hypergradient" where curvature products,
            influence, validation gradient and meta-step begin, and "train" where it ends.

    Raises:
        TypeError, ValueError: for arguments out of range; the message says what is allowed.
    """

    def __init__(
        self,
        parameters: Given,
        rule: Rule,
        *,
        sets: Sets = "global",
        meta: MetaRule | None = None,
        influence: str = "exact",
        discount: float | None = None,
        influence_limit: float | None = None,
        reset_every: int = 0,
        update_every: int = 1,
        curvature: str | Engine = "pearlmutter",
        check: str | None = "first",
        members: int | None = None,
        generator: torch.Generator | Sequence[torch.Generator] | None = None,
        on_nonfinite: str = "reset",
        on_phase: Callable[[str], Any] | None = None,
    ):
        self.rule, self.meta = rule, default_meta() if meta is None else meta
        self.discount = discount if discount is not None else (DEFAULT_DISCOUNT if meta is None else 1.0)
        self.influence_limit = DEFAULT_LIMIT if meta is None and influence_limit is None else influence_limit
        self.reset_every, self.update_every = reset_every, update_every
        self.on_nonfinite, self.on_phase = on_nonfinite, on_phase
        check_rule(self.rule, self.meta)
        check_influence(
            influence, discount=self.discount, limit=self.influence_limit, reset_every=reset_every,
            update_every=update_every, on_nonfinite=on_nonfinite,
        )  # fmt: skip
        keep_freed_memory()
        self._flat = flat_parameters(parameters, members)
        self._generators = noise_generators(generator, rule, self._flat.rows)
        self._made, self._master = Made(self._flat), MasterCopy(self._flat)
        self._curvature = Curvature(curvature, self._flat, check=check)
        self.set_map = resolve_sets(sets, self._flat)
        self.exact = influence == "exact" or self.set_map.count == 1
        self._start()

    def __repr__(self) -> str:
        influence = "exact" if self.exact else "collapsed"
        return f"OHO({self.rule}, {self.meta}, {self.set_map.count} sets, {influence} influence, {self.steps} steps made)"

    def _start(self) -> None:
        """Makes the state before the first step: initial values, empty slots, no influence."""
        like, rule, rows = self._flat.gather(), self.rule, self._flat.rows
        self._tuning = Tuning(rule, self.meta, members=self._flat.members, sets=self.set_map.count, like=like)
        self._slots: Slots = {name: torch.zeros_like(like) for name in rule.slot_names}
        self._slots.update({name: like.new_zeros(rows, 1) for name in rule.counter_names})
        self._directions = Directions(rule.tune, self.set_map.count if self.exact else 1)
        shape = (self._directions.rows, *like.shape)
        self._influence = Influence(like.new_zeros(shape), {name: like.new_zeros(shape) for name in rule.slot_names})
        self._shortened = torch.zeros(rows, dtype=torch.int64)
        self._skipped = {reason: torch.zeros(rows, dtype=torch.int64) for reason in ("hypergradient", "influence")}
        self.steps = 0

    @property
    def engine(self) -> str:
        """The name of the engine that computes curvature products: before the first step, the one asked for."""
        return self._curvature.engine

    @property
    def hyper(self) -> HyperView:
        """Present values by name: copies of shape (S,), or (M, S) with members.  Assigning to an entry is `set_hyper`."""
        values = {name: self._flat.per_member(value) for name, value in self._tuning.values.items()}
        return HyperView(values, self.set_hyper)

    @property
    def hypergradient(self) -> dict[str, Tensor]:
        """d(validation loss)/d(value) at the last meta-step, by tuned name: (S,), or (M, S) with members.

        NaN before the first meta-step.  With respect to the value itself, whatever the meta-rule's transform.
        """
        return {name: self._flat.per_member(value) for name, value in self._tuning.hypergradients.items()}

    @property
    def skipped(self) -> dict[str, Any]:
        """Meta-steps skipped, by reason: an int, or (M,) with members.

        "influence": the tangents were not finite; "hypergradient": they were, but not the hypergradient or the value
        that the meta-rule made of it.
        """
        return {
            reason: int(count) if self._flat.members is None else count.clone() for reason, count in self._skipped.items()
        }

    @property
    def shortened(self) -> Any:
        """Steps in which the limit of the influence acted: an int, or (M,) with members."""
        return int(self._shortened) if self._flat.members is None else self._shortened.clone()

    def step(self, train_closure: Closure, valid_closure: Closure | None = None) -> Tensor:
        """Makes one update of parameters, influence and, if due, hyperparameters.  Returns the training loss, detached.

        Each closure computes the loss of the model as it is, a scalar, or (M,) with members, and leaves the backward pass
        to this method.  `valid_closure` is called only when a meta-step is due; without it none is made.  Modules with a
        mode of their own (dropout) are switched by the closures: `model.train()` in one, `model.eval()` in the other.

        Raises:
            TypeError, ValueError: for a closure that returns something else, or a model converted to another dtype or
                device, or frozen, since the optimizer was made.
            RuntimeError: for a closure whose second derivative is wrong, or that uses reentrant checkpointing.
            FloatingPointError: for a hypergradient that is not finite, if `on_nonfinite` is "raise".
        """
        self._made.check()
        with outside_autocast(self._flat.tensors[0].device) as under:
            return self._step(under(train_closure), None if valid_closure is None else under(valid_closure))

    def _step(self, train_closure: Closure, valid_closure: Closure | None) -> Tensor:
        self._phase("train")
        found = self._differentiate(train_closure)
        self._phase("hypergradient")
        with torch.no_grad():
            self._advance(found)
            self._limit_influence()
        self.steps += 1
        if valid_closure is not None and self.rule.tune and self.steps % self.update_every == 0:
            vector = self._curvature.validation_gradient(valid_closure)
            with torch.no_grad():
                self._meta_step(vector)
        if self.reset_every and self.steps % self.reset_every == 0:
            self._influence.clear()
        self._phase("train")
        return found.losses

    @torch.no_grad()
    def influence_norm(self) -> dict[str, Tensor]:
        """Returns the norm of dθ/dh for each tuned hyperparameter, over all its sets: (), or (M,) with members."""
        if not self.rule.tune:
            return {}
        blocks = self._influence.theta.split(self._directions.per_name)
        return {
            name: self._flat.per_member(torch.linalg.vector_norm(block, dim=(0, 2)))
            for name, block in zip(self.rule.tune, blocks, strict=True)
        }

    @torch.no_grad()
    def set_hyper(self, name: str, value: float | Tensor) -> None:
        """Sets a hyperparameter from outside: one number, one for each set (S,), or (M, S) with members.

        Raises:
            ValueError: for a name the rule lacks, a shape that does not fit, a value that is not finite, or a tuned one
                outside its bounds.
        """
        self._tuning.assign(name, value)

    def state_dict(self) -> dict[str, Any]:
        """Returns all but parameters and options as tensors and plain numbers, to be saved with the model's own state."""
        return {
            "steps": self.steps,
            "skipped": copied(self._skipped),
            "shortened": copied({"steps": self._shortened}),
            **self._tuning.state(),
            "slots": copied(self._slots),
            "influence": copied({"theta": self._influence.theta}),
            "slot_influence": copied(self._influence.slots),
            "generators": [generator.get_state() for generator in self._generators],
            **self._master.state(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continues, bit for bit, from the `state_dict` of an optimizer built with the same arguments.

        Raises:
            ValueError: if names, shapes or dtypes are another optimizer's; nothing is changed then.
        """
        require(state, STATE_KEYS)
        like = self._influence.theta
        loaded = {
            key: load_tensors(key, state, mine, like.device)
            for key, mine in (
                ("slots", self._slots),
                ("influence", {"theta": like}),
                ("slot_influence", self._influence.slots),
            )
        }
        tuning = self._tuning.loaded(state, like.device)
        if len(state["generators"]) != len(self._generators):
            raise ValueError(f"state: {len(state['generators'])} generators, this optimizer has {len(self._generators)}")
        skipped = load_tensors("skipped", state, self._skipped, torch.device("cpu"))
        shortened = load_tensors("shortened", state, {"steps": self._shortened}, torch.device("cpu"))["steps"]
        self._master.load(state)
        self._tuning, self._slots = tuning, loaded["slots"]
        self._influence = Influence(loaded["influence"]["theta"], loaded["slot_influence"])
        self.steps, self._skipped, self._shortened = int(state["steps"]), skipped, shortened
        for generator, saved in zip(self._generators, state["generators"], strict=True):
            generator.set_state(saved)

    def _differentiate(self, closure: Closure) -> Derivatives:
        """Returns loss, gradient, and products of the discounted influence."""
        if not self.rule.tune or self.discount == 0:
            self._influence.clear()
            return self._curvature.gradient_alone(closure, self._influence.theta)
        found = self._curvature.products(
            closure, self._influence.theta, on_products=lambda: self._phase("hypergradient")
        )
        if self.discount < 1:  # after the closure, so that one that raises leaves the influence as it was
            self._influence.scale(self.discount)
            found.products.mul_(self.discount)
        return found

    def _advance(self, found: Derivatives) -> None:
        """Moves parameters, slots and influence; a tensor without a gradient keeps its own, as in torch.optim."""
        theta, unused = self._master.gather(), found.unused
        if unused:  # from here on the counts of steps differ between tensors
            for name in self.rule.counter_names:
                self._slots[name] = self._slots[name].expand_as(theta).clone()
        before = [(i, [state[..., self._flat.span(i)].clone() for state in self._influence.tensors]) for i in unused]
        theta_next, slots_next = transition(
            self.rule,
            self.set_map,
            theta=theta,
            gradient=found.gradient,
            slots=self._slots,
            hyper=self._tuning.values,
            noise=self._noise(theta),
            influence=self._influence,
            products=found.products,
            directions=self._directions,
        )
        for i, tangents in before:
            span = self._flat.span(i)
            theta_next[:, span] = theta[:, span]
            for name, slot in slots_next.items():
                slot[:, span] = self._slots[name][:, span]
            for state, tangent in zip(self._influence.tensors, tangents, strict=True):
                state[..., span] = tangent
        self._slots = slots_next
        self._master.write(theta_next)

    def _limit_influence(self) -> None:
        """Shortens the rows in which d(parameters)/d(log h) is longer than the limit times the parameters."""
        if self.influence_limit is None or not self.rule.tune:
            return
        values = [self._tuning.values[name].abs() for name in self.rule.tune]
        of_rows = torch.cat([value if self.exact else value.amax(-1, keepdim=True) for value in values], -1).T  # (K, M)
        longest = self.influence_limit * torch.linalg.vector_norm(self._flat.gather(), dim=-1)
        self._shortened += self._influence.shorten(of_rows, longest).cpu()

    def _meta_step(self, vector: Tensor) -> None:
        """Computes hypergradients from v (M, N), and makes a meta-step for each member whose own are all finite."""
        finite = self._tuning.step(self._collect(vector))
        if not bool(finite.all()):
            self._count_skipped(finite)

    def _collect(self, vector: Tensor) -> dict[str, Tensor]:
        tangents = self._influence.theta
        if self.exact:
            sums = torch.matmul(tangents.transpose(0, 1), vector.unsqueeze(-1)).squeeze(-1)  # (M, K)
        else:
            sums = self.set_map.collect(tangents, vector).flatten(1)  # (M, K·S)
        return dict(zip(self.rule.tune, sums.split(self.set_map.count, dim=-1), strict=True))

    def _count_skipped(self, finite: Tensor) -> None:
        if self.on_nonfinite == "raise":
            raise FloatingPointError(
                f"step {self.steps}: the hypergradient is not finite; lower the meta-rate, discount the influence,"
                " or choose on_nonfinite='reset'"
            )
        tensors = self._influence.tensors
        broken = ~torch.stack([tangent.isfinite().all(-1).all(0) for tangent in tensors]).all(0)
        self._skipped["influence"] += (broken & ~finite).cpu()
        self._skipped["hypergradient"] += (~broken & ~finite).cpu()
        if self.on_nonfinite == "reset":
            for tangent in tensors:
                tangent[:, broken] = 0

    def _noise(self, theta: Tensor) -> Tensor | None:
        if self.rule.temperature == 0:
            return None
        drawn = [torch.randn(theta.shape[1], generator=g, dtype=theta.dtype, device=g.device) for g in self._generators]
        return torch.stack(drawn).to(theta.device)

    def _phase(self, name: str) -> None:
        if self.on_phase is not None:
            self.on_phase(name)
