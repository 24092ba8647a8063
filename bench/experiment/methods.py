"""An experiment's methods: from the entries of its file to parts of run specs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any

from pydantic import ValidationError

from bench.experiment.method_registry import METHODS, build_method, default_label, missing_package, repeatable
from bench.experiment.mistakes import named, rest, validate
from bench.experiment.spec import Spec
from bench.experiment.yaml_file import Key, YamlFile
from bench.protocol import Kick, Space

LONGEST_LABEL = 200


def method_spec(file: YamlFile, key: Key, item: Mapping[str, Any], space: Space) -> Spec:
    """Returns a method as specs have it: with every option, and a label.  Raises `ConfigError`."""
    name = named(file, key, item, METHODS, "method")
    entry = METHODS[name]
    content = dict(rest(item, "name", "label"))
    label = item.get("label", "")
    if not (isinstance(label, str) and label.isprintable() and len(label) <= LONGEST_LABEL):
        expected = f"one line of at most {LONGEST_LABEL} printable characters is expected"
        raise file.error((*key, "label"), f"label: {expected} (given {label!r})")
    if "pruner" in content and "pruner" not in entry.options.model_fields:
        raise file.error((*key, "pruner"), f"pruner: it ends trials of a search early, and {name!r} has no trials")
    if missing := missing_package(name):
        raise file.error(key, missing)
    over: dict[str, Any] = {}
    if entry.is_over:
        over = {"over": _over(file, (*key, "over"), content.get("over"), name, space)}
        content["over"] = None
    options = validate(file, key, entry.options, content)
    if not entry.is_over:
        _covered(file, key, options, space)
    spec = {"name": name, **options.model_dump(mode="json"), **over}
    spec["label"] = item.get("label", default_label(spec))
    try:
        build_method(name, rest(spec, "name", "label"), space)
    except ValueError as error:
        raise file.error(key, f"{name}: {error}") from None
    return spec


def _over(file: YamlFile, key: Key, item: Any, name: str, space: Space) -> Spec:
    """The method that another one repeats."""
    if not isinstance(item, Mapping):
        raise file.error(key, "over: the method to repeat is expected, such as {name: fixed}")
    allowed = repeatable(name)
    inner = named(file, key, item, METHODS, "method")
    if inner not in allowed:
        raise file.error((*key, "name"), f"{name} cannot repeat {inner!r}; it can: {', '.join(allowed)}")
    return method_spec(file, key, item, space)


def _covered(file: YamlFile, key: Key, options: Any, space: Space) -> None:
    """The space has a law for every open value, and the method takes all that the law gives."""
    own = space.of(options.optimizer_name)
    open_names = [name for name, value in options.values().items() if value is None]
    if missing := own.missing(open_names):
        known = ", ".join(own.hyperparameters)
        raise file.error(key, f"space {space.name!r} has no law for {', '.join(missing)}; it has: {known}")
    for name, fraction in product(open_names, (0.0, 1.0)):
        value = own.hyperparameters[name].at(fraction)
        try:
            type(options).model_validate(options.replace({name: value}).model_dump())
        except ValidationError as error:
            reason = error.errors()[0]["msg"]
            raise file.error(key, f"space {space.name!r} has a law for {name} that reaches {value:g}: {reason}") from None


def refuse_twins(file: YamlFile, methods: Sequence[Spec]) -> None:
    """Raises `ConfigError` where two methods have the same label."""
    labels = [method["label"] for method in methods]
    for index, label in enumerate(labels):
        if label in labels[:index]:
            raise file.error(("methods", index), f"two methods are called {label!r}; give one of them another `label`")


def check_kick(file: YamlFile, key: Key, kick: Kick, method: Spec) -> None:
    """The method has the hyperparameter, and may have the value."""
    trained = method.get("over", method)
    options: Any = METHODS[trained["name"]].options.model_validate(rest(trained, "name", "label"))
    own = options.values() if method["name"] != "transplant" else {}
    if kick.name not in own:
        has = f"it has: {', '.join(own)}" if own else "its hyperparameters cannot be changed"
        raise file.error(key, f"method {method['label']!r} has no hyperparameter {kick.name!r}; {has}")
    if kick.value is not None:
        try:
            type(options).model_validate(options.replace({kick.name: kick.value}).model_dump())
        except ValidationError as error:
            reason = error.errors()[0]["msg"]
            raise file.error(key, f"{kick.name} cannot be set to {kick.value:g} in {method['label']!r}: {reason}") from None
