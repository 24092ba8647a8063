"""Hyperparameter values as a mapping whose entries can be assigned, or as plain numbers.

    symbol  name    shape            meaning
    h       value   (S,) or (M, S)   one value for each set (and member)

Reading a value returns a copy that refuses to be written into: a write into the optimizer's own tensor would evade its
bounds, and a write into a mere copy would have no effect.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map


class Value(Tensor):
    """A copy of a hyperparameter's value.  It and its views cannot be written into; operations return plain tensors."""

    @classmethod
    def __torch_function__(cls, function: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        """PyTorch calls this for each of its functions that is given a `Value`."""
        name = getattr(function, "__name__", "")
        with torch._C.DisableTorchFunctionSubclass():
            if name.startswith("__i") and hasattr(Tensor, f"__{name[3:]}"):
                function = getattr(Tensor, f"__{name[3:]}")  # value *= 2 means value = value * 2
            elif any(isinstance(tensor, cls) for tensor in _written(name, args, kwargs or {})):
                raise TypeError(
                    "a value of optimizer.hyper cannot be written into; assign a whole one, a number or one for each set:"
                    " optimizer.hyper[name] = values"
                )
            memory = {_memory(tensor) for tensor in tree_leaves((args, kwargs)) if isinstance(tensor, cls)}
            args, kwargs = tree_map(_plain, (args, kwargs or {}))
            result = function(*args, **kwargs)
            return tree_map(lambda found: found.as_subclass(cls) if _memory(found) in memory else found, result)


def _written(name: str, args: tuple, kwargs: dict) -> list[Any]:
    """Returns the arguments that a function of this name writes into."""
    in_place = name == "__setitem__" or (name.endswith("_") and not name.endswith("__"))
    return tree_leaves((args[:1] if in_place else (), kwargs.get("out")))


def _plain(given: Any) -> Any:
    return given.as_subclass(Tensor) if type(given) is Value else given


def _memory(given: Any) -> int | None:
    """Returns the address of the memory that holds a tensor's values, which its views share."""
    return given.untyped_storage().data_ptr() if isinstance(given, Tensor) else None


class HyperView(Mapping[str, Tensor]):
    """Values by name, as they are now; `view[name] = value` sets the optimizer's own, within its bounds."""

    def __init__(self, values: Callable[[], Mapping[str, Tensor]], assign: Callable[[str, Any], None]):
        self._values, self._assign = values, assign

    def __getitem__(self, name: str) -> Tensor:
        """Returns a copy of the value of one hyperparameter."""
        return self._values()[name].clone().as_subclass(Value)

    def __setitem__(self, name: str, value: float | Tensor | Mapping[Hashable, float]) -> None:
        """Sets one hyperparameter: to a number for all sets, to one for each set, or to numbers by label for some sets."""
        self._assign(name, value)

    def __iter__(self) -> Iterator[str]:
        """Yields names in the rule's order."""
        return iter(self._values())

    def __len__(self) -> int:
        """Returns the number of hyperparameters, tuned or not."""
        return len(self._values())

    def __repr__(self) -> str:
        """Shows the values as lists."""
        return repr({name: value.tolist() for name, value in self._values().items()})


def flat_values(groups: Iterable[Mapping[str, Any]], names: Iterable[str]) -> dict[str, float]:
    """Returns the values of shown groups as one mapping, {"lr/head": 0.1}, or {"lr/head/0": 0.1, ...} with members."""
    found: dict[str, float] = {}
    for group, name in itertools.product(groups, tuple(names)):
        key, value = f"{name}/{group['name']}", group[name]
        of_members = enumerate(value) if isinstance(value, list) else ()
        found |= {f"{key}/{member}": number for member, number in of_members} or {key: float(value)}
    return found
