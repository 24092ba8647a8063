"""Real-time recurrent learning: what a training carries from step to step, and how a step moves it.

    symbol  name             shape      meaning
    M       members          ()         independent trainings side by side; 1 without a population
    N       size             ()         tuned elements of one member
    K       tangents         ()         rows of the influence
    θ       parameters       (M, N)     the model's own
    Z       influence        (K, M, N)  dθ/dh
    v       validation       (M, N)     gradient of the validation loss at the new θ, or at or near the average
    d       hypergradient    (M, S)     v · Z for each set: d(validation loss)/dh; (M, V) for one of the loss
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor

from oho.averages import Average, AveragedWeights, in_place_of
from oho.directions import Directions, directions_of
from oho.engines.curvature import Derivatives
from oho.flat_parameters import FlatParameters
from oho.guard_counts import GuardCounts
from oho.influence import Influence, clip_with_tangents, gradient_pullback, transition
from oho.loss_hyper import LossHyper
from oho.master_copy import MasterCopy
from oho.meta import MetaRule
from oho.parameter_groups import GivenGroup
from oho.plain_update import plain_update
from oho.rules import Rule, Slots
from oho.saved_state import copied, load_tensors, put, require
from oho.sets import SetMap
from oho.tuned_values import Tuning

STATE_KEYS = (
    "steps", "skipped", "shortened", "hyper", "hypergradient", "memory", "slots", "influence", "slot_influence",
    "generators",
)  # fmt: skip
AVERAGED_KEYS = ("averaged", "averaged_influence")
ALL = slice(None)
NO_DIRECTIONS = Directions({}, exact=True)


class Recursion:
    """Slots, influence, hyperparameters (`tuning`), `counts` of how often guards acted, and the number of `steps` made.

    It starts with initial values, empty slots and no influence.  `groups` has the group of each set, in their order.
    `averaged` is the average of the weights, if there is one; `present_share` says how far from it towards the present
    weights validation gradients are taken.

    A `hostless` step never asks a tensor for its values, and replaces none by another: where something may have to be done,
    it is done to all entries under a mask.  On a CPU it is cheaper to ask; on other devices, asking would wait.  Both ways
    give the same numbers, bit for bit.
    """

    def __init__(
        self,
        rule: Rule,
        meta: MetaRule,
        flat: FlatParameters,
        *,
        set_map: SetMap,
        groups: Sequence[GivenGroup],
        exact: bool,
        generators: list[torch.Generator],
        loss: LossHyper | None = None,
        average: Average | None = None,
        present_share: float = 0.0,
    ):
        self.rule, self.set_map, self.generators, self._flat = rule, set_map, generators, flat
        self.present_share = present_share
        self._master = MasterCopy(flat)
        like = self._master.gather()
        of_loss = {} if loss is None else loss.recurrent
        self.directions = directions_of([group.tune for group in groups], rule.tune, exact=exact, loss=of_loss)
        self.tuning = Tuning(
            rule, meta, members=flat.members, labels=set_map.labels, tuned=self.directions.tuned,
            own=[group.values for group in groups], like=like, loss=loss,
        )  # fmt: skip
        self.slots: Slots = {name: torch.zeros_like(like) for name in rule.slot_names}
        self.slots.update({name: like.new_zeros(flat.rows, 1) for name in rule.counter_names})
        shape = (self.directions.rows, *like.shape)
        self.averaged = None if average is None else AveragedWeights(average, like)
        theta = like.new_zeros(shape)
        self.influence = Influence(
            theta,
            {name: like.new_zeros(shape) for name in rule.slot_names},
            {} if self.averaged is None else self.averaged.empty_influence(theta),
        )
        self.counts = GuardCounts(flat.members, like.device)
        self._on_cpu = like.device.type == "cpu"
        self.is_captured = False
        """Whether a graph makes the steps, which then cannot ask anything."""
        self.steps = 0
        self.loads = 0
        """How often a state was loaded, which replaces every tensor but the parameters."""

    @property
    def hostless(self) -> bool:
        """Whether steps may not ask a tensor for its values: on all devices but a CPU, and in a graph everywhere."""
        return self.is_captured or not self._on_cpu

    def begin_step(self, discount: float, *, plain: int = 0) -> None:
        """Makes the first part of a step, which is the host's, after `plain` steps that moved no influence.

        `advance` must be given the same discount.
        """
        if self.averaged is not None:
            self._take_first_weights()
            self.averaged.begin(self.steps + 1, plain=plain, discount=discount, hostless=self.hostless)

    @torch.no_grad()
    def _take_first_weights(self) -> None:
        """Begins the average, before the first step, at the model's present weights: a user may have loaded others."""
        if self.averaged is not None and self.steps == 0:
            self.averaged.start_at(self._master.gather())

    @property
    def is_between(self) -> bool:
        """Whether gradients are taken between the weights that the rule moves and their average, as Schedule-Free does."""
        return self.averaged is not None and self.averaged.iterate is not None

    @torch.no_grad()
    def catch_up(self) -> None:
        """Moves the influence of the average over the plain steps, in which that of the weights stayed as it was."""
        if self.averaged is not None:
            self.averaged.catch_up(self.influence.theta, self.influence.averaged)

    def advance_plainly(self, found: Derivatives) -> Tensor:
        """Moves parameters and slots, and leaves the influence as it is; returns the model's new parameters (M, N)."""
        update = plain_update(self.rule)
        if update is None or found.unused:
            return self.advance(found, follows=False)
        theta, hyper = self._weights(), self._of_rule()
        if self.set_map.count > 1:
            hyper = {name: self.set_map.spread(value) for name, value in hyper.items()}
        update(self.rule, theta, clip_with_tangents(self.rule, found.gradient, found.products), self.slots, hyper)
        return self._arrive(theta)

    def advance(self, found: Derivatives, *, discount: float = 1.0, follows: bool = True) -> Tensor:
        """Discounts the influence, and moves it with parameters and slots; returns the model's new parameters (M, N).

        A parameter without a gradient stays as it is, as in torch.optim.  Unless it `follows`, so does the influence.
        """
        theta, unused = self._weights(), found.unused
        if unused:  # from here on the counts of steps differ between tensors
            for name in self.rule.counter_names:
                if self.slots[name].shape != theta.shape:
                    self.slots[name] = self.slots[name].expand_as(theta).clone()
        influence, directions = self.influence.moving, self.directions
        if not follows:
            influence, directions = influence.of_no_row, NO_DIRECTIONS
        before = [(i, [state[..., self._flat.span(i)] * discount for state in influence.moved]) for i in unused]
        theta_next, slots_next = transition(
            self.rule, self.set_map, theta=theta, gradient=found.gradient, slots=self.slots, hyper=self._of_rule(),
            noise=self.noise(theta), influence=influence, products=found.products, directions=directions, discount=discount,
        )  # fmt: skip
        for i, tangents in before:
            span = self._flat.span(i)
            theta_next[:, span] = theta[:, span]
            for name, slot in slots_next.items():
                slot[:, span] = self.slots[name][:, span]
            for state, tangent in zip(influence.moved, tangents, strict=True):
                state[..., span] = tangent
        put(self.slots, slots_next, in_place=self.hostless)
        if self.averaged is not None and follows:
            self.averaged.follow_influence(self.influence.theta, self.influence.averaged, discount=discount)
        return self._arrive(theta_next)

    def _arrive(self, theta: Tensor) -> Tensor:
        """Ends a step at the rule's new θ (M, N): moves the average, and writes and returns the model's parameters."""
        self.steps += 1
        if self.averaged is not None:
            theta = self.averaged.follow(theta)
        self._master.write(theta)
        return theta

    def judged_ahead(self, gradient: Tensor) -> Tensor:
        """Returns the weights (M, N) at which `at_judged_weights` will be once `advance` has made a step with g (M, N).

        All parameters have a gradient, and the rule draws no noise.
        """
        influence = self.influence.moving.of_no_row
        theta, _ = transition(
            self.rule, self.set_map, theta=self._weights(), gradient=gradient, slots=self.slots, hyper=self._of_rule(),
            noise=None, influence=influence, products=torch.zeros_like(influence.theta), directions=NO_DIRECTIONS,
        )  # fmt: skip
        return theta if self.averaged is None else self.averaged.judged_ahead(theta, self.present_share)

    def _weights(self) -> Tensor:
        """Returns the weights (M, N) that the rule moves: the model's parameters or, in Schedule-Free, the iterate."""
        iterate = None if self.averaged is None else self.averaged.iterate
        return self._master.gather() if iterate is None else iterate

    def shorten_influence(self, limit: float, theta: Tensor) -> None:
        """Shortens the rows whose d(parameters)/d(log h) is longer than the limit times the parameters θ (M, N)."""
        if not self.directions.names:
            return
        longest = limit * torch.linalg.vector_norm(theta, dim=-1)
        largest = self.directions.largest_of_rows(self.tuning.values)
        shortened = self.influence.shorten(largest, longest, hostless=self.hostless)
        if shortened is not None:
            self.counts.add_shortened(shortened)

    def gradient_pullback(self, gradient: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        """Returns θ and the map v -> (∂θ'/∂g)ᵀ v of the step that is about to be made with g, all (M, N).

        With an average of the weights, θ' stands for the point at which validation gradients are taken.
        """
        pull = gradient_pullback(
            self.rule, self.set_map, theta=self._weights(), gradient=gradient, slots=self.slots, hyper=self._of_rule()
        )  # fmt: skip
        weight = 1.0
        if self.averaged is not None:
            weight = self.averaged.share_of_newest(self.steps + 1, self.present_share)
        return self._master.gather(), lambda vector: pull(weight * vector)

    def _of_rule(self) -> dict[str, Tensor]:
        return {name: self.tuning.values[name] for name in self.rule.names}

    @contextmanager
    def at_average(self) -> Iterator[None]:
        """Puts the average of the weights, if there is one, into the model for a block."""
        self._take_first_weights()
        with nullcontext() if self.averaged is None else in_place_of(self._flat, self.averaged.average):
            yield

    @contextmanager
    def at_judged_weights(self) -> Iterator[None]:
        """Puts the weights at which validation gradients are taken into the model for a block."""
        share = self.present_share
        if self.averaged is None or share == 1:
            yield
            return
        average = self.averaged.average
        present = self._flat.gather()
        with in_place_of(self._flat, average if share == 0 else torch.lerp(average, present, share), present=present):
            yield

    def meta_step(self, vector: Tensor, *, one_step: Mapping[str, Tensor], on_nonfinite: str) -> None:
        """Computes hypergradients from v (M, N), and makes a meta-step of each member whose hypergradients are all finite.

        `one_step` has the hypergradients (M, V) of the hyperparameters for which the influence has no rows.

        Raises:
            FloatingPointError: for a hypergradient that is not finite, if `on_nonfinite` is "raise".
        """
        found = self.directions.hypergradients(self.influence.judged(self.present_share), vector, self.set_map)
        finite = self.tuning.step({**found, **one_step}, hostless=self.hostless)
        if on_nonfinite == "raise":
            if not bool(finite.all()):
                raise FloatingPointError(
                    f"step {self.steps}: the hypergradient is not finite; lower the meta-rate, discount the influence,"
                    " or choose on_nonfinite='reset'"
                )
        elif self.hostless or not bool(finite.all()):
            self._skip(~finite, resets=on_nonfinite == "reset")

    def _skip(self, skipped: Tensor, *, resets: bool) -> None:
        """Counts the members that `skipped` a meta-step (M,).

        If it `resets`, their influence becomes zero where it is not finite.
        """
        intact = self.influence.is_finite()
        broken = skipped > intact  # skipped, and not intact
        self.counts.add_skipped(influence=broken, hypergradient=skipped & intact)
        if resets:
            for tangent in self.influence.tensors:
                tangent.masked_fill_(broken.unsqueeze(-1), 0)

    def influence_norm(self, members: slice = ALL) -> dict[str, Tensor]:
        """Returns, by name, the norm of dθ/dh over all rows of a hyperparameter, (M,), for all or some of the members."""
        if not self.directions.names:
            return {}
        named = zip(self.directions.names, self.influence.theta[:, members].split(self.directions.counts), strict=True)
        return {name: torch.linalg.vector_norm(rows, dim=(0, 2)) for name, rows in named}

    def noise(self, theta: Tensor) -> Tensor | None:
        """Draws the noise of one step, (M, N); None for a rule without a temperature."""
        if self.rule.temperature == 0:
            return None
        drawn = [torch.randn(theta.shape[1], generator=g, dtype=theta.dtype, device=g.device) for g in self.generators]
        return torch.stack(drawn).to(theta.device)

    def state(self) -> dict[str, Any]:
        """Returns copies of everything."""
        return {
            "steps": self.steps,
            **self.counts.state(),
            **self.tuning.state(),
            "slots": copied(self.slots),
            "influence": copied({"theta": self.influence.theta}),
            "slot_influence": copied(self.influence.slots),
            "generators": [generator.get_state() for generator in self.generators],
            **self._master.state(),
            **self._averaged_state(),
        }

    def _averaged_state(self) -> dict[str, Any]:
        if self.averaged is None:
            return {}
        return self.averaged.state() | {"averaged_influence": copied(self.influence.averaged)}

    def load(self, state: dict[str, Any]) -> None:
        """Takes over what `state` holds.

        Raises:
            ValueError: if names, shapes or dtypes are another optimizer's; nothing is changed then.
        """
        require(state, STATE_KEYS if self.averaged is None else (*STATE_KEYS, *AVERAGED_KEYS))
        if self.averaged is None and AVERAGED_KEYS[0] in state:
            raise ValueError("state: it has an average of the weights, this optimizer none; make it with the same average=")
        like, averaged = self.influence.theta, self.averaged
        loaded = {
            key: load_tensors(key, state, mine, like.device)
            for key, mine in (
                ("slots", self.slots),
                ("influence", {"theta": like}),
                ("slot_influence", self.influence.slots),
                *(() if averaged is None else (("averaged_influence", self.influence.averaged),)),
            )
        }
        averaged = None if averaged is None else averaged.loaded(state)
        tuning, counts = self.tuning.loaded(state, like.device), self.counts.loaded(state)
        if len(state["generators"]) != len(self.generators):
            raise ValueError(f"state: {len(state['generators'])} generators, this optimizer has {len(self.generators)}")
        self._master.load(state)
        self.loads += 1
        self.tuning, self.counts, self.steps = tuning, counts, int(state["steps"])
        self.slots = loaded["slots"]
        self.averaged = averaged
        self.influence = Influence(
            loaded["influence"]["theta"], loaded["slot_influence"], loaded.get("averaged_influence", {})
        )
        for generator, saved in zip(self.generators, state["generators"], strict=True):
            generator.set_state(saved.cpu())  # wherever `map_location` has put it

    def assign_set(self, index: int, name: str, value: Any) -> None:
        """Sets a hyperparameter of one set, as `Tuning.assign_set` does."""
        self.tuning.assign_set(index, name, value)
