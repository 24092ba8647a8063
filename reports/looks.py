"""What a method looks like in figures: colour, marker, dashes and place, all from its family and its label.

Each family has a palette of its own.  A hash of the label picks a place in it, so that a method keeps its colour from one
report to the next; where two labels that share a figure pick the same place, the longer takes the next that is free.  A
method that repeats another has colour and marker of that one, and dashes of its own.
"""

from __future__ import annotations

import contextlib
import contextvars
import hashlib
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import pandas as pd

from reports.selection import ONLINE

PALETTES: Mapping[str, Sequence[str]] = {
    "training": (
        "#5DC4C4", "#56B4E9", "#7A8FA3", "#4C5FD7", "#0072B2", "#8E6BBF", "#332288", "#C3A5E8", "#009E73", "#004466",
        "#A3CBE8", "#5B3F8C",
    ),
    "online": ("#8C2D04", "#F4A582", "#D55E00", "#C51B7D", "#E8606D", "#F0A202", "#7A1F3D"),
    "one-step": ("#66C266", "#B9C34C", "#117733", "#999933", "#8FD3A0", "#4F7A28"),
    "tuning-free": ("#6B705C", "#8C8C8C", "#B8B8B8", "#4D4D4D", "#C9BC93", "#A89F68", "#6B5E4B", "#D8D3C4", "#2F2F2F"),
    "": ("#000000", "#AA4499", "#2E6E6E", "#7A6A00", "#777777"),
}  # fmt: skip
"""After Okabe and Ito, and Tol, for colour-blind readers: in a palette, neighbours differ in lightness as well as in hue.

The warm colours are of the methods under test alone.  The last palette is of families that have none.
"""
OURS = PALETTES["online"][2]
"""The colour of figures about one setting of a method under test."""
GREY = "#9A9A9A"
"""What stands in a figure to be compared with, and is neither under test nor best."""
READABLE, WEIGHTS = 0.18, (0.2126, 0.7152, 0.0722)
"""The luminance up to which text can be read on white, with a contrast of 4.5, and what red, green and blue have in it."""
MOST_COLOURS = 5
"""How many methods of a figure have a colour at most; the others are grey."""
MARKERS = ("o", "s", "^", "D", "v", "*", "P", "X", "h", "p", "d", "<", ">", "H", "8")
STAR = 1.45
"""The size of a star that looks as large as a disc of size 1."""
SOLID: Any = "-"
DASHES = (SOLID, (0, (4, 1.5)), (0, (1, 1)), (0, (4, 1, 1, 1)), (0, (6, 1, 1, 1, 1, 1)))
"""The dashes of lines that share a colour for another reason than repeating a method, such as shocks or groups."""
REPEATING: Mapping[str, Sequence[Any]] = {
    "search": ((0, (1, 1)), (0, (7, 1.5)), (0, (2, 1)), (0, (4, 1.5)), (0, (1, 2)), (0, (5, 3))),
    "population": ((0, (4, 1, 1, 1)), (0, (7, 1, 1, 1))),
    "transplant": ((0, (6, 1, 1, 1, 1, 1)), (0, (3, 1, 1, 1, 1, 1)), (0, (2, 2, 1, 2))),
    "": ((0, (3, 1, 1, 1)), (0, (3, 1, 1, 1, 1, 1))),
}
"""Dashes of methods that repeat another, by family."""
ORDER = ("training", "tuning-free", "one-step", "", "online", "transplant", "search", "population")
"""Families from left to right and from top to bottom; the empty one stands for all that are not named here."""
REPEATS = {"search": "search", "population": "population", "transplant": "transplanted schedule"}
SINGLE = "one training"
SALT = 2_759_575
"""With it, the labels of our own methods pick different places."""


class Method(NamedTuple):
    """A method as figures know it; one that repeats another has the label and family of that one, too.

    `figures` are those in which it is shown: methods that share none may look alike.  A method without any is in all.
    """

    label: str
    family: str
    over_label: str | None = None
    over_family: str | None = None
    figures: frozenset[str] = frozenset()
    shown_kind: str = ""

    @property
    def kind(self) -> str:
        """What it is apart from what it repeats: of `Random search: Adam`, `Random search`; `one training` of one that does
        not repeat any.  A label without its middle does not say it, so that it is given as `shown_kind`."""
        if self.shown_kind or self.over_label is None:
            return self.shown_kind or SINGLE
        own = self.label.removesuffix(f": {self.over_label}")
        return REPEATS.get(self.family, self.family) if own == self.label else own


class Look(NamedTuple):
    """How a method is drawn."""

    colour: str
    marker: str
    dashes: Any
    kind: str

    def size(self, points: float) -> float:
        """Returns the marker's size with which it looks as large as others do with so many points."""
        return STAR * points if self.marker == "*" else points


_looks: contextvars.ContextVar[Mapping[str, Look]] = contextvars.ContextVar("looks", default=MappingProxyType({}))


def in_order(methods: Iterable[Method]) -> tuple[Method, ...]:
    """Returns methods by family; within one as they are given, searches by what they repeat."""

    def place(method: Method) -> tuple[int, str]:
        family = method.family if method.family in ORDER else ""
        return ORDER.index(family), method.kind if method.over_label is not None else ""

    return tuple(sorted(methods, key=place))


@contextlib.contextmanager
def looks_of(methods: Iterable[Method]) -> Iterator[None]:
    """Gives each method its look inside the block."""
    token = _looks.set(assigned(methods))
    try:
        yield
    finally:
        _looks.reset(token)


def look(label: str) -> Look:
    """Returns the look of a method; outside of `looks_of`, or of an unknown one, what its label picks in no family."""
    return _looks.get().get(label) or assigned([Method(label, "")])[label]


def emphasised(labels: Sequence[str], methods: Sequence[str], *, first: Sequence[str] = ()) -> dict[str, Look]:
    """Returns looks of a figure's labels, given their methods': a few of `first` keep their colour, others are grey."""
    coloured = list(dict.fromkeys(first))[:MOST_COLOURS]
    looks = dict(zip(labels, map(look, methods), strict=True))
    apart = told_apart({label: looks[label] for label in [*coloured, *labels] if label in looks})
    return {label: apart[label] if label in coloured else apart[label]._replace(colour=GREY) for label in labels}


def ours_first(table: pd.DataFrame, column: str) -> list[str]:
    """Returns the labels of a table, its index, in the order in which they get colours: methods under test and then the
    others, of both the lowest of a column first."""
    lowest_first = table.sort_values(column, kind="stable")
    is_ours = lowest_first["family"] == ONLINE
    return [str(label) for label in (*lowest_first.index[is_ours], *lowest_first.index[~is_ours])]


def told_apart(looks: Mapping[str, Look]) -> dict[str, Look]:
    """Returns looks that differ without their colours, as in a print in grey: of two that have marker and dashes in common,
    the later one takes the next marker that is free, while there is one."""
    found: dict[str, Look] = {}
    for label, own in looks.items():
        taken = {other.marker for other in found.values() if other.dashes == own.dashes and other.colour != own.colour}
        found[label] = own._replace(marker=next((m for m in (own.marker, *MARKERS) if m not in taken), own.marker))
    return found


def ink(colour: str) -> tuple[float, ...]:
    """Returns a colour for text: of the same hue, and dark enough to be read on white."""
    linear = [(int(colour[place : place + 2], 16) / 255) ** 2.2 for place in (1, 3, 5)]
    luminance = sum(weight * part for weight, part in zip(WEIGHTS, linear, strict=True))
    return tuple((part * min(1.0, READABLE / max(luminance, READABLE / 2))) ** (1 / 2.2) for part in linear)


def assigned(methods: Iterable[Method]) -> dict[str, Look]:
    """Returns the look of each method by its label, whatever their order."""
    known = list(methods)
    single = [method for method in known if method.over_label is None]
    repeating = [method for method in known if method.over_label is not None]
    trained = [Method(str(m.over_label), m.over_family or "", figures=m.figures) for m in repeating] + single
    base: dict[str, Look] = {}
    for family in sorted({method.family for method in trained}):
        palette = PALETTES.get(family, PALETTES[""])
        shown = _shown((method.label, method.figures) for method in trained if method.family == family)
        for label, place in _places(shown, len(palette)).items():
            turn, place = divmod(place, len(palette))
            marker = MARKERS[(place + turn) % len(MARKERS)]
            base[label] = Look(palette[place], marker, DASHES[turn % len(DASHES)], SINGLE)
    dashes: dict[str, Any] = {}
    for family in sorted({method.family for method in repeating}):
        patterns = REPEATING.get(family, REPEATING[""])
        shown = _shown((method.kind, method.figures) for method in repeating if method.family == family)
        dashes |= {kind: patterns[place % len(patterns)] for kind, place in _places(shown, len(patterns)).items()}
    return base | {
        method.label: base[str(method.over_label)]._replace(dashes=dashes[method.kind], kind=method.kind)
        for method in repeating
    }


def _shown(pairs: Iterable[tuple[str, frozenset[str]]]) -> dict[str, frozenset[str]]:
    """Returns for each name the figures that it is in; none, which stands for all, where one of its methods has none."""
    found: dict[str, frozenset[str]] = {}
    for name, figures in pairs:
        before = found.get(name, figures)
        found[name] = before | figures if before and figures else frozenset()
    return found


def _places(shown: Mapping[str, frozenset[str]], count: int) -> dict[str, int]:
    """Returns a place for each name, from 0; those from `count` on are of a second turn, and so on.

    Names that share a figure have different places.  Short names come first: `Fixed` keeps its place, and not
    `Fixed, AdamW`.
    """
    places: dict[str, int] = {}
    for name in sorted(shown, key=lambda name: (len(name), name)):
        taken = {place for other, place in places.items() if _meet(shown[name], shown[other])}
        order = (turn * count + (_hash(name) + step) % count for turn in itertools.count() for step in range(count))
        places[name] = next(place for place in order if place not in taken)
    return places


def _meet(first: frozenset[str], second: frozenset[str]) -> bool:
    return not first or not second or not first.isdisjoint(second)


def _hash(name: str) -> int:
    return int.from_bytes(hashlib.sha256(f"{SALT} {name}".encode()).digest()[:4])
