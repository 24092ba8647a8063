"""Figures by name: ours, those of installed packages, and those of files that a results folder keeps."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import pandas as pd

from bench.records import Manifest, ReportError
from bench.records.errors import BrokenFigureError
from bench.records.names import file_name
from bench.records.plugins import PluginError, in_words, load_file, member, place_of, stored
from reports.registry import FIGURES, FigureEntry
from reports.selection import NoData


class UnknownFigureError(BrokenFigureError):
    """A name that no figure has."""


@dataclass(frozen=True)
class Figure:
    """A figure's entry and module.  `estimate` and `draw` are its own; of the rest it may leave out what it likes."""

    name: str
    entry: FigureEntry
    module: ModuleType

    @property
    def file_name(self) -> str:
        """What its files are called, without a suffix."""
        return file_name(self.name)

    @property
    def question(self) -> str:
        """What the figure asks; empty where its module has no `QUESTION`."""
        return getattr(self.module, "QUESTION", "")

    @property
    def method(self) -> str:
        """How it is measured; empty where its module has no `METHOD`."""
        return getattr(self.module, "METHOD", "")

    def of(self, function: str, *given: Any, otherwise: Any = None) -> Any:
        """Calls a function of the module; `otherwise` is the answer where the module has none of that name."""
        found: Callable[..., Any] | None = getattr(self.module, function, None)
        return otherwise if found is None else found(*given)

    @contextmanager
    def guarded(self) -> Iterator[None]:
        """Runs a block in which the figure may raise `NoData` or `BrokenFigureError`, and nothing else."""
        with _broken(self.name, str(self.module.__file__)):
            yield


@contextmanager
def _broken(name: str, path: str) -> Iterator[None]:
    """Turns every error of a figure into a `BrokenFigureError` that names the figure and the line in its file."""
    try:
        yield
    except (NoData, BrokenFigureError):
        raise
    except (PluginError, ReportError) as error:
        raise BrokenFigureError(f"{name}: {error}") from None
    except (Exception, SystemExit) as error:
        raise BrokenFigureError(f"{name}: {place_of(error, path)}: {in_words(error)}") from None


def data_of(estimates: Any) -> pd.DataFrame:
    """Returns the data behind a figure: its estimates, or what they have as `csv`."""
    return estimates if isinstance(estimates, pd.DataFrame) else getattr(estimates, "csv", pd.DataFrame())


def names_in(manifests: Iterable[Manifest]) -> list[str]:
    """Returns the figures that the experiments feed, ours first, in the order of the registry."""
    named = dict.fromkeys(name for manifest in manifests for name in manifest.figures)
    return [*(name for name in FIGURES if name in named), *(name for name in named if name not in FIGURES)]


def load(name: str, manifests: Iterable[Manifest], results: Path) -> Figure:
    """Returns a figure by its name; a user's own may be named with its folder, as in a configuration.

    Raises `UnknownFigureError`, and `BrokenFigureError` for a user's own that fails.
    """
    name = Path(name).name
    if name in FIGURES:
        return Figure(name, FIGURES[name], import_module(FIGURES[name].module))
    origins = [found for manifest in manifests if (found := (manifest.config.get("figures") or {}).get(name))]
    if not origins:
        allowed = ", ".join((*FIGURES, *(other for other in names_in(manifests) if other not in FIGURES)))
        raise UnknownFigureError(f"unknown figure {name!r}; allowed: {allowed}")
    with _broken(name, str(origins[-1].get("file") or origins[-1].get("module"))):
        entry = _entry(name, origins[-1], results)
        module = import_module(entry.module)
    if lacking := [needed for needed in ("estimate", "draw") if not callable(getattr(module, needed, None))]:
        raise BrokenFigureError(f"{name}: has no function {' and no function '.join(lacking)}, which a figure needs")
    figure = Figure(name, entry, module)
    texts = {"title": entry.title, "QUESTION": figure.question, "METHOD": figure.method}
    for part, text in texts.items():
        if not isinstance(text, str):
            raise BrokenFigureError(f"{name}: {part} is a {type(text).__name__}; a text is expected")
    return figure


def _entry(name: str, origin: Mapping[str, str], results: Path) -> FigureEntry:
    if "file" in origin:
        module, _ = load_file(stored(results, dict(origin)), expected=origin["hash"])
    else:
        module = import_module(origin["module"])
    try:
        entry = member(module, origin["place"])
    except (KeyError, TypeError):
        raise BrokenFigureError(f"{name}: its file or module has no {origin['place']}") from None
    if not isinstance(entry, FigureEntry):
        raise BrokenFigureError(f"{name}: is a {type(entry).__name__}; a FigureEntry is expected")
    return entry
