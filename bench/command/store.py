"""A results folder in an object store, or in any other place that `fsspec` knows by a URL.

A store has no locks and no renaming.  So one command alone hands out its runs, a process that makes one keeps it in a
folder of its own and copies it, and files are copied in an order by which a reader never sees an outcome without its
records, nor a checkpoint without the records before it.
"""

from __future__ import annotations

import contextlib
import logging
import tempfile
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from bench.experiment.yaml_file import ConfigError
from bench.process.signals import Stopper
from bench.process.standard_streams import say
from bench.protocol.checkpoints import CHECKPOINT
from bench.records import RecordError, StorageError
from bench.records.errors import one_line
from bench.records.files import replacing_shared, storing
from bench.records.json_files import read_object, write_json

LOOK_SECONDS = 10.0
"""The time between two looks at the records of runs in progress."""
TRIES = 3
TRY_SECONDS = 2.0
"""How often something is tried with the store, and the time in between."""
COMMON = ("experiments", "plugins")
"""The parts of a results folder that all runs need."""
KEPT = ".store.json"
"""The file in a folder that says what it has of which store."""
OWNER = ".worker"
"""The file by which the last process that began a run is known."""
ORDER = ("", CHECKPOINT, "outcome.json")
"""The files that are written after all others, in this order."""
VERSIONS = ("size", "ETag", "etag", "generation", "LastModified", "last_modified", "mtime", "modified", "created")
"""What stores tell of a file that differs when it has been written again."""
log = logging.getLogger("oho-bench")


class Store:
    """The files below a URL, such as s3://bucket/quick.  All methods raise `StorageError` if the store refuses."""

    def __init__(self, url: str):
        """Raises `ConfigError` if the URL has no protocol that is known and installed."""
        import fsspec

        self.url = url.rstrip("/")
        if "://" not in url:
            raise ConfigError(f"{url}: a URL is expected, such as s3://bucket/folder")
        try:
            self._system, self._root = fsspec.core.url_to_fs(self.url)
        except (ImportError, ValueError) as error:
            raise ConfigError(f"{url}: {one_line(' '.join(str(error).split()))}") from None
        self._is_local = "file" in _protocols(self._system)
        self._seen: dict[str, str] = {}
        """The version of each file that the folder or the store has from the other one."""
        self._sent: dict[str, tuple[int, ...]] = {}

    def pull(self, root: Path, part: str = "", *, checkpoints: bool = True) -> None:
        """Copies what the store has, or a part of it, and removes what it no longer has.  `checkpoints` may be left out."""
        if not self._seen:
            self._seen = self._kept(root)
        found = self._listed(part)
        found = {name: found[name] for name in found if checkpoints or not name.endswith(f"/{CHECKPOINT}")}
        wanted = [name for name in found if self._seen.get(name) != found[name] or not (root / name).exists()]
        for name in sorted(wanted, key=_rank):
            content = self._tried(lambda: self._system.cat_file(self._at(name)), missing=True)  # noqa: B023
            if content is not None:
                with storing(root):
                    (root / name).parent.mkdir(parents=True, exist_ok=True)
                    with replacing_shared(root / name) as file:
                        file.write(content)
                self._seen[name] = found[name]
        for name in [name for name in self._seen if _is_in(name, part) and name not in found]:
            del self._seen[name]
            (root / name).unlink(missing_ok=True)
        if found and not part:
            with storing(root):
                write_json(root / KEPT, {"url": self.url, "seen": self._seen})

    def _kept(self, root: Path) -> dict[str, str]:
        """Returns what an earlier process pulled into the folder from this store."""
        with contextlib.suppress(OSError, RecordError, KeyError):
            kept = read_object(root / KEPT, "remove it")
            return dict(kept["seen"]) if kept["url"] == self.url else {}
        return {}

    def push(self, root: Path, part: str, *, whole: bool = True) -> None:
        """Makes the store's part equal to the folder's; without `whole`, leaves folders within that part for later."""
        paths = (root / part).rglob("*") if whole else (root / part).glob("*")
        names = {
            path.relative_to(root).as_posix(): path for path in paths
            if path.is_file() and not path.is_symlink() and not path.name.startswith(".")
        }  # fmt: skip
        gone = {name for name in self._seen if _is_in(name, part) and name not in names} if whole else set()
        gone |= {name for name in self._seen if name == f"{part}/outcome.json" and name not in names}
        for name in [name for name in gone if not name.endswith(f"/{CHECKPOINT}")]:
            self.remove(name)
        for name in sorted(names, key=_rank):
            with contextlib.suppress(FileNotFoundError):  # another one took its place
                state = names[name].stat()
                version = state.st_size, state.st_mtime_ns, state.st_ino
                if self._sent.get(name) != version:
                    self.write(name, names[name].read_bytes())
                    self._sent[name], self._seen[name] = version, "ours"
        for name in [name for name in gone if name.endswith(f"/{CHECKPOINT}")]:
            self.remove(name)

    def write(self, name: str, content: bytes) -> None:
        """Writes a file, whole or not at all."""
        self._tried(lambda: self._put(self._at(name), content))

    def read(self, name: str) -> bytes | None:
        """Returns a file's content, or None if there is no such file."""
        return self._tried(lambda: self._system.cat_file(self._at(name)), missing=True)

    def _put(self, place: str, content: bytes) -> None:
        if self._is_local:
            self._system.makedirs(self._system._parent(place), exist_ok=True)
            temporary = f"{self._system._parent(place)}/.{uuid.uuid4().hex}.part"
            self._system.pipe_file(temporary, content)
            self._system.mv(temporary, place)
        else:
            self._system.pipe_file(place, content)

    def remove(self, name: str) -> None:
        """Removes a file, if it is there."""
        self._tried(lambda: self._system.rm_file(self._at(name)), missing=True)
        self._seen.pop(name, None)

    def _listed(self, part: str) -> dict[str, str]:
        """Returns the names of the store's files and, of each, what differs when it has been written again."""
        self._system.invalidate_cache()
        found: Mapping[str, Mapping[str, Any]]
        found = self._tried(lambda: self._system.find(self._at(part), detail=True), missing=True) or {}
        listed = {}
        for place, about in found.items():
            name = place.removeprefix(self._root).lstrip("/")
            parts = PurePosixPath(name).parts
            if ".." not in parts and not any(each.startswith(".") for each in parts):
                listed[name] = repr([about.get(key) for key in VERSIONS])
        return listed

    def _at(self, name: str) -> str:
        return f"{self._root}/{name}".rstrip("/")

    def _tried(self, act: Any, *, missing: bool = False) -> Any:
        """Does something with the store, again if it fails; where a file may be `missing`, returns None for it."""
        for number in range(1, TRIES + 1):
            try:
                return act()
            except FileNotFoundError:
                if missing:
                    return None
                error: Exception = FileNotFoundError("no such bucket or folder")
            except Exception as other:  # each store has errors of its own
                error = other
            if number < TRIES:
                time.sleep(TRY_SECONDS)
        reason = one_line(" ".join(str(error).split()) or type(error).__name__)
        raise StorageError(f"{self.url}: the store refuses ({reason}); repeat the command to continue") from error


class Mirror:
    """The results folder `root` of the command that hands out the runs: its store, if it has one, without checkpoints."""

    def __init__(self, store: Store | None, root: Path):
        self.root, self._store, self._looked = root.absolute(), store, time.monotonic()

    def begin(self) -> None:
        """Fetches all that the store has."""
        if self._store:
            say(f"{self._store.url} has no locks: until this command has ended, start no other one for it")
            self._store.pull(self.root, checkpoints=False)

    def plans(self, start_over: Iterable[str]) -> None:
        """Sends the plans of the runs and the plug-ins that they need; some runs are not to be continued."""
        if self._store:
            for run in start_over:
                self._store.remove(f"{run}/{CHECKPOINT}")
            for part in COMMON:
                self._store.push(self.root, part)

    def fetch(self, run: str) -> None:
        """Fetches what there is of a run."""
        if self._store:
            self._store.pull(self.root, run, checkpoints=False)

    def send(self, run: str) -> None:
        """Sends what this process has written of a run."""
        if self._store:
            self._store.push(self.root, run)

    def look(self, runs: Iterable[str]) -> None:
        """Fetches what there is of runs in progress, from time to time, if the store answers."""
        if self._store and time.monotonic() - self._looked >= LOOK_SECONDS:
            with contextlib.suppress(StorageError):
                for run in runs:
                    self.fetch(run)
            self._looked = time.monotonic()


class Scratch:
    """The folder of a process that makes runs of a store."""

    def __init__(self, store: Store, root: Path, runs: Sequence[str]):
        self.root, self._store, self._runs = root, store, runs
        self._token, self._saved = uuid.uuid4().hex.encode(), dict.fromkeys(runs)
        self._has_warned = False

    def progress(self, fraction: float, state: Any) -> None:
        """Sends new checkpoints, and the records before them.  A failure costs a warning."""
        for run in self._runs:
            present = self._checkpoint(run)
            if present == self._saved[run]:
                continue
            self._saved[run] = present
            try:
                self._check_ours(run)
                self._store.push(self.root, run, whole=False)
            except StorageError as error:
                if not self._has_warned:
                    log.warning("%s: a checkpoint was not stored (%s)", run, error)
                self._has_warned = True

    def begin(self) -> None:
        """Fetches what there is of the runs, and says in the store that this process makes them."""
        for part in (*COMMON, *self._runs):
            self._store.pull(self.root, part)
        for run in self._runs:
            self._saved[run] = self._checkpoint(run)
            self._store.write(f"{run}/{OWNER}", self._token)

    def end(self) -> None:
        """Sends all that there is of the runs."""
        for run in self._runs:
            self._check_ours(run)
            self._store.push(self.root, run)

    def _check_ours(self, run: str) -> None:
        if self._store.read(f"{run}/{OWNER}") != self._token:
            raise StorageError(f"{self._store.url}/{run}: another process has taken the run over")

    def _checkpoint(self, run: str) -> tuple[int, int] | None:
        path = self.root / run / CHECKPOINT
        with contextlib.suppress(FileNotFoundError):
            return path.stat().st_ino, path.stat().st_mtime_ns
        return None


@contextlib.contextmanager
def scratch(url: str, runs: Sequence[str], stopper: Stopper) -> Iterator[Scratch]:
    """Yields a temporary folder with what a store has of some runs; however the block ends, they are stored again.

    Raises `StorageError` if the store refuses.
    """
    with tempfile.TemporaryDirectory(prefix="oho-bench-") as folder:
        place = Scratch(Store(url), Path(folder), runs)
        place.begin()
        try:
            yield place
        finally:
            with stopper.patience():
                place.end()


def pull(url: str, root: Path) -> None:
    """Copies a store's results into a folder, which is then read as any results folder.

    Raises `StorageError`, or `ConfigError` if the URL is none or has no results.
    """
    store = Store(url)
    store.pull(root)
    if not (root / "experiments").is_dir():
        raise ConfigError(f"{url}: there are no results; give the URL of `oho-bench run --storage`")


def _rank(name: str) -> tuple[int, str]:
    last = PurePosixPath(name).name
    return (ORDER.index(last) if last in ORDER else 0), name


def _is_in(name: str, part: str) -> bool:
    return not part or name.startswith(f"{part}/")


def _protocols(system: Any) -> tuple[str, ...]:
    return (system.protocol,) if isinstance(system.protocol, str) else tuple(system.protocol)
