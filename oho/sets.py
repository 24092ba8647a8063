"""Sets: which parameter tensors share one hyperparameter value.  The one map that rule and influence both use.

    symbol  name     meaning
    S       sets     number of distinct values of a hyperparameter
    N       size     number of tuned parameters
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Layerwise:
    """`groups` groups of layers in depth order, weights (two or more axes) and biases of a group apart.

    Sets are ordered [weights of group 0, biases of group 0, weights of group 1, ...].
    """

    groups: int


Sets = str | Layerwise | Mapping[str, object] | Callable[[str], object]


@dataclass(frozen=True)
class SetMap:
    """`of_tensor[i]` is the set of parameter tensor i, `sizes[i]` its number of elements."""

    of_tensor: tuple[int, ...]
    sizes: tuple[int, ...]
    count: int

    def spread(self, values: Tensor) -> Tensor:
        """(..., S) one value a set -> (..., 1) if there is one set, else (..., N) one value a parameter."""
        if self.count == 1:
            return values
        pieces = zip(self.of_tensor, self.sizes, strict=True)
        return torch.cat([values[..., s : s + 1].expand(*values.shape[:-1], size) for s, size in pieces], dim=-1)

    def collect(self, products: Tensor) -> Tensor:
        """(..., N) -> (..., S): the sum over each set's parameters."""
        if self.count == 1:
            return products.sum(-1, keepdim=True)
        sums = torch.stack([piece.sum(-1) for piece in products.split(self.sizes, dim=-1)], dim=-1)
        index = torch.tensor(self.of_tensor, device=products.device)
        return products.new_zeros(*products.shape[:-1], self.count).index_add_(-1, index, sums)


def resolve_sets(sets: Sets, names: Sequence[str], tensors: Sequence[Tensor]) -> SetMap:
    """The set map of parameter tensors with these names.  Raises ValueError for what it cannot apply."""
    if isinstance(sets, str):
        if sets not in ("global", "full"):
            raise ValueError(f"sets={sets!r}: allowed are 'global', 'full', oho.Layerwise(n) or a map from name to set")
        labels: list[object] = [0 if sets == "global" else i for i in range(len(tensors))]
    elif isinstance(sets, Layerwise):
        labels = _layerwise(sets.groups, tensors)
    elif isinstance(sets, Mapping):
        if missing := [name for name in names if name not in sets]:
            raise ValueError(f"sets: no set is given for {', '.join(missing)}")
        labels = [sets[name] for name in names]
    else:
        labels = [sets(name) for name in names]
    order = sorted(set(labels)) if isinstance(sets, Layerwise) else list(dict.fromkeys(labels))  # type: ignore[type-var]
    index = {label: position for position, label in enumerate(order)}
    return SetMap(tuple(index[label] for label in labels), tuple(t.numel() for t in tensors), len(order))


def _layerwise(groups: int, tensors: Sequence[Tensor]) -> list[object]:
    is_bias = [tensor.ndim < 2 for tensor in tensors]
    counts = {kind: is_bias.count(kind) for kind in (False, True)}
    smallest = min(count for count in counts.values() if count)
    if not 1 <= groups <= smallest:
        raise ValueError(f"Layerwise({groups}): allowed are 1 to {smallest} groups for this model")
    seen = {False: 0, True: 0}
    labels: list[object] = []
    for kind in is_bias:
        labels.append((seen[kind] * groups // counts[kind], kind))
        seen[kind] += 1
    return labels
