"""Names at the right of a panel, beside the ends of its lines."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes

from reports.looks import GREY, ink

DARK = "#666666"
"""The colour of grey lines' names."""


def name_ends(axes: Axes, ends: list[tuple[float, str, str]]) -> None:
    """Writes names in the order of the lines' ends, apart enough to be read, each tied to its line's end.

    Those that end above the axis stand at its top, and are tied to nothing.
    """
    low, high = np.log(axes.get_ylim())
    ordered = sorted(ends)
    wanted = [(np.log(end) - low) / (high - low) if 0 < end < np.inf else 2.0 * float(end > 0) for end, _, _ in ordered]
    places = _apart([min(want, 1.0) for want in wanted], gap=min(0.062, 1 / max(1, len(ordered) - 1)))
    for (_, label, colour), end, place in zip(ordered, wanted, places, strict=True):
        tie = {"arrowstyle": "-", "color": colour, "lw": 0.5, "shrinkA": 0, "shrinkB": 0, "relpos": (0, 0.5)}
        axes.annotate(
            label, (1, end), (1.04, place), xycoords="axes fraction", textcoords="axes fraction", va="center",
            fontsize=6.5, color=DARK if colour == GREY else ink(colour), fontweight="normal" if colour == GREY else "bold",
            arrowprops=tie if end <= 1 else None,
        )  # fmt: skip


def _apart(wanted: list[float], gap: float) -> list[float]:
    """Returns places in [0, 1] in the same order, at least `gap` apart and otherwise near where they were wanted."""
    places: list[float] = []
    for want in wanted:
        places.append(max(want, places[-1] + gap) if places else max(want, 0.0))
    ceiling = 1.0
    for index in reversed(range(len(places))):
        places[index] = min(places[index], ceiling)
        ceiling = places[index] - gap
    return places
