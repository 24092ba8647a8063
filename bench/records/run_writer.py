"""Writes the folder of a run: see `bench.records.run_folder`."""

from __future__ import annotations

import contextlib
import os
import zlib
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from bench.records.files import APPENDING, check_in_place, check_no_link, open_regular, read, replacing, storing, sync_names
from bench.records.identity import run_id
from bench.records.json_files import intact, sealed, write_json
from bench.records.run_folder import Outcome


class RunWriter:
    """A writer of one run's folder.  Opened again after an interruption, it keeps the first `keep` bytes of the records.

    `cut` is the number of records that it removed after them, and `damage` says what was wrong with these, if anything.
    All methods raise `StorageError` if the folder cannot be written.
    """

    def __init__(self, root: Path, spec: Mapping[str, Any], keep: int = 0):
        self.id = run_id(spec)
        self.folder = root / self.id
        self._path = self.folder / "records.jsonl"
        with storing(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            check_no_link(self.folder)
            (self.folder / "outcome.json").unlink(missing_ok=True)
            write_json(self.folder / "spec.json", spec)
            self._file = open_regular(self._path, APPENDING)
            content = read(self._path)
            if os.fstat(self._file).st_nlink > 1:  # another name's file, too, as in a copy of hard links
                self._take_own_file(content)
            os.ftruncate(self._file, keep)
        self._sum = zlib.crc32(content[:keep])
        self.cut = content.count(b"\n", keep) + (not content.endswith(b"\n") and len(content) > keep)
        lines = content.rfind(b"\n") + 1
        self.damage = "damaged" if intact(content) < lines else "the last one torn" if lines < len(content) else ""

    def _take_own_file(self, content: bytes) -> None:
        os.close(self._file)
        with replacing(self._path) as file:
            file.write(content)
        self._file = open_regular(self._path, APPENDING)

    def check_in_place(self) -> None:
        """Raises `StorageError` if the run's folder was moved, removed or replaced: its records would be lost."""
        with storing(self.folder):
            check_in_place(os.fstat(self._file), self._path)

    def append(self, record: Mapping[str, Any]) -> None:
        """Adds one record; the complete line has reached the operating system when this returns."""
        self.check_in_place()
        line, self._sum = sealed(record, self._sum)
        with storing(self.folder):
            written = os.write(self._file, line)
            while written < len(line):  # a full disk takes a part and refuses the rest
                written += os.write(self._file, line[written:])

    def durable(self) -> int:
        """Flushes the records to the disk and returns their length in bytes."""
        self.check_in_place()
        with storing(self.folder):
            os.fsync(self._file)
            return os.fstat(self._file).st_size

    def close(self, outcome: Outcome | None = None) -> None:
        """Ends the run; without an outcome it stays unfinished."""
        with storing(self.folder) if outcome is not None else contextlib.suppress(OSError):
            size = os.fstat(self._file).st_size
            try:
                if outcome is not None:
                    check_in_place(os.fstat(self._file), self._path)
                os.fsync(self._file)
            finally:
                os.close(self._file)
            if outcome is not None:
                write_outcome(self.folder, replace(outcome, record_bytes=size))


def write_outcome(folder: Path, outcome: Outcome) -> None:
    """Writes how a run ended; no loss of power undoes that, nor the run's folder."""
    write_json(folder / "outcome.json", {**asdict(outcome), "valid": outcome.valid})
    sync_names(folder.parent)
