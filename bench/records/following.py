"""Follows a results folder while it is being filled: each look reads only what is new.

Nothing is written or locked, so that runners do not notice.  A run costs a few questions about its files and, when its
records have grown, their new lines.  What is read is checked as everywhere in `bench.records`; what is damaged is named in
a sentence, without an exception, since the other runs go on.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson

from bench.records.errors import RecordError
from bench.records.files import opened, reason
from bench.records.identity import run_id
from bench.records.json_files import SUM, is_right
from bench.records.plans import Manifest, check_results_folder, read_manifests
from bench.records.run_folder import Outcome, is_damaged, read_outcome, state_of
from bench.records.schema import SPEC, problem_of, read_checked

CLAIM = ".claim"
"""The file that a runner's lock is on: see `bench.process.run_lock`."""
QUEUED, RUNNING, DAMAGED = "queued", "running", "damaged"
"""States of runs besides those of `state_of`."""
Stamp = tuple[int, int, int] | None


def _stamp(path: Path | str) -> Stamp:
    """Returns what is different after a file was changed or replaced; None where there is no such file."""
    try:
        found = os.lstat(path)
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size


class GrowingRecords:
    """The records of a run that may be going on; `is_torn` says that a line is not as it was written."""

    def __init__(self, path: Path):
        self._path = path
        self._stamp: Stamp = None
        self._start()

    def _start(self) -> None:
        self._place = self._sum = 0
        self._has_sums = self.is_torn = False

    def news(self) -> tuple[list[dict[str, Any]], bool]:
        """Returns the records of new whole lines, and whether they replace all earlier ones, since the file was cut.

        Raises OSError where the file cannot be read.
        """
        stamp = _stamp(self._path)
        if stamp == self._stamp:
            return [], False
        is_anew = self._stamp is not None and (stamp is None or stamp[0] != self._stamp[0] or stamp[2] < self._place)
        self._stamp = stamp
        if is_anew:
            self._start()
        if stamp is None:
            return [], is_anew
        found = self._read()
        if self.is_torn and not is_anew and self._place:  # a resumed run may have cut it and gone on since the last look
            self._start()
            found, is_anew = self._read(), True
        return found, is_anew

    def _read(self) -> list[dict[str, Any]]:
        with opened(self._path) as file:
            file.seek(self._place)
            content = file.read()
        found = []
        for line in content[: content.rfind(b"\n") + 1].split(b"\n")[:-1]:
            record = self._record(line)
            self.is_torn = record is None
            if record is None:
                break
            found.append(record)
            self._sum = zlib.crc32(line + b"\n", self._sum)
            self._place += len(line) + 1
        return found

    def _record(self, line: bytes) -> dict[str, Any] | None:
        """Returns the record of a line; None if it is damaged."""
        if is_right(line, len(line), self._sum):
            self._has_sums = True
        elif self._has_sums or SUM.search(line):
            return None
        try:
            record = orjson.loads(line)
        except ValueError:
            return None
        return None if problem_of(record) else record


class FollowedRun:
    """A run as it goes on.

    `columns` has, for each name that was asked for, the values of all evaluations so far: a record's own value or, of
    `hyper_NAME`, one value or a list with one a set.  `state` is that of `state_of`, or "queued", "running" or "damaged";
    `problem` says what is damaged, and `changes` counts how often anything has changed.
    """

    def __init__(self, folder: Path, names: Sequence[str]):
        self.folder = folder
        self.spec: Mapping[str, Any] | None = None
        self.outcome: Outcome | None = None
        self.state, self.problem, self.changes = QUEUED, "", 0
        self.columns: dict[str, list[Any]] = {name: [] for name in names}
        self._records = GrowingRecords(folder / "records.jsonl")
        self._outcome = str(folder / "outcome.json")
        self._ended_at: Stamp = None
        self._is_read = False

    @property
    def last_record(self) -> float | None:
        """When the records were last written, in seconds since 1970; None where there are none."""
        stamp = _stamp(self.folder / "records.jsonl")
        return stamp[1] / 1e9 if stamp else None

    def look(self) -> bool:
        """Reads what is new, and returns whether there was anything."""
        ended_at = _stamp(self._outcome)
        if self._is_read and ended_at == self._ended_at:
            return False
        before = self.state, self.problem, self._ended_at
        try:
            has_grown = self._look(ended_at)
        except (RecordError, OSError) as error:
            said = str(error) if isinstance(error, RecordError) else f"{self.folder}: cannot be read ({reason(error)})"
            self.state, self.problem, has_grown = DAMAGED, said, False
        has_changed = has_grown or before != (self.state, self.problem, self._ended_at)
        self.changes += has_changed
        return has_changed

    def _look(self, ended_at: Stamp) -> bool:
        if ended_at != self._ended_at or self.state == DAMAGED:  # before the records, which are complete at that time
            self._ended_at, self._is_read = ended_at, False
            self.outcome = read_outcome(self.folder)
        has_result = self.outcome is not None and self.outcome.status.is_result
        is_claimed = not has_result and _stamp(self.folder / CLAIM) is not None
        if self.spec is None and _stamp(self.folder / "spec.json") is not None:
            spec = read_checked(self.folder / "spec.json", SPEC, f"remove {self.folder} to run it again")
            if run_id(spec) != self.folder.name:
                raise RecordError(f"{self.folder / 'spec.json'}:1:1: changed since the run was made; remove {self.folder}")
            self.spec = spec
        has_grown = self._take(*self._records.news())
        self.problem = ""
        if has_result and (self._records.is_torn or is_damaged(self.folder, self.outcome)):
            self.state = DAMAGED
            self.problem = f"{self.folder}: files of this ended run are missing or changed; remove it to run it again"
        elif is_claimed:
            self.state = RUNNING
        else:
            self.state = QUEUED if self.spec is None and self.outcome is None else state_of(self.folder, self.outcome)
        self._is_read = has_result
        return has_grown

    def _take(self, records: Sequence[Mapping[str, Any]], is_anew: bool) -> bool:
        if is_anew:
            self.columns = {name: [] for name in self.columns}
        for record in records:
            if record["kind"] == "evaluation":
                for name, values in self.columns.items():
                    values.append(_value(record, name))
        return is_anew or bool(records)


def _value(record: Mapping[str, Any], name: str) -> Any:
    if not name.startswith("hyper_"):
        return record.get(name)
    value = record.get("hyper", {}).get(name.removeprefix("hyper_"))
    return value[0] if isinstance(value, list) and len(value) == 1 else value


class FollowedFolder:
    """A results folder that is being filled; `names` are the columns that its runs keep.

    `problem` says why there is no plan to follow, if there is none.
    """

    def __init__(self, root: Path, names: Sequence[str]):
        self.root = root
        self.manifests: tuple[Manifest, ...] = ()
        self.runs: dict[str, FollowedRun] = {}
        self.problem = ""
        self._names = tuple(names)
        self._plans: dict[str, Stamp] | None = None

    def look(self) -> bool:
        """Reads what is new, and returns whether there was anything."""
        has_changed = self._look_at_plans()
        for run in self.runs.values():
            has_changed |= run.look()
        return has_changed

    def _look_at_plans(self) -> bool:
        plans = {str(path): _stamp(path) for path in sorted((self.root / "experiments").glob("*.json"))}
        if plans and plans == self._plans:
            return False
        before, self._plans = (self.manifests, self.problem), plans
        try:
            check_results_folder(self.root)
            self.manifests, self.problem = tuple(read_manifests(self.root)), ""
            if not self.manifests:
                self.problem = f"{self.root}: waiting, since no experiment has been run into this folder yet"
        except RecordError as error:
            self.manifests, self.problem = (), str(error)
        planned = dict.fromkeys(identity for manifest in self.manifests for identity in manifest.runs)
        self.runs = {
            identity: self.runs.get(identity) or FollowedRun(self.root / identity, self._names) for identity in planned
        }
        return before != (self.manifests, self.problem)
