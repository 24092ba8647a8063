"""Users' files that define methods, tasks, data sets or figures, and their copies in a results folder.

    plugins/HASH/NAME.py      the code that made the runs; HASH is the hash of the file's bytes

A results folder can be read, audited and reported long after the user has changed the file or moved it away.  A plug-in is
one file: code that several share belongs in a package that is installed.
"""

from __future__ import annotations

import hashlib
import sys
import traceback
from pathlib import Path
from types import ModuleType
from typing import Any

from bench.records.errors import one_line
from bench.records.files import read, reason, replacing

HASH_DIGITS = 16
_sources: dict[str, Path] = {}
"""The path of each file that this process has loaded, by the hash of its bytes."""


class PluginError(Exception):
    """A plug-in that cannot be used; the message is one line that names it and says why."""

    def __init__(self, message: str):
        super().__init__(one_line(message))


def load_file(path: Path, expected: str | None = None) -> tuple[ModuleType, str]:
    """Imports a file and returns its module and hash.  Imports the same bytes only once per process.

    The copy in a results folder has an `expected` hash and is opened as all files there are.

    Raises:
        PluginError: if the file cannot be read, does not have the `expected` hash (it is not executed then), or raises.
    """
    try:
        content = path.read_bytes() if expected is None else read(path)
    except (OSError, ValueError) as error:
        why = reason(error) if isinstance(error, OSError) else error
        raise PluginError(f"{path}: cannot be read ({why})") from None
    digest = hashlib.sha256(content).hexdigest()[:HASH_DIGITS]
    if expected not in (None, digest):
        raise PluginError(f"{path}: is not the file that made the run")
    name = f"oho_bench_plugin_{digest}"
    if name not in sys.modules:
        module = ModuleType(name)
        module.__file__ = str(path)
        sys.modules[name] = module  # dataclasses look up their module while it is being imported
        try:
            # Not by the import system, whose cache takes an edit within the same second for the file before it.
            exec(compile(content, str(path), "exec", dont_inherit=True), vars(module))
        except (Exception, SystemExit) as error:
            del sys.modules[name]
            remedy = ""
            if isinstance(error, ModuleNotFoundError):
                remedy = "; a plug-in is one file, and whatever else it imports must be installed"
            raise PluginError(f"{place_of(error, str(path))}: {in_words(error)}{remedy}") from None
        _sources[digest] = path
    return sys.modules[name], digest


def place_of(error: BaseException, path: str) -> str:
    """Returns the place within a file that an error of its import came from, as far as it is known."""
    if isinstance(error, SyntaxError) and error.filename == path:
        return f"{path}:{error.lineno or 1}:{error.offset or 1}"
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == path]
    return f"{path}:{lines[-1]}:1" if lines else path


def in_words(error: BaseException) -> str:
    """Returns the class of an error and its message, in one line."""
    said = error.msg if isinstance(error, SyntaxError) else error
    return " ".join(f"{type(error).__name__}: {said}".split()).removesuffix(":")


def store(root: Path, origin: dict[str, Any]) -> None:
    """Copies the file that an entry came from into a results folder; an entry of an installed package needs no copy."""
    source = _sources.get(origin["hash"])
    if "file" not in origin or source is None:
        return
    target = stored(root, origin)
    if not target.exists():
        content = source.read_bytes()
        if hashlib.sha256(content).hexdigest()[:HASH_DIGITS] != origin["hash"]:
            raise PluginError(f"{source}: changed while it was in use; repeat the command")
        target.parent.mkdir(parents=True, exist_ok=True)
        with replacing(target) as file:
            file.write(content)


def stored(root: Path, origin: dict[str, Any]) -> Path:
    """Returns where a results folder keeps the file that an entry came from.  Raises `PluginError` if that is elsewhere."""
    if (root / "plugins").is_symlink():
        raise PluginError(f"{root / 'plugins'}: a link, which is not followed; put what it leads to in its place")
    return root / "plugins" / origin["hash"] / origin["file"]


def member(module: ModuleType, place: str) -> Any:
    """Returns what a place in a module names, `NAME` or `NAMES.key` for a mapping's item; KeyError if there is none."""
    name, _, key = place.partition(".")
    found = vars(module)[name]
    return found[key] if key else found
