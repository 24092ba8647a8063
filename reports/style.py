"""One style for all figures: sizes, scales, ticks, files.  Colours and markers of methods are in `reports.looks`."""

from __future__ import annotations

import contextlib
import contextvars
import math
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from reports.glyphs import BASE, Fonts
from reports.looks import Method, looks_of

COLUMN_INCHES, PAGE_INCHES = 3.3, 6.8

RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")

COLUMN_SETTINGS: dict[Any, Any] = {
    "font.size": 7, "axes.labelsize": 7, "axes.titlesize": 7.5, "xtick.labelsize": 6.5, "ytick.labelsize": 6.5,
}  # fmt: skip
"""Settings that differ in a column of text."""

SETTINGS: dict[Any, Any] = {
    "font.family": BASE,
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


NO_MORE = Fonts()
"""No fonts beside the usual one."""

_in_column = contextvars.ContextVar("in_column", default=False)


@contextlib.contextmanager
def figure_style(*, column: bool = False, methods: Iterable[Method] = (), fonts: Fonts = NO_MORE) -> Iterator[None]:
    """Applies the settings inside the block and gives the methods their looks, and names the fonts that they need.

    With `column`, figures are as wide as one of two columns of text.
    """
    families = {"font.family": [SETTINGS["font.family"], *fonts.families]} if fonts.families else {}
    token = _in_column.set(column)
    try:
        with plt.rc_context({**SETTINGS, **(COLUMN_SETTINGS if column else {}), **families}), looks_of(methods):
            yield
    finally:
        _in_column.reset(token)


def in_column() -> bool:
    """Returns whether figures are to be as wide as a column."""
    return _in_column.get()


def panels(rows: int, columns: int, *, height: float, **options: Any) -> tuple[Figure, Any]:
    """Makes a figure of the page's width, `height` inches high, with its panels, as `Figure.subplots` gives them.

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
    """Makes axes "x" or "y" logarithmic, with ticks at 1, 2, 5 where there is room, at powers of ten elsewhere."""
    for name in names:
        getattr(axes, f"set_{name}scale")("log")
        axis = getattr(axes, f"{name}axis")
        axis.set_major_locator(_Steps())
        axis.set_major_formatter(decimal)
        axis.set_minor_formatter(NullFormatter())


class _Steps(LogLocator):
    """Ticks at powers of ten alone where there are more than two decades."""

    def tick_values(self, vmin: float, vmax: float) -> Any:
        """Returns the places of ticks between two ends."""
        self.set_params(subs=(1.0, 2.0, 5.0) if 0 < vmax < 150 * vmin else (1.0,))
        return super().tick_values(vmin, vmax)


def decimal(value: float, position: float | None = None) -> str:
    """Returns a tick's label: a number as it is said, a very small or very large one by its power of ten."""
    if value == 0 or 9e-5 < abs(value) < 1e5:
        return f"{value:g}"
    exponent = math.floor(math.log10(abs(value)) + 1e-9)
    mantissa = value / 10**exponent
    power = f"10{str(exponent).translate(RAISED)}"
    return power if abs(mantissa - 1) < 1e-6 else f"{mantissa:.3g}·{power}"


def legend_columns(wanted: int) -> int:
    """Returns the columns of a legend: in a column of text, at most two."""
    return min(wanted, 2) if in_column() else wanted


def stamp(figure: Figure, text: str) -> None:
    """Writes a small line below everything else."""
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
