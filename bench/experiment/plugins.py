"""Entries that a configuration brings with it: `./restarts.py:METHOD`, `package.module:METHOD`, or `plugins: [...]`.

The run's spec records the source of an entry under `origin`, with a hash of it, so that an edited method is a new run.

    origin  {"file": "restarts.py", "hash": ..., "place": "METHOD"}
            {"module": "package.module", "hash": ..., "place": "METHOD", "distribution": "package 1.2"}
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Mapping
from functools import cache
from importlib import import_module
from importlib.metadata import Distribution, packages_distributions
from pathlib import Path
from traceback import extract_tb
from types import ModuleType
from typing import Any, NamedTuple

from bench.experiment.registries import KINDS, Registry
from bench.records.names import checked_name
from bench.records.plugins import HASH_DIGITS, PluginError, in_words, load_file, member, place_of, stored


class Found(NamedTuple):
    """An entry, its name in specs and records, and its origin, which is None for one of ours."""

    name: str
    entry: Any
    origin: dict[str, str] | None


class Catalogue:
    """All that a configuration can name: the registries, what plug-ins add, and files and modules named directly.

    Relative files are looked up in `folder`.
    """

    def __init__(self, folder: Path):
        self._folder = folder
        self._own: dict[str, dict[str, Found]] = {kind: {} for kind in KINDS}

    def add(self, plugin: str) -> None:
        """Adds what a file or module registers in its mappings METHODS, TASKS, DATA_SETS and FIGURES.

        Raises:
            PluginError: if it cannot be imported, or registers nothing, or what is no entry or has a name that is taken.
        """
        module, origin = self._load(plugin)
        found = False
        for kind, about in KINDS.items():
            mapping = vars(module).get(about.mapping, {})
            if not isinstance(mapping, Mapping):
                raise PluginError(f"{plugin}: {about.mapping} must map names to entries")
            for name, entry in mapping.items():
                found = True
                if reason := _no_name(name):
                    raise PluginError(f"{plugin}: {about.mapping} has an entry called {name!r}; {reason}")
                _of_kind(kind, f"{plugin}: {about.mapping}[{name!r}]", entry)
                if name in self._own[kind] or name in about.registry:
                    raise PluginError(f"{plugin}: there already is a {kind} {name!r}; choose another name")
                self._own[kind][name] = Found(name, entry, {**origin, "place": f"{about.mapping}.{name}"})
        if not found:
            wanted = ", ".join(about.mapping for about in KINDS.values())
            raise PluginError(f"{plugin}: registers nothing; it must map names to entries in one or more of {wanted}")

    def names(self, kind: str) -> list[str]:
        """Returns the names that are known without a file or module."""
        return [*self._own[kind], *KINDS[kind].registry]

    def find(self, kind: str, name: str) -> Found:
        """Returns the entry of a kind.  Raises KeyError for an unknown name and PluginError for a plug-in that fails."""
        if name in self._own[kind]:
            return self._own[kind][name]
        registry = KINDS[kind].registry
        if name in registry:
            entry = _of_kind(kind, name, registry[name])
            return Found(name, entry, installed_origin(registry, name))
        called, entry, origin = self._named_directly(name)
        return Found(called, _of_kind(kind, name, entry), origin)

    def find_all(self, name: str) -> dict[str, Found]:
        """Returns the entries of a name by kind, as a method and a figure may share a name.  Raises as `find` does."""
        kinds = [kind for kind in KINDS if name in self.names(kind)]
        if not kinds:
            _, entry, _ = self._named_directly(name)
            kinds = [kind for kind, about in KINDS.items() if isinstance(entry, about.entry_class)]
            if not kinds:
                raise PluginError(f"{name}: is a {type(entry).__name__}, which is not an entry")
        return {kind: self.find(kind, name) for kind in kinds}

    def _named_directly(self, name: str) -> tuple[str, Any, dict[str, str]]:
        """Returns the name in records, the object and the origin of `FILE.py:NAME` or `package.module:NAME`."""
        source, colon, place = name.rpartition(":")
        if not colon:
            if name.endswith(".py"):
                raise PluginError(f"{name}: an entry of the file is expected, such as {name}:METHOD")
            raise KeyError(name)
        called = f"{Path(source).name}:{place}" if source.endswith(".py") else name
        if reason := _no_name(called):
            raise PluginError(f"{name}: {reason}")
        module, origin = self._load(source)
        try:
            entry = member(module, place)
        except (KeyError, TypeError):
            classes = tuple(about.entry_class for about in KINDS.values())
            have = ", ".join(key for key, value in vars(module).items() if isinstance(value, classes))
            raise PluginError(f"{source}: has no {place!r}; it has: {have or 'no entries'}") from None
        return called, entry, {**origin, "place": place}

    def _load(self, source: str) -> tuple[ModuleType, dict[str, str]]:
        if source.endswith(".py"):
            path = self._folder / source
            module, digest = load_file(path)
            return module, {"file": path.name, "hash": digest}
        return import_installed(source)


def _no_name(name: Any) -> str | None:
    """Returns why specs, records and reports cannot hold a name, or None if they can."""
    try:
        checked_name(name)
    except ValueError as error:
        return f"a name is expected: {error}"
    return None


def import_installed(name: str) -> tuple[ModuleType, dict[str, str]]:
    """Imports a module of an installed package and returns it with its origin.  Raises `PluginError`."""
    if not all(part.isidentifier() for part in name.split(".")):
        raise PluginError(f"{name}: is neither a file, ./NAME.py, nor a module, package.module")
    try:
        module = import_module(name)
    except (Exception, SystemExit) as error:
        if isinstance(error, ModuleNotFoundError) and f"{name}.".startswith(f"{error.name}."):
            remedy = "give a file as ./NAME.py, a module as package.module"
            raise PluginError(f"{name}: cannot be imported ({error}); {remedy}") from None
        path = error.filename if isinstance(error, SyntaxError) else extract_tb(error.__traceback__)[-1].filename
        raise PluginError(f"{name}: {place_of(error, str(path))}: {in_words(error)}") from None
    return module, _origin_of_module(name)


def installed_origin(registry: Registry, name: str) -> dict[str, str] | None:
    """Returns the origin of a registry's entry, or None for one of ours."""
    if name not in registry.installed:
        return None
    point = registry.installed[name]
    return {**_origin_of_module(point.module), "place": point.attr}


def _origin_of_module(name: str) -> dict[str, str]:
    """Returns the module, a hash of all Python files of its top-level package, and its distribution."""
    top = name.partition(".")[0]
    origin = {"module": name, "hash": _hash_of_package(sys.modules[top] if top in sys.modules else import_module(top))}
    if distributions := _distributions().get(top):
        origin["distribution"] = f"{distributions[0]} {Distribution.from_name(distributions[0]).version}"
    return origin


@cache
def _distributions() -> Mapping[str, list[str]]:
    """Returns the distributions of top-level modules, cached because a look at all that are installed takes a second."""
    return packages_distributions()


def _hash_of_package(package: ModuleType) -> str:
    folders = [Path(folder) for folder in getattr(package, "__path__", [])]
    files = [(path, path.relative_to(folder)) for folder in folders for path in sorted(folder.rglob("*.py"))]
    if not folders:
        if not getattr(package, "__file__", None):
            raise PluginError(f"{package.__name__}: is built into Python and has no file")
        files = [(Path(str(package.__file__)), Path())]
    digest = hashlib.sha256()
    for path, place in files:
        digest.update(str(place).encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:HASH_DIGITS]


def _of_kind(kind: str, name: str, entry: Any) -> Any:
    wanted = KINDS[kind].entry_class
    if not isinstance(entry, wanted):
        raise PluginError(f"{name}: is a {type(entry).__name__}; a {wanted.__name__} is expected")
    return entry


def entry_of(kind: str, part: Mapping[str, Any], root: Path | None = None) -> Any:
    """Returns the entry that made a part of a run's spec.

    A plug-in's file is taken from the results folder `root`; without one, this process must already have loaded it.

    Raises:
        PluginError: if the entry is no longer available or is not the one that made the run.
    """
    origin, registry = part.get("origin"), KINDS[kind].registry
    if origin is None:
        if part["name"] not in registry:
            raise PluginError(f"this version has no {kind} {part['name']!r}")
        return registry[part["name"]]
    if "file" in origin:
        loaded = sys.modules.get(f"oho_bench_plugin_{origin['hash']}")
        if loaded is None and root is not None:
            loaded, _ = load_file(stored(root, origin), expected=origin["hash"])
        if loaded is None:
            raise PluginError(f"{origin['file']}: the plug-in is not loaded")
        return member(loaded, origin["place"])
    module, present = import_installed(origin["module"])
    if present["hash"] != origin["hash"]:
        raise PluginError(f"{origin['module']}: has changed since the run was made")
    return member(module, origin["place"])
