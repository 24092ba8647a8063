"""Finds and reads the space of an experiment's file, and refuses laws that no method can draw from."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import product
from typing import Any

from pydantic import ValidationError

from bench.experiment.mistakes import WORDS, in_words, unknown, validate
from bench.experiment.plugins import Catalogue
from bench.experiment.shipped import spaces
from bench.experiment.yaml_file import Key, YamlFile, read_shared_yaml
from bench.protocol import OPTIMIZERS, Dimension, MethodEntry, Options, Space
from bench.protocol.optimizers import OptimizerChoice
from bench.protocol.settings import leaves
from bench.records.plugins import PluginError

QUANTILES = (0.0, 1.0, 0.3819660)
"""Where a law is tried: at its ends, and where it is unlikely to give one of the whole numbers that some methods need."""


@dataclass(frozen=True)
class SpaceRead:
    """A space and the file that it was read from."""

    space: Space
    source: YamlFile

    def problem(self, options: Options, optimizer: str) -> str | None:
        """Returns why a method with these options cannot draw its open values, or None if it can."""
        own = self.space.of(optimizer).sharing(options.shared_laws)
        open_names = [name for name, value in options.values().items() if value is None]
        if missing := own.missing(open_names):
            return f"space {own.name!r} has no law for {', '.join(missing)}; it has: {', '.join(own.hyperparameters)}"
        for name, fraction in product(open_names, QUANTILES):
            law = own.hyperparameters[name]
            value = law.at(fraction)
            if reason := refusal(options, name, value):
                place = self.source.place(self._key(options.shared_laws.get(name, name), optimizer))
                hint = "; give the law integer: true" if _is_whole(options, name, law) else ""
                return f"space {own.name!r} ({place}) has a law for {name} that reaches {value:g}: {reason}{hint}"
        return None

    def _key(self, name: str, optimizer: str) -> Key:
        """Returns where the file has the law of a hyperparameter for methods with the optimizer."""
        is_own = name in self.space.optimizers.get(optimizer, {})
        return ("optimizers", optimizer, name) if is_own else ("hyperparameters", name)

    def laws(self) -> Iterator[tuple[Key, str]]:
        """Yields the place and the name of each law."""
        for name in self.space.hyperparameters:
            yield ("hyperparameters", name), name
        for optimizer, name in ((optimizer, name) for optimizer, laws in self.space.optimizers.items() for name in laws):
            yield ("optimizers", optimizer, name), name


def read_space(file: YamlFile, name: str) -> SpaceRead:
    """Returns the space of a name, which is a file relative to the experiment's or a shipped space."""
    path = file.path.parent / f"{name.removesuffix('.yaml')}.yaml"
    if not os.path.lexists(path):
        shipped = spaces()
        if name not in shipped:
            told = f"space: no file {path}, and no shipped space of that name; shipped are: {', '.join(shipped)}"
            raise file.error(("space",), told)
        path = shipped[name]
    source = read_shared_yaml(path)
    return SpaceRead(validate(source, (), Space, source.content), source)


def check_names(read: SpaceRead, catalogue: Catalogue, used: Sequence[Options]) -> None:
    """Raises `ConfigError` for a law that no method draws from; `used` are the options of the file's own methods.

    Methods are imported only as far as there are names left to find.
    """
    laws, optimizers = {name: key for key, name in read.laws()}, read.space.optimizers
    known = {name for options in used for name in options.values()}
    known_optimizers = {*OPTIMIZERS, *(options.optimizer_name for options in used)}
    entries = _entries(catalogue)
    while (laws.keys() - known or optimizers.keys() - known_optimizers) and (entry := next(entries, None)):
        known |= tunable(entry.options)
        if isinstance(own := entry.options.optimizer_name, str):  # otherwise it is that of an optimizer
            known_optimizers.add(own)
    for name in sorted(laws.keys() - known):
        raise unknown(read.source, laws[name], name, sorted(known), "hyperparameter")
    for name in sorted(optimizers.keys() - known_optimizers):
        raise unknown(read.source, ("optimizers", name), name, sorted(known_optimizers), "optimizer")


def _entries(catalogue: Catalogue) -> Iterator[MethodEntry]:
    for name in catalogue.names("method"):
        try:
            yield catalogue.find("method", name).entry
        except PluginError:  # an installed package may fail to be imported
            continue


@cache
def tunable(options: type[Options]) -> frozenset[str]:
    """Returns the names of the hyperparameters that methods with such options may leave open."""
    fields = options.model_fields.items()
    kinds = [(name, kind) for name, field in fields for kind in leaves(field.annotation) if isinstance(kind, type)]
    choices: list[dict[str, Any]] = [{name: kind()} for name, kind in kinds if issubclass(kind, OptimizerChoice)]
    try:
        return frozenset(name for given in [{}, *choices] for name in options.model_construct(**given).values())
    except AttributeError:  # in the `values` of a user's own method, which may need options that have no default
        return frozenset(options.model_fields)


def refusal(options: Options, name: str, value: float) -> str | None:
    """Returns why the options cannot have a value, or None if they can."""
    try:
        type(options).model_validate(options.replace({name: value}).model_dump(warnings=False))
    except ValidationError as error:
        return in_words(error.errors()[0])
    return None


def _is_whole(options: Options, name: str, law: Dimension) -> bool:
    """Returns whether the options want the whole numbers of a law that does not give them."""
    return not law.integer and refusal(options, name, law.low + 0.25) == WORDS["int_from_float"]
