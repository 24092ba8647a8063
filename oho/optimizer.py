"""`OHO`: an optimizer that tunes its own hyperparameters on a validation loss while it trains.

    symbol  name     shape    meaning
    M       members  ()       independent trainings side by side; without a population there is no such axis
    S       sets     ()       values of one hyperparameter
    V       size     ()       components of one hyperparameter of the training loss

`oho.training_step` says what a step computes, `oho.step_kinds` which steps are tuned and make a meta-step.

Source: arXiv 2102.07813.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor

from oho.ambient import outside_autocast
from oho.argument_checks import Made, check_influence, check_rule, curvature_factors, first_steps, noise_generators
from oho.averages import Average, check_present_share, resolve_average
from oho.engines.curvature import Engine
from oho.flat_parameters import Given, flat_parameters
from oho.freed_memory import keep_freed_memory
from oho.lookahead import Lookahead
from oho.loss_hyper import LossHyper
from oho.member import Member, joined
from oho.meta import DEFAULT_DISCOUNT, DEFAULT_LIMIT, MetaRule, default_meta
from oho.micro_batches import Closures, listed
from oho.parameter_groups import given_groups, groups_of_sets, groups_of_tensors, shown_groups, tuned_by_any
from oho.recursion import Recursion
from oho.recursion_optimizer import RecursionOptimizer
from oho.rules import Rule
from oho.sets import Sets, resolve_sets
from oho.step_kinds import StepKinds
from oho.training_loss import Phase, TrainingLoss
from oho.training_step import StepClosures, TunedStep, plain_step, silent
from oho.tuned_steps import TunedSteps, resolve_tuned_steps

NOTHING_IS_TUNED = (
    "step: a meta-step is due, and no validation loss is given, without which nothing is tuned; give one as the second"
    " closure: optimizer.step(closure, valid_closure)"
)


class OHO(RecursionOptimizer):
    """Online hyperparameter optimization around an update rule: a `torch.optim.Optimizer` that takes two closures.

    `param_groups` has a group for each set, with the present values as plain numbers for loggers to read.  A scheduler or
    an assignment may change values there that the group does not tune, and no others.

    Args:
        parameters: `model.parameters()` or, for a map from names to sets, `model.named_parameters()`, all of one dtype and
            device; frozen parameters are left out.  Parameter groups work, too: each is a mapping with "params" and, where
            they differ from the rule's, its own initial values, "tune" (which may be empty) and "name".  Each group is a
            set, unless `sets` divides it further.
        rule: `SGD`, `Momentum`, `Adam` or `AdamW`; its `tune` names what is tuned online.  A value may be a mapping from
            set to number.
        loss: `LossHyper(...)`, hyperparameters of the training loss that are tuned along with the rule's.  Training
            closures then take them as their one argument.
        sets: what shares one value: "global" (everything), "full" (each tensor has its own), `Layerwise(n)`, or a map
            (mapping or function) from parameter name to set; `optimizer.set_map.labels` names the entries of a value.
        meta: how hyperparameters follow their hypergradient; None is `default_meta()`.
        influence: "exact" (a tangent for each hyperparameter and set) or "collapsed" (one for each hyperparameter, read
            set by set: cheap but, with more than one set, biased).
        discount: μ in [0, 1], the factor on tangents before each step; 1 is OHO, and 0 is the one-step hypergradient, which
            needs no curvature.  None is 1, or DEFAULT_DISCOUNT if `meta` is None.
        influence_limit: c; a row of the influence whose d(parameters)/d(log h) has a norm above c times that of the
            parameters is shortened to that length, since it would grow without bound where training is unstable.  None is
            DEFAULT_LIMIT if `meta` is None, else no limit; math.inf is no limit in any case.
        average: an average of the weights, `Exponential(horizon)`, `Recent(part)`, `Uniform(start)` or "schedule-free":
            hyperparameters follow the validation loss of the average, which `averaged()` puts into the model.  None is no
            average.
        present_share: s in [0, 1], how far from the average towards the present weights validation gradients are taken; it
            helps a learning rate that is far too high to come down.
        curvature_factor: α in [0, 1] on the products H Z in the tangents of the rule's hyperparameters, or a mapping from
            name to factor.  1 gives the derivative.  Less is biased, but steadier where a tangent has to remember thousands
            of steps, as the weight decay's does, and small batches make it grow.
        tuned_after: a mapping from name to the number of first steps in which a hyperparameter of the rule has no
            influence, so that it stays as it is.  The meta-rule's memory counts these steps.
        reset_every: the number of steps after which the influence is set to zero; 0 is never.
        update_every: the number of tuned steps between two meta-steps; the influence follows all of them.
        first_updates: the number of steps at the beginning that make a meta-step each, if tuned, whatever `update_every`
            is, so that small values come up sooner.
        tuned_steps: the steps that the influence follows, such as `Windows()`: the first 400, and then 50 of every 400.
            All others are plain training and cost as much.  None tunes every step; with fewer, the influence is not exact.
        curvature: the engine that multiplies with the Hessian: "pearlmutter" (sweeps over a tape for layered networks, and
            "double_backward" for all other models), "double_backward", "forward_over_reverse", "finite_difference", or a
            function of their signature.  Where an operation has no second derivative, finite differences take over, with
            a warning; `engine` names the one in use.
        check: "first" compares one product with central differences of gradients before the first step, and raises if
            the second derivative is wrong (see `oho.check`); None skips that.  Only the time of the first step differs.
        members: M, if each parameter has a leading axis of M independent trainings; closures then return M losses.
        generator: the source of the noise of a rule with a temperature; with members, one for each.
        on_nonfinite: what to do about a hypergradient that is not finite.  "reset" and "skip" skip the meta-step of the
            members concerned and count it in `skipped`; "reset" also sets their influence to zero if it is not finite.
            "raise" raises FloatingPointError.  Parameters are never affected.
        on_phase: called inside `step` with "train" where it begins, with "hypergradient" where curvature products,
            influence, validation gradient and meta-step begin, and with "train" where it ends.

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
        curvature_factor: float | Mapping[str, float] = 1.0,
        tuned_after: Mapping[str, int] | None = None,
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
        given = given_groups(parameters, rule)
        defaults = {name: getattr(rule, name) for name in (*rule.names, "tune")}
        rule = tuned_by_any(rule, given)
        check_rule(rule, self.meta, loss)
        self.meta = self.meta if loss is None else loss.applied_to(self.meta, rule)
        self.discount = discount if discount is not None else (DEFAULT_DISCOUNT if meta is None else 1.0)
        self.influence_limit = DEFAULT_LIMIT if meta is None and influence_limit is None else influence_limit
        self.average = resolve_average(average)
        check_present_share(present_share, self.average)
        self.curvature_factor = curvature_factors(curvature_factor, rule)
        self.tuned_after = first_steps(tuned_after, rule)
        self.reset_every, self.update_every, self.first_updates = reset_every, update_every, first_updates
        self.tuned_steps = resolve_tuned_steps(tuned_steps)
        self.on_nonfinite, self.on_phase = on_nonfinite, on_phase
        check_influence(
            influence, discount=self.discount, limit=self.influence_limit, reset_every=reset_every,
            update_every=update_every, first_updates=first_updates, on_nonfinite=on_nonfinite,
        )  # fmt: skip
        keep_freed_memory()
        flat = flat_parameters([item for group in given for item in group.parameters], members)
        self._made, self._is_told = Made(flat), False
        self._loss = TrainingLoss(flat, loss, curvature=curvature, check=check)
        of_tensors = groups_of_tensors(given, flat)
        set_map = resolve_sets(sets, flat, [group.name for group in of_tensors])
        self.exact = influence == "exact" or set_map.count == 1
        of_sets = groups_of_sets(set_map, of_tensors)
        recursion = Recursion(
            rule, self.meta, flat, set_map=set_map, groups=of_sets, exact=self.exact,
            generators=noise_generators(generator, rule, flat.rows), loss=loss, average=self.average,
            present_share=present_share,
        )  # fmt: skip
        super().__init__(recursion, flat, groups=shown_groups(set_map, of_sets, flat), defaults=defaults)

    def __repr__(self) -> str:
        influence = "exact" if self.exact else "collapsed"
        return f"OHO({self.rule}, {self.meta}, {self.set_map.count} sets, {influence} influence, {self.steps} steps made)"

    @property
    def engine(self) -> str:
        """The name of the engine that computes curvature products: before the first step, the one asked for."""
        return self._loss.engine

    def step(  # type: ignore[override]
        self,
        closure: Closures | None = None,
        valid_closure: Closures | None = None,
        *,
        curvature_closure: Closures | None = None,
    ) -> Tensor:
        """Makes one update of parameters, influence and, if due, hyperparameters.  Returns the training loss, detached.

        `closure` computes the training loss of the present model, a scalar or, with members, (M,), and leaves the backward
        pass to this method; if the loss has hyperparameters, the closure is given a mapping from name to tensor.
        `valid_closure` computes the validation loss and is called only when a meta-step is due; without it, no meta-step
        is made.  `curvature_closure`, if given, computes the training loss of a part of the batch, and takes what `closure`
        takes: products are then those of the part, which have the same mean at a fraction of the cost.

        A list of closures, one for each micro-batch, stands for the mean of their losses and needs the memory of one.
        Closures switch the modes of modules such as dropout: one calls `model.train()`, the other `model.eval()`.

        Raises:
            TypeError, ValueError: for a closure that returns something else, or a model converted to another dtype or
                device, frozen or unfrozen, since the optimizer was made.
            RuntimeError: for a wrong second derivative, a graph that is gone, or reentrant checkpointing.
            FloatingPointError: for a hypergradient that is not finite, if `on_nonfinite` is "raise".
        """
        is_due, steps = valid_closure is not None and self.is_due, self.steps
        self._before_step(is_validated=valid_closure is not None)
        try:
            return self._step(closure, valid_closure, curvature_closure, is_due=is_due, phase=self._phase)
        finally:
            if self.steps > steps:  # a validation closure that raises does so after the update
                self._after_step(is_due)
            self._phase("train")

    @property
    def is_due(self) -> bool:
        """Whether the next step makes a meta-step, if it is given a validation loss."""
        return self.is_meta_step(self.steps + 1)

    @property
    def is_tuned(self) -> bool:
        """Whether the influence follows the next step; if not, the step is plain training."""
        return self.is_tuned_step(self.steps + 1)

    @property
    def held(self) -> tuple[str, ...]:
        """The tuned hyperparameters that the next step leaves without influence, by `tuned_after`."""
        return tuple(name for name in self._recursion.tuning.tuned if self.steps < self.tuned_after.get(name, 0))

    def is_tuned_step(self, step: int) -> bool:
        """Returns whether the influence follows a step, counted from 1."""
        return self._kinds.is_tuned(step)

    def is_meta_step(self, step: int) -> bool:
        """Returns whether a step, counted from 1, makes a meta-step, if it is given a validation loss."""
        return self._kinds.is_meta(step)

    @property
    def steps_behind(self) -> int:
        """The number of plain steps since the last tuned one, which the influence of the average has yet to follow."""
        return self._kinds.plain_before(self.steps + 1)

    @property
    def _kinds(self) -> StepKinds:
        return StepKinds(self.tuned_steps, self.update_every, self.first_updates, self._recursion.tuning.tuned)

    def _before_step(self, *, is_validated: bool) -> None:
        """Makes the first part of a step, which is the host's; warns if the first meta-step that is due cannot be made."""
        if not self._is_told and (is_validated or self.is_due):
            self._is_told = True
            if not is_validated and self._recursion.tuning.tuned:
                warnings.warn(NOTHING_IS_TUNED, stacklevel=4)
        self._check_weights("step")
        if torch.is_inference_mode_enabled():
            raise RuntimeError("step: torch.inference_mode() is on, where nothing can be differentiated; leave it first")
        self._recursion.begin_step(self.discount or 1.0, plain=self.steps_behind if self.is_tuned else 0)

    def _step(
        self, closure: Closures | None, valid_closure: Closures | None, curvature_closure: Closures | None, *,
        is_due: bool, phase: Phase = silent, lookahead: Lookahead | None = None,
    ) -> Tensor:  # fmt: skip
        """Makes the part of a step that the device can make alone."""
        self._made.check()
        bound, values = self._loss.bound, self._recursion.tuning.values
        train = bound(listed(closure, "training"), values)
        valid = [] if valid_closure is None else self._loss.unbound(listed(valid_closure, "validation"))
        part = bound([] if curvature_closure is None else listed(curvature_closure, "curvature"), values, "curvature")
        with outside_autocast(self._flat.tensors[0].device) as under:
            closures = StepClosures(*([under(closure) for closure in each] for each in (train, valid, part)))
            if not self.is_tuned:
                return plain_step(self._loss, self._recursion, closures.train, phase=phase)
            step = TunedStep(
                self._loss, self._recursion, closures, discount=self.discount, influence_limit=self.influence_limit,
                curvature_factor=self.curvature_factor, held=self.held, on_nonfinite=self.on_nonfinite, phase=phase,
                lookahead=lookahead,
            )  # fmt: skip
            return step.make(is_meta=is_due)

    def _after_step(self, is_due: bool) -> None:
        """Makes the last part of a step, which is the host's."""
        if is_due:
            self._unshown.update(self.rule.tune)
        if self.reset_every and self.steps % self.reset_every == 0:
            self._recursion.influence.clear()

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Puts the average of the weights into the model for a block: to evaluate it, or to save the model for use.

        Afterwards the weights are those of the training again, bit for bit, and so are the buffers that steps use.  A step
        within the block is refused, and so is a checkpoint of this optimizer.  Without an average nothing changes.  A model
        with batch norm needs statistics of its own there, as `torch.optim.swa_utils.update_bn` makes them.
        """
        with nullcontext() if self.average is None else self._loss.keeping_buffers(), super().averaged():
            yield

    def member(self, index: int) -> Member:
        """Returns one member of a population, which shows and saves what an optimizer of its own would.

        Raises:
            ValueError: without a population, or for an index outside it.
        """
        return Member(self, index, members=self._flat.members)

    def load_members(self, states: Sequence[Mapping[str, Any]]) -> None:
        """Continues from the `state_dict`s of optimizers with one member each, made with the same arguments otherwise.

        Raises:
            ValueError: for no state, if they made different numbers of steps, or as `load_state_dict`.
        """
        self.load_state_dict(joined(states))

    def _phase(self, name: str) -> None:
        if self.on_phase is not None:
            self.on_phase(name)
