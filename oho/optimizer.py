"""`OHO`: an optimizer that tunes its own hyperparameters on a validation loss while it trains.

    symbol  name           shape      meaning
    M       members        ()         independent trainings side by side; without a population 1, and no public axis
    S       sets           ()         values of one hyperparameter
    θ       parameters     (M, N)     all tuned parameters, flattened in the order given
    μ       discount       ()         factor on the influence before each step
    Z       influence      (K, M, N)  dθ/dh; K rows: tuned hyperparameters × S (exact) or tuned hyperparameters (collapsed),
                                      and one for each component of what is tuned of the training loss
    v       validation     (M, N)     gradient of the validation loss at the new θ
    d       hypergradient  (M, S)     v · Z for each set: d(validation loss)/dh

Each step: gradient and products H (μ Z), with ∂g/∂h in rows of the loss, on one training batch; update of θ and Z together;
then, if a meta-step is due, v on a validation batch, d = v · Z, and a step of the meta-rule.  Source: arXiv 2102.07813.
With an average of the weights, v is taken there, or between it and θ, and Z is that point's.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor

from oho.ambient import outside_autocast
from oho.argument_checks import Made, check_influence, check_rule, noise_generators
from oho.averages import Average, check_present_share, in_place_of, resolve_average
from oho.engines.curvature import Closure, Derivatives, Engine
from oho.flat_parameters import Given, flat_parameters
from oho.freed_memory import keep_freed_memory
from oho.hyper_view import HyperView, flat_values
from oho.loss_hyper import LossHyper
from oho.member import Member, joined
from oho.meta import DEFAULT_DISCOUNT, DEFAULT_LIMIT, MetaRule, default_meta
from oho.micro_batches import Closures, listed
from oho.parameter_groups import ParameterGroup, given_groups, groups_of_sets, groups_of_tensors, shown_groups, tuned_by_any
from oho.recursion import Recursion
from oho.rules import Rule
from oho.sets import Sets, resolve_sets
from oho.training_loss import OneStep, TrainingLoss
from oho.tuned_steps import TunedSteps, resolve_tuned_steps


class OHO(torch.optim.Optimizer):
    """Online hyperparameter optimization around an update rule: a `torch.optim.Optimizer` that takes two closures.

    `param_groups` has a group for each set, with its present values as plain numbers, for whatever logs them.  What a
    group tunes cannot be written there, by a scheduler or by hand; what it does not tune can.

    Args:
        parameters: `model.parameters()` or, for a map from names to sets, `model.named_parameters()`; frozen ones are
            left out.  All of one dtype and device.  Or parameter groups, each {"params": ...} with, if they differ from
            the rule's, its own initial values, "tune" (which may be empty) and "name"; a group is a set, if `sets` does
            not divide it further.
        rule: `SGD`, `Momentum`, `Adam` or `AdamW`; its `tune` names what is tuned online.  A value may be a mapping from
            set to number.
        loss: `LossHyper(...)`, hyperparameters of the training loss, which are tuned along with the rule's.  Training
            closures then take them as their one argument.
        sets: "global", "full", `Layerwise(n)`, or a map (mapping or function) from parameter name to set;
            `optimizer.set_map.labels` says which entry of a value is which set.
        meta: how hyperparameters follow their hypergradient; None is `default_meta()`.
        influence: "exact" (a tangent for each hyperparameter and set) or "collapsed" (one for each hyperparameter, read
            set by set: cheap and, with more than one set, biased).
        discount: μ in [0, 1] on the tangents before each step; 1 is OHO, 0 the one-step hypergradient, which needs no
            curvature.  None is 1, or DEFAULT_DISCOUNT if `meta` is None.
        influence_limit: c; a row of the influence in which the norm of d(parameters)/d(log h) exceeds c times that of the
            parameters is shortened to that: where training is unstable, it would grow without bound.  None is
            DEFAULT_LIMIT if `meta` is None, else no limit; math.inf is no limit in any case.
        average: `Exponential(horizon)`, `Recent(part)`, `Uniform(start)` or "schedule-free", an average of the weights:
            hyperparameters follow the validation loss of the average, which `averaged()` puts into the model; None is no
            average.
        present_share: s in [0, 1], how far from the average towards the present weights validation gradients are taken;
            what helps a rate that is far too high to come down.
        reset_every: steps after which the influence is set to zero; 0 is never.
        update_every: tuned steps between two meta-steps; the influence follows each of them all the same.
        first_updates: steps at the beginning that make a meta-step each, if tuned, whatever `update_every` is: small values
            come up sooner.
        tuned_steps: the steps that the influence follows: `Windows()` are the first 400 and then 50 of every 200, and the
            others are plain training and cost as much.  None tunes every step; with fewer the influence is not exact.
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
        parameters: Given | Iterable[dict[str, Any]],
        rule: Rule,
        *,
        loss: LossHyper | None = None,
        sets: Sets = "global",
        meta: MetaRule | None = None,
        influence: str = "exact",
        discount: float | None = None,
        influence_limit: float | None = None,
        average: Average | str | None = None,
        present_share: float = 0.0,
        reset_every: int = 0,
        update_every: int = 1,
        first_updates: int = 0,
        tuned_steps: TunedSteps | None = None,
        curvature: str | Engine = "pearlmutter",
        check: str | None = "first",
        members: int | None = None,
        generator: torch.Generator | Sequence[torch.Generator] | None = None,
        on_nonfinite: str = "reset",
        on_phase: Callable[[str], Any] | None = None,
    ):
        self.meta = default_meta() if meta is None else meta
        check_rule(rule, self.meta, loss)
        groups = given_groups(parameters, rule)
        self.rule = tuned_by_any(rule, groups)
        check_rule(self.rule, self.meta, loss)
        self.meta = self.meta if loss is None else loss.applied_to(self.meta, self.rule)
        self.discount = discount if discount is not None else (DEFAULT_DISCOUNT if meta is None else 1.0)
        self.influence_limit = DEFAULT_LIMIT if meta is None and influence_limit is None else influence_limit
        self.average = resolve_average(average)
        check_present_share(present_share, self.average)
        self.reset_every, self.update_every, self.first_updates = reset_every, update_every, first_updates
        self.tuned_steps = resolve_tuned_steps(tuned_steps)
        self.on_nonfinite, self.on_phase = on_nonfinite, on_phase
        check_influence(
            influence, discount=self.discount, limit=self.influence_limit, reset_every=reset_every,
            update_every=update_every, first_updates=first_updates, on_nonfinite=on_nonfinite,
        )  # fmt: skip
        keep_freed_memory()
        self._flat = flat_parameters([item for group in groups for item in group.parameters], members)
        self._made = Made(self._flat)
        self._loss = TrainingLoss(self._flat, loss, curvature=curvature, check=check)
        of_tensors = groups_of_tensors(groups, self._flat)
        self.set_map = resolve_sets(sets, self._flat, [group.name for group in of_tensors])
        self.exact = influence == "exact" or self.set_map.count == 1
        own = groups_of_sets(self.set_map, of_tensors)
        self._recursion = Recursion(
            self.rule, self.meta, self._flat, set_map=self.set_map, groups=own, exact=self.exact,
            generators=noise_generators(generator, rule, self._flat.rows), loss=loss, average=self.average,
            present_share=present_share,
        )  # fmt: skip
        defaults = {name: getattr(rule, name) for name in (*rule.names, "tune")}
        self._unshown = set(rule.names)
        super().__init__(shown_groups(self.set_map, own, self._flat), defaults)
        self._show()

    def __repr__(self) -> str:
        influence = "exact" if self.exact else "collapsed"
        return f"OHO({self.rule}, {self.meta}, {self.set_map.count} sets, {influence} influence, {self.steps} steps made)"

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Raises ValueError: parameters are given once, since their influence is carried from the first step on."""
        index = len(self.param_groups)
        if index == self.set_map.count:
            raise ValueError("add_param_group: influence is carried from the first step on; give OHO all groups at once")
        assign = partial(self._recursion.assign_set, index)
        self.param_groups.append(ParameterGroup(param_group, self.rule.names, assign=assign, refresh=self._show))

    @property
    def steps(self) -> int:
        """Steps made."""
        return self._recursion.steps

    @property
    def engine(self) -> str:
        """The name of the engine that computes curvature products: before the first step, the one asked for."""
        return self._loss.engine

    @property
    def present_share(self) -> float:
        """How far from the average towards the present weights validation gradients are taken."""
        return self._recursion.present_share

    @property
    def hyper(self) -> HyperView:
        """Present values by name: copies of shape (S,), or (M, S) with members.  Assigning to an entry is `set_hyper`.

        Those of the loss have the shape that closures are given: () or (V,), with members (M,) or (M, V).
        """
        tuning = self._recursion.tuning
        return HyperView(tuning.shown(tuning.values), self.set_hyper)

    def flat_hyper(self) -> dict[str, float]:
        """Returns present values as plain numbers for any logger, {"lr/0.weight": 0.1}: by name and set (and member).

        Of the loss's hyperparameters: {"label_smoothing": 0.1, "task/0": 1.0}, by name and component (and member); of one
        with more than ONE_STEP_ABOVE components, "/mean", "/min" and "/max".
        """
        return flat_values(self.param_groups, self.rule.names) | self._recursion.tuning.flat_of_loss()

    @property
    def hypergradient(self) -> dict[str, Tensor]:
        """d(validation loss)/d(value) at the last meta-step, by tuned name: (S,), or (M, S) with members.

        NaN before the first meta-step.  With respect to the value itself, whatever the meta-rule's transform.  Those of
        the loss have the shapes of `hyper`.
        """
        tuning = self._recursion.tuning
        return {name: value.clone() for name, value in tuning.shown(tuning.hypergradients).items()}

    @property
    def skipped(self) -> dict[str, Any]:
        """Meta-steps skipped, by reason: an int, or (M,) with members.

        "influence": tangents were not finite; "hypergradient": it, or what the meta-rule made of it, was not.
        """
        return self._recursion.counts.skipped

    @property
    def shortened(self) -> Any:
        """Steps in which the limit of the influence acted: an int, or (M,) with members."""
        return self._recursion.counts.shortened

    def step(  # type: ignore[override]
        self,
        closure: Closures | None = None,
        valid_closure: Closures | None = None,
        *,
        curvature_closure: Closures | None = None,
    ) -> Tensor:
        """Makes one update of parameters, influence and, if due, hyperparameters.  Returns the training loss, detached.

        `closure` computes the training loss of the model as it is, a scalar, or (M,) with members, and leaves the backward
        pass to this method; a loss with hyperparameters takes them, a mapping from name to tensor.  `valid_closure`
        computes the validation loss, and is called only when a meta-step is due; without it none is made.  A list of
        closures, one for each micro-batch, stands for the mean of their losses and needs the memory of one.  Modules with
        a mode of their own (dropout) are switched by the closures: `model.train()` in one, `model.eval()` in the other.
        `curvature_closure`, if given, is the training loss of a part of the batch, from which products are taken in place
        of the whole: their mean is the same, at a fraction of the cost.

        Raises:
            TypeError, ValueError: for a closure that returns something else, or a model converted to another dtype or
                device, frozen or unfrozen, since the optimizer was made.
            RuntimeError: for a wrong second derivative, a graph that is gone, or reentrant checkpointing.
            FloatingPointError: for a hypergradient that is not finite, if `on_nonfinite` is "raise".
        """
        is_due = valid_closure is not None and self.is_due
        self._before_step()
        loss = self._step(closure, valid_closure, curvature_closure, is_due=is_due)
        self._after_step(is_due)
        self._phase("train")
        return loss

    @property
    def is_due(self) -> bool:
        """Whether the next step makes a meta-step, if it is given a validation loss."""
        return self.is_meta_step(self.steps + 1)

    @property
    def is_tuned(self) -> bool:
        """Whether the influence follows the next step; if not, it is one of plain training."""
        return self.is_tuned_step(self.steps + 1)

    def is_tuned_step(self, step: int) -> bool:
        """Returns whether the influence follows a step, counted from 1."""
        return self.tuned_steps.count(step) > self.tuned_steps.count(step - 1)

    def is_meta_step(self, step: int) -> bool:
        """Returns whether a step, counted from 1, makes a meta-step, if it is given a validation loss."""
        is_due = step <= self.first_updates or self.tuned_steps.count(step) % self.update_every == 0
        return bool(self._recursion.tuning.tuned) and self.is_tuned_step(step) and is_due

    def _step(
        self, closure: Closures | None, valid_closure: Closures | None, part_closure: Closures | None, *, is_due: bool
    ) -> Tensor:
        """Makes the part of a step that the device can make alone."""
        self._made.check()
        train = self._loss.bound(listed(closure, "training"), self._recursion.tuning.values)
        valid = [] if valid_closure is None else self._loss.unbound(listed(valid_closure, "validation"))
        part = [] if part_closure is None else listed(part_closure, "curvature")
        part = self._loss.bound(part, self._recursion.tuning.values)
        with outside_autocast(self._flat.tensors[0].device) as under:
            all_closures = ([under(closure) for closure in closures] for closures in (train, valid, part))
            if not self.is_tuned:
                return self._plain_step(next(all_closures))
            return self._differentiated_step(*all_closures, is_due=is_due)

    def _silent_step(self, closure: Closure, valid_closure: Closure | None, part_closure: Closure | None) -> Tensor:
        """Makes the same without calling `on_phase`, which belongs to the host."""
        on_phase, self.on_phase = self.on_phase, None
        try:
            return self._step(closure, valid_closure, part_closure, is_due=valid_closure is not None)
        finally:
            self.on_phase = on_phase

    def _before_step(self) -> None:
        """Makes the part of a step that is the host's and comes first."""
        self._recursion.begin_step(self.discount or 1.0, plain=self.steps_behind if self.is_tuned else 0)

    @property
    def steps_behind(self) -> int:
        """Steps of plain training since the last tuned one, which the influence of the average has not followed yet."""
        last = self.steps
        while last and not self.is_tuned_step(last):
            last -= 1
        return self.steps - last

    def _after_step(self, is_due: bool) -> None:
        """Makes the part of a step that is the host's and comes last."""
        if is_due:
            self._unshown.update(self.rule.tune)
        if self.reset_every and self.steps % self.reset_every == 0:
            self._recursion.influence.clear()

    def _plain_step(self, train: list[Closure]) -> Tensor:
        self._phase("train")
        found = self._loss.gradient(train)
        with torch.no_grad():
            self._recursion.advance(found, follows=False)
        return found.losses

    def _differentiated_step(
        self, train: list[Closure], valid: list[Closure], part: list[Closure], *, is_due: bool
    ) -> Tensor:
        recursion = self._recursion
        recursion.catch_up()
        one_step = OneStep(self._loss, recursion, train) if is_due and self._loss.one_step else None
        found = self._differentiate(train if one_step is None else one_step.closures, part)
        self._phase("hypergradient")
        with torch.no_grad():
            if one_step is not None:
                one_step.begin(found.gradient)
            theta = recursion.advance(found, discount=self.discount or 1.0)
            if self.influence_limit is not None:
                recursion.shorten_influence(self.influence_limit, theta)
        if is_due:
            with self._judged():
                vector = self._loss.validation_gradient(valid)
            greedy = {} if one_step is None else one_step.hypergradients(vector)
            with torch.no_grad():
                recursion.meta_step(vector, one_step=greedy, on_nonfinite=self.on_nonfinite)
        return found.losses

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Puts the average of the weights into the model for a block: to evaluate it, or to save it.

        Afterwards the weights are those of the training again, bit for bit.  Without an average nothing changes.  A model
        with batch norm needs statistics of its own there, as `torch.optim.swa_utils.update_bn` makes them.
        """
        averaged = self._recursion.averaged
        if averaged is None:
            yield
        else:
            with in_place_of(self._flat, averaged.average):
                yield

    @contextmanager
    def _judged(self) -> Iterator[None]:
        """Puts the weights into the model at which validation gradients are taken, for a block."""
        recursion = self._recursion
        if recursion.averaged is None or recursion.present_share == 1:
            yield
        else:
            with in_place_of(self._flat, recursion.judged()):
                yield

    @torch.no_grad()
    def influence_norm(self) -> dict[str, Tensor]:
        """Returns the norm of dθ/dh for each tuned hyperparameter, over all its sets: (), or (M,) with members."""
        return {name: self._flat.per_member(norm) for name, norm in self.norms_of(slice(None)).items()}

    def norms_of(self, rows: slice) -> dict[str, Tensor]:
        """Returns what `influence_norm` does for some members, (M,)."""
        return self._recursion.influence_norm(rows)

    @torch.no_grad()
    def set_hyper(self, name: str, value: float | Tensor | Mapping[Hashable, float]) -> None:
        """Sets a hyperparameter from outside: one number, one for each set (S,), or (M, S) with members.

        A mapping from label to number sets some of the sets, and leaves the others.

        Raises:
            ValueError: for a name the rule lacks, a label that no set has, a shape that does not fit, a value that is not
                finite, or a tuned one outside its bounds.
        """
        self._recursion.tuning.assign(name, value)
        if name in self.rule.names:
            self._unshown.add(name)

    def state_dict(self) -> dict[str, Any]:
        """Returns all but parameters and options as tensors and plain numbers, to be saved with the model's own state."""
        for before in self._optimizer_state_dict_pre_hooks.values():
            before(self)
        state = self._recursion.state()
        for after in self._optimizer_state_dict_post_hooks.values():
            state = after(self, state) or state
        return state

    def member(self, index: int) -> Member:
        """Returns one member of a population, which shows and saves what its own optimizer would.

        Raises:
            ValueError: without a population, or for an index outside it.
        """
        if self._flat.members is None or not 0 <= index < self._flat.members:
            members = self._flat.members
            raise ValueError(f"member({index}): allowed are 0 to members - 1, and this optimizer has members={members}")
        return Member(self, index)

    def load_members(self, states: Sequence[Mapping[str, Any]]) -> None:
        """Continues from the `state_dict`s of the members' own optimizers, made with the same arguments but one value each.

        Raises:
            ValueError: if they made different numbers of steps, or as `load_state_dict`.
        """
        self.load_state_dict(joined(states))

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continues, bit for bit, from the `state_dict` of an optimizer built with the same arguments.

        Raises:
            ValueError: if names, shapes or dtypes are another optimizer's; nothing is changed then.
        """
        for before in self._optimizer_load_state_dict_pre_hooks.values():
            state_dict = before(self, state_dict) or state_dict
        self._recursion.load(state_dict)
        self._unshown.update(self.rule.names)
        for after in self._optimizer_load_state_dict_post_hooks.values():
            after(self)

    def __getstate__(self) -> dict[str, Any]:
        """Returns all of it, for a copy; what a scheduler has put around `step` stays with this one."""
        return {name: value for name, value in vars(self).items() if name != "step"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Takes what `__getstate__` returned, its groups being plain mappings."""
        super().__setstate__(state)
        groups, self.param_groups = self.param_groups, []
        for group in groups:
            self.add_param_group(group)

    def _differentiate(self, closures: Sequence[Closure], part: Sequence[Closure]) -> Derivatives:
        """Returns loss, gradient, and products of the influence, not yet discounted, each a mean over closures."""
        influence = self._recursion.influence
        if self.discount == 0:
            influence.clear()
        return self._loss.differentiate(
            closures, influence.theta, discount=self.discount, phase=self._phase, curvature=part
        )

    def _show(self) -> None:
        """Shows present values in `param_groups`, for someone who is about to read them."""
        unshown, self._unshown = self._unshown, set()
        for name in unshown:
            for group, value in zip(self.param_groups, self._recursion.tuning.numbers(name), strict=True):
                group.show(name, value)  # type: ignore[attr-defined]

    def _phase(self, name: str) -> None:
        if self.on_phase is not None:
            self.on_phase(name)
