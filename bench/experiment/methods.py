"""Translates the methods of an experiment's file into parts of run specs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from bench.experiment.mistakes import named, rest, validate
from bench.experiment.plugins import Catalogue, entry_of
from bench.experiment.spaces import SpaceRead
from bench.experiment.spec import Spec, build_method, options_in
from bench.experiment.yaml_file import Key, YamlFile
from bench.protocol import MethodEntry, Options
from bench.records import run_id
from bench.records.names import checked_label
from bench.records.plugins import PluginError


@dataclass(frozen=True)
class MethodReader:
    """A reader of the methods in one file, which names entries of the catalogue and draws from one space."""

    file: YamlFile
    catalogue: Catalogue
    read: SpaceRead
    options: list[Options] = field(default_factory=list)
    """The options of the methods read so far."""

    def spec(self, key: Key, item: Mapping[str, Any]) -> Spec:
        """Returns a method as specs hold it: with every option, its label and its family.  Raises `ConfigError`."""
        file = self.file
        name, entry, origin = named(file, key, item, self.catalogue, "method")
        content = rest(item, "name", "label")
        label = self._label(key, item)
        if "pruner" in content and "pruner" not in entry.options.model_fields:
            raise file.error((*key, "pruner"), f"pruner: a pruner ends a search's trials early, but {name!r} has no trials")
        if entry.package and (missing := entry.package.missing):
            raise file.error(key, f"method {name!r} {missing}")
        over: dict[str, Any] = {}
        if entry.repeats:
            over = {"over": self._over((*key, "over"), content.get("over"), name, entry)}
            content["over"] = None
        options = validate(file, key, entry.options, content)
        self._check_space(key, options, over.get("over"))
        about = {"name": name, "family": entry.family, **({"origin": origin} if origin else {})}
        spec = {**about, **options.model_dump(mode="json"), **over}
        spec["label"] = label if label is not None else _usual_label(entry, options, spec)
        try:
            build_method(spec, self.read.space)
        except ValueError as error:
            raise file.error(key, f"{name}: {error}") from None
        return spec

    def _label(self, key: Key, item: Mapping[str, Any]) -> str | None:
        if "label" not in item:
            return None
        try:
            return checked_label(item["label"])
        except ValueError as error:
            raise self.file.error((*key, "label"), f"label: {error} (given {item['label']!r})") from None

    def _over(self, key: Key, item: Any, name: str, entry: MethodEntry) -> Spec:
        """Returns the spec of the method that another one repeats."""
        if not isinstance(item, Mapping):
            raise self.file.error(key, "over: the method to repeat is expected, such as {name: fixed}")
        inner = named(self.file, key, item, self.catalogue, "method")
        assert entry.repeats is not None
        if not entry.repeats(inner.entry):
            allowed = ", ".join(other for other in self.catalogue.names("method") if self._can_repeat(entry, other))
            raise self.file.error((*key, "name"), f"{name} cannot repeat {inner.name!r}; it can repeat: {allowed}")
        return self.spec(key, item)

    def _can_repeat(self, entry: MethodEntry, name: str) -> bool:
        assert entry.repeats is not None
        try:
            return entry.repeats(self.catalogue.find("method", name).entry)
        except PluginError:  # an installed package may fail to be imported
            return False

    def _check_space(self, key: Key, options: Options, over: Spec | None) -> None:
        """Raises `ConfigError` unless the space has a law for every open value and the method accepts the law's values.

        A method that repeats another one draws from the space of the other's optimizer.
        """
        optimizer = (options_of(over) if over else options).optimizer_name
        if problem := self.read.problem(options, optimizer):
            raise self.file.error(key, problem)
        self.options.append(options)


def _usual_label(entry: MethodEntry, options: Options, spec: Spec) -> str:
    """Returns the label of a method whose configuration gives it none."""
    label = ", ".join([entry.label, *options.details()])
    return f"{label}: {spec['over']['label']}" if "over" in spec else label


def options_of(part: Spec) -> Options:
    """Returns the options of a spec's method."""
    return entry_of("method", part).options.model_validate(options_in(part))


def refuse_twins(file: YamlFile, name: str, items: Sequence[Spec]) -> None:
    """Raises `ConfigError` if two methods, or two shocks, have the same label, or differ in nothing else.

    Labels do not affect results, so that two items that differ in nothing else would be one run with two labels.
    """
    seen: dict[str, str] = {}
    for index, item in enumerate(items):
        label, identity = item["label"], run_id(item)
        if label in seen.values():
            told = f"two {name} are called {label!r}; give one of them another `label`"
            raise file.error((name, index), told)
        if identity in seen:
            told = f"{label!r} differs from {seen[identity]!r} in its label alone; leave one of the two {name} out"
            raise file.error((name, index), told)
        seen[identity] = label
