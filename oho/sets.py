"""Sets: which parameter tensors share one hyperparameter value.  Rule and influence use one and the same map.

    symbol  name     shape     meaning
    S       sets     ()        number of distinct values of a hyperparameter
    N       size     ()        tuned elements of one member
    M       members  ()        independent trainings side by side
    h       values   (..., S)  one value for each set
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from oho.flat_parameters import FlatParameters


@dataclass(frozen=True)
class Layerwise:
    """Cuts the layers, in depth order, into `groups` groups with two sets each: their weights and their biases.

    A layer is a weight (two or more axes) and the tensors with fewer axes that follow it before the next weight, in the
    order in which the parameters were given, such as a convolution with the scale and shift of its norm.  Groups are
    contiguous and as equal as possible.  Sets are ordered [weights of group 0, biases of group 0, weights of group 1, ...],
    without those that would be empty.  `OHO` raises ValueError for fewer than 1 group, or more groups than layers.
"""

    groups: int


Sets = str | Layerwise | Mapping[str, Hashable] | Callable[[str], Hashable]
"""What shares one value: "global", "full", `Layerwise(n)`, or a map (mapping or function) from parameter name to label."""


@dataclass(frozen=True)
class SetMap:
    """`of_tensor[i]` is the set of parameter tensor i, `sizes[i]` its number of elements, `labels[s]` the label of set s.

    The label of a set is "global", the name of its parameter ("full"), (group, "weight" or "bias") (`Layerwise`), or what
    the user's own map returns; then sets are in the order of first appearance.
    """

    of_tensor: tuple[int, ...]
    sizes: tuple[int, ...]
    labels: tuple[Hashable, ...]

    @property
    def count(self) -> int:
        """S."""
        return len(self.labels)

    @cached_property
    def segments(self) -> tuple[tuple[slice, int], ...]:
        """Runs of columns that share one value, with its set; together all N columns in order."""
        found: list[tuple[slice, int]] = []
        stop = 0
        for index, size in zip(self.of_tensor, self.sizes, strict=True):
            start, stop = stop, stop + size
            if found and found[-1][1] == index:
                start = found.pop()[0].start
            found.append((slice(start, stop), index))
        return tuple(found)

    def spread(self, values: Tensor) -> Tensor:
        """Spreads the values of sets (M, S) over columns (M, N)."""
        widths = ((index, columns.stop - columns.start) for columns, index in self.segments)
        return torch.cat([values[:, s : s + 1].expand(-1, width) for s, width in widths], dim=-1)

    def collect(self, tangents: Tensor, vector: Tensor) -> Tensor:
        """Returns tangents (K, M, N) times a vector (M, N), summed over the elements of each set: (M, K, S)."""
        rows, column = tangents.transpose(0, 1), vector.unsqueeze(-1)
        sums = [torch.matmul(rows[..., columns], column[:, columns]) for columns, _ in self.segments]
        index = self._set_of_segment(vector.device)
        return tangents.new_zeros(*rows.shape[:2], self.count).index_add_(-1, index, torch.cat(sums, -1))

    def _set_of_segment(self, device: torch.device) -> Tensor:
        """Returns the set of each segment, which is kept: making it again would wait for a copy to the device."""
        if device not in self._indices:
            self._indices[device] = torch.tensor([index for _, index in self.segments], device=device)
        return self._indices[device]

    @cached_property
    def _indices(self) -> dict[torch.device, Tensor]:
        return {}


def resolve_sets(sets: Sets, parameters: FlatParameters, groups: Sequence[str] | None = None) -> SetMap:
    """Returns the set map of these parameters.  `groups`, if given, names the parameter group of each tensor.

    Raises:
        TypeError: for anything that is no word, map or `Layerwise`.
        ValueError: for an unknown word, a map that misses a parameter, more groups than layers, parameter groups where
            `Layerwise` makes its own, repeated names, or a function of names where none were given.
    """
    labels: list[Hashable]
    if isinstance(sets, str):
        if sets not in ("global", "full"):
            raise ValueError(f"sets={sets!r}: allowed are 'global', 'full', oho.Layerwise(n) or a map from name to set")
        shared = groups or ["global"] * len(parameters.names)
        labels = list(shared if sets == "global" else parameters.names)
        if sets == "full" and (repeated := sorted({name for name in labels if labels.count(name) > 1})):  # type: ignore[type-var]
            raise ValueError(f"sets='full': several parameters are called {', '.join(map(str, repeated))}; name each apart")
    elif isinstance(sets, Layerwise):
        if len(set(groups or ())) > 1:
            raise ValueError(f"sets={sets}: it makes groups of its own; give parameters, not parameter groups")
        labels = _layerwise(sets.groups, parameters)
    elif isinstance(sets, Mapping):
        if missing := [name for name in parameters.names if name not in sets]:
            names = ", ".join(missing)
            raise ValueError(f"sets: no set is given for {names}; give named_parameters() and a set for each")
        known = {*parameters.names, *(name for name, _ in parameters.frozen)}
        if unknown := [name for name in sets if name not in known]:
            raise ValueError(f"sets: there is no parameter {', '.join(map(str, unknown))}")
        labels = [sets[name] for name in parameters.names]
    elif not callable(sets) or isinstance(sets, type):
        raise TypeError(f"sets={sets!r}: allowed are 'global', 'full', oho.Layerwise(n) or a map from name to set")
    elif not parameters.named:
        raise ValueError("sets: a function of names was given, but no names; give model.named_parameters()")
    else:
        labels = [sets(name) for name in parameters.names]
    order = list(dict.fromkeys(labels))
    if isinstance(sets, Layerwise):
        order.sort(key=lambda label: (label[0], label[1] == "bias"))  # type: ignore[index]
    index = {label: position for position, label in enumerate(order)}
    return SetMap(tuple(index[label] for label in labels), parameters.sizes, tuple(order))


def _layerwise(groups: int, parameters: FlatParameters) -> list[Hashable]:
    axes = 0 if parameters.members is None else 1
    is_weight = [tensor.ndim - axes >= 2 for tensor in parameters.tensors]
    begins = is_weight if any(is_weight) else [True] * len(is_weight)
    layers = sum(begins)
    if not 1 <= groups <= layers:
        raise ValueError(f"Layerwise({groups}): allowed are 1 to {layers} groups for this model")
    labels: list[Hashable] = []
    layer = -1
    for kind, begin in zip(is_weight, begins, strict=True):
        layer += begin
        labels.append((max(layer, 0) * groups // layers, "weight" if kind else "bias"))
    return labels
