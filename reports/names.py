"""The names that figures, tables and sentences show, made in one place when the tables are read.

A figure takes labels as it finds them.  They are no wider than `LONGEST_SHOWN`, no two are alike, and fonts have all their
characters; CSV and the page have the whole names again.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import pandas as pd

from bench.records.identity import title
from bench.records.names import shown
from reports.glyphs import NO_MORE, Fonts, fonts_for
from reports.looks import Method
from reports.units import Units

LONGEST_UNIT = 36
SINGLE = ("task", "data", "space", "method")
"""Columns of names that are not parts of others."""
LEFT_OUT, UNSEEN = "_", "\u200b"
"""Matplotlib leaves names that begin with an underscore out of legends; a space of no width before it prevents that."""
LISTED = 4
"""How many characters a warning names."""
log = logging.getLogger("oho-bench")


@dataclass(frozen=True)
class Names:
    """The whole names of those that are not shown as they are, and the fonts that names need.

    `whole` has the titles of runs, too, and `parts` what they are made of: labels of methods, and of shocks.
    """

    whole: Mapping[str, str] = field(default_factory=dict)
    parts: Mapping[str, str] = field(default_factory=dict)
    fonts: Fonts = NO_MORE

    def restored(self, table: pd.DataFrame) -> pd.DataFrame:
        """Returns a table with whole names in all its cells."""
        if not self.whole:
            return table
        restored = table.copy()
        for place in range(table.shape[1]):
            column = table.iloc[:, place]
            if column.dtype == object or pd.api.types.is_string_dtype(column):
                cells = [self.whole.get(cell, cell) if isinstance(cell, str) else cell for cell in column]
                restored.isetitem(place, pd.Series(cells, index=table.index, dtype=object))
        return restored

    def listed(self) -> list[list[str]]:
        """Returns the shown and the whole name of those that are shortened, with code points for what fonts lack."""
        pairs = ([text.removeprefix(UNSEEN), self.fonts.drawn(name)] for text, name in self.parts.items())
        return sorted([text, whole] for text, whole in pairs if text != whole)

    def with_kinds(self, methods: Iterable[Method]) -> list[Method]:
        """Returns methods of shown names with the kinds that their whole names say."""
        return [self._with_kind(method) for method in methods]

    def _with_kind(self, method: Method) -> Method:
        whole = method._replace(
            label=self.whole.get(method.label, method.label),
            over_label=self.whole.get(str(method.over_label), method.over_label),
        )
        return (
            method if whole == method else method._replace(shown_kind=next(iter(_shown([whole.kind], self.fonts).values())))
        )


def with_shown_names(runs: pd.DataFrame) -> tuple[pd.DataFrame, Names]:
    """Returns runs with the names that are shown.  Warns of characters that no installed font has."""
    found = {"method_label": _unique(runs["method_label"], runs["over_label"]), "shock": _unique(runs["shock"])}
    found |= {column: _unique(runs[column]) for column in SINGLE}
    units = _unique(pd.Series([text for of_run in set(runs["units"]) for text in of_run], dtype=object))
    every = [*(name for names in found.values() for name in names), *units]
    fonts = fonts_for(every)
    _warn(fonts, every)
    called = {column: _shown(names, fonts) for column, names in found.items()}
    called["over_label"] = called["method_label"]
    of_units = shown(units, LONGEST_UNIT, drawn=fonts.drawn)
    changed = {text: name for names in (*called.values(), of_units) for name, text in names.items() if name != text}
    if not changed:
        return runs, Names(fonts=fonts)
    named = runs.assign(
        units=[Units(*(of_units.get(text, text) for text in own)) for own in runs["units"]],
        **{
            column: runs[column].map(names.get, na_action="ignore") for column, names in called.items() if column != "shock"
        },
        shock=[called["shock"].get(shock, shock) for shock in runs["shock"]],
    )
    has_label = named["method_label"].notna()
    titles = [title(*pair) for pair in named.loc[has_label, ["method_label", "shock"]].itertuples(index=False, name=None)]
    named.loc[has_label, "label"] = titles
    whole = changed | dict(zip(titles, runs.loc[has_label, "label"], strict=True))
    parts = {text: name for text, name in changed.items() if name in called["method_label"] or name in called["shock"]}
    return named, Names(whole, parts, fonts)


def _shown(names: Iterable[str], fonts: Fonts) -> dict[str, str]:
    short = shown(names, drawn=fonts.drawn)
    return {name: f"{UNSEEN}{text}" if text.startswith(LEFT_OUT) else text for name, text in short.items()}


def _unique(*columns: pd.Series) -> list[str]:
    return list(dict.fromkeys(name for column in columns for name in column.unique() if isinstance(name, str) and name))


def _warn(fonts: Fonts, names: Iterable[str]) -> None:
    """Says in one line which characters no installed font has, and which name has the first of them."""
    if not fonts.missing:
        return
    first = next(name for name in names if fonts.missing & set(name))
    signs = ", ".join(f"{sign} (U+{ord(sign):04X})" for sign in sorted(fonts.missing)[:LISTED])
    more = f" and {len(fonts.missing) - LISTED} more" if len(fonts.missing) > LISTED else ""
    log.warning("%r: no installed font has %s%s; figures and PDF show code points in their place", first, signs, more)
