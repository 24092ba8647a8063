"""JSON on disk: objects that are written whole or not at all, and lines whose damage is found.

A line ends in the CRC-32 of all that is before the sum in its file, `{"kind": ..., "crc": 3735928559}`: a line that was
changed, cut, dropped or doubled is found, and the last line vouches for the whole file.  A file without any sum is of an
older version, and believed.
"""

from __future__ import annotations

import contextlib
import errno
import json
import math
import os
import re
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import orjson

from bench.records.errors import RecordError, StorageError

FULL = (errno.ENOSPC, errno.EDQUOT)
DEEPEST = 30
"""Levels of a JSON object."""
SUM = re.compile(rb', "crc": (\d{1,10})}$')
LONGEST_SUM = 24


@contextlib.contextmanager
def storing(folder: Path) -> Iterator[None]:
    """What the system refuses inside the block becomes a `StorageError` that names the folder."""
    try:
        yield
    except FileNotFoundError as error:
        raise StorageError(f"{folder}: moved or removed while in use; the same command begins anew") from error
    except OSError as error:
        remedy = "make room, and the same command goes on"
        if error.errno not in FULL:
            remedy = "the same command goes on once it can be"
        raise StorageError(f"{folder}: cannot be written ({error.strerror}); what is recorded is kept; {remedy}") from error


def unfinished(path: Path) -> Path:
    """Where a file is written before it takes its place."""
    return path.with_name(f".{path.name}.part")


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A file that takes the place of another, whole and on the disk, or not at all.  The folder is ours (`bench.process`).

    What a killed process left of one is written over.
    """
    temporary = unfinished(path)
    try:
        with open(temporary, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, content: Any) -> None:
    """Writes a whole file or nothing."""
    with replacing(path) as file:
        file.write(json.dumps(finite(content), indent=1, allow_nan=False).encode() + b"\n")


def finite(value: Any) -> Any:
    """`value` with every non-finite float replaced by None, since JSON has none."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return value


def sealed(record: Mapping[str, Any], before: int) -> tuple[bytes, int]:
    """A record's line, and the CRC-32 of the file with it; `before` is the one of the file without it."""
    text = json.dumps(finite(record), allow_nan=False).encode().removesuffix(b"}")
    total = zlib.crc32(text, before)
    end = b', "crc": %d}\n' % total
    return text + end, zlib.crc32(end, total)


def intact(content: bytes) -> int:
    """The length of the lines at the head of a file that are what was written."""
    length = content.rfind(b"\n") + 1
    if b'"crc": ' not in content:
        return length
    if length and _is_right(content, length - 1):
        return length
    found = place = total = 0
    while place < length:
        end = content.index(b"\n", place)
        line = content[place:end]
        if _is_right(line, len(line), total):
            found = end + 1
        elif found or SUM.search(line):
            break
        total = zlib.crc32(content[place : end + 1], total)
        place = end + 1
    return found


def _is_right(content: bytes, end: int, before: int = 0) -> bool:
    """Whether a sum ends here, and is the one of what is before it."""
    found = SUM.search(content, max(0, end - LONGEST_SUM), end)
    return found is not None and zlib.crc32(memoryview(content)[: found.start()], before) == int(found[1])


class Lines(NamedTuple):
    """What a file of records holds; `torn` where it ends in something else."""

    records: tuple[dict[str, Any], ...]
    torn: bool


def read_lines(path: Path, problem_of: Callable[[Any], str | None], *, is_ended: bool) -> Lines:
    """The records of a file, none where there is no file.

    Of a run that has not ended they are those before the first damage.  Raises `RecordError`, which names file, line and
    column, where the file of an ended one has a line that is not what was written, or that is no record by `problem_of`.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return Lines((), False)
    except OSError as error:
        raise RecordError(f"{path}:1:1: cannot be read ({error.strerror}); remove {path.parent} to run it again") from None
    whole = content[: intact(content)]
    if is_ended and len(whole) < len(content):
        number = whole.count(b"\n") + 1
        raise RecordError(f"{path}:{number}:1: not what was written; remove {path.parent} to run it again")
    try:
        records = orjson.loads(b"[" + whole[:-1].replace(b"\n", b",") + b"]")  # at once: a third less time than by line
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
        raise RecordError(f"{path}:{number}:{error.colno}: {error.msg}; a record is one JSON object a line") from None
    if problem := problem_of(record):
        raise RecordError(f"{path}:{number}:1: {problem}")
    return record


def read_object(path: Path, remedy: str) -> dict[str, Any]:
    """A file that holds one JSON object.

    Raises `RecordError`, which names file, line and column and tells the remedy, where it does not.
    """
    try:
        text = path.read_bytes()
        content = orjson.loads(text)
        if text.count(b"{") + text.count(b"[") > DEEPEST:  # only such a text can fail this
            _check_depth(content, DEEPEST)
    except orjson.JSONDecodeError as error:
        raise RecordError(f"{path}:{error.lineno}:{error.colno}: {error.msg}; {remedy}") from None
    except (OSError, ValueError) as error:
        raise RecordError(f"{path}:1:1: cannot be read ({error}); {remedy}") from None
    if not isinstance(content, dict):
        raise RecordError(f"{path}:1:1: a JSON object is expected; {remedy}")
    return content


def _check_depth(value: Any, levels: int) -> None:
    if levels == 0:
        raise ValueError(f"nested deeper than {DEEPEST} levels")
    for item in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        _check_depth(item, levels - 1)
