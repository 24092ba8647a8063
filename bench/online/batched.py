"""OHO's trainings as one batch: a population of `oho.OHO`, each of whose members has its own values and meta-rates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, cast

import torch
from torch import Tensor

import oho
from bench.online.options import GlobalOptions, OnlineOptions
from bench.protocol import Batching, CannotStackError, Ledger, Stacked, StackedBatches, WithOptimizer, train_together
from oho.member import Member

OWN = ("lr", "weight_decay", "meta_rate", "meta_rates", "weight_decay_rate_scale")
"""Options in which members may differ, beside the values of the update rule."""


class OnlineBatch:
    """Trainings of `bench.online.methods`, all with one rule and one kind of influence."""

    def __init__(self, states: Sequence[Any], stacked: Stacked):
        self.states, self._stacked = states, stacked
        self._batches = StackedBatches([state.batches for state in states])
        self._validation_batches = StackedBatches([state.validation_batches for state in states])
        self._source = states[0].options.source
        saved = [state.optimizer.state_dict() for state in states]
        self.optimizer = _population(states, stacked, noisy=bool(saved[0]["generators"]))
        self.optimizer.load_members(saved)
        for index, state in enumerate(states):
            state.optimizer = self.optimizer.member(index)

    def advance(self, *, steps: int, progress: float, ledger: Ledger) -> None:
        """Makes updates of all members with a meta-step each."""
        self.optimizer.on_phase = ledger.switch

        def update(step: int) -> Tensor:
            batch = self._batches.at(step)

            def train_loss() -> Tensor:
                return self._stacked.losses(batch)

            def validation_loss() -> Tensor:
                return self._stacked.losses(self._validation_batches.at(step))

            return self.optimizer.step(train_loss, train_loss if self._source == "training" else validation_loss)

        train_together(self.states, self._stacked, steps, ledger, update=update)
        values = {name: value.tolist() for name, value in self.optimizer.hyper.items()}
        for index, state in enumerate(self.states):
            state.hyper = {name: value[index] for name, value in values.items()}


def _population(states: Sequence[Any], stacked: Stacked, *, noisy: bool) -> oho.OHO:
    """Returns a population like the optimizers of its members, whose states it is then given."""
    first, options = states[0].optimizer, states[0].options
    like: oho.OHO = first.population if isinstance(first, Member) else first
    meta: Any = like.meta
    if isinstance(options, GlobalOptions):
        rates = [state.options.rates for state in states]
        device = stacked.theta.device
        own = {name: torch.tensor([each[name] for each in rates], device=device).unsqueeze(1) for name in rates[0]}
        meta = replace(meta, rate=own)
    return oho.OHO(
        cast(Any, stacked.tensors.items()),
        like.rule,
        sets=options.sets,
        meta=meta,
        influence="exact" if like.exact else "collapsed",
        discount=like.discount,
        influence_limit=like.influence_limit,
        reset_every=like.reset_every,
        update_every=like.update_every,
        members=len(states),
        generator=[torch.Generator() for _ in states] if noisy else None,
        check=None,
    )


def _alike(options: OnlineOptions) -> Mapping[str, Any]:
    for reason, has in (
        ("it is compared with an exact influence", options.compare_exact),
        ("it averages its weights", options.kind_of_average is not None),
        ("it takes products from parts of batches", options.curvature_part is not None),
        ("it tunes its loss", bool(options.tuned_of_loss)),
    ):
        if has:
            raise CannotStackError(reason)
    shared = options.model_dump(mode="json", exclude=set(OWN))
    if isinstance(options, WithOptimizer):
        shared["optimizer"] = options.optimizer.model_dump(mode="json", exclude=set(options.optimizer.own))
    return shared | {"kind": type(options).__name__}


BATCHING = Batching(OnlineBatch, _alike)
