"""The configurations that come with the package, in a clone and installed from a wheel alike."""

from __future__ import annotations

from pathlib import Path


def configurations() -> Path:
    """Returns the folder of the shipped experiments and spaces: `quick/`, `mnist/`, `spaces/` and so on.

    `configs` lies beside `bench` in both cases: at the top of the repository, and in `site-packages`.
    """
    return Path(__file__).resolve().parents[2] / "configs"
