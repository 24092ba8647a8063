"""The exact twins of a batch's members as a population of their own: see `bench.online.exact_twin`.

    symbol  name     shape   meaning
    M       members  ()      trainings side by side
    N       size     ()      elements of one member
    S       sets     ()      values of one hyperparameter
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from inspect import signature
from typing import Any, cast

import torch
from torch import Tensor

import oho
from bench.online.averaged_state import Optimizer
from bench.online.exact_twin import ExactTwin, compared, held_in_last_step
from bench.protocol import Stacked
from oho.member import Member
from oho.meta import MetaRule

OTHER = ("parameters", "loss", "sets", "meta", "influence", "curvature", "check", "members", "generator", "on_phase")
"""The arguments of `oho.OHO` that a population does not take from its members, or not from an attribute of that name."""


class StackedTwins:
    """Twins of the members of `run`, whose models are `stacked`; their own are in `self.stacked`."""

    def __init__(
        self, twins: Sequence[ExactTwin], run: Optimizer, stacked: Stacked, sets: oho.Sets, loss: oho.LossHyper | None
    ):
        self._twins, self._run, self._theta = twins, run, stacked.theta
        self.stacked = Stacked(stacked.tasks, [twin.model for twin in twins])
        optimizers = [twin.optimizer for twin in twins]
        self._optimizer = population_like(optimizers, self.stacked, sets=sets, meta=oho.MetaSGD(0.0), loss=loss)
        for index, twin in enumerate(twins):
            twin.optimizer = self._optimizer.member(index)

    @torch.no_grad()
    def follow(self) -> None:
        """Goes where the runs stand before their step; a member whose hyperparameters are not finite stays where it is."""
        values = self._run.hyper
        finite = torch.cat([value.reshape(len(self._twins), -1) for value in values.values()], 1).isfinite().all(1)
        for twin, is_finite in zip(self._twins, finite.tolist(), strict=True):
            twin.is_lost = twin.is_lost or not is_finite
        self.stacked.theta.copy_(self._theta)
        for name, own in self._optimizer.hyper.items():
            where = finite.view(-1, *[1] * (own.dim() - 1))
            self._optimizer.set_hyper(name, torch.where(where, values[name], own))

    def compare(self, train_closure: Callable[..., Tensor], held_closure: Callable[[], Tensor]) -> None:
        """Makes the twins' step after the runs', on closures of `self.stacked`, and notes the runs' errors."""
        self._optimizer.step(train_closure, held_closure)
        if not self._run.is_meta_step(self._run.steps):
            return
        for name, exact in self._optimizer.hypergradient.items():
            if held_in_last_step(self._run, name):
                continue
            for twin, found in zip(
                self._twins, compared(self._run.hypergradient[name], exact, len(self._twins)), strict=True
            ):
                twin.note(name, found)


def population_like(
    optimizers: Sequence[oho.OHO | Member], stacked: Stacked, *, sets: oho.Sets, meta: MetaRule, loss: oho.LossHyper | None
) -> oho.OHO:
    """Returns a population of members as these optimizers are, in their states, with another meta-rule."""
    first = optimizers[0]
    like: Any = first.population if isinstance(first, Member) else first
    saved: list[dict[str, Any]] = [each.state_dict() for each in optimizers]
    shared = {name: getattr(like, name) for name in signature(oho.OHO).parameters if name not in OTHER}
    device = stacked.theta.device if like.rule.temperature else "cpu"
    found = oho.OHO(
        cast(Any, stacked.tensors.items()),
        loss=loss,
        sets=sets,
        meta=meta,
        influence="exact" if like.exact else "collapsed",
        members=len(optimizers),
        generator=[torch.Generator(device) for _ in optimizers] if saved[0]["generators"] else None,
        check=None,
        **shared,
    )
    found.load_members(saved)
    return found
