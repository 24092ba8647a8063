"""What a method looks like in figures: colour, marker, dashes and place, all from its family and its label.

Each family has a palette of its own.  A hash of the label picks a place in it, so that a method keeps its colour from one
report to the next; where two labels of a report pick the same place, the longer takes the next that is free.  A method that
repeats another has colour and marker of that one, and dashes of its own.
"""

from __future__ import annotations

import contextlib
import contextvars
import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

PALETTES: Mapping[str, Sequence[str]] = {
    "training": (
        "#5DC4C4", "#56B4E9", "#7A8FA3", "#4C5FD7", "#0072B2", "#8E6BBF", "#332288", "#C3A5E8", "#009E73", "#004466",
    ),
    "online": ("#8C2D04", "#F4A582", "#D55E00", "#C51B7D", "#E8606D", "#F0A202"),
    "one-step": ("#66C266", "#B9C34C", "#117733", "#999933"),
    "tuning-free": ("#6B705C", "#8C8C8C", "#B8B8B8", "#4D4D4D", "#C9BC93", "#A89F68", "#6B5E4B"),
    "": ("#000000", "#AA4499", "#2E6E6E", "#7A6A00", "#777777"),
}  # fmt: skip
"""After Okabe and Ito, and Tol, for colour-blind readers: in a palette, neighbours differ in lightness as well as in hue.

The warm colours are of the methods under test alone.  The last palette is of families that have none."""
OURS, OURS_BESIDE = PALETTES["online"][2], PALETTES["online"][5]
"""Of figures about one setting of a method under test, and about two."""
MARKERS = ("o", "s", "^", "D", "v", "*", "P", "X", "h", "p", "d", "<", ">", "H", "8")
SOLID: Any = "-"
DASHES = (SOLID, (0, (4, 1.5)), (0, (1, 1)), (0, (4, 1, 1, 1)), (0, (6, 1, 1, 1, 1, 1)))
"""Of lines that share a colour for another reason than repeating a method, such as shocks or groups."""
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
SALT = 2_428_276
"""With it, the labels of our own methods pick different places."""


class Method(NamedTuple):
    """A method as figures know it; one that repeats another has the label and family of that one, too."""

    label: str
    family: str
    over_label: str | None = None
    over_family: str | None = None

    @property
    def kind(self) -> str:
        """What it is apart from what it repeats: of `Random search: Adam`, `Random search`; `one training` of one that does
        not repeat any."""
        if self.over_label is None:
            return SINGLE
        own = self.label.removesuffix(f": {self.over_label}")
        return REPEATS.get(self.family, self.family) if own == self.label else own


class Look(NamedTuple):
    """How a method is drawn."""

    colour: str
    marker: str
    dashes: Any
    kind: str


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


def assigned(methods: Iterable[Method]) -> dict[str, Look]:
    """Returns the look of each method by its label, whatever their order."""
    known = sorted(set(methods))
    trained = {method.label: method.family for method in known if method.over_label is None}
    trained = {m.over_label: m.over_family or "" for m in known if m.over_label is not None} | trained
    base: dict[str, Look] = {}
    for family in sorted(set(trained.values())):
        palette = PALETTES.get(family, PALETTES[""])
        places = _places([label for label, own in trained.items() if own == family], len(palette))
        for label, place in places.items():
            turn = place // len(palette)
            marker = MARKERS[(place + turn) % len(MARKERS)]
            base[label] = Look(palette[place % len(palette)], marker, DASHES[turn % len(DASHES)], SINGLE)
    kinds: dict[str, Any] = {}
    for family in sorted({method.family for method in known if method.over_label is not None}):
        patterns = REPEATING.get(family, REPEATING[""])
        own = [method.kind for method in known if method.family == family and method.over_label is not None]
        kinds |= {kind: patterns[place % len(patterns)] for kind, place in _places(own, len(patterns)).items()}
    repeating = {
        method.label: base[method.over_label]._replace(dashes=kinds[method.kind], kind=method.kind)
        for method in known
        if method.over_label is not None
    }
    return base | repeating


def _places(names: Iterable[str], count: int) -> dict[str, int]:
    """Returns a place for each name, from 0; those from `count` on are of a second turn, and so on.

    Short names come first: `Fixed` keeps its place, and not `Fixed, AdamW`.
    """
    taken: dict[int, str] = {}
    for turned, name in enumerate(sorted(set(names), key=lambda name: (len(name), name))):
        place = turned // count * count + _hash(name) % count
        while place in taken:
            place = place // count * count + (place + 1) % count
        taken[place] = name
    return {name: place for place, name in taken.items()}


def _hash(name: str) -> int:
    return int.from_bytes(hashlib.sha256(f"{SALT} {name}".encode()).digest()[:4])
