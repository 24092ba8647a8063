"""`oho-bench list NAME`: what a configuration can say of a method or task, read off its options class."""

from __future__ import annotations

import inspect
import textwrap
import types
from collections.abc import Mapping
from typing import Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel

from bench.experiment.registries import METHODS, TASKS
from bench.experiment.yaml_file import ConfigError

NAMES = {int: "whole number", float: "number", str: "text", bool: "true or false", type(None): "null"}


def describe_options(name: str) -> str:
    """A method's or task's options with what they take and their defaults.  Raises `ConfigError`."""
    given: Mapping[str, Any] = {}
    if name in METHODS:
        model, description = METHODS[name].options, METHODS[name].description
    elif name in TASKS:
        model, description, given = type(TASKS[name].defaults), TASKS[name].description, dict(TASKS[name].defaults)
    else:
        raise ConfigError(f"unknown method or task {name!r}; allowed: {', '.join((*METHODS, *TASKS))}")
    text = " ".join(inspect.cleandoc(model.__doc__ or "").split())
    lines = [f"{name}: {description}", "", *textwrap.wrap(text, 110), ""]
    for key, field in model.model_fields.items():
        default = given.get(key, field.get_default(call_default_factory=True))
        shown = "must be given" if field.is_required() and key not in given else f"[{_default(default)}]"
        lines.append(f"  {key:<24} {shown:<24} {'a method' if key == 'over' else _kind(field.annotation)}")
    if hasattr(model, "values"):
        lines += ["", "A learning rate, weight decay or other hyperparameter of null is drawn from the experiment's space."]
    return "\n".join(lines)


def _default(value: Any) -> str:
    if isinstance(value, BaseModel):
        return str(getattr(value, "name", type(value).__name__))
    if isinstance(value, tuple):
        return ", ".join(map(str, value))
    return "null" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def _kind(annotation: Any) -> str:
    """What a value may be, in words."""
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return " | ".join(map(str, inner))
    if origin in (Union, types.UnionType):
        return " | ".join(map(_kind, inner))
    if origin is tuple:
        return f"list of {_kind(inner[0])}"
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        keys = ", ".join(key for key in annotation.model_fields if key != "name")
        name = str(annotation.model_fields["name"].default)
        return f"{name} ({keys})" if keys else name
    return NAMES.get(annotation, "a value")
