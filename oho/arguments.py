"""Checks of `OHO`'s arguments: each raises with what was given and what is allowed."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from oho.meta import MetaRule, check_meta
from oho.rules import Rule

NON_FINITE = ("reset", "skip", "raise")


def check_rule(rule: Rule, meta: MetaRule) -> None:
    """The rule is one, has what it tunes, and the meta-rule covers that."""
    if isinstance(rule, type):
        raise TypeError(f"rule: {rule.__name__} is a class; give an instance, such as {rule.__name__}(lr=0.1)")
    if isinstance(rule.tune, str):
        raise TypeError(f"tune={rule.tune!r}: a tuple of names is expected, such as ({rule.tune!r},)")
    if unknown := [name for name in rule.tune if name not in rule.names]:
        raise ValueError(f"tune: {type(rule).__name__} has no {', '.join(unknown)}; it has {', '.join(rule.names)}")
    check_meta(meta, rule.tune)


def check_influence(
    influence: str, *, discount: float, limit: float | None, reset_every: int, update_every: int, on_nonfinite: str
) -> None:
    """Words and ranges of the options of the influence."""
    if influence not in ("exact", "collapsed"):
        raise ValueError(f"influence={influence!r}: allowed are 'exact' and 'collapsed'")
    if not 0 <= discount <= 1:
        raise ValueError(f"discount={discount}: must lie in [0, 1]")
    if limit is not None and not limit > 0:
        raise ValueError(f"influence_limit={limit}: must be above 0, or None for no limit")
    if reset_every < 0 or update_every < 1:
        raise ValueError(f"reset_every={reset_every} must be 0 (never) or more, update_every={update_every} 1 or more")
    if on_nonfinite not in NON_FINITE:
        raise ValueError(f"on_nonfinite={on_nonfinite!r}: allowed are {', '.join(NON_FINITE)}")


def noise_generators(
    generator: torch.Generator | Sequence[torch.Generator] | None, rule: Rule, rows: int
) -> list[torch.Generator]:
    """One generator for each member, or none."""
    if generator is None:
        if rule.temperature != 0:
            raise ValueError("a rule with a temperature draws noise: give OHO(..., generator=torch.Generator())")
        return []
    generators = [generator] if isinstance(generator, torch.Generator) else list(generator)
    if len(generators) != rows:
        raise ValueError(f"generator: {len(generators)} given, one for each of {rows} members is needed")
    return generators
