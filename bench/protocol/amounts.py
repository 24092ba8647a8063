"""An amount in one of several units, as `{seconds: 20}` or `{epochs: 10}` in a configuration."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Self

from pydantic import model_validator

from bench.protocol.settings import Settings


class Amount(Settings):
    """So much of one unit.  Subclasses have a field for each unit, None by default, of which exactly one is given."""

    EXAMPLES: ClassVar[str]
    """What stands in the message where no mapping is given."""

    @model_validator(mode="before")
    @classmethod
    def _mapping(cls, given: Any) -> Any:
        if isinstance(given, Mapping | cls):
            return given
        raise ValueError(f"{cls.EXAMPLES} is expected")

    @model_validator(mode="after")
    def _one_unit(self) -> Self:
        if len(self.model_dump(exclude_none=True)) != 1:
            raise ValueError(f"exactly one of {', '.join(type(self).model_fields)} is needed")
        return self

    @property
    def unit(self) -> str:
        """The name of the field that is given."""
        return next(iter(self.model_dump(exclude_none=True)))

    @property
    def amount(self) -> float:
        """The amount in this unit."""
        return self.model_dump()[self.unit]
