"""Hyperparameter values as a mapping whose entries can be assigned.

symbol  name    shape            meaning
h       value   (S,) or (M, S)   one value a set (and member)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from torch import Tensor


class HyperView(Mapping[str, Tensor]):
    """Values by name, as they are now; `view[name] = value` sets the optimizer's own, within its bounds."""

    def __init__(self, values: dict[str, Tensor], assign: Callable[[str, float | Tensor], None]):
        self._values, self._assign = values, assign

    def __getitem__(self, name: str) -> Tensor:
        """The value of one hyperparameter."""
        return self._values[name]

    def __setitem__(self, name: str, value: float | Tensor) -> None:
        """Sets one hyperparameter: a number for all sets, or one value a set."""
        self._assign(name, value)

    def __iter__(self) -> Iterator[str]:
        """Names in the rule's order."""
        return iter(self._values)

    def __len__(self) -> int:
        """Number of hyperparameters, tuned or not."""
        return len(self._values)

    def __repr__(self) -> str:
        """The values as lists."""
        return repr({name: value.tolist() for name, value in self._values.items()})
