"""Describes what a configuration can set for a method or a task, as its options class defines it."""

from __future__ import annotations

import inspect
import textwrap
import types
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel

from bench.protocol import MethodEntry, Options
from bench.tasks.entry import TaskEntry
from bench.tasks.options import TaskOptions

NAMES = {int: "whole number", float: "number", str: "text", bool: "true or false", type(None): "null"}
MUST_BE_GIVEN = "must be given"
DRAWN = "A learning rate, weight decay or other hyperparameter of null is drawn from the experiment's space."


@dataclass(frozen=True)
class Option:
    """One option of a method or a task, with its default and the values that it takes, in words."""

    name: str
    default: str
    takes: str


@dataclass(frozen=True)
class Described:
    """A method or a task as its options class describes it; `is_drawn` says whether values may come from a space."""

    description: str
    explanation: str
    options: tuple[Option, ...]
    is_drawn: bool


def described(entry: MethodEntry | TaskEntry) -> Described:
    """Returns what a configuration can set for a method or a task."""
    given: Mapping[str, Any] = {} if isinstance(entry, MethodEntry) else dict(entry.defaults)
    model = entry.options if isinstance(entry, MethodEntry) else type(entry.defaults)
    options = []
    for key, field in model.model_fields.items():
        default = given.get(key, field.get_default(call_default_factory=True))
        shown = MUST_BE_GIVEN if field.is_required() and key not in given else _default(default)
        options.append(Option(key, shown, "a method" if key == "over" else _kind(field.annotation)))
    is_drawn = issubclass(model, Options) and model.values is not Options.values
    return Described(entry.description, _explanation(model), tuple(options), is_drawn)


def _explanation(model: type[BaseModel]) -> str:
    """Returns the docstring of an options class, after which a task's has that of the options which all tasks share."""
    classes = [model, TaskOptions] if issubclass(model, TaskOptions) and model is not TaskOptions else [model]
    return " ".join(inspect.cleandoc(each.__doc__ or "") for each in classes)


def describe_options(entry: MethodEntry | TaskEntry) -> str:
    """Returns a text that lists a method's or a task's options, the values they take and their defaults."""
    found = described(entry)
    lines = [*textwrap.wrap(" ".join(found.explanation.split()), 110), ""]
    for option in found.options:
        default = option.default if option.default == MUST_BE_GIVEN else f"[{option.default}]"
        lines.append(f"  {option.name:<24} {default:<24} {option.takes}")
    return "\n".join([*lines, "", DRAWN] if found.is_drawn else lines)


def _default(value: Any) -> str:
    if isinstance(value, BaseModel):
        return str(getattr(value, "name", type(value).__name__))
    if isinstance(value, tuple):
        return ", ".join(map(str, value))
    if isinstance(value, Mapping) and value:
        return ", ".join(f"{key}: {_default(item)}" for key, item in value.items())
    return "null" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def _kind(annotation: Any) -> str:
    """Returns the kind of values that an annotation allows, in words."""
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _kind(inner[0])
    if origin is Literal:
        return " | ".join(map(str, inner))
    if origin in (Union, types.UnionType):
        return " | ".join(map(_kind, inner))
    if origin is tuple:
        return f"list of {_kind(inner[0])}"
    if origin is Mapping:
        return f"mapping to a {_kind(inner[1])} from {_kind(inner[0])}"
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        keys = ", ".join(key for key in annotation.model_fields if key != "name")
        if "name" not in annotation.model_fields:
            return f"mapping ({keys})"
        name = str(annotation.model_fields["name"].default)
        return f"{name} ({keys})" if keys else name
    return NAMES.get(annotation, "a value")
