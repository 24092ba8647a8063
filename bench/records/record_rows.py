"""The records of one kind as a table with a row for each."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from bench.records.schema import KINDS


class RecordRows:
    """Records of one kind as tuples, by the names they have: with a dict a row, a large folder needs twice the memory."""

    def __init__(self, kind: str) -> None:
        self._least = KINDS[kind]
        self._rows: defaultdict[tuple[tuple[str, ...], ...], list[tuple]] = defaultdict(list)
        self._count = itertools.count()

    def add(self, run: str, records: Sequence[Mapping[str, Any]]) -> None:
        """Appends the records of a run."""
        for record in records:
            own = dict(record)
            hyper, scalars = own.pop("hyper", {}), own.pop("scalars", {})
            single = [item[0] if isinstance(item, list) and len(item) == 1 else _known(item) for item in hyper.values()]
            names = tuple(own), tuple(hyper), tuple(scalars)
            self._rows[names].append((next(self._count), run, *own.values(), *single, *scalars.values()))

    def table(self) -> pd.DataFrame:
        """Returns a row for each record, in the order they were added; NaN where one lacks a name that others have."""
        tables = []
        for (own, hyper, scalars), rows in self._rows.items():
            names = [*own, *(f"hyper_{name}" for name in hyper), *(f"scalar_{name}" for name in scalars)]
            table = pd.DataFrame(rows, columns=["place", "run", *names])
            if not table.columns.is_unique:  # a damaged record may have any names
                table = table.loc[:, ~table.columns.duplicated()]
            tables.append(table.set_index("place"))
        if not tables:
            return pd.DataFrame(columns=["run", *self._least])
        return pd.concat(tables).sort_index(ignore_index=True).infer_objects()


def _known(value: Any) -> Any:
    """Replaces null by NaN in a list of several."""
    if not isinstance(value, list) or None not in value:
        return value
    return [float("nan") if number is None else number for number in value]
