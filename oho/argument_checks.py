"""Checks of `OHO`'s arguments: each raises with what was given and what is allowed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from numbers import Integral, Real

import torch

from oho.bounds import DEFAULT_BOUNDS, bounds_of
from oho.flat_parameters import FlatParameters
from oho.loss_hyper import LossHyper
from oho.meta import MetaRule, per_name
from oho.rules import Rule

NON_FINITE = ("reset", "skip", "raise")
META_MEMBERS = ("rate", "transform", "bounds", "clip", "step")


def check_is_rule(rule: Rule) -> None:
    """Raises TypeError for a class, a name, another library's optimizer: anything but an instance of a rule."""
    if isinstance(rule, type) or not hasattr(rule, "tune"):
        kind = rule.__name__ if isinstance(rule, type) else type(rule).__name__
        raise TypeError(f"rule: an instance of oho.SGD, Momentum, Adam or AdamW is expected, as oho.SGD(0.1); given {kind}")


def check_rule(rule: Rule, meta: MetaRule, loss: LossHyper | None = None) -> None:
    """Raises unless the rule is valid and has what it tunes, and the meta-rule covers that and what the loss tunes."""
    check_is_rule(rule)
    if isinstance(meta, type) or not hasattr(meta, "rate"):
        kind = meta.__name__ if isinstance(meta, type) else type(meta).__name__
        raise TypeError(f"meta: an instance of oho.MetaSGD, MetaAdam or MetaSign is expected; given {kind}")
    if missing := [name for name in META_MEMBERS if not hasattr(meta, name)]:
        kind, members = type(meta).__name__, ", ".join(META_MEMBERS)
        raise TypeError(f"meta: {kind} has no {', '.join(missing)}; a meta-rule has {members}")
    if isinstance(rule.tune, str) or not isinstance(rule.tune, Iterable):
        raise TypeError(f"tune={rule.tune!r}: a tuple of names is expected, such as ('lr',); () tunes nothing")
    _check_names("tune", rule.tune, rule)
    if len(set(rule.tune)) < len(rule.tune):
        raise ValueError(f"tune={rule.tune}: each name once")
    _check_constants(rule)
    if not isinstance(loss, LossHyper | None):
        raise TypeError(f"loss: an oho.LossHyper is expected, as oho.LossHyper(label_smoothing=0.1); given {loss!r:.60}")
    of_loss = () if loss is None else loss.names
    if loss is not None:
        loss.check(rule)
        meta = loss.applied_to(meta, rule)
    _check_meta(meta, (*rule.tune, *(() if loss is None else loss.tune)))
    for option in ("rate", "transform", "bounds"):
        given = getattr(meta, option)
        known = (*rule.names, *of_loss, *DEFAULT_BOUNDS)
        if isinstance(given, Mapping) and (unknown := [name for name in given if name not in known]):
            kind, names = type(rule).__name__, ", ".join((*rule.names, *of_loss))
            raise ValueError(f"{option}: {kind} has no {', '.join(unknown)}; it has {names}")


def _check_meta(meta: MetaRule, names: tuple[str, ...]) -> None:
    """Raises TypeError or ValueError unless the options are valid for each of these hyperparameters."""
    if not isinstance(meta.bounds, Mapping):
        raise TypeError(f"bounds: a mapping from name to (low, high) is expected, {{'lr': (0, 1)}}; given {meta.bounds!r}")
    for name in names:
        rate = per_name(meta.rate, name)
        if not (isinstance(rate, int | float | torch.Tensor) and bool(torch.as_tensor(rate >= 0).all())):
            raise ValueError(f"rate={rate!r} of {name}: must be a number, 0 or more")
        bounds_of(meta, name)
    if meta.clip is not None and not (isinstance(meta.clip, int | float) and meta.clip > 0):
        raise ValueError(f"clip={meta.clip!r} of {type(meta).__name__}: must be a number above 0, or None for no clipping")
    for option in ("beta1", "beta2"):
        if not 0 <= (beta := getattr(meta, option, 0.0)) < 1:
            raise ValueError(f"{option}={beta} of {type(meta).__name__}: must lie in [0, 1)")


def _check_constants(rule: Rule) -> None:
    """Raises ValueError for a number of the rule that is no hyperparameter and makes no sense."""
    for name in ("clip_norm", "clip_value"):
        value = getattr(rule, name, None)
        if value is not None and not (isinstance(value, Real) and float(value) > 0):
            raise ValueError(f"{name}={value!r}: must be a number above 0, or None for no clipping")
    for name in ("temperature", "epsilon"):
        value = getattr(rule, name, 0)
        if not (isinstance(value, Real) and float(value) >= 0):
            raise ValueError(f"{name}={value!r}: must be a number, 0 or more")


def check_influence(
    influence: str, *, discount: float, limit: float | None, reset_every: int, update_every: int, first_updates: int,
    on_nonfinite: str,
) -> None:  # fmt: skip
    """Raises TypeError or ValueError for a word or a number that the options of the influence do not allow."""
    if influence not in ("exact", "collapsed"):
        raise ValueError(f"influence={influence!r}: allowed are 'exact' and 'collapsed'")
    for name, number in {"discount": discount, "influence_limit": limit or 0}.items():
        if not isinstance(number, Real):
            raise TypeError(f"{name}={number!r}: a number is expected")
    counts = {"reset_every": (reset_every, 0), "update_every": (update_every, 1), "first_updates": (first_updates, 0)}
    for name, (steps, least) in counts.items():
        if not isinstance(steps, Integral):
            raise TypeError(f"{name}={steps!r}: a whole number of steps is expected")
        if steps < least:
            raise ValueError(f"{name}={steps}: must be {least} or more")
    if not 0 <= discount <= 1:
        raise ValueError(f"discount={discount}: must lie in [0, 1]")
    if limit is not None and not limit > 0:
        raise ValueError(f"influence_limit={limit}: must be above 0, or None for no limit")
    if on_nonfinite not in NON_FINITE:
        raise ValueError(f"on_nonfinite={on_nonfinite!r}: allowed are {', '.join(map(repr, NON_FINITE))}")


def curvature_factors(given: float | Mapping[str, float], rule: Rule) -> dict[str, float]:
    """Returns the factors other than 1 by hyperparameter; raises TypeError or ValueError for others than are allowed."""
    factors = given if isinstance(given, Mapping) else dict.fromkeys(rule.names, given)
    _check_names("curvature_factor", factors, rule)
    for name, factor in factors.items():
        if not isinstance(factor, Real):
            raise TypeError(f"curvature_factor={factor!r}: a number, or a mapping from name to number, is expected")
        if not 0 <= factor <= 1:
            raise ValueError(f"curvature_factor={factor} of {name}: must lie in [0, 1]")
    return {name: float(factor) for name, factor in factors.items() if factor != 1}


def first_steps(given: Mapping[str, int] | None, rule: Rule) -> dict[str, int]:
    """Returns the steps by hyperparameter; raises TypeError or ValueError for others than are allowed."""
    if not isinstance(given, Mapping | None):
        raise TypeError(f"tuned_after={given!r}: a mapping from name to steps is expected, such as {{'weight_decay': 400}}")
    found = dict(given or {})
    _check_names("tuned_after", found, rule)
    for name, steps in found.items():
        if not isinstance(steps, Integral):
            raise TypeError(f"tuned_after={steps!r} of {name}: a whole number of steps is expected")
        if steps < 0:
            raise ValueError(f"tuned_after={steps} of {name}: must be 0 or more")
    return found


def _check_names(option: str, given: Iterable[str], rule: Rule) -> None:
    """Raises ValueError for names in an option that no hyperparameter of the rule has."""
    if unknown := [name for name in given if name not in rule.names]:
        raise ValueError(f"{option}: {type(rule).__name__} has no {', '.join(unknown)}; it has {', '.join(rule.names)}")


def noise_generators(
    generator: torch.Generator | Sequence[torch.Generator] | None, rule: Rule, rows: int
) -> list[torch.Generator]:
    """Returns one generator for each member, or none if none was given."""
    if generator is None:
        if rule.temperature != 0:
            raise ValueError("a rule with a temperature draws noise: give OHO(..., generator=torch.Generator())")
        return []
    generators = [generator] if isinstance(generator, torch.Generator) else list(generator)
    if len(generators) != rows:
        raise ValueError(f"generator: {len(generators)} given, one for each of {rows} members is needed")
    return generators


def unknown_name(name: str, names: Iterable[str]) -> str:
    """Returns the message about a name that no hyperparameter has."""
    return f"there is no hyperparameter {name!r}; there are {', '.join(names)}"


class Made:
    """Remembers what the parameters were when the optimizer was made."""

    def __init__(self, parameters: FlatParameters):
        self._parameters = parameters
        self._dtype, self._device = parameters.tensors[0].dtype, parameters.tensors[0].device

    def check(self) -> None:
        """Raises ValueError for parameters that have been converted, moved, frozen or unfrozen since."""
        now = self._parameters.tensors[0]
        if (self._dtype, self._device) != (now.dtype, now.device):
            raise ValueError(
                f"the parameters are {now.dtype} on {now.device}, this optimizer was made for {self._dtype} on"
                f" {self._device}; convert the model first, then make the optimizer"
            )
        if not all(tensor.requires_grad for tensor in self._parameters.tensors):
            pairs = zip(self._parameters.names, self._parameters.tensors, strict=True)
            frozen = ", ".join(repr(name) for name, tensor in pairs if not tensor.requires_grad)
            raise ValueError(
                f"parameters: {frozen} no longer require a gradient; freeze parameters first (requires_grad_(False)), then"
                " make the optimizer, which leaves them out"
            )
        if thawed := [name for name, tensor in self._parameters.frozen if tensor.requires_grad]:
            raise ValueError(
                f"parameters: {', '.join(map(repr, thawed))} require a gradient now, and were left out since they did not"
                " when the optimizer was made; make another optimizer, whose initial values may be `hyper` of this one"
            )
