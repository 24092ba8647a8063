"""CSV that a spreadsheet can open without taking a label for a formula.

A cell of text that begins with = + - @, their full-width twins, a tab or a carriage return is given an apostrophe in front,
and so is one with apostrophes before such a sign: taking one away from a cell that matches `FORMULA` gives the text back.
An apostrophe is kept, where spaces and tabs are trimmed by programs and lost in a copy; it can be seen; and pandas needs no
option to read it.  Numbers are left as they are.  Parquet and `bench.results` hold labels unchanged.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

FORMULA = re.compile(r"'*[=+\-@＝＋－＠\t\r]")


def for_spreadsheets(table: pd.DataFrame) -> pd.DataFrame:
    """Returns a table whose texts, titles included, no spreadsheet takes for formulas."""
    safe = table.rename(columns=_plain)
    for place in range(safe.shape[1]):  # by place: the table of a figure of one's own may have a title twice
        column = safe.iloc[:, place]
        if column.map(_is_formula).any():
            safe.isetitem(place, column.map(_plain))
    return safe


def _is_formula(value: Any) -> bool:
    return isinstance(value, str) and FORMULA.match(value) is not None


def _plain(value: Any) -> Any:
    return f"'{value}" if _is_formula(value) else value
