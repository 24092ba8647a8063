"""A method's entry in the registry, which stands in the method's own file."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from bench.protocol.batched import Batching
from bench.protocol.method import Method, Options
from bench.records.schema import RESERVED


class Package(NamedTuple):
    """A package that a method needs: the distribution to install and the module to import."""

    distribution: str
    module: str
    extra: str = ""
    """The extra of oho-bench that installs the package, if one does."""

    @property
    def missing(self) -> str | None:
        """What to install, or None if nothing is missing.  Imports nothing."""
        if importlib.util.find_spec(self.module.partition(".")[0]):
            return None
        wanted = f"'oho-bench[{self.extra}]'" if self.extra else self.distribution
        return f"needs the package {self.distribution}; install it with: pip install {wanted}"


@dataclass(frozen=True, kw_only=True)
class MethodEntry:
    """A method, which `build(options, space)` makes, or `build(options, over)` if it `repeats` another one.

    `label` is the method's name in figures, and `family` decides how they draw it: training, search, population, online,
    one-step, tuning-free, transplant, or one of your own.  `repeats` says which entries the option `over` may name.  If
    `takes_kicks` is true, shocks may change the method's hyperparameters, or those of the method that it repeats.  With
    `batching`, the runner can train several runs as one batch.  `captures` says whether the steps of a training can be
    captured as a graph.  If the method repeats another one, the steps of that one must be capturable, too.  If the answer
    depends on the options, `captures(options)` returns why they cannot, or an empty text.
    """

    description: str
    label: str
    family: str
    options: type[Options]
    build: Callable[..., Method]
    repeats: Callable[[MethodEntry], bool] | None = None
    takes_kicks: bool = False
    captures: bool | Callable[[Any], str] = False
    package: Package | None = None
    batching: Batching | None = None

    def __post_init__(self) -> None:
        if not (isinstance(self.options, type) and issubclass(self.options, Options)):
            raise TypeError(f"options: a class that extends Options is expected (given {self.options!r:.60})")
        reserved = RESERVED if self.repeats else (*RESERVED, "over")
        if taken := [name for name in self.options.model_fields if name in reserved]:
            raise ValueError(f"an option of a method cannot be called {taken[0]!r}; choose another name")
