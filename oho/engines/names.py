"""The engines by name."""

from __future__ import annotations

from oho.engines.curvature import Engine, double_backward, pearlmutter
from oho.engines.repeating import finite_difference, forward_over_reverse

ENGINES: dict[str, Engine] = {
    "pearlmutter": pearlmutter,
    "double_backward": double_backward,
    "forward_over_reverse": forward_over_reverse,
    "finite_difference": finite_difference,
}


def resolve_engine(curvature: str | Engine) -> Engine:
    """Returns an engine by its name, or the function that was given; raises ValueError for an unknown name."""
    if not isinstance(curvature, str):
        return curvature
    if curvature not in ENGINES:
        names = ", ".join(map(repr, ENGINES))
        raise ValueError(f"curvature={curvature!r}: allowed are {names}, or a function of their signature")
    return ENGINES[curvature]


def name_of(curvature: str | Engine) -> str:
    """Returns an engine's name for messages."""
    return curvature if isinstance(curvature, str) else getattr(curvature, "__name__", "own")
