"""JSON on disk: objects that are written completely or not at all, and lines whose damage is detected.

A line ends in the CRC-32 of everything before the sum in its file, `{"kind": ..., "crc": 3735928559}`.  A line that was
changed, cut, dropped or doubled is therefore detected, and the last line vouches for the whole file.  A file without any
sum comes from an older version and is trusted.
"""

from __future__ import annotations

import json
import math
import re
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from bench.records.errors import RecordError
from bench.records.files import read, reason, replacing, sync_names

DEEPEST = 30
"""The most levels that a JSON object may have."""
SUM = re.compile(rb', "crc": (\d{1,10})}$')
LONGEST_SUM = 24


def write_json(path: Path, content: Any, *, durable: bool = True) -> None:
    """Writes a complete file or nothing; one that is `durable` is there after a loss of power, with its name."""
    with replacing(path, durable=durable) as file:
        file.write(json.dumps(finite(content), indent=1, allow_nan=False).encode() + b"\n")
    if durable:
        sync_names(path.parent)


def finite(value: Any) -> Any:
    """Returns `value` with every non-finite float replaced by None, since JSON has no such numbers."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return value


def sealed(record: Mapping[str, Any], before: int) -> tuple[bytes, int]:
    """Returns a record's line and the CRC-32 of the file including it; `before` is that of the file without it."""
    text = json.dumps(finite(record), allow_nan=False).encode().removesuffix(b"}")
    total = zlib.crc32(text, before)
    end = b', "crc": %d}\n' % total
    return text + end, zlib.crc32(end, total)


def intact(content: bytes) -> int:
    """Returns the length of the lines at the start of a file that are as they were written."""
    length = content.rfind(b"\n") + 1
    if b'"crc": ' not in content:
        return length
    if length and is_right(content, length - 1):
        return length
    found = place = total = 0
    while place < length:
        end = content.index(b"\n", place)
        line = content[place:end]
        if is_right(line, len(line), total):
            found = end + 1
        elif found or SUM.search(line):
            break
        total = zlib.crc32(content[place : end + 1], total)
        place = end + 1
    return found


def is_right(content: bytes, end: int, before: int = 0) -> bool:
    """Returns whether a sum ends at `end` and matches the content before it."""
    found = SUM.search(content, max(0, end - LONGEST_SUM), end)
    return found is not None and zlib.crc32(memoryview(content)[: found.start()], before) == int(found[1])


class Lines(NamedTuple):
    """The records of a file; `torn` is true if the file ends in something else."""

    records: tuple[dict[str, Any], ...]
    torn: bool


def read_lines(path: Path, problem_of: Callable[[Any], str | None], *, is_ended: bool) -> Lines:
    """Returns the records of a file, or none if there is no file.

    For a run that has not ended, they are the records before the first damage.

    Raises:
        RecordError: if the file of an ended run has a line that is not as it was written or that is no record by
            `problem_of`; the message names file, line and column.
    """
    try:
        content = read(path)
    except FileNotFoundError:
        return Lines((), False)
    except OSError as error:
        raise RecordError(f"{path}:1:1: cannot be read ({reason(error)}); remove {path.parent} to run it again") from None
    whole = content[: intact(content)]
    if is_ended and len(whole) < len(content):
        number = whole.count(b"\n") + 1
        raise RecordError(f"{path}:{number}:1: changed since it was written; remove {path.parent} to run it again")
    try:
        records = orjson.loads(b"[" + whole[:-1].replace(b"\n", b",") + b"]")  # a third faster than line by line
    except ValueError:
        records = []
    if len(records) != whole.count(b"\n") or any(map(problem_of, records)):
        records = []
        for number, line in enumerate(whole[:-1].split(b"\n"), start=1):
            try:
                records.append(_read_line(path, number, line, problem_of))
            except RecordError:
                if is_ended:
                    raise
                whole = b""
                break
    for record in records:
        record.pop("crc", None)
    return Lines(tuple(records), len(whole) < len(content))


def _read_line(path: Path, number: int, line: bytes, problem_of: Callable[[Any], str | None]) -> dict[str, Any]:
    try:
        record = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        raise RecordError(f"{path}:{number}:{error.colno}: {error.msg}; a record is one JSON object per line") from None
    if problem := problem_of(record):
        raise RecordError(f"{path}:{number}:1: {problem}")
    return record


def read_object(path: Path, remedy: str) -> dict[str, Any]:
    """Returns the JSON object in a file.

    Raises:
        RecordError: if the file holds none; the message names file, line and column and ends with the remedy.
    """
    try:
        text = read(path)
        content = orjson.loads(text)
        if text.count(b"{") + text.count(b"[") > DEEPEST:  # a text with fewer brackets cannot be too deep
            _check_depth(content, DEEPEST)
    except orjson.JSONDecodeError as error:
        raise RecordError(f"{path}:{error.lineno}:{error.colno}: {error.msg}; {remedy}") from None
    except (OSError, ValueError) as error:
        why = reason(error) if isinstance(error, OSError) else error
        raise RecordError(f"{path}:1:1: cannot be read ({why}); {remedy}") from None
    if not isinstance(content, dict):
        raise RecordError(f"{path}:1:1: a JSON object is expected; {remedy}")
    return content


def _check_depth(value: Any, levels: int) -> None:
    if levels == 0:
        raise ValueError(f"nested deeper than {DEEPEST} levels")
    for item in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        _check_depth(item, levels - 1)
