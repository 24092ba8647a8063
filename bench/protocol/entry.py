"""What a registry knows of a method: one entry, which stands in the method's own file."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from bench.protocol.method import Method, Options

FAMILIES = ("training", "search", "population", "online", "one-step", "tuning-free", "transplant")
"""How figures group methods; a method may name a family of its own."""


class Package(NamedTuple):
    """A package that a method needs: the distribution that is installed, and the module that is imported."""

    distribution: str
    module: str
    extra: str = ""
    """The extra of oho-bench that installs it, if one does."""

    @property
    def missing(self) -> str | None:
        """What to install; None where nothing is missing.  Imports nothing."""
        if importlib.util.find_spec(self.module.partition(".")[0]):
            return None
        wanted = f"'oho-bench[{self.extra}]'" if self.extra else self.distribution
        return f"needs the package {self.distribution}; install it with: pip install {wanted}"


@dataclass(frozen=True, kw_only=True)
class MethodEntry:
    """A method: `build(options, space)` makes it; one that `repeats` another is made by `build(options, over)`.

    `label` is what figures call it, and `family` decides how they draw it (`FAMILIES`).  `repeats` says which entries the
    option `over` may name.  With `takes_kicks` shocks may change its hyperparameters, or those of the method it repeats.
    """

    description: str
    label: str
    family: str
    options: type[Options]
    build: Callable[..., Method]
    repeats: Callable[[MethodEntry], bool] | None = None
    takes_kicks: bool = False
    package: Package | None = None
