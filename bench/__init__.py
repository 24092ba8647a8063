"""A benchmark of hyperparameter optimization during training.

    import bench

    runs = bench.results("runs/try")                       # a pandas table with one row per run
    curves = bench.results("runs/try", records=True)       # the same of what was recorded during the runs
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bench.records.frames import results

__all__ = ["results"]


def __getattr__(name: str) -> Any:
    """Imports pandas only where a table is asked for, so that importing `bench` stays light."""
    if name == "results":
        from bench.records.frames import results

        return results
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), "results"])
