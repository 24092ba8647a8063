"""The optimizers that the options of OHO's methods ask for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from torch import nn

import oho
from bench.online.default_options import AveragedOptions, DefaultOptions
from bench.online.published_options import GlobalOptions, PublishedOptions
from bench.protocol import stream

Initial = dict[str, float]
UNCHECKED = None
"""No product is compared at the first step, for the clock counts the method's own work.  `oho-bench audit` compares one."""


def published_meta(
    model: nn.Module, initial: Initial, options: GlobalOptions, seed: int, loss: oho.LossHyper | None
) -> oho.OHO:
    """Makes our recursion, exact or collapsed, with the published meta-step."""
    device = next(model.parameters()).device if options.temperature else "cpu"  # where noise is drawn
    return oho.OHO(
        model.named_parameters(),
        options.rule(initial, tune=options.tune, temperature=options.temperature),
        loss=loss,
        sets=options.sets,
        meta=oho.MetaSGD(options.rates, transform="raw", bounds=options.bounds),
        influence=options.mode,
        discount=options.discount,
        influence_limit=options.influence_limit,
        average=options.kind_of_average,
        present_share=options.present_share,
        reset_every=options.reset_every,
        update_every=options.update_every,
        first_updates=options.first_updates,
        tuned_steps=options.tuned_steps,
        generator=stream(seed, "noise", device=device),
        check=UNCHECKED,
    )


def defaults(
    model: nn.Module, initial: Initial, options: DefaultOptions, seed: int, loss: oho.LossHyper | None,
    *, made: Callable[..., oho.OHO] = oho.OHO,
) -> oho.OHO:  # fmt: skip
    """Makes an optimizer with the library's own meta-rule, of these options; `made` is `oho.OHO` or `oho.averaged`."""
    return made(
        model.named_parameters(), options.rule(initial, tune=options.tune), loss=loss, sets=options.sets,
        influence=options.mode, average=options.kind_of_average, present_share=options.present_share,
        update_every=options.update_every, first_updates=options.first_updates, tuned_steps=options.tuned_steps,
        check=UNCHECKED,
    )  # fmt: skip


def averaged(
    model: nn.Module, initial: Initial, options: AveragedOptions, seed: int, loss: oho.LossHyper | None
) -> oho.OHO:
    """Makes `oho.averaged`."""
    made = partial(
        oho.averaged, influence_limit=options.limit, curvature_factor=options.curvature_factor,
        tuned_after=options.tuned_after,
    )  # fmt: skip
    return defaults(model, initial, options, seed, loss, made=made)


def published(
    model: nn.Module, initial: Initial, options: PublishedOptions, seed: int, loss: None
) -> oho.PublishedOHO:
    """Makes the published recursion, which tunes nothing of the loss."""
    return published_recursion(model.named_parameters(), initial, options)


def published_recursion(
    parameters: Any, initial: Mapping[str, float], options: PublishedOptions, *, members: int | None = None
) -> oho.PublishedOHO:
    """Makes the published recursion, from an L2 coefficient and a learning rate of 0 where `initial` has no other."""
    return oho.PublishedOHO(
        parameters,
        options.variant,
        options.groups,
        lr=initial.get("lr", 0.0),
        weight_decay=initial.get("weight_decay", 0.0),
        meta_lr=options.meta_rate,
        weight_decay_max=options.weight_decay_max,
        weight_decay_meta_scale=options.weight_decay_rate_scale,
        members=members,
    )
