"""Whether a file can be written, asked before the work is done."""

from __future__ import annotations

import shutil
from pathlib import Path

from bench.records import ReportError
from bench.records.files import ELSEWHERE, check_output

LEAST_FREE_BYTES = 10_000_000


def check_writable(output: Path, *suffixes: str) -> None:
    """Makes the folder of a file that is to be written.  Raises `ReportError` where the file cannot be."""
    if output.suffix not in suffixes:
        raise ReportError(f"{output}: the name must end in {' or '.join(suffixes)}")
    check_output(output)
    if shutil.disk_usage(output.parent).free < LEAST_FREE_BYTES:
        raise ReportError(f"{output}: less than 10 MB are free there; {ELSEWHERE}")
