"""How far a run in progress is, read from the end of its records."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import orjson

from bench.records.files import opened

END_BYTES = 1 << 16
"""How much of the records is read; a last line that is longer says nothing."""


def used_in(folder: Path) -> float:
    """Returns how much of its budget a run has used by its last record, in the budget's unit, or 0 if that is unknown."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError), opened(folder / "records.jsonl") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - END_BYTES))
        lines = file.read().rpartition(b"\n")[0].rsplit(b"\n", 1)
        return float(orjson.loads(lines[-1])["used"])
    return 0.0
