"""Parameter groups, as torch.optim knows them: what a user gives, and the `param_groups` that an optimizer shows.

Given, a group is a mapping with "params" and, if they differ from the rule's, its own initial values, "tune" and "name".
A value that a group gives as 0 stays 0, unless the group's own "tune" names it, since programs write {"params": biases,
"weight_decay": 0.0} to say that biases do not decay.
Shown, a group is one set: its parameters, its values as plain numbers, its "tune" and its "name".
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor

from oho.flat_parameters import FlatParameters, Given
from oho.rules import Rule
from oho.sets import SetMap


@dataclass(frozen=True)
class GivenGroup:
    """A group as it was given: its own `values` by hyperparameter, what it tunes, and its parameters."""

    name: str
    values: dict[str, float | Tensor]
    tune: tuple[str, ...]
    parameters: list[Any] = field(repr=False)
    """Tensors, or pairs of a name and a tensor."""


def given_groups(parameters: Given | Iterable[dict[str, Any]], rule: Rule) -> list[GivenGroup]:
    """Returns the groups that were given, or one with all parameters and the rule's own values.

    Raises:
        TypeError, ValueError: for a mixture of groups and parameters, or a group with unknown entries.
    """
    if isinstance(parameters, Tensor):
        raise TypeError("parameters: a tensor was given; give model.parameters() or a list of tensors")
    if not isinstance(parameters, Iterable):
        raise TypeError(f"parameters: a {type(parameters).__name__} was given; give model.parameters(), called, or groups")
    given = list(parameters)
    mappings = [isinstance(item, Mapping) for item in given]
    if not any(mappings):
        return [GivenGroup("global", {}, rule.tune, given)]
    if not all(mappings):
        raise TypeError("parameters: groups and single parameters were given together; give one or the other")
    groups = [_group(place, item, rule) for place, item in enumerate(given)]  # type: ignore[arg-type]
    names = [group.name for group in groups]
    if repeated := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"parameters: several groups are called {', '.join(repeated)}")
    return groups


def _group(place: int, given: Mapping[str, Any], rule: Rule) -> GivenGroup:
    allowed = ("params", *rule.names, "tune", "name")
    listed = ", ".join(map(repr, allowed))
    if "params" not in given:
        raise ValueError(f"parameters: group {place} has no 'params'; a group may have {listed}")
    if unknown := [key for key in given if key not in allowed]:
        names = ", ".join(map(repr, unknown))
        raise ValueError(f"parameters: group {place} has {names}; allowed are {listed}")
    parameters, tune = given["params"], given.get("tune", rule.tune)
    if isinstance(tune, str) or not isinstance(tune, Iterable):
        raise TypeError(f"parameters: tune={tune!r} of group {place}: a tuple of names is expected, such as ('lr',)")
    if unknown := [name for name in tune if name not in rule.names]:
        kind, names = type(rule).__name__, ", ".join(rule.names)
        raise ValueError(f"parameters: tune of group {place}: {kind} has no {', '.join(unknown)}; it has {names}")
    values = {name: given[name] for name in rule.names if name in given}
    for name, value in values.items():
        if not isinstance(value, int | float | Tensor):
            raise TypeError(f"parameters: {name}={value!r} of group {place}: a number is expected")
    if "tune" not in given:
        tune = [name for name in tune if not _is_zero(values.get(name))]
    parameters = [parameters] if isinstance(parameters, Tensor) else list(parameters)
    return GivenGroup(str(given.get("name", f"group{place}")), values, tuple(tune), parameters)


def _is_zero(value: float | Tensor | None) -> bool:
    return isinstance(value, int | float) and value == 0


def groups_of_tensors(groups: Sequence[GivenGroup], flat: FlatParameters) -> list[GivenGroup]:
    """Returns the group of each tensor of `flat`, which leaves frozen ones out."""
    tensors = ((item[1] if isinstance(item, tuple) else item, group) for group in groups for item in group.parameters)
    found = {id(tensor): group for tensor, group in tensors}
    return [found[id(tensor)] for tensor in flat.tensors]


def groups_of_sets(set_map: SetMap, of_tensors: Sequence[GivenGroup]) -> list[GivenGroup]:
    """Returns the group of each set.

    Raises:
        ValueError: for a set with parameters of two groups, or two sets that would be shown under one name.
    """
    found: dict[int, GivenGroup] = {}
    for index, group in zip(set_map.of_tensor, of_tensors, strict=True):
        if found.setdefault(index, group) is not group:
            both = f"{found[index].name!r} and {group.name!r}"
            raise ValueError(f"sets: set {set_map.labels[index]!r} has parameters of groups {both}; a set lies in one")
    names = [name_of(label) for label in set_map.labels]
    if repeated := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"sets: several sets would be shown as {', '.join(repeated)}; give them other labels")
    return [found[index] for index in range(set_map.count)]


def tuned_by_any(rule: Rule, groups: Sequence[GivenGroup]) -> Rule:
    """Returns the rule itself if all groups tune what it tunes, else one that tunes whatever some group tunes."""
    if all(group.tune == rule.tune for group in groups):
        return rule
    return replace(rule, tune=tuple(name for name in rule.names if any(name in group.tune for group in groups)))  # type: ignore[type-var]


class ParameterGroup(dict[str, Any]):
    """One set of an optimizer, with the values of the hyperparameters `names`.

    Tuned values cannot be written here; others can, and `assign` passes them to the optimizer.  `refresh` is called before
    values are read, so that a step need not wait for its device to show them.
    """

    def __init__(
        self,
        entries: Mapping[str, Any],
        names: Iterable[str],
        *,
        assign: Callable[[str, Any], None],
        refresh: Callable[[], None],
    ):
        super().__init__(entries)
        self._names, self.assign, self._refresh = tuple(names), assign, refresh

    def __getitem__(self, key: str) -> Any:
        """Returns an entry as it is now."""
        if key in self._names:
            self._refresh()
        return super().__getitem__(key)

    def get(self, key: str, default: Any = None) -> Any:
        """Returns an entry, or the default where there is none."""
        try:
            return self[key]
        except KeyError:
            return default

    def __iter__(self) -> Iterator[str]:
        """Yields the keys.  This method makes `dict(group)` copy entry by entry, and so refresh them."""
        return super().__iter__()

    def values(self) -> Any:
        """Returns the entries as they are now."""
        self._refresh()
        return super().values()

    def items(self) -> Any:
        """Returns keys and entries as they are now."""
        self._refresh()
        return super().items()

    def copy(self) -> dict[str, Any]:
        """Returns a plain mapping with the entries as they are now."""
        return dict(self)

    def __repr__(self) -> str:
        self._refresh()
        return super().__repr__()

    def __eq__(self, other: object) -> bool:
        """Compares the entries as they are now."""
        return dict(self) == other

    def __setitem__(self, key: str, value: Any) -> None:
        """Sets a value that is not tuned, or an entry that belongs to someone else, such as a scheduler.

        Raises:
            ValueError: for a tuned value, one that is not finite, or an entry that is fixed.
        """
        group, tune = f"param_groups entry {self['name']!r}", self["tune"]
        if key in ("params", "tune", "name"):
            raise ValueError(f"{group}: {key!r} is fixed when the optimizer is made; make a new one")
        if key in tune or (key == "initial_lr" and "lr" in tune):
            name = "lr" if key == "initial_lr" else key
            raise ValueError(
                f"{group}: {name} follows its hypergradient, which takes a scheduler's place; to schedule it, leave"
                f" {name!r} out of tune; to set it once, assign optimizer.hyper[{name!r}]"
            )
        if key in self._names:
            self.assign(key, value)
        else:
            super().__setitem__(key, value)

    def setdefault(self, key: str, default: Any = None) -> Any:
        """Returns the entry, set to `default` first if there is none."""
        if key not in self:
            self[key] = default
        return self[key]

    def update(self, *entries: Any, **named: Any) -> None:
        """Sets entries one by one."""
        for key, value in dict(*entries, **named).items():
            self[key] = value

    def __ior__(self, entries: Any) -> ParameterGroup:  # type: ignore[override, misc]
        self.update(entries)
        return self

    def show(self, name: str, value: Any) -> None:
        """Takes the present value from the optimizer."""
        super().__setitem__(name, value)

    def __reduce__(self) -> tuple[type, tuple[dict[str, Any]]]:
        """Copies and pickles as a plain mapping, which the copied optimizer wraps again."""
        return dict, (dict(self),)


def shown_groups(set_map: SetMap, groups: Sequence[GivenGroup], flat: FlatParameters) -> list[dict[str, Any]]:
    """Returns the entries of `param_groups` for each set, without the values; `groups` has the group of each set."""
    tensors: list[list[Tensor]] = [[] for _ in groups]
    for index, tensor in zip(set_map.of_tensor, flat.tensors, strict=True):
        tensors[index].append(tensor)
    shown = zip(tensors, set_map.labels, groups, strict=True)
    return [{"params": own, "name": name_of(label), "tune": group.tune} for own, label, group in shown]


def name_of(label: Hashable) -> str:
    """Returns a set's label as a text; the parts of a tuple are joined by dots."""
    return ".".join(map(str, label)) if isinstance(label, tuple) else str(label)
