"""Directions: which row of the influence belongs to which hyperparameter and set.

    symbol  name        shape    meaning
    K       tangents    ()       rows of the influence: those of the rule's hyperparameters, then those of the loss's
    S       sets        ()       values a hyperparameter of the rule has
    V       components  ()       values a hyperparameter of the loss has
    E       directions  (K, S)   dh/dh: 1 where a row's hyperparameter and set meet, else 0
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor

from oho.sets import SetMap


@dataclass(frozen=True)
class Directions:
    """E: the rows of the influence, ordered by name and then by set.

    `tuned[name]` has the sets in which a hyperparameter of the rule is tuned.  If the influence is exact, there is a row
    for each of them; if it is collapsed, they are all S sets and share one row.  `loss[name]` is V of a hyperparameter of
    the loss, which belongs to all sets and has V rows in either case.
"""

    tuned: Mapping[str, tuple[int, ...]]
    exact: bool
    loss: Mapping[str, int] = field(default_factory=dict)

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The names that have rows, in the order of the rows."""
        return (*self.tuned, *self.loss)

    @cached_property
    def counts(self) -> list[int]:
        """The number of rows of each name."""
        return [*(len(sets) if self.exact else 1 for sets in self.tuned.values()), *self.loss.values()]

    @property
    def rows(self) -> int:
        """K."""
        return sum(self.counts)

    @cached_property
    def _row_of(self) -> dict[tuple[str, int], int]:
        pairs = [(name, index) for name, sets in self.tuned.items() for index in (sets if self.exact else (0,))]
        return {pair: row for row, pair in enumerate(pairs)}

    def rows_of(self, name: str) -> slice:
        """Returns the rows of a hyperparameter; none if it is not tuned."""
        if name not in self.names:
            return slice(0, 0)
        place = self.names.index(name)
        start = sum(self.counts[:place])
        return slice(start, start + self.counts[place])

    def row(self, name: str, index: int) -> int | None:
        """Returns the row in which set `index` of a rule's hyperparameter moves; None where it is not tuned."""
        return self._row_of.get((name, index))

    def places(self, segments: Iterable[tuple[slice, int]], block: slice) -> dict[str, list[tuple[int, slice]]]:
        """Returns, for each hyperparameter of the rule, its rows and the columns where each moves, counted within a block.

        `segments` are runs of columns with their set.
        """
        if not self.exact:
            return {name: [(self._row_of[name, 0], slice(0, block.stop - block.start))] for name in self.tuned}
        found: dict[str, list[tuple[int, slice]]] = {name: [] for name in self.tuned}
        for columns, index in segments:
            start, stop = max(columns.start, block.start), min(columns.stop, block.stop)
            if start < stop:
                for name, places in found.items():
                    if (row := self.row(name, index)) is not None:
                        places.append((row, slice(start - block.start, stop - block.start)))
        return found

    def largest_of_rows(self, values: Mapping[str, Tensor]) -> Tensor:
        """Returns the magnitude of each row's value (K, M), from values (M, S) or (M, V); collapsed, the largest one."""
        parts = [self._of_sets(values[name], sets) for name, sets in self.tuned.items()]
        return torch.cat([*parts, *(values[name] for name in self.loss)], -1).abs().T

    def _of_sets(self, value: Tensor, sets: tuple[int, ...]) -> Tensor:
        if not self.exact:
            return value.abs().amax(-1, keepdim=True)
        return value if len(sets) == value.shape[-1] else value.index_select(-1, self._places(sets, value.device))

    def _places(self, sets: tuple[int, ...], device: torch.device) -> Tensor:
        """Returns an index of the sets, which is kept: making it again would wait for a copy to the device."""
        if (sets, device) not in self._indices:
            self._indices[sets, device] = torch.tensor(sets, device=device)
        return self._indices[sets, device]

    @cached_property
    def _indices(self) -> dict[tuple[tuple[int, ...], torch.device], Tensor]:
        return {}

    def hypergradients(self, tangents: Tensor, vector: Tensor, set_map: SetMap) -> dict[str, Tensor]:
        """Returns v · Z by name, from tangents (K, M, N) and a vector (M, N).

        For the rule's hyperparameters it is (M, S), with 0 where a set is not tuned; for the loss's it is (M, V).
        """
        own = len(tangents) - sum(self.loss.values())
        found = self._of_rule(tangents[:own], vector, set_map) if self.tuned else {}
        if self.loss:
            sums = _products(tangents[own:], vector)
            found |= dict(zip(self.loss, sums.split(list(self.loss.values()), dim=-1), strict=True))
        return found

    def _of_rule(self, tangents: Tensor, vector: Tensor, set_map: SetMap) -> dict[str, Tensor]:
        if not self.exact:
            sums = set_map.collect(tangents, vector).flatten(1)  # (M, K·S)
            return dict(zip(self.tuned, sums.split(set_map.count, dim=-1), strict=True))
        sums, found = _products(tangents, vector), {}
        counts = self.counts[: len(self.tuned)]
        for (name, sets), part in zip(self.tuned.items(), sums.split(counts, dim=-1), strict=True):
            if len(sets) < set_map.count:
                places = self._places(sets, part.device)
                part = part.new_zeros(len(part), set_map.count).index_copy_(-1, places, part)
            found[name] = part
        return found


def _products(tangents: Tensor, vector: Tensor) -> Tensor:
    """Returns v · Z for each row, (M, K)."""
    return torch.matmul(tangents.transpose(0, 1), vector.unsqueeze(-1)).squeeze(-1)


def directions_of(
    tune: Sequence[tuple[str, ...]], names: tuple[str, ...], *, exact: bool, loss: Mapping[str, int]
) -> Directions:
    """Returns the directions of the rule's `names` and of `loss`; `tune` names what each set tunes.

    Raises:
        ValueError: for sets that tune different hyperparameters with a collapsed influence.
    """
    if not exact and len(set(map(frozenset, tune))) > 1:
        raise ValueError("influence='collapsed' keeps one tangent for all sets; groups that tune differently need 'exact'")
    return Directions({name: tuple(i for i, tuned in enumerate(tune) if name in tuned) for name in names}, exact, loss)
