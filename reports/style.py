"""One look for all figures.  A method keeps its colour, marker and place everywhere."""

from __future__ import annotations

import contextlib
import contextvars
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

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

DASHES = ("-", (0, (4, 1.5)), (0, (1, 1)), (0, (4, 1, 1, 1)), (0, (6, 1, 1, 1, 1, 1)))
"""Of lines that share a colour."""

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
RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
UNKNOWN_COLOUR, UNKNOWN_MARKER = "#555555", "X"

COLUMN_SETTINGS: dict[Any, Any] = {
    "font.size": 7, "axes.labelsize": 7, "axes.titlesize": 7.5, "xtick.labelsize": 6.5, "ytick.labelsize": 6.5,
}  # fmt: skip
"""What differs in a column of text."""

SETTINGS: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    "text.parse_math": False,
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


_in_column = contextvars.ContextVar("in_column", default=False)


@contextlib.contextmanager
def figure_style(*, column: bool = False) -> Iterator[None]:
    """The settings inside the block only; with `column`, figures are as wide as one of two columns of text."""
    token = _in_column.set(column)
    try:
        with plt.rc_context({**SETTINGS, **(COLUMN_SETTINGS if column else {})}):
            yield
    finally:
        _in_column.reset(token)


def in_column() -> bool:
    """Whether figures are to be as wide as a column."""
    return _in_column.get()


def colour(method: str, over: str | None = None) -> str:
    """A method's colour; a search takes that of the method it searches over."""
    return COLOURS.get(over or method, UNKNOWN_COLOUR)


def marker(method: str, over: str | None = None) -> str:
    """A method's marker."""
    return MARKERS.get(over or method, UNKNOWN_MARKER)


def dashes(index: int) -> Any:
    """Of the so manyth line of a colour, from 0; they recur after five."""
    return DASHES[index % len(DASHES)]


def rank(method: str) -> int:
    """A method's place from left to right."""
    return list(COLOURS).index(method) if method in COLOURS else len(COLOURS)


def panels(rows: int, columns: int, *, height: float, **options: Any) -> tuple[Figure, Any]:
    """A figure of the page's width, `height` inches high, with its panels, as `Figure.subplots` gives them.

    In a column the panels stand one below the other, each as high as it would be on the page, and share no axis.
    """
    if not in_column() or columns == 1:
        figure = Figure(figsize=(COLUMN_INCHES if in_column() else PAGE_INCHES, height))
        return figure, figure.subplots(rows, columns, **options)  # type: ignore[call-overload]
    heights = np.repeat(options.get("height_ratios", np.ones(rows)), columns)
    figure = Figure(figsize=(COLUMN_INCHES, 0.85 * columns * height))
    stacked = figure.subplots(rows * columns, 1, height_ratios=heights.tolist())
    return figure, stacked.reshape(rows, columns) if rows > 1 or options.get("squeeze") is False else stacked


def log_scale(axes: Axes, *names: str) -> None:
    """Logarithmic axes "x" or "y", with ticks at 1, 2, 5 where there is room, at powers of ten elsewhere."""
    for name in names:
        getattr(axes, f"set_{name}scale")("log")
        axis = getattr(axes, f"{name}axis")
        axis.set_major_locator(_Steps())
        axis.set_major_formatter(decimal)
        axis.set_minor_formatter(NullFormatter())


class _Steps(LogLocator):
    """Of more than two decades, powers of ten alone."""

    def tick_values(self, vmin: float, vmax: float) -> Any:
        """As a logarithmic locator's."""
        self.set_params(subs=(1.0, 2.0, 5.0) if 0 < vmax < 150 * vmin else (1.0,))
        return super().tick_values(vmin, vmax)


def decimal(value: float, position: float | None = None) -> str:
    """A tick's label: numbers as they are said, very small and very large ones by their power of ten."""
    if value == 0 or 9e-5 < abs(value) < 1e5:
        return f"{value:g}"
    exponent = math.floor(math.log10(abs(value)) + 1e-9)
    mantissa = value / 10**exponent
    power = f"10{str(exponent).translate(RAISED)}"
    return power if abs(mantissa - 1) < 1e-6 else f"{mantissa:.3g}·{power}"


def legend_columns(wanted: int) -> int:
    """Columns of a legend: in a column of text no more than two."""
    return min(wanted, 2) if in_column() else wanted


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
        figure.set_layout_engine("none")  # all formats have the first one's layout, and it is not made again
        written.append(target)
    plt.close(figure)
    return written
