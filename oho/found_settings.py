"""`averaged`: OHO over an average of the weights, of whose steps three in four are in the end those of plain training.

What is set here was found by search: results/default-meta-rule says on which tasks, from which starts, and what it shows.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import is_dataclass, replace
from typing import Any

from oho.averages import Recent
from oho.flat_parameters import Given
from oho.meta import DEFAULT_DISCOUNT, DEFAULT_LIMIT, MetaAdam, default_meta
from oho.optimizer import OHO
from oho.rules import Rule
from oho.tuned_steps import Windows

PRESENT_SHARE = 0.5
"""How far from the average towards the present weights `averaged` takes validation gradients."""
UPDATE_EVERY = 4
"""Tuned steps of `averaged` between two meta-steps."""
FIRST_UPDATES = 100
"""Steps of `averaged` at the beginning that make a meta-step each."""
CURVATURE_FRACTION = 0.25
"""The part of a batch that `averaged` was measured with; a step's `curvature_closure` computes its loss."""
CLIP_NORM = 1.0
"""The `clip_norm` of a rule that `averaged` is given without any: a run survives a first rate that is far too high."""


def averaged_meta() -> MetaAdam:
    """Returns the meta-rule of `averaged`: as long a way in four steps as that of `default_meta`, and a shorter memory.

    Hypergradients of the first steps are a thousand times as long as later ones.  Adam's usual second moment remembers them
    for thousands of meta-steps, in which hardly anything moves.
    """
    return replace(default_meta(), rate=0.04, beta2=0.99)


def averaged(parameters: Given | Iterable[dict[str, Any]], rule: Rule, **options: Any) -> OHO:
    """Returns an `OHO` that averages about the last tenth of all weights, and tunes for that average.

    Evaluate and save within `with optimizer.averaged():`.  Give each step a `curvature_closure`, the training loss of
    CURVATURE_FRACTION of its batch, which saves most of its cost.  A step asks for it and for the validation loss only if
    it is tuned, as `optimizer.is_tuned` says before it.  A rule that clips nothing gets the `clip_norm` CLIP_NORM, but for
    one that is no dataclass; `clip_norm=math.inf` leaves gradients as they are.  `options` are those of `OHO`, in place of
    what is set here.
    """
    if is_dataclass(rule) and rule.clip_norm is None and rule.clip_value is None:
        rule = replace(rule, clip_norm=CLIP_NORM)
    settings: dict[str, Any] = {
        "meta": averaged_meta(), "discount": DEFAULT_DISCOUNT, "influence_limit": DEFAULT_LIMIT, "average": Recent(),
        "present_share": PRESENT_SHARE, "update_every": UPDATE_EVERY, "first_updates": FIRST_UPDATES,
        "tuned_steps": Windows(),
    }  # fmt: skip
    return OHO(parameters, rule, **(settings | options))
