"""The values of hyperparameters, those of the rule and those of the loss, and how meta-steps move them.

    symbol  name            shape    meaning
    M       members         ()       independent trainings side by side
    S       sets            ()       values a hyperparameter of the rule has
    V       components      ()       values a hyperparameter of the loss has; for it, read V in place of S
    h       values          (M, S)   by name, tuned or not
    d       hypergradients  (M, S)   by tuned name
"""

from __future__ import annotations

import copy
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from oho.argument_checks import unknown_name
from oho.bounds import admit, check_finite, check_fixed, coordinate_of
from oho.loss_hyper import ONE_STEP_ABOVE, LossHyper
from oho.meta import Memory, MetaRule, meta_step, moved_alike
from oho.rules import Rule
from oho.saved_state import copied, load_tensors, put

Given = float | Tensor | Mapping[Hashable, float]
"""A value from outside: a number, (S,), (M, S), or numbers by the set's label."""


class Tuning:
    """`values`, the last `hypergradients`, and the meta-rule's memory.

    `labels` name the S sets, `tuned` has the sets in which each hyperparameter is tuned, `own` the initial values that each
    set has instead of the rule's, and `loss` the hyperparameters of the loss, whose components are named 0, 1, ... V − 1.
    """

    def __init__(
        self,
        rule: Rule,
        meta: MetaRule,
        *,
        members: int | None,
        labels: Sequence[Hashable],
        tuned: Mapping[str, Sequence[int]],
        own: Sequence[Mapping[str, float | Tensor]],
        like: Tensor,
        loss: LossHyper | None = None,
    ):
        self.rule, self.meta, self._loss = rule, meta, loss
        self._members, self._rows = members, members or 1
        self._labels: dict[str, tuple[Hashable, ...]] = dict.fromkeys(rule.names, tuple(labels))
        self._labels |= {} if loss is None else {name: tuple(range(size)) for name, size in loss.sizes.items()}
        self.tuned = (*rule.tune, *(() if loss is None else loss.tune))
        self._coordinates = {name: coordinate_of(meta, name) for name in self.tuned}
        self._partly = {
            name: torch.tensor([index in sets for index in range(len(labels))], device=like.device)
            for name, sets in tuned.items()
            if len(sets) < len(labels)
        }
        self.values = {name: self._initial(name, own, like) for name in rule.names}
        if loss is not None:
            self.values |= {name: self._admitted(name, value, like) for name, value in loss.values.items()}
        self.hypergradients = {name: torch.full_like(self.values[name], torch.nan) for name in self.tuned}
        # The coordinates of a group are moved together: few large operations are faster than many small ones.
        self._groups = moved_alike(meta, self._coordinates)
        self._memory: dict[tuple[str, ...], Memory] = {names: {} for names in self._groups}

    def assign(self, name: str, value: Given) -> None:
        """Sets a hyperparameter to a number, to (S,), to (M, S), or to numbers by label for some sets.

        Raises:
            ValueError: for a name the rule lacks, a label that no set has, a shape that does not fit, a value that is not
                finite, or a tuned one outside its bounds.
        """
        if name not in self.values:
            raise ValueError(unknown_name(name, self.values))
        present = self.values[name]
        if isinstance(value, Mapping):
            value = self._by_label(name, value, present.clone())
        present.copy_(self._admitted(name, value, present))

    def assign_set(self, index: int, name: str, value: float | Sequence[float]) -> None:
        """Sets a hyperparameter of one set to a number, or to one for each member.  Raises as `assign`."""
        values = self.values[name].clone()
        _put(name, value, values, index)
        self.assign(name, values)

    def labels_of(self, name: str) -> tuple[Hashable, ...]:
        """Returns the labels of the sets or, for a hyperparameter of the loss, the places of its components."""
        return self._labels[name]

    def shown(self, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Returns values (M, S) as users see them: (S,) without members, and no last axis for a number of the loss."""
        found = {name: value[0] if self._members is None else value for name, value in values.items()}
        return {name: value[..., 0] if self._is_number(name) else value for name, value in found.items()}

    def _is_number(self, name: str) -> bool:
        return self._loss is not None and name in self._loss.names and self._loss.is_number(name)

    def numbers(self, name: str) -> list[Any]:
        """Returns a hyperparameter's value in each set: a number, or with members a list of them."""
        values = self.values[name]
        return values[0].tolist() if self._members is None else values.T.tolist()

    def flat_of_loss(self) -> dict[str, float]:
        """Returns the loss's values as plain numbers by name, component and member; of a long vector, mean, min and max."""
        loss = self._loss
        found: dict[str, float] = {}
        for name, value in self.shown({} if loss is None else {name: self.values[name] for name in loss.names}).items():
            if len(self._labels[name]) > ONE_STEP_ABOVE:
                value = torch.stack([value.mean(-1), value.amin(-1), value.amax(-1)])
                keys = [f"{name}/{what}" for what in ("mean", "min", "max")]
            else:
                keys = [name] if self._is_number(name) else [f"{name}/{place}" for place in self._labels[name]]
                value = value.unsqueeze(0) if self._is_number(name) else value.movedim(-1, 0)
            for key, entry in zip(keys, value.tolist(), strict=True):
                of_members = enumerate(entry) if isinstance(entry, list) else ()
                found |= {f"{key}/{member}": number for member, number in of_members} or {key: entry}
        return found

    def step(self, hypergradients: dict[str, Tensor], *, hostless: bool) -> Tensor:
        """Makes a step of the meta-rule for each member for which all of it is finite; returns which these are, (M,).

        `Recursion` says what `hostless` means.
        """
        watched, values, memories = list(hypergradients.values()), dict[str, Tensor](), dict[tuple[str, ...], Memory]()
        for names, memory in self._memory.items():
            moved, memories[names] = meta_step(
                self.meta, names[0], _joined(self.values, names), _joined(hypergradients, names), memory,
                coordinate=self._coordinates[names[0]],
            )  # fmt: skip
            parts = self._parts(moved, names)
            values |= zip(names, parts if hostless or len(parts) == 1 else map(torch.clone, parts), strict=True)
        shown = hypergradients
        for name, mask in self._partly.items():
            shown = shown | {name: hypergradients[name].where(mask, torch.nan)}
            values[name] = values[name].where(mask, self.values[name])
        watched += values.values()
        # The largest magnitude in one pass: isfinite() alone takes four on a GPU.
        finite = torch.linalg.vector_norm(torch.cat(watched, dim=-1), ord=torch.inf, dim=-1, keepdim=True) < torch.inf
        if hostless or not bool(finite.all()):
            values = {name: torch.where(finite, value, self.values[name]) for name, value in values.items()}
            memories = {names: _where(finite, memory, self._memory[names]) for names, memory in memories.items()}
        put(self.hypergradients, shown, in_place=hostless)
        put(self.values, values, in_place=hostless)
        for names, memory in memories.items():
            put(self._memory[names], memory, in_place=hostless)
        return finite[:, 0]

    def state(self) -> dict[str, Any]:
        """Returns copies of everything."""
        return {
            "hyper": copied(self.values),
            "hypergradient": copied(self.hypergradients),
            "memory": self._memory_by_name(),
        }

    def loaded(self, state: dict[str, Any], device: torch.device) -> Tuning:
        """Returns a `Tuning` of the same kind with what `state` holds.

        Raises:
            ValueError: for names, shapes, dtypes or a memory of another rule or meta-rule.
        """
        other = copy.copy(self)
        other.values = load_tensors("hyper", state, self.values, device)
        other.hypergradients = load_tensors("hypergradient", state, self.hypergradients, device)
        other._memory = self._loaded_memory(state, device)
        return other

    def _memory_by_name(self) -> dict[str, Memory]:
        """Returns copies of each hyperparameter's part of its group's memory, in the order of `tuned`."""
        found: dict[str, Memory] = {name: {} for name in self.tuned}
        for names, memory in self._memory.items():
            for key, entry in memory.items():
                for name, part in zip(names, self._parts(entry, names), strict=True):
                    found[name][key] = part.clone()
        return found

    def _parts(self, joined: Tensor, names: Sequence[str]) -> Sequence[Tensor]:
        """Inverts `_joined` for tensors that are shaped like the values."""
        return [joined] if len(names) == 1 else joined.split([self.values[name].shape[-1] for name in names], dim=-1)

    def _loaded_memory(self, state: dict[str, Any], device: torch.device) -> dict[tuple[str, ...], Memory]:
        """Returns the meta-rule's memory, whose keys are those that the rule writes, or none before its first step."""
        if set(state["memory"]) != set(self.tuned):
            raise ValueError(f"state: memory of {sorted(state['memory'])}, this optimizer tunes {self.tuned}")
        memory = {name: copied(entries, device) for name, entries in state["memory"].items()}
        found: dict[tuple[str, ...], Memory] = {names: {} for names in self._groups}
        for name, hypergradient in self.hypergradients.items():
            _, expected = self.meta.step(name, torch.zeros_like(hypergradient), {})
            if memory[name] and set(memory[name]) != set(expected):
                kind, theirs = type(self.meta).__name__, ", ".join(memory[name])
                raise ValueError(f"state: the meta-rule's memory of {name} has {theirs}, {kind} keeps {sorted(expected)}")
            memory[name] = memory[name] or {key: torch.zeros_like(entry) for key, entry in expected.items()}
        for names in self._groups:
            if any(state["memory"][name] for name in names):
                keys = memory[names[0]]
                found[names] = {key: _joined({name: memory[name][key] for name in names}, names) for key in keys}
        return found

    def _initial(self, name: str, own: Sequence[Mapping[str, float | Tensor]], like: Tensor) -> Tensor:
        """Returns the initial values (M, S): the rule's, except in sets that have their own."""
        value: Given = getattr(self.rule, name)
        if isinstance(value, Mapping):
            labels = self._labels[name]
            if missing := [label for label in labels if label not in value]:
                raise ValueError(f"{name}: no value is given for set {', '.join(map(repr, missing))}")
            value = self._by_label(name, value, like.new_zeros(self._rows, len(labels)))
        elif self._members is not None and isinstance(value, Tensor) and value.shape == (self._members,):
            value = value.unsqueeze(-1)  # its one axis is the members'
        if any(name in values for values in own):
            value = self._shaped(name, value, like)
            for index, values in enumerate(own):
                if name in values:
                    _put(name, values[name], value, index)
        return self._admitted(name, value, like)

    def _by_label(self, name: str, given: Mapping[Hashable, float], values: Tensor) -> Tensor:
        """Writes what was given for some sets into `values` (M, S), and returns them."""
        labels = self._labels[name]
        check_labels(name, given, labels)
        for label, value in given.items():
            _put(name, value, values, labels.index(label))
        return values

    def _admitted(self, name: str, value: float | Tensor, like: Tensor) -> Tensor:
        """Returns (M, S) of `like`'s dtype and device, checked to be finite and, where it is tuned, within the bounds."""
        values = self._shaped(name, value, like)
        if name in self._partly:
            mask = self._partly[name]
            values[:, mask] = admit(self.meta, name, values[:, mask])
            check_fixed(name, values[:, ~mask])
            return values
        if name in self.tuned:
            return admit(self.meta, name, values)
        check_fixed(name, values)
        return values

    def _shaped(self, name: str, value: float | Tensor, like: Tensor) -> Tensor:
        """Returns a copy of (M, S) of `like`'s dtype and device, checked to be finite."""
        try:
            given = torch.as_tensor(value, dtype=like.dtype).detach()
        except (TypeError, ValueError, RuntimeError):
            raise TypeError(f"{name}={value!r}: a number is expected, or one for each set") from None
        check_finite(name, given)  # where it is: a GPU is not waited for
        if self._is_number(name) and given.ndim == 1:
            given = given.unsqueeze(-1)  # its one axis is the members'
        fitting = (self._rows, len(self._labels[name]))
        try:
            return given.to(like.device).expand(fitting).clone()
        except RuntimeError:
            shape, what = tuple(given.shape), "sets" if name in self.rule.names else "components"
            raise ValueError(f"{name}: shape {shape} does not fit (members, {what}) = {fitting}") from None


def _joined(tensors: Mapping[str, Tensor], names: Sequence[str]) -> Tensor:
    """Returns the tensors of these names side by side: (M, S) of one name, else (M, the sum of their S)."""
    return tensors[names[0]] if len(names) == 1 else torch.cat([tensors[name] for name in names], dim=-1)


def _where(finite: Tensor, memory: Memory, before: Memory) -> Memory:
    """Returns a group's next memory for members whose step is `finite` (M, 1); for others that of before, or zeros."""
    return {key: torch.where(finite, entry, before.get(key, 0)) for key, entry in memory.items()}


def check_labels(name: str, given: Iterable[Hashable], labels: Sequence[Hashable]) -> None:
    """Raises ValueError for a label that no set has."""
    if unknown := [label for label in given if label not in labels]:
        sets = ", ".join(map(repr, labels))
        raise ValueError(f"{name}: there is no set {', '.join(map(repr, unknown))}; there are {sets}")


def _put(name: str, value: Any, values: Tensor, index: int) -> None:
    """Writes the value of one set, a number or one for each member, into `values` (M, S)."""
    try:
        values[:, index] = torch.as_tensor(value, dtype=values.dtype, device=values.device)
    except (TypeError, ValueError, RuntimeError):
        expected = "a number" if len(values) == 1 else f"a number, or one for each of {len(values)} members,"
        raise ValueError(f"{name}={value!r}: {expected} is expected for a set") from None
