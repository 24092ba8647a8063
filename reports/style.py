"""One look for all figures.  A method keeps its colour, marker and place everywhere."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

COLUMN_INCHES, PAGE_INCHES = 3.3, 6.8

COLOURS = {
    "fixed": "#0072B2",
    "step": "#56B4E9",
    "exponential": "#CC79A7",
    "cosine": "#7B5EA7",
    "adam": "#E69F00",
    "oho-global": "#D55E00",
    "oho-layerwise": "#8C2D04",
    "oho-full": "#C51B7D",
    "oho-default": "#009E73",
    "oho-published": "#7F7F7F",
    "multistep": "#88CCEE",
    "warmup-cosine": "#AA4499",
    "one-cycle": "#332288",
    "hypergradient-descent": "#999933",
    "hdm": "#44AA99",
    "gdtuo": "#117733",
    "prodigy": "#CC6677",
    "schedule-free-sgd": "#6699CC",
    "schedule-free-adamw": "#997700",
    "dog": "#994455",
    "ldog": "#EE99AA",
    "mechanic": "#004488",
}
"""Okabe and Ito's palette, then Tol's, made for colour-blind readers; the warm reds are exact OHO's.  Of so many colours
some are near each other: markers and names tell them apart."""

MARKERS = {
    "fixed": "o",
    "step": "s",
    "exponential": "^",
    "cosine": "D",
    "adam": "v",
    "oho-global": "*",
    "oho-layerwise": "P",
    "oho-full": "h",
    "oho-default": "p",
    "oho-published": "d",
    "multistep": "<",
    "warmup-cosine": ">",
    "one-cycle": "H",
    "hypergradient-descent": "8",
    "hdm": "_",
    "gdtuo": "1",
    "prodigy": "2",
    "schedule-free-sgd": "3",
    "schedule-free-adamw": "4",
    "dog": "+",
    "ldog": "x",
    "mechanic": "|",
}
UNKNOWN_COLOUR, UNKNOWN_MARKER = "#555555", "X"

SETTINGS: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 8,
    "axes.labelsize": 8,
    "axes.titlesize": 8.5,
    "axes.titleweight": "bold",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.7,
    "xtick.labelsize": 7.5,
    "ytick.labelsize": 7.5,
    "legend.fontsize": 7.5,
    "legend.frameon": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "grid.color": "#DDDDDD",
    "grid.linewidth": 0.5,
    "axes.axisbelow": True,
    "pdf.fonttype": 42,
    "svg.hashsalt": "oho-bench",
    "svg.fonttype": "path",
    "savefig.dpi": 300,
    "figure.constrained_layout.use": True,
}


@contextlib.contextmanager
def figure_style() -> Iterator[None]:
    """The settings inside the block only."""
    with plt.rc_context(SETTINGS):
        yield


def colour(method: str, over: str | None = None) -> str:
    """A method's colour; a search takes that of the method it searches over."""
    return COLOURS.get(over or method, UNKNOWN_COLOUR)


def marker(method: str, over: str | None = None) -> str:
    """A method's marker."""
    return MARKERS.get(over or method, UNKNOWN_MARKER)


def rank(method: str) -> int:
    """A method's place from left to right."""
    return list(COLOURS).index(method) if method in COLOURS else len(COLOURS)


def stamp(figure: Figure, text: str) -> None:
    """A small line below everything else."""
    figure.supxlabel(text, fontsize=6, color="#666666", x=0.99, ha="right")


def save(figure: Figure, path: Path) -> list[Path]:
    """Writes PDF, PNG (300 dpi) and SVG beside each other, without dates, and closes the figure."""
    path.parent.mkdir(parents=True, exist_ok=True)
    metadata: dict[str, dict] = {"pdf": {"CreationDate": None}, "png": {}, "svg": {"Date": None}}
    written = []
    for suffix, entries in metadata.items():
        target = path.with_suffix(f".{suffix}")
        figure.savefig(target, metadata=entries)
        written.append(target)
    plt.close(figure)
    return written
