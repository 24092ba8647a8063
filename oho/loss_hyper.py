"""Hyperparameters of the training loss: what a user gives, and the tensors that training closures compute with.

    symbol  name        shape              meaning
    M       members     ()                 independent trainings side by side; 1 without a population
    V       components  ()                 entries of one hyperparameter; 1 for a number
    h       value       (M, V)             one hyperparameter of the loss
            argument    () or (V,)         the same value as closures are given it; (M,) or (M, V) with members
    N       size        ()                 tuned elements of one member
    C       columns     ()                 components of all tuned hyperparameters
    θ, h    extended    (M, N + C)         parameters and, behind them, what is tuned of the loss
    Z, E    directions  (K, M, N + C)      influence and, behind it, dh/dh: 1 where a row's component is, else 0

The loss is a function of θ and h alike.  Its Hessian with respect to both, times (Z, E), is H Z + ∂g/∂h E in the first N
columns: the change of the gradient along each row.  So h simply lies beside the parameters, and no engine knows of it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import is_dataclass, replace
from typing import Any

import torch
from torch import Tensor

from oho.bounds import Bounds, transform_of
from oho.flat_parameters import FlatParameters
from oho.meta import MetaRule, PerName
from oho.rules import Rule

ONE_STEP_ABOVE = 32
"""The number of components above which a vector is tuned by its one-step hypergradient: each row of an influence costs the
memory of the parameters and, in each step, the time of a product."""
NOT_A_NUMBER = "must be float, not Tensor"
"""Part of PyTorch's message where a function takes a hyperparameter as a plain number."""
OPTIONS = ("rate", "transform", "bounds")


class LossHyper:
    """Hyperparameters of the training loss, by name: `oho.OHO(..., loss=oho.LossHyper(label_smoothing=0.1))`.

    Training closures then take one argument, a mapping from name to tensor, with respect to which the loss is
    differentiated: `lambda h: oho.losses.cross_entropy(model(x), y, label_smoothing=h["label_smoothing"])`.  Validation
    closures take no argument.

    Args:
        tune: the names of those that are tuned, by default all.  The others keep their values until someone assigns others.
        one_step: which are tuned by the derivative through the last step alone, as if the discount were 0: True (all),
            False (none), or names.  A meta-step then costs one gradient and one product more, however many components there
            are; all other hyperparameters have a row of the influence for each component.  None is those with more than
            ONE_STEP_ABOVE components.
        rate: their meta-rates, a number or a mapping by name, in place of the meta-rule's.
        transform: their transforms, "raw", "log" or "logit" or a mapping by name, in place of the meta-rule's.
        bounds: their bounds, a mapping from name to (low, high), in place of the meta-rule's.
        values: initial values by name: numbers or vectors (V,); with members, also (M, V).

    Raises:
        TypeError, ValueError: for a value of another kind, or a name that has no value.
    """

    def __init__(
        self,
        *,
        tune: Sequence[str] | None = None,
        one_step: bool | Sequence[str] | None = None,
        rate: PerName | None = None,
        transform: str | Mapping[str, str] | None = None,
        bounds: Mapping[str, Bounds] | None = None,
        **values: float | Tensor,
    ):
        if not values:
            raise ValueError("LossHyper: no hyperparameter was given; give names and values, such as label_smoothing=0.1")
        self.values = {name: _value(name, value) for name, value in values.items()}
        self.tune = self._names("tune", tuple(values) if tune is None else tune)
        self.one_step = self._names("one_step", self._one_step(one_step))
        if fixed := [name for name in self.one_step if name not in self.tune]:
            raise ValueError(f"LossHyper: one_step: {', '.join(fixed)} is not tuned; name it in tune, or leave it out here")
        self.rate, self.transform, self.bounds = rate, transform, dict(bounds or {})
        for option in OPTIONS:
            if isinstance(given := getattr(self, option), Mapping):
                self._names(option, tuple(given))

    def __repr__(self) -> str:
        few = {name: value.tolist() if value.numel() < 5 else "..." for name, value in self.values.items()}
        return f"LossHyper({', '.join(f'{name}={value}' for name, value in few.items())})"

    @property
    def names(self) -> tuple[str, ...]:
        """All names."""
        return tuple(self.values)

    @property
    def sizes(self) -> dict[str, int]:
        """V by name."""
        return {name: value.shape[-1] if value.ndim else 1 for name, value in self.values.items()}

    @property
    def recurrent(self) -> dict[str, int]:
        """V by name, for those that have rows of the influence."""
        return {name: self.sizes[name] for name in self.tune if name not in self.one_step}

    def is_number(self, name: str) -> bool:
        """Returns whether a hyperparameter is a number, and not a vector."""
        return self.values[name].ndim == 0

    def check(self, rule: Rule) -> None:
        """Raises ValueError for a name that the update rule has too."""
        if shared := [name for name in self.names if name in rule.names]:
            kind = type(rule).__name__
            raise ValueError(f"loss: {', '.join(shared)} is a hyperparameter of {kind}; give that of the loss another name")

    def applied_to(self, meta: MetaRule, rule: Rule) -> MetaRule:
        """Returns the meta-rule with the options that were given here.

        Raises:
            TypeError: for options given here while the meta-rule is no dataclass.
        """
        changed: dict[str, Any] = {}
        if self.rate is not None:
            theirs = meta.rate if isinstance(meta.rate, Mapping) else dict.fromkeys((*rule.tune, *self.names), meta.rate)
            changed["rate"] = {**theirs, **_by_name(self.rate, self.names)}
        if self.transform is not None:
            kinds = {name: transform_of(meta, name) for name in (*rule.names, *self.names)}
            changed["transform"] = {**kinds, **_by_name(self.transform, self.names)}
        if self.bounds:
            changed["bounds"] = {**meta.bounds, **self.bounds}
        if changed and not is_dataclass(meta):
            raise TypeError(f"loss: {', '.join(changed)}: {type(meta).__name__} is no dataclass; give them to it instead")
        return replace(meta, **changed) if changed else meta  # type: ignore[type-var]

    def _one_step(self, asked: bool | Sequence[str] | None) -> Sequence[str]:
        if asked is None:
            return [name for name in self.tune if self.sizes[name] > ONE_STEP_ABOVE]
        return (self.tune if asked else ()) if isinstance(asked, bool) else asked

    def _names(self, option: str, names: Sequence[str]) -> tuple[str, ...]:
        if isinstance(names, str):
            raise TypeError(f"LossHyper: {option}={names!r}: a tuple of names is expected, such as ({names!r},)")
        if unknown := [name for name in names if name not in self.values]:
            there = ", ".join(self.names)
            raise ValueError(f"LossHyper: {option}: there is no {', '.join(map(str, unknown))}; there are {there}")
        return tuple(dict.fromkeys(names))


def _value(name: str, given: Any) -> Tensor:
    if isinstance(given, bool) or not isinstance(given, int | float | Tensor):
        raise TypeError(f"LossHyper: {name}={given!r}: a number or a tensor of one axis is expected")
    value = given.detach() if isinstance(given, Tensor) else torch.tensor(given, dtype=torch.float64)
    if value.ndim > 2 or not value.numel() or value.is_complex():
        raise ValueError(
            f"LossHyper: {name} has shape {tuple(value.shape)} and type {value.dtype}; allowed are real numbers: one, (V,)"
            " or, with members, (M, V)"
        )
    return value


def _by_name(given: Any, names: Sequence[str]) -> Mapping[str, Any]:
    return given if isinstance(given, Mapping) else dict.fromkeys(names, given)


def _spans(names: Sequence[str], sizes: Mapping[str, int]) -> dict[str, slice]:
    found, stop = {}, 0
    for name in names:
        start, stop = stop, stop + sizes[name]
        found[name] = slice(start, stop)
    return found


class Arguments(dict[str, Tensor]):
    """The hyperparameters of the loss by name, as a training closure is given them."""

    def __missing__(self, name: str) -> Tensor:
        raise KeyError(f"the loss has no hyperparameter {name!r}; it has {', '.join(self)}")


class LossArguments:
    """The tensors that closures are `given`, and the parameters `extended` by those that are tuned.

    `spans` has the columns of each tuned name, counted behind the parameters; `rows` is the number of their rows of the
    influence, and `columns` is C.
    """

    def __init__(self, loss: LossHyper | None, parameters: FlatParameters):
        self._parameters, first = parameters, parameters.tensors[0]
        self.loss = loss
        self.given = Arguments()
        sizes = {} if loss is None else loss.sizes
        for name, size in sizes.items():
            lead = () if parameters.members is None else (parameters.members,)
            shape = lead if loss is not None and loss.is_number(name) else (*lead, size)
            self.given[name] = torch.zeros(shape, dtype=first.dtype, device=first.device)
        self.tuned = () if loss is None else loss.tune
        for name in self.tuned:
            self.given[name].requires_grad_()
        self.spans = _spans(self.tuned, sizes)
        self.columns = sum(sizes[name] for name in self.tuned)
        recurrent = [] if loss is None else [self.spans[name] for name in loss.recurrent]
        rows = [column for span in recurrent for column in range(span.start, span.stop)]
        self.rows = len(rows)
        self._units = torch.zeros(self.rows, self.columns)  # (rows, C), a one in each row
        self._units[range(self.rows), rows] = 1
        self.extended = parameters if not self.tuned else replace(
            parameters,
            names=(*parameters.names, *(f"h[{name!r}]" for name in self.tuned)),
            tensors=(*parameters.tensors, *(self.given[name] for name in self.tuned)),
            sizes=(*parameters.sizes, *(sizes[name] for name in self.tuned)),
        )  # fmt: skip

    def bound(self, closure: Callable[..., Tensor]) -> Callable[[], Tensor]:
        """Returns the closure with its argument, if the loss has hyperparameters."""
        return closure if self.loss is None else lambda: self._call(closure)

    def _call(self, closure: Callable[..., Tensor]) -> Tensor:
        try:
            return closure(self.given)
        except TypeError as error:
            if NOT_A_NUMBER not in str(error):
                raise
            raise TypeError(
                f"{error}: PyTorch takes it as a plain number, in which its loss has no derivative; write the loss with the"
                " tensor itself, as oho.losses.cross_entropy does"
            ) from error

    @torch.no_grad()
    def set(self, values: Mapping[str, Tensor]) -> None:
        """Writes values (M, V) into the arguments."""
        for name, argument in self.given.items():
            argument.copy_(values[name].view_as(argument))

    def directions(self, tangents: Tensor, *, scale: float) -> Tensor:
        """Returns (Z, E / scale), (K, M, N + C), for an influence Z (K, M, N) whose last rows are those of the loss."""
        units = tangents.new_zeros(*tangents.shape[:2], self.columns)
        if self.rows:
            own = self._units.to(tangents).unsqueeze(1) / scale
            units[-self.rows :] = own.expand(-1, tangents.shape[1], -1)
        return torch.cat([tangents, units], -1)
