"""The base of all that a configuration's file gives: what is written there is taken for what it is, or refused."""

from __future__ import annotations

import math
import types
from collections.abc import Collection, Iterator, Mapping
from functools import cache
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError, model_validator
from pydantic_core import InitErrorDetails, PydanticCustomError

Place = tuple[str | int, ...]
LARGEST = 3.4e38
"""The largest number that single precision, in which models train, can hold."""


class Settings(BaseModel):
    """A model whose instances are frozen, for which an unknown key is an error, and whose numbers are numbers.

    `true` is no number, 1 is not `true`, and a text is neither, whatever stands in its quotes.  A whole number may be
    written as 3.0 or 1e3.  No number is beyond single precision.  A field whose own validator runs before pydantic's reads
    what it likes.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _taken_for_what_it_is(cls, given: Any) -> Any:
        if isinstance(given, Mapping):
            problems = [
                InitErrorDetails(type=PydanticCustomError("other_kind", problem), loc=place, input=scalar)
                for name, kinds in _kinds(cls).items()
                for place, scalar in _scalars((name,), given.get(name))
                if (problem := _problem(scalar, kinds))
            ]
            if problems:
                raise ValidationError.from_exception_data(cls.__name__, problems)
        return given


def leaves(annotation: Any) -> Iterator[Any]:
    """Yields the types of the values that an annotation allows, also within lists and as values of mappings."""
    origin, parts = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        yield from leaves(parts[0])
    elif origin is Literal:
        yield from map(type, parts)
    elif origin in (Union, types.UnionType):
        for part in parts:
            yield from leaves(part)
    elif isinstance(origin, type) and issubclass(origin, Mapping):
        yield from leaves(parts[1])
    elif isinstance(origin, type) and issubclass(origin, Collection):
        for part in parts:
            if part is not ...:
                yield from leaves(part)
    else:
        yield annotation


@cache
def _kinds(model: type[BaseModel]) -> dict[str, set[Any]]:
    """Returns the types of the scalars in each field that takes numbers or truth values, and besides them only texts."""
    early = [validator.info for validator in model.__pydantic_decorators__.field_validators.values()]
    own = {name for info in early if info.mode != "after" for name in info.fields}
    kinds = {
        name: set(leaves(field.annotation))
        for name, field in model.model_fields.items()
        if name not in own and not any(isinstance(part, BeforeValidator) for part in field.metadata)
    }
    plain = {int, float, bool, str, type(None)}
    return {name: found for name, found in kinds.items() if found <= plain and found & {int, float, bool}}


def _scalars(place: Place, given: Any) -> Iterator[tuple[Place, Any]]:
    if isinstance(given, list | tuple | Mapping):
        for key, item in given.items() if isinstance(given, Mapping) else enumerate(given):
            yield from _scalars((*place, key), item)
    else:
        yield place, given


def _problem(scalar: Any, kinds: set[Any]) -> str | None:
    """Returns what is expected instead of a truth value, a number or a text; None if it is right."""
    numbers = kinds & {int, float}
    if isinstance(scalar, bool):
        is_right = bool in kinds
    elif isinstance(scalar, str | bytes):
        is_right = str in kinds
    elif numbers and isinstance(scalar, float) and LARGEST < abs(scalar) < math.inf:
        return f"a number from {-LARGEST:g} to {LARGEST:g} is expected"
    else:
        is_right = bool(numbers) or not isinstance(scalar, int | float)
    if is_right:
        return None
    return f"a {'number' if float in numbers else 'whole number'} is expected" if numbers else "true or false is expected"
