"""One style for all figures: sizes, scales, ticks, files.  Colours and markers of methods are in `reports.looks`."""

from __future__ import annotations

import contextlib
import contextvars
import io
import itertools
import math
import textwrap
import warnings
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from reports import plain_matplotlib  # isort: skip  the first of all that import matplotlib

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import PathCollection
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import text_to_path
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

from reports.glyphs import BASE, NO_MORE, Fonts
from reports.looks import Method, looks_of
from reports.selection import NoData
from reports.words import decimal

LOG_MARGIN, EVEN_BELOW = 2.0, 3.0
"""How far a logarithmic axis reaches beyond its values; the ratio of its ends below which its ticks are evenly spaced."""
COLUMN_INCHES, PAGE_INCHES = 3.3, 6.8
STAMP = 6.0
"""The size of the line below a figure."""
HANDLE, GAP, LINE, USUAL_ROWS = 2.8, 2.0, 1.75, 5
"""Of a legend, in sizes of its letters: what stands before a name, between columns, and a line's height; and how many rows
the height of a figure allows for."""

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


_in_column = contextvars.ContextVar("in_column", default=False)


@contextlib.contextmanager
def figure_style(*, column: bool = False, methods: Iterable[Method] = (), fonts: Fonts = NO_MORE) -> Iterator[None]:
    """Applies the settings, and matplotlib's defaults for all others, inside the block.

    It gives the methods their looks and names the fonts that they need.

    With `column`, figures are as wide as one of two columns of text.
    """
    families: dict[Any, Any] = {"font.family": [SETTINGS["font.family"], *fonts.families]} if fonts.families else {}
    token = _in_column.set(column)
    try:
        settings = {**plain_matplotlib.DEFAULTS, **SETTINGS, **(COLUMN_SETTINGS if column else {}), **families}
        with plt.rc_context(settings), looks_of(methods), warnings.catch_warnings():
            for said in ("Data has no positive values", "Attempt to set non-positive"):  # `beyond_log_axes` says so
                warnings.filterwarnings("ignore", said)
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


def small_panels(count: int, *, height: float, across: int = 4, **options: Any) -> tuple[Figure, list[Axes]]:
    """Makes a figure of so many small panels, each about `height` inches high, `across` in a row; in a column, two at most.

    A panel with others below it has no labels along x where these are shared, and a row that is not full ends early.
    """
    across = min(count, 2 if in_column() else across)
    rows = math.ceil(count / across)
    figure = Figure(figsize=(COLUMN_INCHES if in_column() else PAGE_INCHES, rows * height + 0.5))
    grid = figure.subplots(rows, across, squeeze=False, **options)
    found = list(grid.flat)
    for axes in found[count:]:
        axes.remove()
    for axes in found[max(0, count - across) : count]:
        axes.tick_params(axis="x", labelbottom=True)
    return figure, found[:count]


def log_scale(axes: Axes, *names: str) -> None:
    """Makes axes "x" or "y" logarithmic, with ticks at 1, 2, 5 where there is room, at powers of ten elsewhere; labels do
    not touch.

    Raises `NoData` where all that is drawn is zero or below.
    """
    for name in names:
        _divided(axes, name)
        getattr(axes, f"set_{name}scale")("log")
        axis = getattr(axes, f"{name}axis")
        axis.set_major_locator(_Steps())
        axis.set_major_formatter(decimal)
        axis.set_minor_formatter(NullFormatter())


class _Steps(LogLocator):
    """Ticks at powers of ten alone where there are more than two decades, evenly spaced ones where 1, 2, 5 are too few.

    Where their labels would touch, there are fewer.
    """

    def tick_values(self, vmin: float, vmax: float) -> Any:
        """Returns the places of ticks between two ends."""
        usual, *fewer = self._choices(vmin, vmax)
        if not _touch(self.axis, usual, vmin, vmax):
            return usual
        two_or_more = [ticks for ticks in fewer if sum((vmin <= ticks) & (ticks <= vmax)) > 1]
        return next((ticks for ticks in two_or_more if not _touch(self.axis, ticks, vmin, vmax)), usual)

    def _choices(self, vmin: float, vmax: float) -> Iterator[Any]:
        """Yields the usual places of ticks, then others that are fewer and fewer."""
        if 0 < vmax < EVEN_BELOW * vmin:
            yield MaxNLocator(3, steps=(1, 2, 5, 10)).tick_values(vmin, vmax)
        else:
            for subs in ((1.0, 2.0, 5.0), (1.0, 3.0), (1.0,)) if 0 < vmax < 150 * vmin else ((1.0,),):
                self.set_params(subs=subs)
                yield super().tick_values(vmin, vmax)
        for count in (3, 2, 1):
            yield MaxNLocator(count, steps=(1, 2, 5, 10)).tick_values(vmin, vmax)


def _touch(axis: Any, ticks: Any, vmin: float, vmax: float) -> bool:
    """Returns whether labels of ticks along a logarithmic axis touch, or nearly do: half a letter is left between words,
    and a tenth between lines."""
    axes, name = axis.axes, axis.axis_name
    usual = plt.rcParams["xtick.labelsize" if name == "x" else "ytick.labelsize"]
    size = _points(axis.get_tick_params().get("labelsize", usual))
    length = 72 * getattr(axes.get_window_extent(), "width" if name == "x" else "height") / axes.figure.dpi
    shown = [tick for tick in ticks if vmin <= tick <= vmax]
    places = [length * math.log(tick / vmin) / math.log(vmax / vmin) for tick in shown]
    extents = [widest([decimal(tick)], size) if name == "x" else size for tick in shown]
    gap = (0.5 if name == "x" else 0.1) * size
    pairs = zip(itertools.pairwise(places), itertools.pairwise(extents), strict=True)
    return any(after - before < sum(both) / 2 + gap for (before, after), both in pairs)


def legend_above(
    figure: Figure, handles: Sequence[Any], names: Sequence[str], *, columns: int, size: float | None = None
) -> None:  # fmt: skip
    """Writes a legend above the panels, of `columns` or as many fewer as the names need; the figure grows by many rows.

    In a column of text it has at most two columns.
    """
    size = _points(size or plt.rcParams["legend.fontsize"])
    widths = [widest([name], size) + HANDLE * size for name in names]
    columns = min(columns, 2) if in_column() else columns
    while columns > 1 and _width_of(widths, columns) + (columns - 1) * GAP * size > 72 * figure.get_figwidth():
        columns -= 1
    more = max(0, math.ceil(len(names) / columns) - USUAL_ROWS)
    figure.set_figheight(figure.get_figheight() + more * LINE * size / 72)
    figure.legend(handles, names, loc="outside upper center", ncols=columns, fontsize=size)


def legend_beside(
    figure: Figure, handles: Sequence[Any], names: Sequence[str], *, bold: Sequence[bool], title: str = ""
) -> None:
    """Writes a legend at the right of the panels, with some of the names in bold type."""
    legend = figure.legend(
        handles, names, loc="outside right center", alignment="left", fontsize=6.5, labelspacing=0.5, title=title,
        title_fontsize=6.5,
    )  # fmt: skip
    for text, is_bold in zip(legend.get_texts(), bold, strict=True):
        text.set_fontweight("bold" if is_bold else "normal")


def _points(size: float | str) -> float:
    """Returns a size in points; outside of `figure_style`, settings may be words such as "medium"."""
    return float(FontProperties(size=size).get_size_in_points())


def _width_of(widths: Sequence[float], columns: int) -> float:
    """Returns the width of entries in columns, as a legend fills them."""
    return sum(max(column) for column in np.array_split(widths, columns) if len(column))


def widest(names: Iterable[str], size: float) -> float:
    """Returns the width of the widest of these names, in points."""
    font = FontProperties(family=plt.rcParams["font.family"], size=size)
    return max((text_to_path.get_text_width_height_descent(name, font, ismath=False)[0] for name in names), default=0.0)


def stamp(figure: Figure, text: str) -> None:
    """Writes a small line below everything else, or several if it is long."""
    room = int(len(text) * 72 * figure.get_figwidth() / max(1.0, widest([text], STAMP)))
    lines = textwrap.wrap(text, room - 2, break_on_hyphens=False) if len(text) > room else [text]
    figure.supxlabel("\n".join(lines), fontsize=STAMP, color="#666666", x=0.99, ha="right")


def add_to_stamp(figure: Figure, text: str) -> None:
    """Adds to the small line below everything else, or makes one."""
    before = " ".join(figure.get_supxlabel().split())
    stamp(figure, f"{before}; {text}" if before else text)


def watermark(figure: Figure, text: str) -> None:
    """Writes a text across a figure, so that it cannot be shown without it."""
    figure.text(0.5, 0.5, text, fontsize=22, color="#B00020", alpha=0.28, ha="center", va="center", rotation=20, zorder=10)


def beyond_log_axes(figure: Figure) -> int:
    """Returns how many values a figure's logarithmic axes cannot show, which are those that are not above zero.

    Axes with such values get the limits of the others.  Raises `NoData` where an axis can show none of its values.
    """
    hidden = 0
    for axes in figure.axes:
        for axis in "xy":
            if getattr(axes, f"get_{axis}scale")() == "log":
                shown, below = _divided(axes, axis)
                if below:
                    low, high = getattr(axes, f"get_{axis}lim")()
                    limits = max(low, shown.min() / LOG_MARGIN), min(high, shown.max() * LOG_MARGIN)
                    getattr(axes, f"set_{axis}lim")(*limits)
                hidden += below
    return hidden


def _divided(axes: Axes, axis: str) -> tuple[np.ndarray, int]:
    """Returns the values above zero that are drawn along an axis, and how many others there are."""
    values = np.concatenate([np.empty(0), *_values(axes, axis)])
    values = values[np.isfinite(values)]
    shown, below = values[values > 0], int((values <= 0).sum())
    if below and not len(shown):
        raise NoData("All values of a logarithmic axis are zero or below, so it is not drawn.")
    return shown, below


def _values(axes: Axes, axis: str) -> Iterator[np.ndarray]:
    """Yields the coordinates of lines and points along an axis; lines across a whole panel have none."""
    place = "xy".index(axis)
    for line in axes.get_lines():
        if line.get_transform().contains_branch_seperately(axes.transData)[place]:
            yield np.asarray(line.get_xydata(), dtype=float)[:, place]
    for points in axes.collections:
        if isinstance(points, PathCollection):
            yield np.asarray(points.get_offsets(), dtype=float)[:, place]


FORMATS: dict[str, dict] = {"pdf": {"CreationDate": None}, "png": {}, "svg": {"Date": None}}
"""The formats of a figure, by suffix, and metadata without which its bytes would tell when it was drawn."""


def rendered(figure: Figure) -> dict[str, bytes]:
    """Returns PDF, PNG (300 dpi) and SVG by suffix, without dates, and closes the figure."""
    files = {}
    for suffix, entries in FORMATS.items():
        content = io.BytesIO()
        figure.savefig(content, format=suffix, metadata=entries)
        figure._layout_engine = None  # type: ignore[attr-defined]  # All formats have the first one's layout.  It is not made
        # again, nor is the figure drawn twice for each, as it is with the placeholder that `set_layout_engine` leaves.
        files[suffix] = content.getvalue()
    plt.close(figure)
    return files
