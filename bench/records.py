"""What a run leaves on disk, and how it is read back.  Imports no torch.

A results folder holds

    experiments/NAME.json     what was planned: the resolved configuration and its list of run ids
    ID/spec.json              everything that affects the run's result; ID is the hash of it
    ID/records.jsonl          one JSON object a line, append-only: evaluations, incumbents, ended trials, shocks
    ID/outcome.json           how the run ended; written once, atomically, so a run without it is unfinished
    ID/checkpoint.pt          of an unfinished run, what it needs to go on: see `bench.saving`

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
from pathlib import Path
from typing import Any

from bench.shapes import KINDS as KINDS
from bench.shapes import MANIFEST, OUTCOME, SPEC, Shape, Status, misfit, problem_of

SCHEMA = 2
"""Version of the files' layout."""

PROTOCOL = 2
"""Version of the measuring protocol, PROTOCOL.md; figures never mix two."""

LONGEST_MESSAGE = 1_000
DEEPEST = 30
"""Levels of a JSON object."""
LONGEST_WHOLE = 18
"""Digits that fit into 64 bits."""


def one_line(text: str) -> str:
    """A message without what would break a line or a terminal, and without what would fill it."""
    if len(text) > LONGEST_MESSAGE:
        text = f"{text[: LONGEST_MESSAGE // 2]} ... {text[-LONGEST_MESSAGE // 2 :]}"
    return "".join(sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in text)


class RecordError(Exception):
    """A results folder that cannot be read; the message, one line, starts with `file:line:column`."""

    def __init__(self, message: str):
        super().__init__(one_line(message))


class StorageError(Exception):
    """A results folder that cannot be written."""


@contextlib.contextmanager
def storing(folder: Path) -> Iterator[None]:
    """What the system refuses inside the block becomes a `StorageError` that names the folder."""
    try:
        yield
    except OSError as error:
        raise StorageError(f"{folder}: cannot be written ({error.strerror}); what is recorded is kept") from error


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
        with storing(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            (self.folder / "outcome.json").unlink(missing_ok=True)
            write_json(self.folder / "spec.json", spec)
            self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
            os.ftruncate(self._file, keep)

    def append(self, record: Mapping[str, Any]) -> None:
        """Adds one record; the line reaches the operating system, whole, before this returns."""
        line = (json.dumps(finite(record), allow_nan=False) + "\n").encode()
        with storing(self.folder):
            written = os.write(self._file, line)
            while written < len(line):  # a full disk takes a part, and refuses the rest
                written += os.write(self._file, line[written:])

    def durable(self) -> int:
        """Bytes of the records, all of which are on the disk when this returns."""
        with storing(self.folder):
            os.fsync(self._file)
            return os.fstat(self._file).st_size

    def close(self, outcome: Outcome | None = None) -> None:
        """Ends the run; without an outcome it stays unfinished."""
        with contextlib.suppress(OSError):
            os.fsync(self._file)
        os.close(self._file)
        if outcome is not None:
            with storing(self.folder):
                write_json(self.folder / "outcome.json", {**asdict(outcome), "valid": outcome.valid})


def write_json(path: Path, content: Any) -> None:
    """Writes a whole file or nothing: temporary file, fsync, rename.  The folder is ours: see `bench.claim`."""
    temporary = path.with_name(f".{path.name}.part")
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
        _check(path, content, MANIFEST, "run the experiment again")
        config = {"seeds": [], **content["config"]}
        manifests.append(Manifest(content["experiment"], tuple(content["figures"]), config, tuple(content["runs"])))
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
    outcome, spec = read_outcome(folder), _read_object(folder / "spec.json")
    _check(folder / "spec.json", spec, SPEC, f"remove {folder} to run it again")
    if outcome is not None and outcome.status.is_result and not records:
        raise RecordError(f"{folder / 'records.jsonl'}:1:1: the records are gone; remove {folder} to run it again")
    return Run(folder.name, folder, spec, records, outcome, torn)


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
    _check(path, content, OUTCOME, "remove this file to run it again")
    try:
        content.pop("valid", None)
        return Outcome(**{**content, "status": Status(content["status"])})
    except TypeError as error:  # of a name that outcomes do not have
        raise RecordError(f"{path}:1:1: not an outcome ({error}); remove this file to run it again") from None


def _read_object(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
        content = _DECODER.decode(text)
        if text.count("{") + text.count("[") > DEEPEST or "\\u" in text:  # only such a text can fail this
            _check_writable(content)
    except json.JSONDecodeError as error:
        raise RecordError(f"{path}:{error.lineno}:{error.colno}: {error.msg}; a JSON object is expected") from None
    except (OSError, ValueError, RecursionError) as error:
        raise RecordError(f"{path}:1:1: cannot be read ({error})") from None
    if not isinstance(content, dict):
        raise RecordError(f"{path}:1:1: a JSON object is expected")
    return content


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")


def _whole(digits: str) -> int | float:
    """What no array holds as a whole number is a float, and infinite if need be."""
    return int(digits) if len(digits) <= LONGEST_WHOLE else float(digits)


_DECODER = json.JSONDecoder(parse_constant=_refuse, parse_int=_whole)


def _check_writable(value: Any, levels: int = DEEPEST) -> None:
    """Raises ValueError where what was read is nested too deeply, or a text in it is no Unicode, to be written again."""
    if levels == 0:
        raise ValueError(f"nested deeper than {DEEPEST} levels")
    if isinstance(value, str):
        value.encode()
    for item in [*value, *value.values()] if isinstance(value, dict) else value if isinstance(value, list) else ():
        _check_writable(item, levels - 1)


def _check(path: Path, content: Mapping[str, Any], shape: Shape, remedy: str) -> None:
    if problem := misfit(content, shape):
        raise RecordError(f"{path}:1:1: {problem}; {remedy}")


def _read_lines(path: Path) -> tuple[tuple[Mapping[str, Any], ...], bool]:
    try:
        whole, end, rest = path.read_text(encoding="utf-8").rpartition("\n")
    except FileNotFoundError:
        return (), False
    except UnicodeDecodeError as error:
        raise RecordError(f"{path}:1:{error.start + 1}: not UTF-8 text") from None
    try:
        records = _DECODER.decode("[" + whole.replace("\n", ",") + "]")  # all at once: a quarter less time than by line
    except (ValueError, RecursionError):
        records = []
    if len(records) != whole.count("\n") + len(end) or any(map(problem_of, records)):
        records = [_read_line(path, number, line) for number, line in enumerate(whole.split("\n"), start=1)]
    return tuple(records), rest != ""


def _read_line(path: Path, number: int, line: str) -> dict[str, Any]:
    try:
        record = _DECODER.decode(line)
    except json.JSONDecodeError as error:
        raise RecordError(f"{path}:{number}:{error.colno}: {error.msg}; a record is one JSON object a line") from None
    except (ValueError, RecursionError) as error:
        raise RecordError(f"{path}:{number}:1: cannot be read ({error})") from None
    problem = problem_of(record)
    if problem:
        raise RecordError(f"{path}:{number}:1: {problem}")
    return record
