"""The configurations that come with the package, in a clone and installed from a wheel alike."""

from __future__ import annotations

import os
from itertools import takewhile
from pathlib import Path

from bench.experiment.suggestions import suggestion
from bench.experiment.yaml_file import ConfigError

SPACES = "spaces"


def configurations() -> Path:
    """Returns the folder of the shipped experiments and spaces: `quick/`, `mnist/`, `spaces/` and so on.

    `configs` lies beside `bench` in both cases: at the top of the repository, and in `site-packages`.
    """
    return Path(__file__).resolve().parents[2] / "configs"


def experiments() -> dict[str, Path]:
    """Returns the shipped experiments by name, such as `quick/distribution`."""
    found = sorted(configurations().glob("*/*.yaml"))
    return {f"{path.parent.name}/{path.stem}": path for path in found if path.parent.name != SPACES}


def spaces() -> dict[str, Path]:
    """Returns the shipped spaces by name, such as `fair`."""
    return {path.stem: path for path in sorted((configurations() / SPACES).glob("*.yaml"))}


def experiment_file(path: Path) -> Path:
    """Returns the file that a command line names: one that exists, or a shipped experiment by its name.

    Raises `ConfigError` for a name without a suffix that is neither.
    """
    shipped = experiments()
    if os.path.lexists(path) or path.suffix:
        return path
    if str(path) in shipped:
        return shipped[str(path)]
    told = f"{path}: there is no such file and no shipped configuration of that name"
    raise ConfigError(f"{told}; {suggestion(path, shipped)}`oho-bench list` names them all")


def about(path: Path) -> str:
    """Returns a configuration's description, which is the comment at its head."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return " ".join(line.lstrip("# ") for line in takewhile(lambda line: line.startswith("#"), lines))
