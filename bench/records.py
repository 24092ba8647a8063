"""What a run leaves on disk, and how it is read back.  Imports neither torch nor any other part of the project.

A results folder holds

    experiments/NAME.json     what was planned: the resolved configuration and its list of run ids
    ID/spec.json              everything that affects the run's result; ID is the hash of it
    ID/records.jsonl          one JSON object a line, append-only: evaluations, incumbents, ended trials, shocks
    ID/outcome.json           how the run ended; written once, atomically, so a run without it is unfinished

Losses are in nats per example, times in seconds.  JSON has no NaN: a non-finite number is stored as null and read back
as None.  An unterminated last line (a run killed inside an append) is left out when reading; any other line that is not
a JSON object raises `RecordError` with its file, line and column.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from operator import itemgetter
from pathlib import Path
from typing import Any

SCHEMA = 2
"""Version of the files' layout."""

PROTOCOL = 2
"""Version of the measuring protocol, PROTOCOL.md; figures never mix two."""


MOMENT = ("used", "step", "epoch", "trial", "counted_seconds", "wall_seconds")
KINDS = {
    "evaluation": (*MOMENT, "validation_loss", "test_loss", "incumbent_validation_loss", "incumbent_test_loss"),
    "incumbent": (*MOMENT, "validation_loss", "test_loss", "test_error"),
    "trial": (*MOMENT, "validation_loss", "steps"),
    "shock": MOMENT,
}
"""Numbers, or null, that a record of each kind must have."""
_NUMBERS_OF = {kind: itemgetter(*names) for kind, names in KINDS.items()}
_NUMBER_TYPES = frozenset({int, float, bool, type(None)})


class RecordError(Exception):
    """A results folder that cannot be read; the message starts with `file:line:column`."""


class StorageError(Exception):
    """A results folder that cannot be written."""


class Status(StrEnum):
    """How a run ended."""

    FINISHED = "finished"
    """The method had nothing left to do before its budget ended."""
    BUDGET_REACHED = "budget_reached"
    DIVERGED = "diverged"
    """The training loss stopped being finite: a result, not an error."""
    FAILED = "failed"
    """An exception; its traceback is in the outcome's message."""
    INTERRUPTED = "interrupted"
    """Stopped from outside; the next `run` goes on with it."""

    @property
    def is_result(self) -> bool:
        """Whether the run counts as measured, so that it is never run again."""
        return self in (Status.FINISHED, Status.BUDGET_REACHED, Status.DIVERGED)


@dataclass(frozen=True)
class Outcome:
    """A run's end.  `accounts` maps a ledger account to its seconds; they sum to `wall_seconds`.

    `valid` is false where a timed run's seconds are void; `invalid_because` says why, `conditions` what was read.
    `spans_budget` says that the method's schedule knows the budget, so that no smaller one can be read off the records.
    """

    status: Status
    message: str
    steps: int
    trials: int
    counted_seconds: float
    wall_seconds: float
    accounts: Mapping[str, float]
    final: Mapping[str, Any]
    environment: Mapping[str, Any]
    conditions: Mapping[str, Any] = field(default_factory=dict)
    invalid_because: Sequence[str] = ()
    spans_budget: bool = False
    protocol: int = PROTOCOL
    schema: int = SCHEMA

    @property
    def valid(self) -> bool:
        """Whether nothing disturbed the run's clock."""
        return not self.invalid_because


@dataclass(frozen=True)
class Run:
    """One run as read from disk.  `outcome` is None while it has not ended."""

    id: str
    folder: Path
    spec: Mapping[str, Any]
    records: tuple[Mapping[str, Any], ...]
    outcome: Outcome | None
    torn: bool = field(default=False)

    @property
    def evaluations(self) -> list[Mapping[str, Any]]:
        """The records of kind `evaluation`, oldest first."""
        return [record for record in self.records if record["kind"] == "evaluation"]

    @property
    def trials(self) -> list[Mapping[str, Any]]:
        """The records of kind `trial`: one an ended or cut trial of a search."""
        return [record for record in self.records if record["kind"] == "trial"]

    @property
    def incumbents(self) -> list[Mapping[str, Any]]:
        """The records of kind `incumbent`: one each time a better model was selected, the untrained one first."""
        return [record for record in self.records if record["kind"] == "incumbent"]


@dataclass(frozen=True)
class Manifest:
    """What one experiment planned: its name, the figures it feeds, its resolved configuration, its run ids."""

    experiment: str
    figures: tuple[str, ...]
    config: Mapping[str, Any]
    runs: tuple[str, ...]


def run_id(spec: Mapping[str, Any]) -> str:
    """The first 16 hexadecimal digits of SHA-256 over the canonical JSON of what affects the run's result.

    Labels, which are for figures only, are left out.
    """
    text = json.dumps(_without_labels(spec), sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _without_labels(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _without_labels(item) for key, item in value.items() if key != "label"}
    return value


def title_of(spec: Mapping[str, Any]) -> str:
    """What a run is called: its method's label and, where there is one, its shock."""
    shock = spec.get("shock")
    return f"{spec['method']['label']}; {shock['label']}" if shock else spec["method"]["label"]


class RunWriter:
    """Writes one run's folder.  Opened again after an interruption, it keeps the first `keep` bytes of the records.

    All its methods raise `StorageError` where the folder cannot be written.
    """

    def __init__(self, root: Path, spec: Mapping[str, Any], keep: int = 0):
        self.id = run_id(spec)
        self.folder = root / self.id
        path = self.folder / "records.jsonl"
        with self._storing():
            self.folder.mkdir(parents=True, exist_ok=True)
            (self.folder / "outcome.json").unlink(missing_ok=True)
            write_json(self.folder / "spec.json", spec)
            self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
            os.ftruncate(self._file, keep)

    def append(self, record: Mapping[str, Any]) -> None:
        """Adds one record; the line reaches the operating system, whole, before this returns."""
        line = (json.dumps(finite(record), allow_nan=False) + "\n").encode()
        with self._storing():
            written = os.write(self._file, line)
            while written < len(line):  # a full disk takes a part, and refuses the rest
                written += os.write(self._file, line[written:])

    def durable(self) -> int:
        """Bytes of the records, all of which are on the disk when this returns."""
        with self._storing():
            os.fsync(self._file)
            return os.fstat(self._file).st_size

    @contextlib.contextmanager
    def _storing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise StorageError(f"{self.folder}: cannot be written ({error.strerror}); what is recorded is kept") from error

    def close(self, outcome: Outcome | None = None) -> None:
        """Ends the run; without an outcome it stays unfinished."""
        with contextlib.suppress(OSError):
            os.fsync(self._file)
        os.close(self._file)
        if outcome is not None:
            with self._storing():
                write_json(self.folder / "outcome.json", {**asdict(outcome), "valid": outcome.valid})


def write_json(path: Path, content: Any) -> None:
    """Writes a whole file or nothing: temporary file, fsync, rename."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with open(temporary, "w", encoding="utf-8") as file:
            json.dump(finite(content), file, indent=1, allow_nan=False)
            file.write("\n")
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def finite(value: Any) -> Any:
    """`value` with every non-finite float replaced by None, since JSON has none."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return value


def write_manifest(root: Path, manifest: Manifest) -> None:
    """Stores what an experiment planned, replacing an older plan of the same name."""
    folder = root / "experiments"
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / f"{manifest.experiment}.json", asdict(manifest))


def read_manifests(root: Path) -> list[Manifest]:
    """Every experiment planned in a results folder, by name."""
    manifests = []
    for path in sorted((root / "experiments").glob("*.json")):
        content = _read_object(path)
        try:
            manifests.append(
                Manifest(content["experiment"], tuple(content["figures"]), content["config"], tuple(content["runs"]))
            )
        except (KeyError, TypeError) as error:
            raise RecordError(f"{path}:1:1: not an experiment's plan ({error}); run the experiment again") from None
    return manifests


def experiments_in(root: Path) -> list[Manifest]:
    """`read_manifests` of a folder that a user has named: raises `RecordError`, saying what it is, where it holds none."""
    if (root / "spec.json").exists():
        raise RecordError(f"{root}: the folder of one run; give the results folder it is in, {root.resolve().parent}")
    if not root.is_dir():
        raise RecordError(f"{root}: no such folder; give a results folder, as in `oho-bench run CONFIG --out DIR`")
    manifests = read_manifests(root)
    if not manifests:
        raise RecordError(f"{root}: no experiment has been run into this folder; `oho-bench run CONFIG --out {root}`")
    return manifests


def read_runs(root: Path) -> Iterator[Run]:
    """Every run in a results folder, finished or not, by id."""
    for path in sorted(root.glob("*/spec.json")):
        yield read_run(path.parent)


def read_run(folder: Path) -> Run:
    """One run's spec, records and outcome."""
    records, torn = _read_lines(folder / "records.jsonl")
    outcome = read_outcome(folder)
    if outcome is not None and outcome.status.is_result and not records:
        raise RecordError(f"{folder / 'records.jsonl'}:1:1: the records are gone; remove {folder} to run it again")
    return Run(folder.name, folder, _read_object(folder / "spec.json"), records, outcome, torn)


def read_outcome(folder: Path) -> Outcome | None:
    """How a run ended, or None while it has not."""
    path = folder / "outcome.json"
    if not path.exists():
        return None
    content = _read_object(path)
    if content.get("schema") != SCHEMA:
        raise RecordError(
            f"{path}:1:1: schema {content.get('schema')!r}, this version reads {SCHEMA}; run it again into another folder"
        )
    try:
        content.pop("valid", None)
        return Outcome(**{**content, "status": Status(content["status"])})
    except (TypeError, ValueError, KeyError) as error:
        raise RecordError(f"{path}:1:1: not an outcome ({error}); remove this file to run it again") from None


def _read_object(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise RecordError(f"{path}:{error.lineno}:{error.colno}: {error.msg}; a JSON object is expected") from None
    except (OSError, UnicodeDecodeError) as error:
        raise RecordError(f"{path}:1:1: cannot be read ({error})") from None
    if not isinstance(content, dict):
        raise RecordError(f"{path}:1:1: a JSON object is expected")
    return content


def _read_lines(path: Path) -> tuple[tuple[Mapping[str, Any], ...], bool]:
    if not path.exists():
        return (), False
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except UnicodeDecodeError as error:
        raise RecordError(f"{path}:1:{error.start + 1}: not UTF-8 text") from None
    torn = lines.pop() != ""
    try:
        records = json.loads(f"[{','.join(lines)}]")  # all at once: a quarter less time than line by line
    except json.JSONDecodeError:
        records = []
    if len(records) != len(lines) or any(map(_problem, records)):
        records = [_read_line(path, number, line) for number, line in enumerate(lines, start=1)]
    return tuple(records), torn


def _read_line(path: Path, number: int, line: str) -> dict[str, Any]:
    try:
        record = json.loads(line)
    except json.JSONDecodeError as error:
        raise RecordError(f"{path}:{number}:{error.colno}: {error.msg}; a record is one JSON object a line") from None
    problem = _problem(record)
    if problem:
        raise RecordError(f"{path}:{number}:1: {problem}")
    return record


def _problem(record: Any) -> str | None:
    """What is wrong with a record; None where nothing is."""
    if not isinstance(record, dict) or record.get("kind") not in KINDS:
        return f"kind must be one of {', '.join(KINDS)}"
    try:
        if _NUMBER_TYPES.issuperset(map(type, _NUMBERS_OF[record["kind"]](record))):
            return None
    except KeyError:
        pass
    name = next(name for name in KINDS[record["kind"]] if name not in record or type(record[name]) not in _NUMBER_TYPES)
    return f"{name!r} must be a number or null; the run's records are damaged"
