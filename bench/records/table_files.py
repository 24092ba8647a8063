"""Tables as files: CSV or Parquet."""

from __future__ import annotations

import io
from pathlib import Path

import pandas as pd

from bench.records.errors import ReportError
from bench.records.files import write_output
from bench.records.spreadsheets import for_spreadsheets


def write_table(table: pd.DataFrame, output: Path) -> None:
    """Writes a table as CSV or, where the name ends in .parquet, as Parquet.  Raises `ReportError`."""
    content = io.BytesIO()
    try:
        if output.suffix == ".csv":
            for_spreadsheets(table).to_csv(content, index=False)
        else:
            _uniform(table).to_parquet(content, index=False)
    except ImportError:
        raise ReportError(f"{output}: Parquet needs the package pyarrow; install it with: pip install pyarrow") from None
    write_output(output, content.getbuffer())


def _uniform(table: pd.DataFrame) -> pd.DataFrame:
    """A column with lists in it, of several sets, has nothing but lists: Parquet gives a column one type."""
    mixed = [name for name in table if table[name].map(lambda value: isinstance(value, list)).any()]
    as_list = {name: table[name].map(lambda value: value if isinstance(value, list) else [value]) for name in mixed}
    return table.assign(**as_list)
