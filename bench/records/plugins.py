"""Users' files that define methods, tasks, data sets or figures, and their copies in a results folder.

    plugins/HASH/NAME.py      the code that made the runs; HASH is the hash of the file's bytes

A results folder can be read, audited and reported long after the user has changed the file or moved it away.  A plug-in is
one file: code that several share belongs in a package that is installed.
"""

from __future__ import annotations

import hashlib
import importlib.util
import sys
import traceback
from pathlib import Path
from types import ModuleType
from typing import Any

from bench.records.json_files import replacing

HASH_DIGITS = 16
_sources: dict[str, Path] = {}
"""The path of each file that this process has loaded, by the hash of its bytes."""


class PluginError(Exception):
    """A plug-in that cannot be used; the message is one line that names it and says why."""


def load_file(path: Path) -> tuple[ModuleType, str]:
    """Imports a file and returns its module and hash.  Imports the same bytes only once per process.

    Raises:
        PluginError: if the file cannot be read, or raises.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise PluginError(f"{path}: cannot be read ({error.strerror})") from None
    digest = hashlib.sha256(content).hexdigest()[:HASH_DIGITS]
    name = f"oho_bench_plugin_{digest}"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, path)
        if spec is None or spec.loader is None:
            raise PluginError(f"{path}: a Python file, NAME.py, is expected")
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module  # dataclasses look up their module while it is being imported
        try:
            spec.loader.exec_module(module)
        except (Exception, SystemExit) as error:
            del sys.modules[name]
            raise PluginError(f"{_place(path, error)}: {_in_words(error)}") from None
        _sources[digest] = path
    return sys.modules[name], digest


def _place(path: Path, error: BaseException) -> str:
    """Returns the file and the line in it that raised, as far as they are known."""
    if isinstance(error, SyntaxError) and error.filename == str(path):
        return f"{path}:{error.lineno}:{error.offset or 1}"
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
    return f"{path}:{lines[-1]}:1" if lines else str(path)


def _in_words(error: BaseException) -> str:
    if isinstance(error, SyntaxError):
        return f"SyntaxError: {error.msg}"
    said = " ".join(f"{type(error).__name__}: {error}".split())
    if isinstance(error, ModuleNotFoundError):
        said += "; a plug-in is one file, and whatever else it imports must be installed"
    return said


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
    """Returns where a results folder keeps the file that an entry came from."""
    return root / "plugins" / origin["hash"] / origin["file"]


def member(module: ModuleType, place: str) -> Any:
    """Returns what a place in a module names, `NAME` or `NAMES.key` for a mapping's item; KeyError if there is none."""
    name, _, key = place.partition(".")
    found = vars(module)[name]
    return found[key] if key else found
