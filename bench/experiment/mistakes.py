"""Reports a configuration's mistakes, each with its place in the file and what is allowed there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from bench.experiment.plugins import Catalogue, Found
from bench.experiment.registries import KINDS
from bench.experiment.suggestions import suggestion
from bench.experiment.yaml_file import ConfigError, Key, YamlFile
from bench.protocol import OPTIMIZERS
from bench.records.plugins import PluginError

WORDS = {
    "dict_type": "a mapping is expected", "model_type": "a mapping is expected",
    "model_attributes_type": "a name or a mapping with a `name` is expected", "too_short": "one or more are expected",
    "tuple_type": "a list, [...], is expected", "int_from_float": "a whole number is expected",
    "int_type": "a whole number is expected", "float_type": "a number is expected",
    "bool_type": "true or false is expected", "finite_number": "a finite number is expected",
    "string_type": "a text is expected", "literal_error": "{expected} is expected",
    "greater_than": "a number above {gt:g} is expected", "greater_than_equal": "a number of at least {ge:g} is expected",
    "less_than": "a number below {lt:g} is expected", "less_than_equal": "a number of at most {le:g} is expected",
}  # fmt: skip
"""What replaces pydantic's words for these mistakes."""
Model = TypeVar("Model", bound=BaseModel)


def validate(file: YamlFile, prefix: Key, model: type[Model], content: Mapping[str, Any]) -> Model:
    """Returns what stands at a place of the file as a model.  Raises `ConfigError` with the place of the first mistake."""
    try:
        return model.model_validate(plain(content))
    except ValidationError as error:
        # A misspelt key may also be reported as a missing one; only what was written has a place.
        first = min(error.errors(), key=lambda found: found["type"] != "extra_forbidden")
        key = (*prefix, *_written(content, first["loc"]))
        what = f"{dotted(key)}: {in_words(first).removeprefix('Value error, ')}"
        if first["type"] == "extra_forbidden":
            what = f"unknown key {dotted(key)!r}; allowed: {', '.join(_allowed(model, first['loc']))}"
        elif first["type"] == "missing":
            what = f"key {dotted(key)!r} is missing"
        elif first["type"] == "union_tag_not_found":
            what = f"{dotted(key)}: a `name` is expected, such as {{name: momentum}}"
        elif first["type"] == "union_tag_invalid":
            found = first["ctx"]
            what = f"{dotted(key)}: unknown name {found['tag']!r}; allowed: {found['expected_tags']}"
        elif not isinstance(first["input"], Mapping):
            what += f" (given {first['input']!r})"
        raise file.error(key, what) from None


def in_words(mistake: ErrorDetails) -> str:
    """Returns what is wrong, in our words where there are some and otherwise in pydantic's."""
    words = WORDS.get(mistake["type"])
    return mistake["msg"] if words is None else words.format(**mistake.get("ctx", {}))


def _written(content: Any, place: tuple[str | int, ...]) -> tuple[str | int, ...]:
    """Returns the place as the file has it, without the names of a union's members, which pydantic inserts."""
    if not place:
        return ()
    first, rest = place[0], place[1:]
    is_item = isinstance(content, list | tuple) and isinstance(first, int)
    inside = is_item or (isinstance(content, Mapping) and first in content)
    if inside and rest and not isinstance(content[first], Mapping | list | tuple):  # a member has an option of its own name
        inside = False
    if inside or not rest:
        return (first, *_written(content[first] if inside else None, rest))
    return _written(content, rest)


def _allowed(model: type[BaseModel], place: tuple[str | int, ...]) -> list[str]:
    """Returns the keys that the mapping at a place may have; a place in a union contains the name of its member."""
    if len(place) == 1:
        return list(model.model_fields)
    if not isinstance(place[0], str):
        return _allowed(model, place[1:])
    inner = [*get_args(model.model_fields[place[0]].annotation), model.model_fields[place[0]].annotation]
    for option in (option for option in inner if isinstance(option, type) and issubclass(option, BaseModel)):
        name = option.model_fields.get("name")
        if name is None or name.default == place[1]:
            return _allowed(option, place[2:] if len(place) > 2 else place[1:])
    return []


def named(file: YamlFile, key: Key, item: Any, catalogue: Catalogue, kind: str) -> Found:
    """Returns the entry that the `name` of an item stands for."""
    name = item.get("name") if isinstance(item, Mapping) else None
    if name is None:
        allowed = ", ".join(catalogue.names(kind))
        raise file.error(key, f"{dotted(key)}: a {kind} with a `name` is expected; one of: {allowed}")
    return found(file, (*key, "name"), name, catalogue, kind)


def found(file: YamlFile, key: Key, name: Any, catalogue: Catalogue, kind: str) -> Found:
    """Returns the entry that a name stands for, which is ours or a plug-in's."""
    try:
        return catalogue.find(kind, name)
    except (KeyError, TypeError, AttributeError):
        told = elsewhere(name, catalogue, kind)
        raise unknown(file, key, name, catalogue.names(kind), kind, told=told) from None
    except PluginError as error:
        raise file.error(key, str(error)) from None


def elsewhere(name: Any, catalogue: Catalogue, kind: str) -> str:
    """Returns a hint at what a name of another kind stands for, or an empty string if it stands for nothing."""
    if kind == "method" and name in OPTIMIZERS:
        return f"{name!r} is an optimizer, which a method has: {{name: fixed, optimizer: {name}}}; "
    kinds = [other for other in KINDS if name in catalogue.names(other)]
    return f"{name!r} is a {kinds[0]}; " if kinds else ""


def unknown(file: YamlFile, key: Key, name: Any, allowed: Sequence[str], kind: str, *, told: str = "") -> ConfigError:
    """Returns the error for a name that is not allowed, which suggests the nearest allowed one."""
    return file.error(key, f"unknown {kind} {name!r}; {told or suggestion(name, allowed)}allowed: {', '.join(allowed)}")


def rest(item: Mapping[str, Any], *taken: str) -> dict[str, Any]:
    """Returns an item without the keys that have already been taken from it."""
    return {name: value for name, value in item.items() if name not in taken}


def dotted(key: Sequence[str | int]) -> str:
    """Returns a key as `--set` takes it."""
    return ".".join(map(str, key))


def plain(value: Any) -> Any:
    """Returns a value with plain Python containers and scalars instead of the parser's own."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    for kind in (bool, int, float, str):
        if isinstance(value, kind):
            return kind(value)
    return value
