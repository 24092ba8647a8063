"""`averaged`: OHO for an average of the weights, with seven of eight steps plain training in the long run.

These settings were found by search: results/default-meta-rule says on which tasks and from which starts, and with what
result.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import fields, is_dataclass, replace
from typing import Any

from oho.argument_checks import check_is_rule
from oho.averages import Recent
from oho.flat_parameters import Given
from oho.meta import DEFAULT_DISCOUNT, DEFAULT_LIMIT, MetaAdam, default_meta
from oho.optimizer import OHO
from oho.rules import Rule
from oho.tuned_steps import Windows

PRESENT_SHARE = 0.5
"""How far from the average towards the present weights `averaged` takes validation gradients."""
UPDATE_EVERY = 4
"""The number of tuned steps of `averaged` between two meta-steps."""
FIRST_UPDATES = 100
"""The number of steps of `averaged` at the beginning that make a meta-step each."""
CURVATURE_FRACTION = 0.25
"""The part of a batch that `averaged` was measured with; a step's `curvature_closure` computes its loss."""
SLOTS_LIMIT = 0.1
"""The `influence_limit` of `averaged` over rules with slots: momentum, Adam and AdamW.

With a limit of 1 the rate of AdamW runs away in long trainings, and that of momentum stays too high.
"""
DECAY_FACTOR, DECAY_AFTER = 0.2, Windows.first
"""The `curvature_factor` of the weight decay in `averaged`, and the number of steps after which it is tuned.

With 1 and 0 it fell in most trainings over SGD, to a thousandth or less in some, and stayed there: in the first steps any
decay seems too much.
"""
CLIP_NORM = 1.0
"""The `clip_norm` of a rule that `averaged` is given without any: over SGD and momentum a run survives a first rate that is
far too high.  Steps of Adam and AdamW are as long whatever the gradient's length, and do not survive one."""


def averaged_meta() -> MetaAdam:
    """Returns the meta-rule of `averaged`: each meta-step goes as far as four of `default_meta`, and its memory is shorter.

    The first hypergradients are a thousand times as long as later ones.  Adam's usual second moment would remember them for
    thousands of meta-steps, in which hardly anything would move.
    """
    return replace(default_meta(), rate=0.04, beta2=0.99)


def averaged_limit(rule: Rule | type[Rule]) -> float:
    """Returns the `influence_limit` of `averaged` over a rule, or over rules of a class."""
    return SLOTS_LIMIT if rule.slot_names else DEFAULT_LIMIT


def averaged(parameters: Given | Iterable[dict[str, Any]], rule: Rule, **options: Any) -> OHO:
    """Returns an `OHO` that averages the weights of about the last tenth of all steps, and tunes for that average.

    Evaluate inside `with optimizer.averaged():`, and save there the model that is to be used.  Give each step a
    `curvature_closure`, the training loss of a quarter of its batch (CURVATURE_FRACTION), which saves most of the cost.
    Only tuned steps use it and the validation closure; `optimizer.is_tuned` says before a step whether it is one.  A rule
    that clips nothing gets `clip_norm=1` (CLIP_NORM), if it has such a field; `clip_norm=math.inf` leaves gradients as
    they are.  Over rules with slots the influence has a limit of its own (SLOTS_LIMIT).  The weight decay is tuned after
    the first 400 steps (DECAY_AFTER), and only a fifth of the Hessian counts in its influence (DECAY_FACTOR).
    `parameters` and `rule` are those of `OHO`; `options` are its options and replace what is set here.  Raises what `OHO`
    raises.
    """
    check_is_rule(rule)
    settings: dict[str, Any] = {
        "meta": averaged_meta(), "discount": DEFAULT_DISCOUNT, "influence_limit": averaged_limit(rule),
        "average": Recent(), "present_share": PRESENT_SHARE, "update_every": UPDATE_EVERY,
        "first_updates": FIRST_UPDATES, "tuned_steps": Windows(),
        "curvature_factor": _of_decay(DECAY_FACTOR, rule), "tuned_after": _of_decay(DECAY_AFTER, rule),
    }  # fmt: skip
    return OHO(parameters, _clipping(rule), **(settings | options))


def _of_decay(value: Any, rule: Rule) -> dict[str, Any]:
    """Returns a setting of the weight decay alone; none for a rule without it."""
    return {"weight_decay": value} if "weight_decay" in rule.names else {}


def _clipping(rule: Rule) -> Rule:
    """Returns the rule with CLIP_NORM if it clips nothing and `clip_norm` is one of its fields, else the rule itself."""
    if not is_dataclass(rule) or isinstance(rule, type) or rule.clip_norm is not None or rule.clip_value is not None:
        return rule
    return replace(rule, clip_norm=CLIP_NORM) if "clip_norm" in {field.name for field in fields(rule)} else rule
