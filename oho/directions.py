"""Directions: which row of the influence belongs to which hyperparameter and set.

symbol  name        shape    meaning
K       tangents    ()       rows of the influence
S       sets        ()       values a hyperparameter has
E       directions  (K, S)   dh/dh: 1 where a row's hyperparameter and set meet, else 0
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from oho.sets import SetMap


@dataclass(frozen=True)
class Directions:
    """E: the rows of the influence, ordered by name and then by set.

    `tuned[name]` are the sets in which a hyperparameter is tuned.  Exact, it has a row for each of them; collapsed, one
    for all of them together, which then are all S.
    """

    tuned: Mapping[str, tuple[int, ...]]
    exact: bool

    @cached_property
    def counts(self) -> list[int]:
        """Rows of each name."""
        return [len(sets) if self.exact else 1 for sets in self.tuned.values()]

    @property
    def rows(self) -> int:
        """K."""
        return sum(self.counts)

    @cached_property
    def _row_of(self) -> dict[tuple[str, int], int]:
        pairs = [(name, index) for name, sets in self.tuned.items() for index in (sets if self.exact else (0,))]
        return {pair: row for row, pair in enumerate(pairs)}

    def row(self, name: str, index: int) -> int | None:
        """Returns the row in which set `index` of a hyperparameter moves; None where it is not tuned."""
        return self._row_of.get((name, index))

    def per_row(self, values: Mapping[str, Tensor]) -> Tensor:
        """Returns (K, M): of values (M, S) by name the one of each row; collapsed, the largest of its sets."""
        if not self.exact:
            return torch.cat([values[name].amax(-1, keepdim=True) for name in self.tuned], -1).T
        pairs = ((values[name], sets) for name, sets in self.tuned.items())
        return torch.cat([value if len(sets) == value.shape[-1] else value[:, list(sets)] for value, sets in pairs], -1).T

    def hypergradients(self, tangents: Tensor, vector: Tensor, set_map: SetMap) -> dict[str, Tensor]:
        """Returns v · Z by name, (M, S), from tangents (K, M, N) and a vector (M, N); 0 where a set is not tuned."""
        if not self.exact:
            sums = set_map.collect(tangents, vector).flatten(1)  # (M, K·S)
            return dict(zip(self.tuned, sums.split(set_map.count, dim=-1), strict=True))
        sums = torch.matmul(tangents.transpose(0, 1), vector.unsqueeze(-1)).squeeze(-1)  # (M, K)
        found = {}
        for (name, sets), part in zip(self.tuned.items(), sums.split(self.counts, dim=-1), strict=True):
            if len(sets) < set_map.count:
                places = torch.tensor(sets, device=part.device)
                part = part.new_zeros(len(part), set_map.count).index_copy_(-1, places, part)
            found[name] = part
        return found


def directions_of(tune: Sequence[tuple[str, ...]], names: tuple[str, ...], *, exact: bool) -> Directions:
    """Returns the directions of `names`; `tune` is what each set tunes.

    Raises:
        ValueError: for sets that tune different hyperparameters with a collapsed influence.
    """
    if not exact and len(set(map(frozenset, tune))) > 1:
        raise ValueError("influence='collapsed' keeps one tangent for all sets; groups that tune differently need 'exact'")
    return Directions({name: tuple(i for i, tuned in enumerate(tune) if name in tuned) for name in names}, exact)
